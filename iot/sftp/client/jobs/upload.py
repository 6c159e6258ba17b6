"""One upload, as a job for the pipeline: from the plan to the published file.

    survey -> open the part -> send (and read suspect spans back) -> finish -> publish

The part is never published before every write is answered, no span is suspect, its size (and what `proof` requires) is
verified, the source has been checked again, and the intent to rename is durable.
"""

from __future__ import annotations

from iot.sftp.client.jobs.adoption import adopt
from iot.sftp.client.jobs.commands import run_after_success, run_commands
from iot.sftp.client.jobs.context import Context
from iot.sftp.client.jobs.finals import Finals, Taken
from iot.sftp.client.jobs.free_space import full
from iot.sftp.client.jobs.look import look_at_once
from iot.sftp.client.jobs.part_file import PartFile
from iot.sftp.client.jobs.proof import hash_of, same_content
from iot.sftp.client.jobs.publish import Ending, confirm, wants_confirmation, write_sidecar
from iot.sftp.client.jobs.sending import NoReadBack, NoResume, Sending, note_refused_reading
from iot.sftp.client.pipeline.job import CLOSED, Barrier, Work
from iot.sftp.client.protocol.packets import Status
from iot.sftp.client.protocol.server import Refusal
from iot.transfer.base import uploaded
from iot.transfer.errors import (
    NameRefused,
    NoSpaceOnServer,
    PermanentError,
    ServerRefused,
    SFTPError,
    SourceChanged,
)
from iot.transfer.model import (
    PROGRESS_EVERY_S,
    Checkpoint,
    Direction,
    IfExists,
    Phase,
    Progress,
    Proof,
    Token,
    TransferResult,
    UploadJob,
)
from iot.transfer.names import part_names, partial_name, remote_path
from iot.transfer.plan import Fresh, ProveFinal, ResumeAt, ResumeRules, Step, only_commands_left, plan
from iot.transfer.source import Source
from iot.transfer.window import PartState

FIRST_GAIN_BYTES = 256 * 1024


class Upload:
    """The state of one upload; `run` is the story. source: that of the job, opened; closed at the end. part: the name
    under which it is locked.

    Raises: NameRefused if the job's destination is not a valid path.
    """

    def __init__(self, job: UploadJob, source: Source, context: Context) -> None:
        self.job = job
        self.context = context
        self.source = source
        self.dest = remote_path(job.dest, "dest")
        options = context.options
        names = part_names(self.dest, source.path, options.owner, options.part_suffix, options.exact_suffix(job))
        self._finals = Finals(context, job, source)
        self._final = self.dest
        self._file = PartFile(context, (self.dest,) if options.direct_write else names, self.dest, source)
        self.part = self._file.path
        self._state = PartState(self.source.fingerprint.size)
        self._phase = Phase.SENDING
        self._resumed_at = 0
        self.sent_bytes = 0
        self._possible_repeat = False
        self._published_as: int | None = None
        self._resume_refused = False
        self._proof = context.options.proof
        self._digest: str | None = None
        self._started_at = context.clock()
        self._gain: int | None = None
        self._told_at = context.clock()

    def run(self) -> Work[TransferResult]:
        """Raises: PermanentError, LocalStateError, ServerBusy; the pipeline throws in a lost link and a cancel."""
        try:
            if self.job.fingerprint not in (None, self.source.fingerprint):
                raise SourceChanged(f"{self.source.name} is no longer the version that was to be sent")
            self.job.check_suspended()
            self._finals.check_names()
            if (number := self._was_published_as()) is not None:
                return (yield from self._told_again(number))
            step = yield from self._survey()
            if isinstance(step, ProveFinal):
                published = yield from self._finals.ours()
                if published is not None:
                    return (yield from self._already_done(published))
                step = step.otherwise
            elif isinstance(step, Fresh):
                step = yield from self._adopt(step)
            yield from run_commands(self.context, self.job.commands, self.job.commands.before, self.dest)
            yield from self._finals.check_free()
            yield from self._send(step)
            return (yield from self._publish())
        except Taken:
            yield from self._file.remove()
            return self._result(skipped=True)
        finally:
            self.source.close()

    # -- survey

    def _survey(self) -> Work[Step]:
        """Decide how to start; the server is only asked if there is something to resume."""
        options = self.context.options
        known = self.context.ledger.load(Direction.UPLOAD, self.dest, self.source.path)
        self._was_known = known is not None
        if known is not None and not self._file.take(known.token):
            known = None
        if not options.resume or options.direct_write:
            known = None
        if known is None and not self.job.check_final and self._partial != self.dest:
            return Fresh()
        part, *finals = yield from look_at_once([self._file.path, *self._finals.names])
        final = self._finals.of_this_size(finals)
        readable = not self.context.server.refuses(Refusal.READ_BACK)
        beyond_bytes = self.context.pace.max_bytes
        rules = ResumeRules(
            "full" if self._file.may_be_shared else options.verify,
            options.trust,
            options.tail_size,
            self.source.identified,
            beyond_bytes,
            readable,
        )
        step = plan(self.source.fingerprint, known, part, final, rules)
        if isinstance(step, ResumeAt) and not (yield from self._can_resume(step)):
            step = Fresh()
        linked = known is not None and known.phase is Phase.PUBLISHING and not self._overwrites
        if final is not None and linked and not isinstance(step, ProveFinal):
            return ProveFinal(step)  # part and final may be two names of one file
        return step

    @property
    def _partial(self) -> bytes | None:
        """Where another program may have left a beginning of the file."""
        if self.job.adopt_partial is None or not self.context.options.resume or self.context.options.direct_write:
            return None
        return partial_name(self.dest, self.job.adopt_partial)

    def _adopt(self, step: Fresh) -> Work[Fresh | ResumeAt]:
        if self._partial is None or self.context.server.refuses(Refusal.RESUME):
            return step

        def taken(acked_bytes: int) -> Checkpoint:
            self._was_known = True
            self._state = PartState(self.source.fingerprint.size, acked_bytes)
            return self.checkpoint()

        size = yield from adopt(self.context, self._file, self.source, self._partial, taken)
        return ResumeAt(size) if size else step

    @property
    def _overwrites(self) -> bool:
        return self.job.if_exists is IfExists.OVERWRITE

    def _can_resume(self, step: ResumeAt) -> Work[bool]:
        if self.context.server.refuses(Refusal.RESUME):
            return False
        if step.tail is None:
            return True
        try:
            return (yield from same_content(self.context, self._file.path, self.source, step.tail))
        except PermanentError as refusal:
            note_refused_reading(self.context.server, refusal)
            return False

    # -- send

    def _send(self, step: Step) -> Work[None]:
        try:
            while isinstance(step, ResumeAt):
                try:
                    return (yield from self._guarded(self._resume(step)))
                except NoReadBack:
                    step = step.unread()
                except NoResume as refusal:
                    self._resume_refused = refusal.certain
                    step = Fresh()
            assert isinstance(step, Fresh)
            yield from self._guarded(self._start_over(step))
        finally:
            self.context.large.pop(self._file.path, None)

    def _guarded(self, work: Work[None]) -> Work[None]:
        """However the work ends, note the progress; after a refusal, also close what is open."""
        try:
            yield from work
        except (NoReadBack, NoResume, SFTPError) as failure:
            if not self._state.acked == self._resumed_at == 0:
                self.note(now=self.job.suspended())
            yield from self._file.close_all()
            if isinstance(failure, (NoResume, NoSpaceOnServer, ServerRefused)):
                yield from self._leave_room(failure)
            if isinstance(failure, NameRefused):
                yield from self._file.remove()
            raise

    def _leave_room(self, failure: Exception) -> Work[None]:
        """Remove the part from a full server: smaller files may still fit. Raises: NoSpaceOnServer if it is full."""
        name = self.source.name
        no_space = failure if isinstance(failure, NoSpaceOnServer) else None
        no_space = no_space or (yield from full(self.context, self._file.path, name, self._state))
        if no_space is None:
            return
        yield from self._file.remove()
        raise no_space from (None if no_space is failure else failure)

    def _start_over(self, step: Fresh) -> Work[None]:
        self._possible_repeat = step.possible_repeat
        self._state = PartState(self.source.fingerprint.size)
        self._resumed_at = self._noted_at = 0
        if self._file.is_ours and (self._was_known or self._is_large):
            yield Barrier(self.checkpoint())  # an older one must not outlive the bytes it describes
        was_ours = self._file.is_ours
        handle = yield from self._file.create(self._state)
        if not was_ours:
            yield Barrier(self.checkpoint())
        if self._resume_refused:
            self.context.server.learn(Refusal.RESUME)
        yield from self._fill(handle, b"", resumed=False)

    def _resume(self, step: ResumeAt) -> Work[None]:
        self._state = PartState(self.source.fingerprint.size, step.offset, step.suspect, step.synced)
        self._resumed_at = self._noted_at = step.offset
        self._certain_at, self._gain = self._state.certain, FIRST_GAIN_BYTES
        if self._is_large:
            yield Barrier(self.checkpoint())
        writer, reader = yield from self._file.reopen(self._state, read=bool(step.suspect))
        if isinstance(writer, Status):
            raise NoResume(certain=self._file.asked_alone)
        if isinstance(reader, Status):
            note_refused_reading(self.context.server, reader.error("cannot read back"))
            raise NoReadBack
        yield from self._fill(writer, reader, resumed=True)

    def _fill(self, handle: bytes, reader: bytes, resumed: bool) -> Work[None]:
        ending = Ending(self.context, self.source, self._file.path, handle)
        sending = Sending(
            self.context,
            self.source,
            self._state,
            handle,
            reader,
            ending.requests,
            resumed,
            self._progressed,
            self.job.check_suspended,
        )
        try:
            replies = yield from sending.run()
        finally:
            self.sent_bytes += sending.sent_bytes
            if sending.closing:
                self._file.closed(handle)
        yield from self._file.close_all()  # an open handle of our own would make a refusal look like a busy server
        try:
            self._proof = yield from ending.check(replies)
        except PermanentError:
            self._state.distrust()
            raise
        if ending.synced:  # it came after every write
            self._state.sync_done(self._state.sync_mark())

    # -- publish

    def _publish(self) -> Work[TransferResult]:
        yield from self._hash()
        yield from run_commands(self.context, self.job.commands, self.job.commands.before_publish, self.dest)
        self.source.check_unchanged()
        self._phase = Phase.PUBLISHING
        if self._opens_no_more:
            yield CLOSED
        handle = b""
        if self._file.path != self.dest:
            yield Barrier(self.checkpoint())
            # with a sidecar to write first, the final would stay open while that may fail
            reopen = wants_confirmation(self.context) and not self.context.options.sidecar
            self._final, handle = yield from self._finals.publish(self._file.path, reopen=reopen)
        return (yield from self._conclude(handle))

    @property
    def _opens_no_more(self) -> bool:
        """No sidecar, nothing to sync; no command that makes a file, no folder listed for how a name is spelled."""
        options, job = self.context.options, self.job
        return options.trust and not (options.sidecar or job.commands.after_success or job.ignores_case)

    def _already_done(self, published: bytes) -> Work[TransferResult]:
        self._final, self._proof = published, Proof.FULL
        if not self._overwrites:
            yield from self._file.remove()
        yield from self._hash()
        return (yield from self._conclude(b"", already_done=True))

    def _hash(self) -> Work[None]:
        if self.job.digest or self.context.options.sha256 or self.context.options.sidecar:
            self._digest = yield from hash_of(self.source)

    def _conclude(self, handle: bytes, already_done: bool = False) -> Work[TransferResult]:
        self.source.close()  # the wait below may be long, with many files in flight
        options = self.context.options
        if options.sidecar and self._digest is not None:
            yield from write_sidecar(self.context, self._final, self._file.owned, self._digest)
        durable = yield from confirm(self.context, self._final, self.source.fingerprint.size, handle, self.job.grace)
        self._tell(self.source.fingerprint.size)
        if self.job.commands.after_success:
            self._phase, self._published_as = Phase.PUBLISHING, self._finals.number(self._final)
            yield Barrier(self.checkpoint())
            yield from run_after_success(self.context, self.job.commands, self._final)
        return self._result(durable=durable, already_done=already_done)

    def _was_published_as(self) -> int | None:
        """Under which name, if an earlier attempt came as far as the commands that follow."""
        if not self.job.commands.after_success or not self.context.options.resume:
            return None
        known = self.context.ledger.load(Direction.UPLOAD, self.dest, self.source.path)
        return only_commands_left(self.job, known, self.source.fingerprint)

    def _told_again(self, number: int) -> Work[TransferResult]:
        final = self.dest if self._overwrites else (yield from self._finals.published(number))
        if final is not None:
            self._final = final
            yield from run_after_success(self.context, self.job.commands, final)
        yield from self._hash()
        return self._result(already_done=True)

    def _result(self, *, durable: bool = False, already_done: bool = False, skipped: bool = False) -> TransferResult:
        return uploaded(
            self.job,
            self.source,
            self._final,
            sent_bytes=self.sent_bytes,
            resumed_at=self._resumed_at,
            seconds=self.context.clock() - self._started_at,
            proof=self._proof,
            sha256=self._digest,
            durable=durable,
            already_done=already_done,
            possible_repeat=self._possible_repeat,
            skipped=skipped,
        )

    # -- how far

    @property
    def _is_large(self) -> bool:
        """Large enough for a checkpoint at its start: without one, a device that keeps dying before the first is due
        would start over each time. Later data in the part is read back, so the checkpoint need not be up to date."""
        return self._state.size > self.context.write_block

    def checkpoint(self) -> Checkpoint:
        return Checkpoint(
            direction=Direction.UPLOAD,
            remote_path=self.dest,
            local_path=self.source.path,
            token=Token(self._file.path),
            fingerprint=self.source.fingerprint,
            acked_bytes=self._state.acked,
            synced_bytes=self._state.synced,
            suspect=self._state.suspect,
            phase=self._phase,
            published_as=self._published_as,
        )

    def note(self, *, now: bool = False) -> None:
        self._noted_at = self._state.acked
        self.context.ledger.note(self.checkpoint(), now=now)

    def _progressed(self) -> None:
        if self._state.acked != self._noted_at and self._is_large:
            self.note()  # the ledger decides by bytes and time when to write it
        self._note_gain()
        if self.context.clock() - self._told_at >= PROGRESS_EVERY_S:
            self._tell(self._state.acked)

    def _note_gain(self) -> None:
        """Crashes tend to repeat: after a resume, progress is saved at 256 KiB, 512 KiB, 1 MiB and so on, until the
        ledger's own steps are larger. Otherwise the same bytes would be read back each time."""
        if self._gain is None or self._gain >= self.context.options.checkpoint_bytes or not self._is_large:
            return
        if self._state.certain - self._certain_at >= self._gain:
            self._certain_at, self._gain = self._state.certain, 2 * self._gain
            self.context.ledger.note(self.checkpoint(), now=True)

    def _tell(self, done_bytes: int) -> None:
        self._told_at = self.context.clock()
        if self.job.progress is not None:
            self.job.progress(Progress(self.source.name, done_bytes, self._state.size, self._resumed_at))
