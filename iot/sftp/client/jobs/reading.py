"""Read an open remote file to its end, with many READs in flight.

Only an EOF answer marks the end of a file. The size reported by STAT is a hint: generated files report 0, some servers
report none, and a file may be shorter or longer than reported. So READs are sent up to the reported size and one beyond
it, for a single byte, and further as long as data arrives. A short answer is not the end: the rest is requested again
from where it stopped. If the end is not at the reported size, the server is asked once more.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from iot.sftp.client.jobs.context import Context
from iot.sftp.client.pipeline.job import WAIT, Send, Work, ask, expect_data
from iot.sftp.client.protocol import packets
from iot.sftp.client.protocol.packets import MAX_FILE_BYTES, Code, Reply, Status
from iot.transfer.errors import ServerRefused, SFTPError, SourceChanged
from iot.transfer.model import Span
from iot.transfer.window import AckedPrefix

__all__ = ["Reading"]


class Reading:
    """Reads one open remote file into `write(offset, data)`.

    name: for messages. size: as reported by the server, in bytes; None if it reports none.
    progressed: called after each batch of answers.
    """

    def __init__(
        self,
        context: Context,
        name: str,
        size: int | None,
        write: Callable[[int, memoryview], None],
        progressed: Callable[[], None],
    ) -> None:
        self._context = context
        self._name = name
        self._size = size
        self._write = write
        self._progressed = progressed
        self._outstanding = 0
        self._failure: SFTPError | None = None
        self.received_bytes = 0
        self._begin_at(0)

    @property
    def end(self) -> int:
        """Bytes received from the start without a gap."""
        return self._prefix.end

    def run(self, handle: bytes, start: int) -> Work[None]:
        """Read from `start` up to the end of the file.

        Raises: SourceChanged, ServerRefused, PermissionDenied, and what `write` raises (DiskFull, LocalStateError).
        """
        self._begin_at(start)
        yield from self._read_ahead(handle)
        while not self._ends_as_reported and (yield from self._goes_on(handle)):
            yield from self._read_ahead(handle)

    def _begin_at(self, start: int) -> None:
        self._prefix = AckedPrefix(start)
        self._next = self._furthest = start
        self._again: list[Span] = []
        self._end_at = MAX_FILE_BYTES
        self._limit = start + self._context.read_block
        if self._size and start <= self._size:
            self._limit = self._size + 1

    # -- ahead

    def _read_ahead(self, handle: bytes) -> Work[None]:
        while self._failure is None:
            span = self._next_span()
            if span is not None:
                self._outstanding += 1
                self._take((yield Send(packets.read(handle, span.start, span.length), span)))
            elif self._outstanding:
                self._take((yield WAIT))
            else:
                return
        while self._outstanding:
            self._take((yield WAIT))
        raise self._failure

    def _next_span(self) -> Span | None:
        while self._again:
            span = self._again.pop()
            if span.start < self._end_at:
                return span
        if self._next >= min(self._limit, self._end_at):
            return None
        end = self._next + self._context.read_block
        if self._size and self._next <= self._size:
            end = min(end, max(self._size, self._next + 1))
        span = Span(self._next, end)
        self._next = end
        return span

    def _take(self, answers: list[tuple[Any, Reply]]) -> None:
        for span, reply in answers:
            self._outstanding -= 1
            try:
                self._received(span, reply)
            except SFTPError as error:
                self._failure = self._failure or error
        if answers:
            self._progressed()

    def _received(self, span: Span, reply: Reply) -> None:
        if isinstance(reply, Status) and reply.code == Code.EOF:
            self._end_at = min(self._end_at, span.start)
            return
        data = expect_data(reply, f"cannot read {self._name!r}")
        if not 0 < len(data) <= span.length:
            raise ServerRefused(f"{self._name}: server sent {len(data)} bytes, but {span.length} were requested")
        end = span.start + len(data)
        self._write(span.start, data)
        self.received_bytes += len(data)
        self._prefix.add(Span(span.start, end))
        self._furthest = max(self._furthest, end)
        if end < span.end:
            self._again.append(Span(end, span.end))
        if end > (self._size or 0):
            self._limit = max(self._limit, end + self._step_bytes)

    @property
    def _step_bytes(self) -> int:
        """How far to read ahead in a file longer than reported: as much again as was received, within the window."""
        return max(self._context.read_block, min(self.received_bytes, self._context.pace.max_bytes))

    # -- the end

    @property
    def _ends_as_reported(self) -> bool:
        return self.end == self._furthest == self._size

    def _goes_on(self, handle: bytes) -> Work[bool]:
        """Ask again at the end -> whether there is more after all.

        Raises: SourceChanged if the file has data after its own end.
        """
        span = Span(self.end, self.end + self._context.read_block)
        reply = yield from ask(packets.read(handle, span.start, span.length))
        if isinstance(reply, Status) and reply.code == Code.EOF:
            if self._furthest > self.end:
                raise SourceChanged(f"{self._name} changed its size on the server during the download")
            return False
        self._received(span, reply)
        self._begin_at(self.end)
        return True
