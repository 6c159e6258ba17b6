"""When an outbox is walked, and how long a step of a walk may take. Pure: the clock is passed in.

Walks take at most a small share of the time, by measurement, and less while nothing happens. Where the kernel tells of
changes they are there for what it does not tell of, and rare.
"""

from __future__ import annotations

import enum

__all__ = ["Cadence", "Walk"]

TOLD_S = 900.0
UNTOLD_S = 10.0
"""Seconds between two walks where the kernel tells of changes, and where it does not."""
SOON_S = 10.0
"""What is doubtful waits no longer, if walks are quick."""
WHOLE_SHARE = 2000.0
QUICK_SHARE = 20.0
BUSY_SHARE = 5.0
WHOLE_MAX_S = 600.0
QUICK_MAX_S = 60.0
FAILED_MIN_S = 1.0
CHECK_S = 10.0
"""Between two looks whether the outbox is still the same folder: while an agent has it open, the kernel does not tell
of its removal, and never of a mount over it."""
NEVER = float("inf")
AT_ONCE = float("-inf")


class Walk(enum.Enum):
    """WHOLE: every file. QUICK: folders that have changed. NEW: folders that were reported."""

    WHOLE = enum.auto()
    QUICK = enum.auto()
    NEW = enum.auto()


class Cadence:
    """The times of one outbox, in seconds of the monotonic clock.

    scan_s: seconds between two walks as configured; None: as the kernel tells of changes or not. told: whether it does.
    step_at: when the next step may be made. lost: the last walk could not be finished.
    """

    def __init__(self, scan_s: float | None) -> None:
        self.told = False
        self.lost = False
        self.step_at = AT_ONCE
        self._scan_s = scan_s
        self._quick_at = self._whole_at = AT_ONCE
        self._check_at = AT_ONCE
        self._cost_s = 0.0
        self._hurried = False

    @property
    def scan_s(self) -> float:
        """Seconds between two walks, if they are quick."""
        if self._scan_s is not None:
            return self._scan_s
        return TOLD_S if self.told else UNTOLD_S

    @property
    def next_s(self) -> float:
        """When the next walk is due."""
        return min(self._quick_at, self._whole_at)

    @property
    def next_check_s(self) -> float:
        """When the next look at the folder itself is due."""
        return self._check_at

    def check_is_due(self, now: float) -> bool:
        """Whether to look at the folder itself now; if so, the next look is due in a while."""
        if now < self._check_at:
            return False
        self._check_at = now + CHECK_S
        return True

    def wake(self) -> None:
        """Walk everything at once."""
        self._quick_at = self._whole_at = self.step_at = AT_ONCE

    def soon(self, now: float) -> None:
        """Walk what has changed sooner than planned."""
        self._quick_at = min(self._quick_at, self._soon_at(now))

    def whole_soon(self, now: float) -> None:
        """Walk everything sooner than planned."""
        self._hurried = True
        self._whole_at = min(self._whole_at, self._soon_at(now))

    def begin(self, now: float) -> Walk:
        """A walk that is due begins."""
        self._cost_s = 0.0
        self.step_at = now
        return Walk.WHOLE if now >= self._whole_at or self.lost else Walk.QUICK

    def stepped(self, began_s: float, now: float, *, busy: bool) -> None:
        """A step has taken so long: when the next one may be made. busy: transfers take precedence."""
        spent_s = now - began_s
        self._cost_s += spent_s
        self.step_at = began_s + spent_s * (BUSY_SHARE if busy else 1.0)

    def finished(self, walk: Walk, now: float, *, again: bool) -> None:
        """again: somebody has asked for a whole walk during this one."""
        if walk is Walk.NEW:
            return
        self.lost = False
        self._quick_at = now + self._after(self.scan_s, QUICK_SHARE, QUICK_MAX_S)
        if walk is Walk.WHOLE and not again:
            self._whole_at = now + self._after(self.scan_s, WHOLE_SHARE, WHOLE_MAX_S)
        if self._hurried:
            self._hurried = False
            self._whole_at = min(self._whole_at, self._soon_at(now))

    def failed(self, now: float) -> None:
        """The outbox could not be read."""
        self.lost = True
        self._quick_at = self._whole_at = now + max(min(self.scan_s, SOON_S), FAILED_MIN_S)

    def _soon_at(self, now: float) -> float:
        return now + self._after(min(self.scan_s, SOON_S), QUICK_SHARE, QUICK_MAX_S)

    def _after(self, scan_s: float, share: float, most_s: float) -> float:
        return max(scan_s, min(self._cost_s * share, most_s))
