"""The timetable of the rate: how fast files may be sent at which time of day. Pure: the wall clock is passed in."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from datetime import tzinfo

from iot.spooler.timetable.schedule import Schedule, Window, window
from iot.transfer import parse_rate

__all__ = ["Pacer", "timed_rate"]

TIMED = re.compile(r"\s*(.*\S)\s+([0-9.]+\s*\S*/s)\s*", re.IGNORECASE)


def timed_rate(text: str) -> tuple[Window, float]:
    """A window and its bytes a second, from "08:00-18:00 1 Mbit/s". Raises: ValueError."""
    found = TIMED.fullmatch(text)
    if found is None:
        raise ValueError(f'{text!r}: must be a window and a rate, such as "Mon-Fri 08:00-18:00 1 Mbit/s"')
    try:
        return window(found[1]), parse_rate(found[2])
    except ValueError as error:
        raise ValueError(f"{text!r}: {error}") from None


class Pacer:
    """Changes a rate as the timetable says: the first entry counts whose window is open.

    otherwise: the rate at all other times; None: unlimited. apply: is told each change. rate: bytes a second now.
    """

    def __init__(
        self, entries: Sequence[str], zone: tzinfo, otherwise: float | None, apply: Callable[[float | None], None]
    ) -> None:
        self._entries = [(Schedule((when,), zone), rate) for when, rate in map(timed_rate, entries)]
        self._otherwise = otherwise
        self._apply = apply
        self._at_most: float | None = None
        self.rate = otherwise

    def lower(self, at_most: float | None) -> None:
        """From the next look on, it is no higher than this, whatever the timetable says; None: as that says."""
        self._at_most = at_most

    def look(self, wall: float) -> bool:
        """Whether the rate has changed. wall: seconds since 1970."""
        rate = next((rate for schedule, rate in self._entries if schedule.is_open(wall)), self._otherwise)
        limits = [limit for limit in (rate, self._at_most) if limit is not None]
        rate = min(limits, default=None)
        before, self.rate = self.rate, rate
        if rate == before:
            return False
        self._apply(rate)
        return True
