"""A stop request, which any thread and any signal handler may make."""

from __future__ import annotations

import time
from collections.abc import Callable

__all__ = ["WAKE_S", "StopFlag", "no_tick"]

WAKE_S = 0.1
"""Longest time in seconds that a waiter goes without checking the flag and ticking."""


def no_tick() -> None:
    """For a caller who has nothing to do meanwhile."""


class StopFlag:
    """Like threading.Event, but `set` takes no lock, which a thread interrupted by a signal may be holding.

    above: also counts as set when this flag is set.
    """

    __slots__ = ("_above", "_set")

    def __init__(self, above: StopFlag | None = None) -> None:
        self._above = above
        self._set = False

    def set(self) -> None:
        self._set = True

    def clear(self) -> None:
        self._set = False

    def is_set(self) -> bool:
        return self._set or (self._above is not None and self._above.is_set())

    def wait(self, seconds: float, tick: Callable[[], None] = lambda: None) -> bool:
        """Wait, ticking at least every WAKE_S -> whether the flag is set."""
        over_at = time.monotonic() + seconds
        while not self.is_set():
            left_s = over_at - time.monotonic()
            if left_s <= 0:
                return False
            time.sleep(min(left_s, WAKE_S))
            tick()
        return True
