"""Send what a part still lacks, and read back what the server may have lost at the same time.

A device's link is rarely full in both directions: while blocks go up, suspect spans come down, are compared with the
source, and are rewritten if they differ.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from iot.sftp.client.jobs.context import Context
from iot.sftp.client.jobs.proof import agreeing
from iot.sftp.client.pipeline.job import WAIT, Room, Send, Work, expect_ok
from iot.sftp.client.protocol import packets
from iot.sftp.client.protocol.packets import Reply, Request, Status
from iot.sftp.client.protocol.server import Refusal, Server
from iot.transfer.errors import (
    LocalStateError,
    NoSpaceOnServer,
    PermanentError,
    PermissionDenied,
    SFTPError,
    Unsupported,
)
from iot.transfer.model import Span
from iot.transfer.source import Source
from iot.transfer.window import PartState, SyncMark

SYNC_EVERY_S = 1.0
SYNC_EVERY_BYTES = 1024 * 1024
SYNC_PAUSE_S = 0.25
READ_BACK_BYTES = 1024 * 1024
READ_BACK_BLOCK = 32 * 1024
READ_EARLY_BYTES = 4 * 1024
"""A block of up to this size is read before there is room for it. Many jobs wait for room at the same time, and with
larger blocks in their hands they would fill the memory of a device."""


class NoResume(Exception):
    """The server refuses to resume a part: start over. certain: nothing else explains it, so remember it."""

    def __init__(self, *, certain: bool = True) -> None:
        super().__init__()
        self.certain = certain


class NoReadBack(Exception):
    """The server does not allow reading a part: suspect bytes are sent again."""


@dataclass(frozen=True, slots=True)
class ReadBack:
    """The token of a READ of a suspect span."""

    span: Span


class Sending:
    """Completes one part.

    handle: of the part, open for writing; `ending` closes it.
    reader: a second handle of it, open for reading; empty without suspect spans.
    resumed: the part was reopened, so a refusal of the first write means that the server cannot resume.
    on_progress: called after each batch of answers. may_go_on: called before each further byte is sent; raises
        Cancelled to stop.
    """

    def __init__(
        self,
        context: Context,
        source: Source,
        state: PartState,
        handle: bytes,
        reader: bytes,
        ending: dict[str, Request],
        resumed: bool,
        on_progress: Callable[[], None],
        may_go_on: Callable[[], None],
    ) -> None:
        self._context = context
        self._source = source
        self._state = state
        self._handle = handle
        self._reader = reader
        self._ending = dict(ending)
        self._endings = len(ending)
        self._ended: dict[str, Reply] = {}
        self._resumed = resumed
        self._on_progress = on_progress
        self._may_go_on = may_go_on
        self._outstanding = 0
        self._reading_bytes = 0
        self._to_mend: list[Span] = []  # a deque is ten times as large, and most stay empty
        self._next: Span | None = None
        self._sync_runs = False
        self._synced_at = float("-inf") if resumed else context.clock()  # sync what an earlier attempt left first
        self._failure: Exception | None = None
        self.sent_bytes = 0

    @property
    def closing(self) -> bool:
        """CLOSE was sent: whatever happens, the handle is no longer ours."""
        return "close" not in self._ending

    def run(self) -> Work[dict[str, Reply]]:
        """Ends when every write is answered and no span is suspect -> the answers to `ending`.

        The ending follows the last write in the same flight if the server handles requests in order.
        Raises: NoResume, PermanentError, ServerBusy, SourceUnreadable.
        """
        while self._failure is None and not (self._state.complete and len(self._ended) == self._endings):
            try:
                command = self._next_read_back() or self._next_sync() or self._next_write() or self._next_ending()
            except SFTPError as error:  # the source can no longer be read, or the job is suspended
                self._failure = error
                break
            if isinstance(command, Send):
                self._outstanding += 1
            self._take((yield command or WAIT))
        while self._outstanding:  # also after a failure: no answer may arrive after the handle is closed
            self._take((yield WAIT))
        if self._failure is not None:
            raise self._failure
        return self._ended

    # -- what to send next

    def _next_write(self) -> Send | Room | None:
        if self._next or self._to_mend or not self._state.all_sent:
            self._may_go_on()
        span, self._next = self._next, None
        if span is not None:  # there is room for it by now
            return self._write(span)
        span = self._to_mend.pop(0) if self._to_mend else self._state.next_block(self._context.write_block)
        if span is not None and span.length > READ_EARLY_BYTES:
            self._next = span
            return Room(span.length)
        return self._write(span) if span is not None else None

    def _write(self, span: Span) -> Send:
        self.sent_bytes += span.length
        return Send(packets.write(self._handle, span.start, self._source.read(span)), span)

    def _next_read_back(self) -> Send | None:
        if self._reading_bytes >= READ_BACK_BYTES:
            return None
        span = self._state.next_suspect(min(self._context.read_block, READ_BACK_BLOCK))
        if span is None:
            return None
        self._reading_bytes += span.length
        request = packets.read(self._reader, span.start, span.length)
        return Send(Request(request.kind, request.head), ReadBack(span))  # costs nothing: the other direction is idle

    def _next_sync(self) -> Send | None:
        """An fsync every second or MiB, but at most four a second, limits what a power cut of the server can lose."""
        if self._context.options.trust or not self._context.server.can_fsync:
            return None
        if self._sync_runs or not self._state.unsynced:
            return None
        many = self._state.acked - self._state.synced >= SYNC_EVERY_BYTES
        if self._context.clock() - self._synced_at < (SYNC_PAUSE_S if many else SYNC_EVERY_S):
            return None
        if len(self._ending) < self._endings:  # the ending has its own fsync and closes the handle
            return None
        self._sync_runs = True
        return Send(packets.fsync(self._handle), self._state.sync_mark())

    def _next_ending(self) -> Send | None:
        may = self._state.complete and not self._outstanding
        if not self._ending or not (may or (self._context.server.in_order and self._state.all_sent)):
            return None
        name = next(iter(self._ending))
        return Send(self._ending.pop(name), name)

    # -- handling answers

    def _take(self, answers: list[tuple[Any, Reply]]) -> None:
        for token, reply in answers:
            self._outstanding -= 1
            try:
                self._answered(token, reply)
            except (PermanentError, LocalStateError, NoResume) as error:
                self._failure = self._failure or error
        if answers:
            self._on_progress()

    def _answered(self, token: Any, reply: Reply) -> None:
        if isinstance(token, str):
            self._ended[token] = reply
        elif isinstance(token, SyncMark):
            self._synced(token, reply)
        elif isinstance(token, ReadBack):
            self._read_back(token.span, reply)
        else:
            self._written(token, reply)

    def _synced(self, mark: SyncMark, reply: Reply) -> None:
        self._sync_runs = False
        self._synced_at = self._context.clock()
        if isinstance(reply, Status) and reply.ok:
            self._state.sync_done(mark)
        elif isinstance(reply, Status) and reply.code == packets.Code.OP_UNSUPPORTED:
            self._context.server.learn(Refusal.FSYNC)
        else:
            expect_ok(reply, "the server could not sync the part to disk")

    def _read_back(self, span: Span, reply: Reply) -> None:
        self._reading_bytes -= span.length
        try:
            agreed = agreeing(reply, self._source, span)
        except PermanentError as error:
            note_refused_reading(self._context.server, error)
            agreed = 0  # unreadable means unproven: send it again
        if agreed == span.length:
            self._state.proven(span)
        elif agreed:
            self._state.read_short(span, span.start + agreed)
        else:
            self._state.mend(span)
            self._to_mend.append(span)

    def _written(self, span: Span, reply: Reply) -> None:
        if isinstance(reply, Status) and reply.ok:
            self._resumed = False  # a write at an offset succeeded: this server can resume
            return self._state.answered(span)
        try:
            expect_ok(reply, f"writing bytes {span.start} to {span.end} of {self._source.name}")
        except NoSpaceOnServer:
            raise
        except PermanentError as error:
            if self._resumed:
                raise NoResume from error
            raise


def note_refused_reading(server: Server, refusal: SFTPError) -> None:
    """Only a refusal of reading as such is remembered: a gateway with a cache may fail single reads for a while."""
    if isinstance(refusal, PermissionDenied | Unsupported):
        server.learn(Refusal.READ_BACK)
