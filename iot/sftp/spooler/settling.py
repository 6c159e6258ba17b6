"""Which files are settled: nobody seems to be writing to them any more.

A file seen for the first time is settled when its modification time is settle_s old. Else, and for settle_s after the
wall clock jumped, it is watched on the monotonic clock until size and modification time have stayed the same for
settle_s. Only renaming a finished file into the outbox guarantees that it is complete; settle_s = 0 is for that.
"""

from __future__ import annotations

from iot.sftp.client import Fingerprint

__all__ = ["Settling"]

JUMP_S = 1.0
WATCHED_MAX = 20_000


class Settling:
    """The files of one outbox that are being watched.

    settle_s: seconds of quiet. Bounded: beyond WATCHED_MAX files the rest is looked at by the next walk, when most of
    them have become old enough.
    """

    def __init__(self, settle_s: float) -> None:
        self.settle_s = settle_s
        self.overflowed = False
        self._watched: dict[bytes, tuple[Fingerprint, float]] = {}
        self._clock_offset: float | None = None
        self._distrust_until = float("-inf")

    def __len__(self) -> int:
        return len(self._watched)

    def clocks(self, now: float, wall: float) -> None:
        """Tell both clocks, in seconds: a jump of the wall clock makes file times worthless for a while."""
        offset = wall - now
        if self._clock_offset is not None and abs(offset - self._clock_offset) > JUMP_S:
            self._distrust_until = now + self.settle_s
        self._clock_offset = offset

    def settled(self, path: bytes, fingerprint: Fingerprint, now: float, wall: float) -> bool:
        """Whether this version is settled; if not, it is watched from now on."""
        if self.settle_s <= 0:
            return True
        watched = self._watched.get(path)
        if watched is None:
            if now >= self._distrust_until and wall - fingerprint.mtime_ns / 1e9 >= self.settle_s:
                return True
        elif _quiet(watched[0], fingerprint):
            if now - watched[1] < self.settle_s:
                return False
            del self._watched[path]
            return True
        self._watch(path, fingerprint, now)
        return False

    def due(self, now: float) -> list[bytes]:
        """Watched files whose time has come: look at them again."""
        return [path for path, (_, since) in self._watched.items() if now - since >= self.settle_s]

    def next_due(self) -> float | None:
        """When the first of the watched files may be settled, on the monotonic clock."""
        first = min((since for _, since in self._watched.values()), default=None)
        return None if first is None else first + self.settle_s

    def forget(self, path: bytes) -> None:
        self._watched.pop(path, None)

    def _watch(self, path: bytes, fingerprint: Fingerprint, now: float) -> None:
        if path not in self._watched and len(self._watched) >= WATCHED_MAX:
            self.overflowed = True
            return
        self._watched[path] = (fingerprint, now)


def _quiet(before: Fingerprint, now: Fingerprint) -> bool:
    return (before.size, before.mtime_ns) == (now.size, now.mtime_ns)
