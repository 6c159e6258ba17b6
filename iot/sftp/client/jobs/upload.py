"""One upload, as a job for the pipeline: from the plan to the published file.

    survey -> open the part -> send (and read suspect spans back) -> finish -> publish

The part is never published before every write is answered, no span is suspect, its size (and what `proof` requires) is
verified, the source has been checked again, and the intent to rename is durable.
"""

from __future__ import annotations

from iot.sftp.client.jobs.context import Context
from iot.sftp.client.jobs.folders import create_in_folder
from iot.sftp.client.jobs.free_space import LARGE_BYTES, SpaceQuestion, full
from iot.sftp.client.jobs.look import look_at_once
from iot.sftp.client.jobs.proof import final_stands, hash_of, same_content
from iot.sftp.client.jobs.publish import Ending, confirm, publish, wants_confirmation, write_sidecar
from iot.sftp.client.jobs.sending import NoReadBack, NoResume, Sending, note_refused_reading
from iot.sftp.client.pipeline.job import Barrier, Work, ask, ask_all, expect_handle, expect_status, handle_or_refusal
from iot.sftp.client.protocol import packets
from iot.sftp.client.protocol.packets import Attributes, Code, Flag, Reply, Request, Status
from iot.sftp.client.protocol.server import Refusal
from iot.transfer.errors import (
    NameRefused,
    NoSpaceOnServer,
    PermanentError,
    ServerBusy,
    ServerRefused,
    SFTPError,
    SourceChanged,
)
from iot.transfer.model import (
    PROGRESS_EVERY_S,
    Checkpoint,
    Direction,
    Phase,
    Progress,
    Proof,
    Token,
    TransferResult,
    UploadJob,
)
from iot.transfer.names import check_final_name, check_no_folder, part_name, path_text, remote_path
from iot.transfer.plan import Fresh, ProveFinal, ResumeAt, ResumeRules, Step, plan
from iot.transfer.source import Source
from iot.transfer.terminal import quoted
from iot.transfer.window import PartState

CREATE = Flag.WRITE | Flag.CREATE | Flag.TRUNCATE | Flag.EXCLUSIVE
CREATE_DIRECT = Flag.WRITE | Flag.CREATE | Flag.TRUNCATE
REOPEN = Flag.WRITE | Flag.CREATE
REOPEN_CLASSIC = Flag.READ | Flag.WRITE
"""For servers that only know the modes of fopen; tried last, because others refuse it."""
FIRST_GAIN_BYTES = 256 * 1024


class Upload:
    """The state of one upload; `run` is the story. source: that of the job, opened; closed at the end.

    Raises: NameRefused if the job's destination is not a valid path.
    """

    def __init__(self, job: UploadJob, source: Source, context: Context) -> None:
        self.job = job
        self.context = context
        self.source = source
        self.dest = remote_path(job.dest, "dest")
        options = context.options
        self.part = part_name(self.dest, source.path, options.owner, options.part_suffix)
        if options.direct_write:
            self.part = self.dest
        self._state = PartState(self.source.fingerprint.size)
        self._handles: list[bytes] = []
        self._phase = Phase.SENDING
        self._resumed_at = 0
        self.sent_bytes = 0
        self._possible_repeat = False
        self._was_known = False
        self._resume_refused = False
        self._space: SpaceQuestion | None = None
        self._proof = context.options.proof
        self._digest: str | None = None
        self._started_at = context.clock()
        self._noted_at = 0
        self._certain_at = self._gain = 0
        self._told_at = context.clock()

    def run(self) -> Work[TransferResult]:
        """Raises: PermanentError, LocalStateError, ServerBusy; the pipeline throws in a lost link and a cancel."""
        try:
            if self.job.fingerprint not in (None, self.source.fingerprint):
                raise SourceChanged(f"{self.source.name} is no longer the version that was to be sent")
            check_final_name(self.dest, self.source.path, sidecar=self.context.options.sidecar)
            step = yield from self._survey()
            if isinstance(step, ProveFinal):
                if (yield from final_stands(self.context, self.dest, self.source)):
                    return (yield from self._already_done())
                step = step.otherwise
            yield from self._send(step)
            return (yield from self._publish())
        finally:
            self.source.close()

    # -- survey

    def _survey(self) -> Work[Step]:
        """Decide how to start; the server is only asked if there is something to resume."""
        options = self.context.options
        known = self.context.ledger.load(Direction.UPLOAD, self.dest, self.source.path)
        self._was_known = known is not None
        if known is not None and (not options.resume or options.direct_write or known.token != self.part):
            known = None
        if known is None and not self.job.check_final:
            return Fresh()
        part, final = yield from look_at_once([self.part, self.dest])
        readable = not self.context.server.refuses(Refusal.READ_BACK)
        beyond_bytes = self.context.pace.max_bytes
        rules = ResumeRules(
            options.verify, options.trust, options.tail_size, self.source.identified, beyond_bytes, readable
        )
        step = plan(self.source.fingerprint, known, part, final, rules)
        if isinstance(step, ResumeAt) and not (yield from self._can_resume(step)):
            return Fresh()
        return step

    def _can_resume(self, step: ResumeAt) -> Work[bool]:
        if self.context.server.refuses(Refusal.RESUME):
            return False
        if step.tail is None:
            return True
        try:
            return (yield from same_content(self.context, self.part, self.source, step.tail))
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
                except NoResume:
                    self._resume_refused = True
                    step = Fresh()
            assert isinstance(step, Fresh)
            yield from self._guarded(self._start_over(step))
        finally:
            self.context.large.pop(self.part, None)

    def _guarded(self, work: Work[None]) -> Work[None]:
        """However the work ends, note the progress; after a refusal, also close what is open."""
        try:
            yield from work
        except (NoReadBack, NoResume, SFTPError) as failure:
            if not self._state.acked == self._resumed_at == 0:
                self.note()
            yield from self._close_all()
            if isinstance(failure, (NoResume, NoSpaceOnServer, ServerRefused)):
                yield from self._leave_room(failure)
            if isinstance(failure, NameRefused):
                yield from self._drop_part()
            raise

    def _leave_room(self, failure: Exception) -> Work[None]:
        """Remove the part from a full server: smaller files may still fit. Raises: NoSpaceOnServer if it is full."""
        name = self.source.name
        no_space = failure if isinstance(failure, NoSpaceOnServer) else None
        no_space = no_space or (yield from full(self.context, self.part, name, self._state))
        if no_space is None:
            return
        yield from self._drop_part()
        raise no_space from (None if no_space is failure else failure)

    def _drop_part(self) -> Work[None]:
        if self.part != self.dest:
            yield from ask(packets.remove(self.part))

    def _start_over(self, step: Fresh) -> Work[None]:
        self._possible_repeat = step.possible_repeat
        self._state = PartState(self.source.fingerprint.size)
        self._resumed_at = self._noted_at = 0
        if self._was_known or self._is_large:  # an older one must not outlive the bytes it describes
            yield Barrier(self.checkpoint())
        handle = yield from self._create()
        if self._resume_refused:
            self.context.server.learn(Refusal.RESUME)
        yield from self._fill(handle, b"", resumed=False)

    def _create(self) -> Work[bytes]:
        """Always create a new part, never truncate an old one: data of a lost connection that is still in flight, or a
        late open, then cannot reach it."""
        mode = self.source.mode if self.context.options.keep_mode else None
        direct = self.context.options.direct_write
        flags = CREATE_DIRECT if direct else CREATE
        requests = [packets.open_file(self.part, flags, Attributes(mode=mode)), *self._questions()]
        doing = f"cannot create {quoted(self.part)}"
        reply, *told = yield from create_in_folder(self.context, self.part, requests)
        if not direct and isinstance(reply, Status) and reply.code not in (Code.NO_SUCH_FILE, Code.PERMISSION_DENIED):
            # left by an earlier attempt: the name says that it is ours
            expect_status((yield from ask(packets.remove(self.part))), f"cannot remove {quoted(self.part)}")
            reply, *told = yield from ask_all(requests, self.context.server.in_order)
        crowded = isinstance(reply, Status) and reply.code == Code.FAILURE and self.context.handles
        if crowded and (yield from full(self.context, self.part, self.source.name, self._state)) is None:
            raise ServerBusy(f"{doing} while others are open")
        handle = self._opened(expect_handle(reply, doing))
        self._check_answers(told)
        return handle

    def _questions(self) -> list[Request]:
        """What to check before many bytes are sent, in the same flight as the open."""
        if self._state.size <= LARGE_BYTES:
            return []
        self._space = SpaceQuestion.about(self.context, self.part, self._state)
        return [packets.stat(self.dest), *self._space.requests]

    def _check_answers(self, told: list[Reply]) -> None:
        """Raises: NameRefused; NoSpaceOnServer."""
        if not told:
            return
        final, *space = told
        if isinstance(final, Attributes):
            check_no_folder(final.mode, self.dest, self.source.path)
        if space and self._space is not None:
            self._space.check(self.context, self.source.name, self._state, space[0])

    def _resume(self, step: ResumeAt) -> Work[None]:
        self._state = PartState(self.source.fingerprint.size, step.offset, step.suspect, step.synced)
        self._resumed_at = self._noted_at = step.offset
        self._certain_at, self._gain = self._state.certain, FIRST_GAIN_BYTES
        if self._is_large:
            yield Barrier(self.checkpoint())
        doing = f"cannot reopen {quoted(self.part)}"
        reading = [packets.open_file(self.part, Flag.READ)] if step.suspect else []
        replies = yield from self._reopen([*reading, *self._questions()])
        opened = [self._opened_or_refused(reply, doing) for reply in replies[: 1 + len(reading)]]
        if isinstance(opened[0], Status):
            raise NoResume
        reader = opened[1] if reading else b""
        if isinstance(reader, Status):
            note_refused_reading(self.context.server, reader.error("cannot read back"))
            raise NoReadBack
        self._check_answers(replies[1 + len(reading) :])
        yield from self._fill(opened[0], reader, resumed=True)

    def _reopen(self, others: list[Request]) -> Work[list[Reply]]:
        """Open the part for writing, in the mode that this server accepts -> its answer and those of the others."""
        server = self.context.server
        flags = REOPEN_CLASSIC if server.refuses(Refusal.WRITE_CREATE) else REOPEN
        first, *rest = yield from ask_all([packets.open_file(self.part, flags), *others], server.in_order)
        if flags == REOPEN and isinstance(first, Status):
            first = yield from ask(packets.open_file(self.part, REOPEN_CLASSIC))
            if not isinstance(first, Status):
                server.learn(Refusal.WRITE_CREATE)
        return [first, *rest]

    def _opened_or_refused(self, reply: Reply, doing: str) -> bytes | Status:
        opened = handle_or_refusal(reply, doing)
        return opened if isinstance(opened, Status) else self._opened(opened)

    def _fill(self, handle: bytes, reader: bytes, resumed: bool) -> Work[None]:
        ending = Ending(self.context, self.source, self.part, handle)
        sending = Sending(
            self.context,
            self.source,
            self._state,
            handle,
            reader,
            ending.requests,
            resumed,
            self._progressed,
        )
        try:
            replies = yield from sending.run()
        finally:
            self.sent_bytes += sending.sent_bytes
            if sending.closing:
                self._handles.remove(handle)
                self.context.handles.discard(handle)
        try:
            self._proof = yield from ending.check(replies)
        except PermanentError:
            self._state.distrust()
            raise
        if ending.synced:  # it came after every write
            self._state.sync_done(self._state.sync_mark())
        yield from self._close_all()

    def _opened(self, handle: bytes) -> bytes:
        self._handles.append(handle)
        self.context.handles.add(handle)
        return handle

    def _close_all(self) -> Work[None]:
        while self._handles:
            handle = self._handles.pop()
            self.context.handles.discard(handle)
            yield from ask(packets.close(handle))

    # -- publish

    def _publish(self) -> Work[TransferResult]:
        yield from self._hash()
        self.source.check_unchanged()
        self._phase = Phase.PUBLISHING
        final = b""
        if self.part != self.dest:
            yield Barrier(self.checkpoint())
            # with a sidecar to write first, the final would stay open while that may fail
            reopen = wants_confirmation(self.context) and not self.context.options.sidecar
            final = yield from publish(self.context, self.part, self.dest, self.source.path, reopen)
        return (yield from self._conclude(final))

    def _already_done(self) -> Work[TransferResult]:
        self._proof = Proof.FULL
        yield from self._hash()
        return (yield from self._conclude(b"", already_done=True))

    def _hash(self) -> Work[None]:
        if self.job.digest or self.context.options.sha256 or self.context.options.sidecar:
            self._digest = yield from hash_of(self.source)

    def _conclude(self, final: bytes, already_done: bool = False) -> Work[TransferResult]:
        self.source.close()  # the wait below may be long, with many files in flight
        options = self.context.options
        if options.sidecar and self._digest is not None:
            yield from write_sidecar(self.context, self.dest, self.part, self._digest)
        durable = yield from confirm(self.context, self.dest, self.source.fingerprint.size, final, self.job.grace)
        self._tell(self.source.fingerprint.size)
        return TransferResult(
            source=self.source.name,
            dest=path_text(self.dest),
            size=self.source.fingerprint.size,
            sent_bytes=self.sent_bytes,
            resumed_at=self._resumed_at,
            seconds=self.context.clock() - self._started_at,
            proof=self._proof,
            durable=durable,
            already_done=already_done,
            possible_repeat=self._possible_repeat,
            sha256=self._digest,
            key=self.job.key,
            fingerprint=self.source.fingerprint,
            local_path=self.source.path,
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
            token=Token(self.part),
            fingerprint=self.source.fingerprint,
            acked_bytes=self._state.acked,
            synced_bytes=self._state.synced,
            suspect=self._state.suspect,
            phase=self._phase,
        )

    def note(self) -> None:
        self._noted_at = self._state.acked
        self.context.ledger.note(self.checkpoint())

    def _progressed(self) -> None:
        if self._state.acked != self._noted_at and self._is_large:
            self.note()  # the ledger decides by bytes and time when to write it
        self._note_gain()
        if self.context.clock() - self._told_at >= PROGRESS_EVERY_S:
            self._tell(self._state.acked)

    def _note_gain(self) -> None:
        """Crashes tend to repeat: after a resume, progress is saved at 256 KiB, 512 KiB, 1 MiB and so on, until the
        ledger's own steps are larger. Otherwise the same bytes would be read back each time."""
        if not 0 < self._gain < self.context.options.checkpoint_bytes or not self._is_large:
            return
        if self._state.certain - self._certain_at >= self._gain:
            self._certain_at, self._gain = self._state.certain, 2 * self._gain
            self.context.ledger.note(self.checkpoint(), now=True)

    def _tell(self, done_bytes: int) -> None:
        self._told_at = self.context.clock()
        if self.job.progress is not None:
            self.job.progress(Progress(self.source.name, done_bytes, self._state.size, self._resumed_at))
