"""One download, from the look at the remote file to the renamed local one; a job for the pipeline.

The local part lies beside the destination and is brought to the disk before any checkpoint speaks of its bytes,
so a device's power cut costs at most what came since the last one.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any, BinaryIO

from iot.sftp.client.errors import NotFound, SFTPError, SourceChanged
from iot.sftp.client.model import (
    Checkpoint,
    Direction,
    Fingerprint,
    Progress,
    ProgressCallback,
    Proof,
    RemoteFile,
    Span,
    TransferResult,
)
from iot.sftp.client.transfer.context import Context
from iot.sftp.client.transfer.look import look
from iot.sftp.client.transfer.names import part_name
from iot.sftp.client.transfer.sink import FileSink, Sink, StreamSink
from iot.sftp.client.transfer.upload import PROGRESS_EVERY_S
from iot.sftp.client.transfer.window import AckedPrefix
from iot.sftp.client.wire import packets
from iot.sftp.client.wire.job import TURN, WAIT, Send, Work, ask, expect_data, expect_handle
from iot.sftp.client.wire.packets import Code, Data, Flag, Reply, Status


@dataclass(frozen=True, slots=True)
class DownloadTask:
    """What to fetch to where: a local path, or a writable seekable binary file."""

    source: bytes
    dest: str | BinaryIO
    progress: ProgressCallback | None = None


class Download:
    """The state of one download; `run` is the story."""

    def __init__(self, task: DownloadTask, context: Context) -> None:
        self.task = task
        self.context = context
        self._sink: Sink = StreamSink(task.dest) if not isinstance(task.dest, str) else self._file_sink(task.dest)
        self._version = Fingerprint(0, 0)
        self._prefix = AckedPrefix(0)
        self._next = 0
        self._again: list[Span] = []
        self._outstanding = 0
        self._failure: SFTPError | None = None
        self._received_bytes = 0
        self._resumed_at = 0
        self._saved = (0, 0.0)
        self._started_at = self._told_at = context.clock()

    def run(self) -> Work[TransferResult]:
        """Raises: NotFound, SourceChanged, PermissionDenied, LocalStateError ..."""
        try:
            self._version = _version((yield from self._look()))
            self._begin()
            handle = expect_handle(
                (yield from ask(packets.open_file(self.task.source, Flag.READ))), self._doing("open")
            )
            try:
                yield from self._fetch(handle)
            finally:
                self._save()
            yield from ask(packets.close(handle))
            if _version((yield from self._look())) != self._version:
                raise SourceChanged(f"{self._name} changed on the server while it was fetched")
            digest = yield from self._hash()
            self._sink.publish()
            return self._result(digest)
        except SourceChanged:
            self._restart()
            raise
        finally:
            self._sink.close()

    @property
    def part(self) -> bytes:
        """The local part's path; empty for an open file."""
        return self._sink.part

    # -- begin

    def _file_sink(self, dest: str) -> FileSink:
        local = os.fsencode(os.path.abspath(dest))
        options = self.context.options
        return FileSink(local, part_name(local, self.task.source, options.owner, options.part_suffix))

    def _look(self) -> Work[RemoteFile]:
        found = yield from look(self.task.source)
        if found is None:
            raise NotFound(f"{self._name} is not on the server")
        if found.mode is not None and found.mode & 0o170000 == 0o040000:
            raise NotFound(f"{self._name} is a folder, not a file")
        return found

    def _begin(self) -> None:
        """Go on behind what an earlier attempt has on the disk, if the remote file is still the same."""
        known = None
        if self.context.options.resume and self._sink.path:
            known = self.context.ledger.load(Direction.DOWNLOAD, self.task.source, self._sink.path)
        offset = 0
        if known is not None and known.fingerprint == self._version and known.part == self._sink.part:
            offset = min(known.acked_bytes, self._sink.size())
        self._sink.open(offset)
        self._prefix = AckedPrefix(offset)
        self._next = self._resumed_at = offset
        self._saved = (offset, self.context.clock())

    # -- fetch

    def _fetch(self, handle: bytes) -> Work[None]:
        size = self._version.size
        while self._failure is None and self._prefix.end < size:
            span = self._next_span(size)
            if span is None:
                self._take((yield WAIT))
                continue
            self._outstanding += 1
            self._take((yield Send(packets.read(handle, span.start, span.length), span)))
        while self._outstanding:
            self._take((yield WAIT))
        if self._failure is not None:
            yield from ask(packets.close(handle))
            raise self._failure

    def _next_span(self, size: int) -> Span | None:
        if self._again:
            return self._again.pop()
        if self._next >= size:
            return None
        span = Span(self._next, min(self._next + self.context.read_block, size))
        self._next = span.end
        return span

    def _take(self, answers: list[tuple[Any, Reply]]) -> None:
        for span, reply in answers:
            self._outstanding -= 1
            try:
                self._received(span, reply)
            except SFTPError as error:
                self._failure = self._failure or error
        if answers:
            self._tell(self._prefix.end)
        saved_bytes, saved_at = self._saved
        options, now = self.context.options, self.context.clock()
        due = self._prefix.end - saved_bytes >= options.checkpoint_bytes or now - saved_at >= options.checkpoint_s
        if due:
            self._save()

    def _received(self, span: Span, reply: Reply) -> None:
        if isinstance(reply, Status) and reply.code == Code.EOF:
            raise SourceChanged(f"{self._name} became shorter on the server while it was fetched")
        data = reply.value if isinstance(reply, Data) else expect_data(reply, self._doing("read"))
        if not 0 < len(data) <= span.length:
            raise SourceChanged(f"{self._name}: server sent {len(data)} bytes where {span.length} were asked for")
        self._sink.write(span.start, data)
        self._received_bytes += len(data)
        self._prefix.add(Span(span.start, span.start + len(data)))
        if len(data) < span.length:
            self._again.append(Span(span.start + len(data), span.end))

    def _save(self) -> None:
        """Bring the bytes to the disk, then let the checkpoint speak of them."""
        end = self._prefix.end
        if end <= self._saved[0] or not self._sink.path:
            return
        self._sink.sync()
        self._saved = (end, self.context.clock())
        self.context.ledger.note(self._checkpoint(end))

    def _checkpoint(self, acked: int) -> Checkpoint:
        return Checkpoint(
            Direction.DOWNLOAD, self.task.source, self._sink.path, self._sink.part, self._version, acked, acked
        )

    def _restart(self) -> None:
        """The remote file is another one now: what was fetched belongs to no version."""
        self._sink.discard()
        if self._sink.path:
            self.context.ledger.forget(self._checkpoint(0))

    # -- end

    def _hash(self) -> Work[str | None]:
        if not self.context.options.sha256:
            return None
        for digest in self._sink.sha256():
            if digest is not None:
                return digest
            yield TURN
        return None

    def _result(self, digest: str | None) -> TransferResult:
        self._told_at = 0.0
        self._tell(self._version.size)
        return TransferResult(
            source=self._name,
            dest=self._sink.name,
            size=self._version.size,
            sent_bytes=self._received_bytes,
            resumed_at=self._resumed_at,
            seconds=self.context.clock() - self._started_at,
            proof=Proof.SIZE,
            durable=bool(self._sink.path),
            sha256=digest,
            fingerprint=self._version,
            local_path=self._sink.path,
        )

    def _tell(self, done_bytes: int) -> None:
        if self.task.progress is None or self.context.clock() - self._told_at < PROGRESS_EVERY_S:
            return
        self._told_at = self.context.clock()
        self.task.progress(Progress(self._name, done_bytes, self._version.size, self._resumed_at))

    @property
    def _name(self) -> str:
        return self.task.source.decode("utf-8", "surrogateescape")

    def _doing(self, what: str) -> str:
        return f"cannot {what} {self._name!r}"


def _version(found: RemoteFile) -> Fingerprint:
    return Fingerprint(found.size or 0, (found.mtime_s or 0) * 10**9)
