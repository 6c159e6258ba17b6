"""A model of sshd's door: how many may log in at a time, and how long that takes.

MaxStartups 10:30:100 (sshd_config(5)): with 10 logins under way, 30 % of new connections are dropped; the share grows
linearly until all are dropped at 100. A login keeps its place until it has succeeded or LoginGraceTime is over.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from dataclasses import dataclass

__all__ = ["Door", "Login", "MaxStartups"]

GRACE_S = 120.0


@dataclass(frozen=True)
class MaxStartups:
    """start:rate:full of sshd_config."""

    start: int = 10
    rate: int = 30
    full: int = 100

    def __str__(self) -> str:
        return f"{self.start}:{self.rate}:{self.full}"

    def dropped_percent(self, under_way: int) -> int:
        """As in sshd's should_drop_connection(), whole numbers included."""
        if under_way < self.start:
            return 0
        if under_way >= self.full:
            return 100
        return (100 - self.rate) * (under_way - self.start) // (self.full - self.start) + self.rate


@dataclass(frozen=True)
class Login:
    """What a login costs. cpu_s: on one of the server's cores, in turn; link_s: round trips, side by side."""

    cpu_s: float = 0.02
    link_s: float = 1.5
    cores: int = 2


class Door:
    """One server. random: within [0, 1)."""

    def __init__(self, limits: MaxStartups, login: Login, random: Callable[[], float]) -> None:
        self._limits = limits
        self._login = login
        self._random = random
        self._ends: list[float] = []
        self._free_at = [0.0] * login.cores
        self.most_under_way = 0

    def connect(self, now: float) -> tuple[float, bool] | None:
        """-> when that login is over, and whether it has succeeded; None: dropped at the door.

        Calls come in the order of time.
        """
        if self._drops(now):
            return None
        begins = max(now, heapq.heappop(self._free_at))
        heapq.heappush(self._free_at, begins + self._login.cpu_s)
        ends = begins + self._login.cpu_s + self._login.link_s
        return self._enter(now, ends)

    def connect_for(self, now: float, seconds: float) -> bool:
        """A login that is known to take so long -> whether it was let in."""
        return not self._drops(now) and bool(self._enter(now, now + seconds))

    def _drops(self, now: float) -> bool:
        while self._ends and self._ends[0] <= now:
            heapq.heappop(self._ends)
        return 100 * self._random() < self._limits.dropped_percent(len(self._ends))

    def _enter(self, now: float, ends: float) -> tuple[float, bool]:
        over_at = min(ends, now + GRACE_S)
        heapq.heappush(self._ends, over_at)
        self.most_under_way = max(self.most_under_way, len(self._ends))
        return over_at, ends <= now + GRACE_S
