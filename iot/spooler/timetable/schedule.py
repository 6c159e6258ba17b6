"""Windows of the local week, for schedules and timetables. Pure: wall clock and time zone are passed in.

    "08:00-18:00"                every day
    "23:00-01:00"                over midnight
    "Mon-Fri 08:00-18:00"        on some days; with "23:00-01:00" on the nights that begin on them
    "Mon,Wed,Sat 08:00-18:00"
    "Sat-Sun"                    whole days
    "Mon 10:00 - Wed 18:00"      one window over several days

What the local clock shows decides, whether or not it is right: a window is open from its first minute until just before
its last. Nothing is remembered, so a jump of the clock can neither keep a window open nor closed for longer than the
clock is wrong. Where daylight saving time skips an hour, a window within that hour does not open on that day, and one
that begins in it opens at its end. In the hour that is repeated, a window opens twice.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta, timezone, tzinfo

__all__ = ["Schedule", "Window", "clock_words", "local_time", "window"]

DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
DAY_S = 86400
WEEK_S = 7 * DAY_S
AHEAD_DAYS = 15
"""A weekly window that daylight saving time skips opens a week later."""
LAST_S = 250_000_000_000.0
"""In the year 9892: a wall clock beyond it is taken for that."""
FORMS = '"08:00-18:00", "Mon-Fri 08:00-18:00", "Sat-Sun" or "Mon 10:00 - Wed 18:00"'
NAME = r"(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun)"
CLOCK = r"[0-9]{1,2}:[0-9]{2}"
DAILY = re.compile(
    rf"(?:(?P<days>{NAME}(?:-{NAME})?(?:\s*,\s*{NAME}(?:-{NAME})?)*)(?:\s+|$))?"
    rf"(?:(?P<start>{CLOCK})\s*-\s*(?P<end>{CLOCK}))?",
    re.IGNORECASE,
)
SPANNING = re.compile(
    rf"(?P<from>{NAME})\s+(?P<start>{CLOCK})\s*-\s*(?P<to>{NAME})\s+(?P<end>{CLOCK})",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Window:
    """pieces: each begins so many seconds after Monday 00:00, and is so many seconds long."""

    pieces: tuple[tuple[int, int], ...]

    def covers(self, second: int) -> bool:
        return any((second - start) % WEEK_S < length for start, length in self.pieces)


def window(text: str) -> Window:
    """Raises: ValueError saying what is wrong."""
    words = text.strip()
    spanning = SPANNING.fullmatch(words)
    if spanning is not None:
        first, last = _day(spanning["from"]), _day(spanning["to"])
        start = first * DAY_S + _clock(spanning["start"], text)
        return Window(((start, _length(start, last * DAY_S + _clock(spanning["end"], text, end=True), WEEK_S, text)),))
    daily = DAILY.fullmatch(words)
    if daily is None or not words:
        raise ValueError(f"{text!r} is no window; write {FORMS}")
    days = _days(daily["days"]) if daily["days"] else range(7)
    if daily["start"] is None:
        return Window(tuple((day * DAY_S, DAY_S) for day in days))
    start = _clock(daily["start"], text)
    length = _length(start, _clock(daily["end"], text, end=True), DAY_S, text)
    return Window(tuple((day * DAY_S + start, length) for day in days))


@dataclass(frozen=True, slots=True)
class Schedule:
    """Several windows in one time zone. Without a window it is always open."""

    windows: tuple[Window, ...]
    zone: tzinfo

    def is_open(self, wall: float) -> bool:
        """wall: seconds since 1970."""
        if not self.windows:
            return True
        local = local_time(wall, self.zone)
        second = local.weekday() * DAY_S + local.hour * 3600 + local.minute * 60 + local.second
        return any(each.covers(second) for each in self.windows)

    def changes_at(self, wall: float) -> float | None:
        """When it next opens or closes, in seconds since 1970; None: never."""
        is_open = self.is_open(wall)
        later = (moment for moment in sorted(self._moments(wall)) if moment > wall)
        return next((moment for moment in later if self.is_open(moment) is not is_open), None)

    def _moments(self, wall: float) -> Iterator[float]:
        """Everything between which nothing changes, for the next days."""
        edges = {edge % WEEK_S for each in self.windows for piece in each.pieces for edge in (piece[0], sum(piece))}
        today = local_time(wall, self.zone).date()
        for day in (today + timedelta(days=number) for number in range(-1, AHEAD_DAYS)):
            yield from self._change_of_offset(day)
            for edge in edges:
                if edge // DAY_S == day.weekday():
                    yield from self._instants(day, edge % DAY_S)

    def _instants(self, day: date, second: int) -> Iterator[float]:
        """Both, where the local clock shows this time twice."""
        shown = datetime.combine(day, time()) + timedelta(seconds=second)
        for fold in (0, 1):
            yield shown.replace(tzinfo=self.zone, fold=fold).timestamp()

    def _change_of_offset(self, day: date) -> Iterator[float]:
        """When the local clock is set forward or back on that day, to the second."""
        before = int(datetime.combine(day, time(), timezone.utc).timestamp())
        after = before + DAY_S
        offset = self._offset(before)
        if self._offset(after) == offset:
            return
        while after - before > 1:
            middle = (before + after) // 2
            before, after = (middle, after) if self._offset(middle) == offset else (before, middle)
        yield float(after)

    def _offset(self, wall: float) -> timedelta | None:
        return local_time(wall, self.zone).utcoffset()


def local_time(wall: float, zone: tzinfo) -> datetime:
    """wall: seconds since 1970; what a clock cannot show is replaced by what it can."""
    return datetime.fromtimestamp(min(max(wall, 0.0), LAST_S), zone)


def clock_words(wall: float, zone: tzinfo, now: float) -> str:
    """A moment as people say it: with the day where it is not today's, with the date where that is not enough."""
    then, today = local_time(wall, zone), local_time(now, zone).date()
    clock = f"{then:%H:%M}"
    if then.date() == today:
        return clock
    return f"{DAYS[then.weekday()]} {clock}" if (then.date() - today).days < 7 else f"{then:%Y-%m-%d} {clock}"


def _days(text: str) -> Sequence[int]:
    days: dict[int, None] = {}
    for part in text.split(","):
        first, _, last = part.strip().partition("-")
        start = _day(first)
        count = (_day(last) - start) % 7 + 1 if last else 1
        days.update(dict.fromkeys((start + number) % 7 for number in range(count)))
    return list(days)


def _day(name: str) -> int:
    return DAYS.index(name.title())


def _clock(shown: str, text: str, *, end: bool = False) -> int:
    """Seconds since midnight; 24:00 is an end only."""
    hours, minutes = map(int, shown.split(":"))
    second = hours * 3600 + minutes * 60
    if minutes > 59 or second > DAY_S or (second == DAY_S and not end):
        raise ValueError(f"{text!r}: {shown} is no time of day; from 00:00 to 24:00, which only ends a window")
    return second


def _length(start: int, end: int, period: int, text: str) -> int:
    length = (end - start) % period
    if length:
        return length
    if end > start:
        return period
    whole = '"Mon 00:00 - Sun 24:00"' if period == WEEK_S else '"00:00-24:00"'
    raise ValueError(f"{text!r} never opens: it ends when it begins; for all of the time write {whole}")
