"""One upload over a store, from the plan to the published file.

    survey -> begin or resume -> write -> check size, verify -> publish -> confirm

A file is never published before every byte is acknowledged, no span is suspect, its size (and what `proof` asks) is
verified, the source has been checked again, and the intent to publish is durable. Where the last byte publishes, that
byte is held back until then.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import replace

from iot.transfer.base import delivered_before, uploaded
from iot.transfer.errors import (
    NoSpaceOnServer,
    NotFound,
    PermissionDenied,
    ProofFailed,
    ServerRefused,
    SourceChanged,
    TransferError,
    Unsupported,
)
from iot.transfer.model import (
    PROGRESS_EVERY_S,
    Checkpoint,
    Direction,
    Phase,
    Progress,
    Proof,
    Span,
    TransferResult,
    UploadJob,
)
from iot.transfer.names import remote_path
from iot.transfer.options import TransferOptions
from iot.transfer.parallel.commands import run_after_success, run_commands
from iot.transfer.parallel.content import agreed_offset, hash_of
from iot.transfer.parallel.finals import Finals, Taken
from iot.transfer.parallel.publish import abandon, check_size, look_again, prove_part, write_sidecar
from iot.transfer.parallel.survey import alike_bytes, partial_of, survey, taken_over
from iot.transfer.parallel.work import Barrier, Desk, Linger, Work
from iot.transfer.plan import Fresh, ProveFinal, ResumeAt, Step, only_commands_left
from iot.transfer.remote import Meta, Publish, Store, Token
from iot.transfer.source import Source
from iot.transfer.window import PartState

__all__ = ["Upload"]

log = logging.getLogger(__name__)

SURE_AFTER_S = 60.0
"""Operating systems write data to disk within half a minute. So bytes that were seen on the far side need no second
look if, this long afterwards, the same connection still accepts data: a power cut would have broken it."""


class Upload:
    """The state of one upload; `run` is the story.

    meta: part name, and attributes. owned_part: the part name that says whose it is, which is locked. known: its
    checkpoint. note: keeps a checkpoint until the next batch is written, in the committing thread.
    release: called when this upload ends.
    """

    store: Store

    def __init__(
        self,
        job: UploadJob,
        source: Source,
        meta: Meta,
        known: Checkpoint | None,
        options: TransferOptions,
        desk: Desk,
        note: Callable[[Checkpoint], None],
        release: Callable[[], None],
        owned_part: bytes,
    ) -> None:
        self.job = job
        self.source = source
        self.dest = remote_path(job.dest, "dest")
        self.meta = meta
        self._owned_part = owned_part
        self.release = release
        self._known = known
        self._options = options
        self._desk = desk
        self._note_it = note
        self._token = known.token if known is not None else Token()
        self._begin_at(PartState(source.fingerprint.size))
        self._finals = Finals(job, source)
        self._final = self.dest
        self._phase = Phase.SENDING
        self._proof = options.proof
        self._digest: str | None = None
        self._possible_repeat = self._adopted = False
        self._published_as: int | None = None
        self._started_at = self._told_at = self._noted_at = self._alive_at = desk.clock()
        self.sent_bytes = 0

    @property
    def size(self) -> int:
        return self.source.fingerprint.size

    def _begin_at(self, state: PartState) -> None:
        self._state = state
        self._seen = state.acked, self._desk.clock()
        self._resumed_at = state.acked

    def run(self) -> Work[TransferResult]:
        """Raises: PermanentError, LocalStateError, TransientError, AuthenticationError, Cancelled."""
        if self.job.fingerprint not in (None, self.source.fingerprint):
            raise SourceChanged(f"{self.source.name} is no longer the version that was to be sent")
        self.job.check_suspended()
        self._finals.check_names(sidecar=self._options.sidecar, part_suffix=self._options.exact_suffix(self.job))
        if self.job.sent_before is not None:
            self._hash()
            self.source.check_unchanged()
            if self._digest == self.job.sent_before:
                return delivered_before(self.job, self.source, self.job.sent_before)
        known = self._known if self._options.resume else None
        if (number := only_commands_left(self.job, known, self.source.fingerprint)) is not None:
            return self._told_again(number)
        try:
            step = self._survey()
            if isinstance(step, ProveFinal):
                published = self._finals.ours(self._desk, self.store)
                if published is not None:
                    return (yield from self._already_done(published))
                step = step.otherwise
            elif isinstance(step, Fresh):
                step = yield from self._adopt(step)
            run_commands(self.store, self.job.commands, self.job.commands.before, self.dest)
            self._finals.check_free(self.store)
            yield from self._send(step)
            return (yield from self._publish())
        except Taken:
            self._abandon()
            return self._result(skipped=True)

    # -- survey

    def _survey(self) -> Step:
        """Decide how to start."""
        known = self._known if self._options.resume else None
        shared = self.meta.part != self._owned_part
        return survey(self.store, self.job, self.source, known, self._finals, self._options, shared=shared)

    def _adopt(self, step: Fresh) -> Work[Step]:
        """Take over what another program has left, if that is a beginning of the source."""
        partial = partial_of(self.job, self.store, self._options)
        if partial is None:
            return step
        size = alike_bytes(self._desk, self.store, partial, self.source)
        if not size:
            return step
        if partial != self.meta.part:
            self.meta = replace(self.meta, part=self._owned_part)
        self._token, self._state = Token(self.meta.part), PartState(self.size, size)
        self._known = self.checkpoint()
        yield Barrier(self._known)
        self._adopted = taken_over(self.store, partial, self.meta.part, size)
        return ResumeAt(size) if self._adopted else step

    # -- send

    def _send(self, step: Step) -> Work[None]:
        try:
            while isinstance(step, ResumeAt):
                try:
                    return self._go_on(step)
                except PermissionDenied as refusal:
                    if self._adopted:
                        step = Fresh()
                    elif step.suspect or step.tail:
                        log.info("cannot read back path=%s reason=%s", self.source.name, refusal)
                        step = step.unread()
                    else:
                        raise
                except (Unsupported, NotFound) as refusal:
                    log.info("starting over path=%s reason=%s", self.source.name, refusal)
                    step = Fresh()
            assert isinstance(step, Fresh)
            yield from self._start_over(step)
        except NoSpaceOnServer:
            self._abandon()  # smaller files may still fit
            raise
        except TransferError:
            if self._token:
                self.note()
            raise

    def _go_on(self, step: ResumeAt) -> None:
        """Read back what is suspect, and resume after the bytes that match."""
        offset = agreed_offset(self._desk, self.store, self._token, self.source, step)
        if offset == 0 and self.size:
            raise Unsupported("no byte of the part is usable")
        unsure = [span.start for span in step.suspect]  # seen on the far side, but perhaps not on its disk
        self._begin_at(PartState(self.size, offset, (), min([step.synced, offset, *unsure])))
        assert self._known is not None
        self._desk.delivered(max(0, offset - self._known.acked_bytes))  # it had arrived, and only the answer was lost
        self._fill()

    def _start_over(self, step: Fresh) -> Work[None]:
        self._possible_repeat = step.possible_repeat
        self._begin_at(PartState(self.size))
        named = self.store.capabilities.named_tokens
        if not named:
            self._abandon()
        unsure = self.meta.part not in (self._owned_part, self._token)
        if unsure and self.store.stat(self.meta.part) is not None:  # not ours
            self.meta = replace(self.meta, part=self._owned_part)
        self._token = self.store.begin(self.dest, self.size, self.meta)
        if self._known is not None or unsure or not named or self.size > self.store.capabilities.block_bytes:
            yield Barrier(self.checkpoint())  # an older one must not outlive the bytes it describes
        self._fill()

    def _abandon(self) -> None:
        abandon(self.store, self._token, self.source.name)

    def _fill(self) -> None:
        """Write to the end, or up to the bytes that are held back."""
        end = self.size - self._held_back
        most = self.store.capabilities.write_bytes or end
        if not self.size and not self._last_byte_publishes:
            self.store.write(self._token, Span(0, 0), ())
        while self._state.acked < end:
            start = self._state.acked
            self._write(Span(start, min(start + most, end)))
            if self._state.acked == start:
                raise ServerRefused(f"the far side accepts no more data of {self.source.name} at offset {start}")

    @property
    def _held_back(self) -> int:
        """Number of bytes at the end whose write publishes the file."""
        if not self._last_byte_publishes:
            return 0
        multiple = self.store.capabilities.write_multiple
        return min(self.size, self.size % multiple or multiple)

    @property
    def _last_byte_publishes(self) -> bool:
        return self.store.capabilities.publish is Publish.LAST_BYTE

    def _write(self, span: Span) -> None:
        ack = self.store.write(self._token, span, self._body(span))
        self._state.answered(Span(span.start, min(ack.end, span.end)))
        if ack.end < span.end:
            self._state = PartState(self.size, max(span.start, ack.end), (), self._state.synced)
        if ack.durable:
            self._state.sync_done(self._state.sync_mark())
        self._alive_at = self._desk.clock()
        self._desk.delivered(max(0, ack.end - span.start))
        self.note()

    def _body(self, span: Span) -> Iterator[bytes]:
        step = self._desk.block(self.store.capabilities.block_bytes)
        for start in range(span.start, span.end, step):
            self._desk.check()
            self.job.check_suspended()
            self._desk.pay(min(step, span.end - start), sent=True)
            self._alive_at = self._desk.clock()
            if self._alive_at - self._noted_at >= self._options.checkpoint_s:
                self.note()
            data = self.source.read(Span(start, min(start + step, span.end)))
            self._tell(start)
            self.sent_bytes += len(data)
            yield data

    # -- prove

    def _check(self) -> None:
        """Raises: ProofFailed or NotFound; the part is then no longer trusted."""
        try:
            check_size(self.store, self._token, self.size - self._held_back, self.source.name)
            self._proof = Proof.SIZE if self._held_back else self._prove()
        except ProofFailed:
            self._state.distrust()
            self.note()
            raise

    # -- publish

    def _publish(self) -> Work[TransferResult]:
        self._check()
        self._hash_if_asked()
        run_commands(self.store, self.job.commands, self.job.commands.before_publish, self.dest)
        self.source.check_unchanged()
        self._phase = Phase.PUBLISHING
        yield Barrier(self.checkpoint())
        if self._last_byte_publishes:
            self._write(Span(self.size - self._held_back, self.size))
        self._final, durable = self._finals.publish(self.store, self._token, self.meta, self._options)
        return (yield from self._after_grace(durable))

    def _prove(self) -> Proof:
        proof, digest = prove_part(self._desk, self.store, self._token, self.source, self._options)
        self._digest = digest or self._digest
        return proof

    def _already_done(self, published: bytes) -> Work[TransferResult]:
        self._final, self._proof = published, Proof.FULL
        self._hash_if_asked()
        if not self._finals.overwrites:
            self._abandon()
        return (yield from self._after_grace(self.store.confirm(published), already_done=True))

    def _hash_if_asked(self) -> None:
        if self._options.sha256 or self._options.sidecar or self.job.digest:
            self._hash()

    def _hash(self) -> None:
        if self._digest is None:
            self._digest = hash_of(self._desk, self.source)

    def _after_grace(self, durable: bool, already_done: bool = False) -> Work[TransferResult]:
        self.source.close()  # the wait below may be long, with many files in flight
        if self._options.sidecar and self._digest is not None:
            beside = replace(self.meta, part=self._owned_part)
            write_sidecar(self.store, self._final, beside, self._digest, self._options)
        durable = durable and not self._options.trust
        if self.job.grace and not durable and not self._options.trust and self._options.publish_grace_s:
            yield Linger(self._options.publish_grace_s)
            look_again(self.store, self._final, self.size)
        self._told_at = float("-inf")
        self._tell(self.size)
        if self.job.commands.after_success:
            self._phase, self._published_as = Phase.PUBLISHING, self._finals.number(self._final)
            yield Barrier(self.checkpoint())
            run_after_success(self.store, self.job.commands, self._final)
        return self._result(durable=durable, already_done=already_done)

    def _told_again(self, number: int) -> TransferResult:
        """An earlier attempt has published the file, and came as far as the commands that follow."""
        is_sure = self._finals.overwrites
        final = self.dest if is_sure else self._finals.published(self._desk, self.store, number)
        if final is not None:
            self._final = final
            run_after_success(self.store, self.job.commands, final)
        self._hash_if_asked()
        return self._result(already_done=True)

    def _result(self, *, durable: bool = False, already_done: bool = False, skipped: bool = False) -> TransferResult:
        return uploaded(
            self.job,
            self.source,
            self._final,
            sent_bytes=self.sent_bytes,
            resumed_at=self._resumed_at,
            seconds=self._desk.clock() - self._started_at,
            proof=self._proof,
            sha256=self._digest,
            durable=durable,
            already_done=already_done,
            possible_repeat=self._possible_repeat,
            skipped=skipped,
        )

    # -- how far

    def checkpoint(self) -> Checkpoint:
        return Checkpoint(
            direction=Direction.UPLOAD,
            remote_path=self.dest,
            local_path=self.source.path,
            token=self._token,
            fingerprint=self.source.fingerprint,
            acked_bytes=self._state.acked,
            synced_bytes=self._state.synced,
            suspect=self._state.suspect,
            phase=self._phase,
            published_as=self._published_as,
        )

    def note(self) -> None:
        """Note a checkpoint for the next batch; bytes that were seen long enough ago count as synced."""
        end, seen_at = self._seen
        if self._alive_at - seen_at >= SURE_AFTER_S:
            self._state.synced = max(self._state.synced, min(end, self._state.acked))
            self._seen = (self._state.acked, self._alive_at)
        self._noted_at = self._desk.clock()
        checkpoint = self.checkpoint()
        self._desk.post(lambda: self._note_it(checkpoint))

    def _tell(self, done_bytes: int) -> None:
        tell, now = self.job.progress, self._desk.clock()
        if tell is None or now - self._told_at < PROGRESS_EVERY_S:
            return
        self._told_at = now
        progress = Progress(self.source.name, done_bytes, self.size, self._resumed_at)
        self._desk.post(lambda: tell(progress))
