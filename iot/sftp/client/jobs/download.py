"""One download over SFTP, as a job for the pipeline: check, resume the part, read to the end, check again, verify,
publish. The local side and the decisions are in transfer.landing."""

from __future__ import annotations

import time
from collections.abc import Callable

from iot.sftp.client.jobs.checksum_file import fetch_sha256_file
from iot.sftp.client.jobs.context import Context
from iot.sftp.client.jobs.look import close_and_look, look
from iot.sftp.client.jobs.opening import open_to_read
from iot.sftp.client.jobs.proof import hash_of, same_hash, same_when_read
from iot.sftp.client.jobs.reading import Reading
from iot.sftp.client.pipeline.job import Barrier, Linger, Work, ask
from iot.sftp.client.protocol import packets
from iot.transfer.errors import ProofFailed, SFTPError, SourceChanged
from iot.transfer.landing import DownloadTask, Landing
from iot.transfer.model import Evidence, Proof, RemoteFile, Span, TransferResult

__all__ = ["Download"]

LOOK_AGAIN_S = 0.25
SMALL_BYTES = 1024 * 1024
ALIKE = 16
FEW = 4
TOGETHER_BYTES = 64 * 1024 * 1024


class Download:
    """The state of one download; `run` is the story. wall_clock: seconds since 1970 according to this device."""

    def __init__(self, task: DownloadTask, context: Context, wall_clock: Callable[[], float] = time.time) -> None:
        self.task = task
        self.context = context
        self._landing = Landing(task, context.options, context.ledger.note, task.tell, context.clock, wall_clock)
        self._reading = Reading(context, self._landing.name, None, self._landing.sink.write, self._progressed)

    def run(self) -> Work[TransferResult]:
        """Raises: NotFound, SourceChanged, ProofFailed, DiskFull, PermanentError, LocalStateError."""
        landing = self._landing
        try:
            yield from self._look()
            expected = yield from self._expected_hashes()
            yield from self._begin()
            landing.check_same((yield from self._fetch()))
            if landing.read_twice and not (yield from self._reads_the_same(landing.whole)):
                raise landing.changed()
            proof, evidence = yield from self._prove(expected)
            yield Barrier(landing)
            return landing.published(proof, evidence, self.received_bytes)
        except (SourceChanged, ProofFailed):
            if landing.throw_away():
                self.context.ledger.forget(landing.checkpoint(0))
            raise
        finally:
            self.context.arriving.pop(id(self), None)
            landing.close()

    @property
    def lock_name(self) -> bytes:
        return self._landing.lock_name

    @property
    def received_bytes(self) -> int:
        """Bytes of the file that this connection has received, including those read twice."""
        return self._reading.received_bytes

    def _look(self) -> Work[None]:
        """Look at the file until it can be told from any other version, and there is room to fetch it."""
        waited = True
        while waited:
            while wait_s := self._landing.found((yield from look(self.task.source))):
                yield Linger(wait_s)
            waited = False
            while not self._has_room():
                waited = True  # it may be another version by then
                yield Linger(LOOK_AGAIN_S)

    def _has_room(self) -> bool:
        """Small files arrive all at once, large ones a few at a time: with more, all would arrive later, be older than
        what was looked at, and be left half done by a lost link. None waits for files of quite another size."""
        arriving, size = self.context.arriving, self._landing.remote.size or 0
        if size <= SMALL_BYTES or id(self) in arriving:
            return True
        alike = [other for other in arriving.values() if other <= ALIKE * size and size <= ALIKE * other]
        if len(alike) >= FEW and sum(alike) + size > TOGETHER_BYTES:
            return False
        arriving[id(self)] = size
        return True

    def _expected_hashes(self) -> Work[list[tuple[str, Evidence]]]:
        expected = self.task.expected_hashes
        if self._landing.needs_sidecar:
            listed = yield from fetch_sha256_file(self.context, self.task.source)
            expected.append((listed, Evidence.SHA256_FILE))
        return expected

    # -- fetch

    def _begin(self) -> Work[None]:
        span = self._landing.begin(self.context.ledger.load(*self._landing.key))
        if span is None:
            return
        if not (yield from self._reads_the_same(span)):
            self._landing.begin(None)

    def _fetch(self) -> Work[RemoteFile | None]:
        """-> what stands under the name once all is read"""
        source = self.task.source
        handle = yield from open_to_read(self.context, source, f"cannot open {self._landing.name!r}")
        try:
            yield from self._read(handle)
            return (yield from close_and_look(handle, source))
        finally:
            self.context.handles.discard(handle)

    def _read(self, handle: bytes) -> Work[None]:
        landing = self._landing
        self._reading = Reading(self.context, landing.name, landing.remote.size, landing.sink.write, self._progressed)
        try:
            yield from self._reading.run(handle, landing.end)
        except SFTPError:
            yield from ask(packets.close(handle))
            raise
        finally:
            landing.end = self._reading.end

    def _progressed(self) -> None:
        self._landing.progressed(self._reading.end)

    # -- prove

    def _prove(self, expected: list[tuple[str, Evidence]]) -> Work[tuple[Proof | None, Evidence]]:
        """-> the proof and its evidence. With a hash known from elsewhere, nothing is read again."""
        landing, options = self._landing, self.context.options
        if expected or self.task.digest:
            landing.digest = yield from hash_of(landing.sink)
        known = landing.matches(expected)
        if known is not None:
            return known
        if options.proof is Proof.FULL:
            return Proof.FULL, (yield from self._prove_whole())
        if options.proof is Proof.TAIL:
            yield from self._read_again(Span(max(0, landing.end - options.tail_size), landing.end))
            return Proof.TAIL, Evidence.SECOND_READING
        return landing.by_size()

    def _prove_whole(self) -> Work[Evidence]:
        same = yield from same_hash(self.context, self.task.source, self._landing.sink)
        if same is None:
            yield from self._read_again(Span(0, self._landing.end))
            return Evidence.SECOND_READING
        if not same:
            raise ProofFailed(f"the server's SHA-256 of {self._landing.name} is not that of the downloaded content")
        return Evidence.SERVER_HASH

    def _read_again(self, span: Span) -> Work[None]:
        if not (yield from self._reads_the_same(span)):
            raise ProofFailed(
                f"bytes {span.start} to {span.end} of {self._landing.name} were different when read again"
            )

    def _reads_the_same(self, span: Span) -> Work[bool]:
        handle = yield from open_to_read(self.context, self.task.source, f"cannot read {self._landing.name!r} again")
        return (yield from same_when_read(self.context, handle, self._landing.sink, span))
