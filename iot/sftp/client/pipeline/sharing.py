"""How transfers share one link: whose turn it is, and how long less urgent ones stand back. Pure.

Turns are counted in bytes, whatever the size and number of the requests: start-time fair queueing (Goyal, Vin, Cheng
1996). A request begins where the last one of its share ended, but never before the one that is being served, so that a
share that had nothing to send saves nothing up.

An urgent file of 1 KiB needs a few round trips, and each waits behind what is queued in front of the link. So while it
is under way, others send only what keeps the link full (see Pace.has_room); on a slow link, where one block takes as
long as a round trip, that is nothing. A stream of urgent files must not starve the others: as long as they stood back,
they then go on undisturbed.
"""

from __future__ import annotations

from collections.abc import Hashable

__all__ = ["Courtesy", "Turns"]

MOST_S = 3.0
"""Standing back at a time: a few round trips of a slow link, and the queue in front of it."""


class Turns:
    """Whose turn it is among several shares, by bytes."""

    def __init__(self) -> None:
        self._now = 0.0
        self._ends: dict[Hashable, float] = {}

    def next(self, share: Hashable, cost: int) -> float:
        """The turn of a request of so many bytes; lower comes first."""
        turn = max(self._now, self._ends.get(share, 0.0))
        self._ends[share] = turn + cost
        return turn

    def begun(self, turn: float) -> None:
        """The request with this turn is served."""
        self._now = max(self._now, turn)


class Courtesy:
    """When less urgent transfers stand back. All times in seconds of one monotonic clock."""

    def __init__(self) -> None:
        self._since: float | None = None
        self._not_before = float("-inf")

    def is_due(self, now: float) -> bool:
        """Whether others stand back now, while something urgent is under way."""
        if now < self._not_before:
            return False
        if self._since is None:
            self._since = now
        if now - self._since >= MOST_S:
            self.over(now)
        return self._since is not None

    def over(self, now: float) -> None:
        """Nothing urgent is under way any more."""
        if self._since is not None:
            self._not_before = 2 * now - self._since
            self._since = None
