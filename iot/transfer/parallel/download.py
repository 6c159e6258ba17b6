"""One download from a store: check, resume the part, read to the end, check again, verify, publish."""

from __future__ import annotations

import posixpath
from collections.abc import Callable, Iterator

from iot.transfer.checksum_file import MOST_BYTES, sha256_listed
from iot.transfer.errors import LinkLost, NotFound, ProofFailed, ServerRefused, SourceChanged, Unsupported
from iot.transfer.landing import Landing, publish_together
from iot.transfer.model import Checkpoint, Evidence, Proof, Span, TransferResult
from iot.transfer.names import SIDECAR
from iot.transfer.options import TransferOptions
from iot.transfer.parallel.content import agreeing_bytes, hash_of
from iot.transfer.parallel.work import Desk, Linger, Work
from iot.transfer.remote import Store
from iot.transfer.terminal import quoted

__all__ = ["Download"]


class Download:
    """landing: the local side. known: its checkpoint. forget: drops the checkpoint. release: called at the end."""

    store: Store

    def __init__(
        self,
        landing: Landing,
        known: Checkpoint | None,
        options: TransferOptions,
        desk: Desk,
        forget: Callable[[Checkpoint], None],
        release: Callable[[], None],
    ) -> None:
        self.release = release
        self.received_bytes = 0
        self._landing = landing
        self._known = known
        self._options = options
        self._desk = desk
        self._forget = forget

    def run(self) -> Work[TransferResult]:
        """Raises: NotFound, SourceChanged, ProofFailed, DiskFull, PermanentError, LocalStateError, TransientError,
        AuthenticationError, Cancelled."""
        landing = self._landing
        try:
            while wait_s := landing.found(self.store.stat(landing.task.source)):
                yield Linger(wait_s)
            expected = self._expected_hashes()
            self._begin()
            self._fetch()
            landing.check_same(self.store.stat(landing.task.source))
            if landing.read_twice and not self._reads_the_same(landing.whole):
                raise landing.changed()
            proof, evidence = self._prove(expected)
            publish_together([landing])
            return landing.published(proof, evidence, self.received_bytes)
        except (SourceChanged, ProofFailed):
            self._throw_away()
            raise
        finally:
            landing.close()

    def _expected_hashes(self) -> list[tuple[str, Evidence]]:
        task = self._landing.task
        expected = task.expected_hashes
        if self._landing.needs_sidecar:
            expected.append((self._listed_sha256(task.source), Evidence.SHA256_FILE))
        return expected

    def _listed_sha256(self, source: bytes) -> str:
        """The SHA-256 that `<source>.sha256` lists. Raises: NotFound, ProofFailed."""
        path, content = source + SIDECAR, b""
        try:
            for block in self.store.read(path, 0):
                content += block
                if len(content) > MOST_BYTES:
                    raise ProofFailed(f"{quoted(path)} is longer than {MOST_BYTES} bytes: not a checksum file")
        except NotFound as error:
            raise NotFound(f"{quoted(path)} is not on the server, but sidecar requires it") from error
        digest = sha256_listed(content, posixpath.basename(source))
        if digest is None:
            raise ProofFailed(f"{quoted(path)} has no SHA-256 for {quoted(posixpath.basename(source))}")
        return digest

    # -- fetch

    def _begin(self) -> None:
        span = self._landing.begin(self._known)
        if span is not None and not self._reads_the_same(span):
            self._landing.begin(None)

    def _fetch(self) -> None:
        try:
            self._read_from(self._landing.end)
        except Unsupported:
            if not self._landing.end:
                raise
            self._landing.begin(None)
            self._read_from(0)

    def _read_from(self, start: int) -> None:
        at = start
        for block in self._blocks(start):
            self._landing.sink.write(at, memoryview(block))
            at += len(block)
            self.received_bytes += len(block)
            self._desk.delivered(len(block))
            self._landing.progressed(at)
        landing = self._landing
        if at < (landing.remote.size or 0):  # a broken connection may look like the end of the file
            landing.check_same(self.store.stat(landing.task.source))
            raise LinkLost(f"{landing.name} ended after {at} of {landing.remote.size} bytes")

    def _blocks(self, start: int) -> Iterator[bytes]:
        for block in self.store.read(self._landing.task.source, start):
            self._desk.check()
            self._desk.pay(len(block))
            if not block:
                raise ServerRefused(f"cannot read {self._landing.name}: got neither data nor end of file")
            yield block

    # -- prove

    def _prove(self, expected: list[tuple[str, Evidence]]) -> tuple[Proof | None, Evidence]:
        landing, options = self._landing, self._options
        if expected or landing.task.digest:
            landing.digest = hash_of(self._desk, landing.sink)
        known = landing.matches(expected)
        if known is not None:
            return known
        if options.proof is Proof.FULL:
            return Proof.FULL, self._prove_whole()
        if options.proof is Proof.TAIL:
            self._read_again(Span(max(0, landing.end - options.tail_size), landing.end))
            return Proof.TAIL, Evidence.SECOND_READING
        return landing.by_size()

    def _prove_whole(self) -> Evidence:
        landing = self._landing
        digest = self.store.digest(landing.task.source, "sha256") if self._hashes else None
        if digest is None:
            self._read_again(Span(0, landing.end))
            return Evidence.SECOND_READING
        landing.digest = landing.digest or hash_of(self._desk, landing.sink)
        if digest != landing.digest:
            raise ProofFailed(f"the server's SHA-256 of {landing.name} is not that of the downloaded content")
        return Evidence.SERVER_HASH

    @property
    def _hashes(self) -> bool:
        return "sha256" in self.store.capabilities.hashes

    def _read_again(self, span: Span) -> None:
        if not self._reads_the_same(span):
            raise ProofFailed(
                f"bytes {span.start} to {span.end} of {self._landing.name} were different when read again"
            )

    def _reads_the_same(self, span: Span) -> bool:
        theirs = self.store.read(self._landing.task.source, span.start)
        return agreeing_bytes(self._desk, theirs, self._landing.sink, span) == span.length

    def _throw_away(self) -> None:
        """Discard what was fetched: it mixes two versions or failed verification, and must not be resumed."""
        if self._landing.throw_away():
            checkpoint = self._landing.checkpoint(self._landing.end)
            self._desk.post(lambda: self._forget(checkpoint))
