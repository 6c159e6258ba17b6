"""Whose turn it is among several shares of one link: by bytes, whatever the size and number of their requests. Pure.

Start-time fair queueing (Goyal, Vin, Cheng 1996): a request begins where the last one of its share ended, but never
before the one that is being served, so that a share that had nothing to send saves nothing up.
"""

from __future__ import annotations

from collections.abc import Hashable


class Turns:
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
