"""Which files are ready: complete, as far as that can be known.

A file must first be quiet. One seen for the first time counts as quiet if its modification time is settle_s old.
Otherwise, and for a while after the wall clock jumped, it is watched on the monotonic clock until size and modification
time have been the same for settle_s. Then the kernel is asked whether it is open for writing (see lease), and again
before the file leaves the outbox. The outcome depends on the producer and on whether the kernel can tell:

    producer                           known: ext4, xfs, btrfs, tmpfs,      guessed: shared or foreign file systems,
                                       overlayfs, FAT; own files, or        files of other users without CAP_LEASE
                                       any with CAP_LEASE
    ---------------------------------  -----------------------------------  -----------------------------------------
    renames finished files in          sent once                            sent once
    writes and closes                  sent once                            sent once
    keeps it open, pauses > settle_s   sent once, after it was closed       sent in a pause; sent again as a whole while
                                                                            it changes, at most every hold_s
    reopens it to append               sent as it is between two writes;    as above
                                       the rest follows as a new file
    writes through a shared mapping    sent once, after it was unmapped     sent when its times have not changed, which
                                                                            the kernel may update late
    rewrites it in place               each version is sent when closed     as for keeping it open
    truncates it                       as a rewrite; without opening it     as a rewrite
                                       (truncate(2)) no close follows, so
                                       the next scan finds it

A delivered file whose completeness was guessed stays in place until it has been quiet for hold_s; a change before that
is a new version. A file known to be open is checked again from time to time, less often the longer it stays open.
settle_s = 0 is for producers that only rename finished files into place.
"""

from __future__ import annotations

from dataclasses import dataclass

from iot.transfer import Fingerprint

__all__ = ["Readiness"]

JUMP_S = 1.0
WATCHED_MAX = 20_000
ASK_AGAIN_SHARE = 0.1
ASK_AGAIN_MIN_S = 1.0
ASK_AGAIN_MAX_S = 30.0
CLOSING_S = 0.01
MANY = 1000
PAUSE_S = 0.25
"""Between two looks through many watched files."""


@dataclass(slots=True)
class Watched:
    """first_s: when the file was first seen; since_s: when this version was; look_s: when to look again; open: it is
    open for writing; closed: a writer has closed it since. Times in seconds of the monotonic clock."""

    fingerprint: Fingerprint
    first_s: float
    since_s: float
    look_s: float
    open: bool = False
    closed: bool = False


class Readiness:
    """The files of one outbox that are being watched.

    settle_s: seconds of quiet. At most WATCHED_MAX files are watched; the others are examined by the next walk, when
    most of them are old enough.
    """

    def __init__(self, settle_s: float) -> None:
        self.settle_s = settle_s
        self.overflowed = False
        self._watched: dict[bytes, Watched] = {}
        self._look_s = float("inf")
        self._clock_offset: float | None = None
        self._started_s = float("inf")
        self._jumped_s = float("-inf")

    def __len__(self) -> int:
        return len(self._watched)

    @property
    def open_files(self) -> int:
        """How many of the watched files are open for writing."""
        return sum(watched.open for watched in self._watched.values())

    def paths(self) -> list[bytes]:
        """The files that are being watched."""
        return list(self._watched)

    def is_open(self, path: bytes) -> bool:
        """Whether it was open for writing when it was last looked at."""
        watched = self._watched.get(path)
        return watched is not None and watched.open

    def was_closed(self, path: bytes) -> bool:
        """Whether a writer has closed it since it was first found open."""
        watched = self._watched.get(path)
        return watched is not None and watched.closed

    def clocks(self, now: float, wall: float) -> None:
        """Pass both clocks, in seconds: after a jump of the wall clock file times are not trusted for a while."""
        offset = wall - now
        if self._clock_offset is None:
            self._started_s = now
        elif abs(offset - self._clock_offset) > JUMP_S:
            self._jumped_s = now
        self._clock_offset = offset

    def quiet(self, path: bytes, fingerprint: Fingerprint, now: float, wall: float, hold_s: float = 0.0) -> bool:
        """Whether this version has been quiet for settle_s. If not, it is watched from now on.

        hold_s: seconds for which it must have been watched, too.
        """
        long_s = max(self.settle_s, hold_s)
        if long_s <= 0:
            return True
        watched = self._watched.get(path)
        if watched is None:
            if now - self._jumped_s >= long_s and wall - fingerprint.mtime_ns / 1e9 >= long_s:
                return True
        elif fingerprint.looks_like(watched.fingerprint):
            return now - watched.since_s >= self.settle_s and now - watched.first_s >= hold_s
        first_s = watched.first_s if watched is not None else now
        look_s = max(now + self.settle_s, first_s + hold_s)
        self._watch(path, Watched(fingerprint, first_s, now, look_s))
        return False

    def rested(self, fingerprint: Fingerprint, now: float, wall: float, seconds: float) -> bool:
        """Whether a file has been unchanged for so long by both clocks, without a jump of the wall clock meanwhile."""
        if seconds <= 0:
            return True
        steady_s = now - max(self._started_s, self._jumped_s)
        touched_ns = max(fingerprint.mtime_ns, fingerprint.ctime_ns)
        return steady_s >= seconds and wall - touched_ns / 1e9 >= seconds

    def opened(self, path: bytes, fingerprint: Fingerprint, now: float, *, soon: bool = False) -> None:
        """It is open for writing: check again later, at growing intervals. soon: the kernel is about to have closed it,
        since it tells of a close a moment before the lease is free."""
        watched = self._watched.get(path)
        if watched is None or not fingerprint.looks_like(watched.fingerprint):
            watched = Watched(fingerprint, now, now, now)
        open_s = now - watched.since_s
        watched.open = True
        is_first, watched.closed = soon and not watched.closed, soon or watched.closed
        wait_s = min(max(open_s * ASK_AGAIN_SHARE, ASK_AGAIN_MIN_S), ASK_AGAIN_MAX_S)
        watched.look_s = now + (CLOSING_S if is_first else wait_s)
        self._watch(path, watched)

    def due(self, now: float, limit: int) -> list[bytes]:
        """Watched files that are due to be examined again. Those still undecided then come up again."""
        if now < self._look_s:
            return []
        ripe = [path for path, watched in self._watched.items() if watched.look_s <= now][:limit]
        for path in ripe:
            self._watched[path].look_s = now + ASK_AGAIN_MIN_S
        first_s = min((watched.look_s for watched in self._watched.values()), default=float("inf"))
        self._look_s = max(first_s, now + PAUSE_S) if len(self._watched) > MANY and len(ripe) < limit else first_s
        return ripe

    def next_due(self) -> float:
        """When the first watched file may be ready, on the monotonic clock; infinity when there is none."""
        return self._look_s

    def forget(self, path: bytes) -> None:
        """Stop watching it: it is in the queue, or gone."""
        self._watched.pop(path, None)

    def _watch(self, path: bytes, watched: Watched) -> None:
        if path not in self._watched and len(self._watched) >= WATCHED_MAX:
            self.overflowed = True
            return
        self._watched[path] = watched
        self._look_s = min(self._look_s, watched.look_s)
