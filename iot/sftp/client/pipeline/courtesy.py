"""How long less urgent transfers stand back while an urgent one is under way. Pure.

An urgent file of 1 KiB needs a few round trips, and each waits behind what is queued in front of the link. So while it
is under way, others send only what keeps the link full (see Pace.has_room); on a slow link, where one block takes as
long as a round trip, that is nothing. A stream of urgent files must not starve the others: as long as they stood back,
they then go on undisturbed.
"""

from __future__ import annotations

__all__ = ["Courtesy"]

MOST_S = 3.0
"""Standing back at a time: a few round trips of a slow link, and the queue in front of it."""


class Courtesy:
    """All times in seconds of one monotonic clock."""

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
