"""Tracks which bytes of a part are still to send, sent, acked, synced or suspect. Pure.

    0 .......... synced .......... acked ....... sent ....... size
                 |<- suspect after a loss ->|

acked: the contiguous prefix whose writes were answered, in whatever order the answers came.
synced: the value of acked when the last successful fsync was sent.
suspect: spans below acked that the server may have lost: they are read back, and rewritten where they differ. A
span that was rewritten, by this connection or an earlier one, stays suspect until an fsync that was sent
afterwards has succeeded.
"""

from __future__ import annotations

from dataclasses import dataclass

from iot.transfer.model import Span


class AckedPrefix:
    """The contiguous prefix of answered spans; answers may arrive in any order."""

    def __init__(self, start: int) -> None:
        self.end = start
        self._ahead: dict[int, int] = {}

    def add(self, span: Span) -> None:
        self._ahead[span.start] = span.end
        while self.end in self._ahead:
            self.end = self._ahead.pop(self.end)


@dataclass(frozen=True, slots=True)
class SyncMark:
    """What an fsync covers once it succeeds: everything answered before it was sent."""

    acked: int
    mended: frozenset[Span]


class PartState:
    """One part on the server.

    start: offset in bytes at which sending begins. size: of the whole file, in bytes.
    suspect: spans to read back. synced: number of bytes known to be on the server's disk.
    """

    def __init__(self, size: int, start: int = 0, suspect: tuple[Span, ...] = (), synced: int = 0) -> None:
        self.size = size
        self.synced = self._inherited = synced
        self._sent = start
        self._acked = AckedPrefix(start)
        self._unread = list(merge(suspect))
        self._reading: dict[Span, None] = {}  # an empty set is three times as large, and most stay empty
        self._mending: dict[Span, None] = {}
        self._mended: dict[Span, None] = {}

    @property
    def acked(self) -> int:
        return self._acked.end

    @property
    def complete(self) -> bool:
        """Every byte is answered, and nothing is left to read back or rewrite."""
        return self.acked == self.size and not (self._unread or self._reading or self._mending)

    @property
    def all_sent(self) -> bool:
        """Nothing is left to send, read back or rewrite, though answers may be outstanding."""
        return self._sent >= self.size and not (self._unread or self._reading or self._mending)

    @property
    def suspect(self) -> tuple[Span, ...]:
        """The spans that would have to be read back if the connection ended now; merged, in order."""
        return merge((*self._unread, *self._reading, *self._mending, *self._mended))

    @property
    def certain(self) -> int:
        """How many bytes would not have to be read back if the connection ended now."""
        return self.synced - sum(min(span.end, self.synced) - min(span.start, self.synced) for span in self.suspect)

    def next_block(self, limit: int) -> Span | None:
        """The next span to send, at most `limit` bytes; None when all is sent."""
        if self._sent >= self.size:
            return None
        span = Span(self._sent, min(self._sent + limit, self.size))
        self._sent = span.end
        return span

    def answered(self, span: Span) -> None:
        """A span was written successfully."""
        if span in self._mending:
            del self._mending[span]
            self._mended[span] = None
        else:
            self._acked.add(span)

    def next_suspect(self, limit: int) -> Span | None:
        """The next span to read back, at most `limit` bytes."""
        if not self._unread:
            return None
        first = self._unread[0]
        span = Span(first.start, min(first.start + limit, first.end))
        rest = Span(span.end, first.end)
        self._unread[:1] = [rest] if rest.length else []
        self._reading[span] = None
        return span

    def proven(self, span: Span) -> None:
        """A span was read back and is correct: the server has it, though perhaps not on disk.

        If an earlier connection counted it as synced, it was rewritten later, or it would not be suspect.
        """
        del self._reading[span]
        if span.start < self._inherited:
            self._mended[span] = None

    def read_short(self, span: Span, end: int) -> None:
        """A span was read back only up to `end`, and is correct so far: the rest must still be read."""
        del self._reading[span]
        self._reading[Span(span.start, end)] = None
        self.proven(Span(span.start, end))
        self._unread.insert(0, Span(end, span.end))

    def mend(self, span: Span) -> None:
        """A span was read back and differs, so it is being rewritten."""
        del self._reading[span]
        self._mending[span] = None

    def distrust(self) -> None:
        """The server failed the part as a whole (CLOSE, fsync, proof): all of it becomes suspect."""
        self._unread = [Span(0, self.acked)]
        self.synced = 0

    @property
    def unsynced(self) -> bool:
        return self.acked > self.synced or bool(self._mended)

    def sync_mark(self) -> SyncMark:
        return SyncMark(self.acked, frozenset(self._mended))

    def sync_done(self, mark: SyncMark) -> None:
        self.synced = max(self.synced, mark.acked)
        for span in mark.mended:
            self._mended.pop(span, None)


def merge(spans: tuple[Span, ...]) -> tuple[Span, ...]:
    """The same bytes in as few spans as possible, in order, without empty ones."""
    if not spans:
        return ()
    merged: list[Span] = []
    for span in sorted(span for span in spans if span.length > 0):
        if merged and span.start <= merged[-1].end:
            merged[-1] = Span(merged[-1].start, max(merged[-1].end, span.end))
        else:
            merged.append(span)
    return tuple(merged)
