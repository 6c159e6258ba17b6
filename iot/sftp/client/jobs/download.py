"""One download over SFTP, as a job for the pipeline: check, resume the part, read to the end, check again, verify,
publish. The local side and the decisions are in transfer.landing."""

from __future__ import annotations

import time
from collections.abc import Callable

from iot.sftp.client.jobs.checksum_file import fetch_sha256_file
from iot.sftp.client.jobs.context import Context
from iot.sftp.client.jobs.look import look
from iot.sftp.client.jobs.proof import hash_of, same_content, same_hash
from iot.sftp.client.jobs.reading import Reading
from iot.sftp.client.pipeline.job import Linger, Work, ask, expect_handle
from iot.sftp.client.protocol import packets
from iot.sftp.client.protocol.packets import Flag
from iot.transfer.errors import ProofFailed, SFTPError, SourceChanged
from iot.transfer.landing import DownloadTask, Landing
from iot.transfer.model import Evidence, Proof, Span, TransferResult

__all__ = ["Download"]


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
            while wait_s := landing.found((yield from look(self.task.source))):
                yield Linger(wait_s)
            expected = yield from self._expected_hashes()
            yield from self._begin()
            yield from self._fetch()
            landing.check_same((yield from look(self.task.source)))
            if landing.read_twice and not (yield from self._reads_the_same(landing.whole)):
                raise landing.changed()
            proof, evidence = yield from self._prove(expected)
            return landing.publish(proof, evidence, self.received_bytes)
        except (SourceChanged, ProofFailed):
            if landing.throw_away():
                self.context.ledger.forget(landing.checkpoint(0))
            raise
        finally:
            landing.close()

    @property
    def part(self) -> bytes:
        """The local part's path; empty for an open file."""
        return self._landing.sink.part

    @property
    def received_bytes(self) -> int:
        """Bytes of the file that this connection has received, including those read twice."""
        return self._reading.received_bytes

    def _expected_hashes(self) -> Work[list[tuple[str, Evidence]]]:
        expected = self.task.expected_hashes
        if self.context.options.sidecar:
            expected.append(((yield from fetch_sha256_file(self.task.source)), Evidence.SHA256_FILE))
        return expected

    # -- fetch

    def _begin(self) -> Work[None]:
        span = self._landing.begin(self.context.ledger.load(*self._landing.key))
        if span is None:
            return
        if not (yield from self._reads_the_same(span)):
            self._landing.begin(None)

    def _fetch(self) -> Work[None]:
        landing = self._landing
        opening = yield from ask(packets.open_file(self.task.source, Flag.READ))
        handle = expect_handle(opening, f"cannot open {landing.name!r}")
        self._reading = Reading(self.context, landing.name, landing.remote.size, landing.sink.write, self._progressed)
        try:
            yield from self._reading.run(handle, landing.end)
        except SFTPError:
            yield from ask(packets.close(handle))
            raise
        finally:
            landing.end = self._reading.end
            landing.save()
        yield from ask(packets.close(handle))

    def _progressed(self) -> None:
        self._landing.progressed(self._reading.end)

    # -- prove

    def _prove(self, expected: list[tuple[str, Evidence]]) -> Work[tuple[Proof | None, Evidence]]:
        """-> the proof and its evidence. With a hash known from elsewhere, nothing is read again."""
        landing, options = self._landing, self.context.options
        if expected or options.sha256:
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
        return (yield from same_content(self.context, self.task.source, self._landing.sink, span))
