"""One download, from the look at the remote file to the renamed local one; a job for the pipeline.

    look -> go on behind what is there -> read to the end -> look again -> prove -> publish

The local part lies beside the destination and is brought to the disk before any checkpoint speaks of its bytes,
so a device's power cut costs at most what came since the last one. It gets its final name only when the remote file
is still the one that was looked at first and the content is proven as far as the settings ask.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import BinaryIO

from iot.sftp.client.jobs.checksum_file import fetch_sha256_file
from iot.sftp.client.jobs.context import Context
from iot.sftp.client.jobs.look import look
from iot.sftp.client.jobs.proof import hash_of, same_content, same_hash
from iot.sftp.client.jobs.reading import Reading
from iot.sftp.client.jobs.upload import PROGRESS_EVERY_S
from iot.sftp.client.pipeline.job import Work, ask, expect_handle
from iot.sftp.client.protocol import packets
from iot.sftp.client.protocol.packets import Flag
from iot.transfer.errors import NotFound, PermanentError, ProofFailed, SFTPError, SourceChanged
from iot.transfer.model import (
    Checkpoint,
    Direction,
    Evidence,
    Fingerprint,
    Progress,
    ProgressCallback,
    Proof,
    RemoteFile,
    Span,
    TransferResult,
)
from iot.transfer.names import part_name
from iot.transfer.sink import FileSink, Kept, Sink, StreamSink

TYPE_BITS, FOLDER, REGULAR = 0o170000, 0o040000, 0o100000


@dataclass(frozen=True, slots=True)
class DownloadTask:
    """What to fetch to where: a local path, or a writable seekable binary file.

    expected_sha256: what the content must hash to, as lower-case hex digits.
    """

    source: bytes
    dest: str | BinaryIO
    progress: ProgressCallback | None = None
    expected_sha256: str | None = None


class Download:
    """The state of one download; `run` is the story."""

    def __init__(self, task: DownloadTask, context: Context) -> None:
        self.task = task
        self.context = context
        self._sink: Sink = StreamSink(task.dest) if not isinstance(task.dest, str) else self._file_sink(task.dest)
        self._remote = RemoteFile(None)
        self._reading = Reading(context, self._name, None, self._sink.write, self._progressed)
        self._resumed_at = 0
        self._saved = (0, 0.0)
        self._digest: str | None = None
        self._started_at = self._told_at = context.clock()

    def run(self) -> Work[TransferResult]:
        """Raises: NotFound, SourceChanged, ProofFailed, PermissionDenied, LocalStateError ..."""
        try:
            self._remote = yield from self._look()
            expected = yield from self._expected_hashes()
            self._resumed_at = yield from self._begin()
            yield from self._fetch()
            yield from self._look_again()
            proof, evidence = yield from self._prove(expected)
            self._sink.publish(self._kept())
            return self._result(proof, evidence)
        except (SourceChanged, ProofFailed):
            self._throw_away()
            raise
        finally:
            self._sink.close()

    @property
    def part(self) -> bytes:
        """The local part's path; empty for an open file."""
        return self._sink.part

    @property
    def received_bytes(self) -> int:
        """So many bytes of the file has this connection given, those read twice included."""
        return self._reading.received_bytes

    # -- begin

    def _file_sink(self, dest: str) -> FileSink:
        local = os.fsencode(os.path.abspath(dest))
        options = self.context.options
        return FileSink(local, part_name(local, self.task.source, options.owner, options.part_suffix))

    def _look(self) -> Work[RemoteFile]:
        found = yield from look(self.task.source)
        if found is None:
            raise NotFound(f"{self._name} is not on the server")
        kind = (found.mode or 0) & TYPE_BITS
        if kind == FOLDER:
            raise NotFound(f"{self._name} is a folder, not a file")
        if kind not in (REGULAR, 0):
            raise PermanentError(f"{self._name} is not a regular file, but a device, a pipe or a socket")
        return found

    def _expected_hashes(self) -> Work[list[tuple[str, Evidence]]]:
        expected = []
        if self.task.expected_sha256 is not None:
            expected.append((self.task.expected_sha256, Evidence.EXPECTED_HASH))
        if self.context.options.sidecar:
            expected.append(((yield from fetch_sha256_file(self.task.source)), Evidence.SHA256_FILE))
        return expected

    def _begin(self) -> Work[int]:
        """Open the part -> the offset to go on at, behind what an earlier attempt has brought to the disk."""
        offset = self._usable_bytes()
        options = self.context.options
        private = options.keep_mode and self._remote.mode is not None
        self._sink.open(offset, private=private)
        if offset and options.verify in ("tail", "full"):
            start = 0 if options.verify == "full" else max(0, offset - options.tail_size)
            if not (yield from same_content(self.context, self.task.source, self._sink, Span(start, offset))):
                offset = 0
                self._sink.open(offset, private=private)
        self._saved = (offset, self.context.clock())
        return offset

    def _usable_bytes(self) -> int:
        """What of the part was read from the remote file as it is now; nothing, where the server cannot tell."""
        if not self.context.options.resume or not self._sink.path:
            return 0
        known = self.context.ledger.load(Direction.DOWNLOAD, self.task.source, self._sink.path)
        if known is None or known.part != self._sink.part or not self._is_same_version(known.fingerprint):
            return 0
        return min(known.acked_bytes, self._sink.size())

    def _is_same_version(self, known: Fingerprint) -> bool:
        size, mtime_s = self._remote.size, self._remote.mtime_s
        if not size or size != known.size:
            return False
        return self.context.options.verify == "size" or (bool(mtime_s) and _version(self._remote) == known)

    # -- fetch

    def _fetch(self) -> Work[None]:
        opening = yield from ask(packets.open_file(self.task.source, Flag.READ))
        handle = expect_handle(opening, f"cannot open {self._name!r}")
        self._reading = Reading(self.context, self._name, self._remote.size, self._sink.write, self._progressed)
        try:
            yield from self._reading.run(handle, self._resumed_at)
        except SFTPError:
            yield from ask(packets.close(handle))
            raise
        finally:
            self._save()
        yield from ask(packets.close(handle))

    def _progressed(self) -> None:
        self._tell(self._reading.end)
        saved_bytes, saved_at = self._saved
        options = self.context.options
        many = self._reading.end - saved_bytes >= options.checkpoint_bytes
        if many or self.context.clock() - saved_at >= options.checkpoint_s:
            self._save()

    def _save(self) -> None:
        """Bring the bytes to the disk, then let the checkpoint speak of them."""
        end = self._reading.end
        if end <= self._saved[0] or not self._sink.path:
            return
        self._sink.sync()
        self._saved = (end, self.context.clock())
        self.context.ledger.note(self._checkpoint(end))

    def _checkpoint(self, acked: int) -> Checkpoint:
        return Checkpoint(
            direction=Direction.DOWNLOAD,
            remote_path=self.task.source,
            local_path=self._sink.path,
            part=self._sink.part,
            fingerprint=_version(self._remote),
            acked_bytes=acked,
            synced_bytes=acked,
        )

    # -- prove

    def _look_again(self) -> Work[None]:
        now = yield from self._look()
        if (now.size, now.mtime_s) != (self._remote.size, self._remote.mtime_s):
            raise SourceChanged(f"{self._name} changed on the server while it was fetched")

    def _prove(self, expected: list[tuple[str, Evidence]]) -> Work[tuple[Proof | None, Evidence]]:
        """-> what is proven by what. A hash that is known from elsewhere leaves nothing to be read again."""
        options = self.context.options
        if expected or options.sha256:
            self._digest = yield from hash_of(self._sink)
        for digest, evidence in expected:
            if digest != self._digest:
                raise ProofFailed(f"{self._name} has SHA-256 {self._digest}, but the {evidence.value} is {digest}")
        if expected:
            return Proof.FULL, expected[0][1]
        if options.proof is Proof.FULL:
            return Proof.FULL, (yield from self._prove_whole())
        if options.proof is Proof.TAIL:
            yield from self._read_again(Span(max(0, self._reading.end - options.tail_size), self._reading.end))
            return Proof.TAIL, Evidence.SECOND_READING
        return (Proof.SIZE, Evidence.SIZE) if self._remote.size == self._reading.end else (None, Evidence.END_OF_FILE)

    def _prove_whole(self) -> Work[Evidence]:
        same = yield from same_hash(self.context, self.task.source, self._sink)
        if same is None:
            yield from self._read_again(Span(0, self._reading.end))
            return Evidence.SECOND_READING
        if not same:
            raise ProofFailed(f"the server's SHA-256 of {self._name} is not that of what was fetched")
        return Evidence.SERVER_HASH

    def _read_again(self, span: Span) -> Work[None]:
        if not (yield from same_content(self.context, self.task.source, self._sink, span)):
            raise ProofFailed(f"bytes {span.start} to {span.end} of {self._name} read differently a second time")

    def _throw_away(self) -> None:
        """What was fetched belongs to no version, or is not what it should be: nothing may go on from there."""
        self._sink.discard()
        if self._sink.path:
            self.context.ledger.forget(self._checkpoint(0))

    # -- end

    def _kept(self) -> Kept:
        options = self.context.options
        return Kept(
            self._remote.mode if options.keep_mode else None, self._remote.mtime_s if options.keep_times else None
        )

    def _result(self, proof: Proof | None, evidence: Evidence) -> TransferResult:
        self._told_at = 0.0
        self._tell(self._reading.end)
        return TransferResult(
            source=self._name,
            dest=self._sink.name,
            size=self._reading.end,
            sent_bytes=self.received_bytes,
            resumed_at=self._resumed_at,
            seconds=self.context.clock() - self._started_at,
            proof=proof,
            evidence=evidence,
            durable=bool(self._sink.path),
            sha256=self._digest,
            fingerprint=_version(self._remote),
            local_path=self._sink.path,
        )

    def _tell(self, done_bytes: int) -> None:
        if self.task.progress is None or self.context.clock() - self._told_at < PROGRESS_EVERY_S:
            return
        self._told_at = self.context.clock()
        total_bytes = max(done_bytes, self._remote.size or 0)  # a size of 0 or none is no total
        self.task.progress(Progress(self._name, done_bytes, total_bytes, self._resumed_at))

    @property
    def _name(self) -> str:
        return self.task.source.decode("utf-8", "surrogateescape")


def _version(found: RemoteFile) -> Fingerprint:
    return Fingerprint(found.size or 0, (found.mtime_s or 0) * 10**9)
