"""Windows of the local week, over midnight, weeks and daylight saving time."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from iot.spooler.timetable.schedule import Schedule, clock_words, window

BERLIN = ZoneInfo("Europe/Berlin")


def at(text: str, fold: int = 0) -> float:
    """A time that clocks in Berlin show, as "2026-11-27 08:00"; fold=1: the second time."""
    return datetime.fromisoformat(text).replace(tzinfo=BERLIN, fold=fold).timestamp()


def schedule(*windows: str) -> Schedule:
    return Schedule(tuple(map(window, windows)), BERLIN)


def openings(windows: list[str], start: str, days: float) -> list[str]:
    """The changes within some days, as local time and offset."""
    plan, now, end, found = schedule(*windows), at(start), at(start) + days * 86400, []
    while (change := plan.changes_at(now)) is not None and change < end:
        found.append(
            f"{datetime.fromtimestamp(change, BERLIN):%d %H:%M%z} {'open' if plan.is_open(change) else 'shut'}"
        )
        now = change
    return found


@pytest.mark.parametrize(
    ("text", "inside", "outside"),
    [
        ("08:00-18:00", ["2026-11-27 08:00", "2026-11-29 17:59:59"], ["2026-11-27 18:00", "2026-11-27 07:59:59"]),
        ("8:00 - 18:00", ["2026-11-27 08:00"], ["2026-11-27 18:00"]),
        ("mon-fri 08:00-18:00", ["2026-11-27 08:00"], ["2026-11-28 08:00", "2026-11-29 12:00"]),
        ("Fri-Mon 08:00-18:00", ["2026-11-27 08:00", "2026-11-30 08:00"], ["2026-12-01 08:00"]),
        ("Mon, Wed 08:00-18:00", ["2026-11-25 08:00"], ["2026-11-24 08:00"]),
        ("23:00-01:00", ["2026-11-27 23:30", "2026-11-27 00:30"], ["2026-11-27 01:00", "2026-11-27 22:59"]),
        ("Sun 23:00-01:00", ["2026-11-29 23:30", "2026-11-30 00:30"], ["2026-11-29 00:30"]),
        ("Mon 10:00 - Wed 18:00", ["2026-11-24 03:00", "2026-11-25 17:59"], ["2026-11-25 18:00", "2026-11-23 09:59"]),
        ("Sat 10:00 - Tue 06:00", ["2026-11-29 03:00", "2026-12-01 05:59"], ["2026-11-27 12:00"]),
        ("Sat-Sun", ["2026-11-28 00:00", "2026-11-29 23:59"], ["2026-11-27 23:59", "2026-11-30 00:00"]),
        ("00:00-24:00", ["2026-11-27 00:00", "2026-11-27 23:59:59"], []),
        ("Mon 00:00 - Sun 24:00", ["2026-11-27 00:00", "2026-11-29 23:59:59"], []),
    ],
)
def test_a_window_is_open_from_its_first_minute_until_just_before_its_last(text, inside, outside):
    plan = schedule(text)
    assert [moment for moment in inside if not plan.is_open(at(moment))] == []
    assert [moment for moment in outside if plan.is_open(at(moment))] == []


def test_several_windows_are_one_schedule():
    assert openings(["08:00-12:00", "12:00-18:00", "Sat 20:00-21:00"], "2026-11-28 00:00", 1) == [
        "28 08:00+0100 open",
        "28 18:00+0100 shut",
        "28 20:00+0100 open",
        "28 21:00+0100 shut",
    ]


def test_without_a_window_it_is_always_open_and_never_changes():
    assert schedule().is_open(0.0)
    assert schedule().changes_at(0.0) is None
    assert schedule("00:00-24:00").changes_at(at("2026-11-27 00:00")) is None


def test_in_the_hour_that_is_skipped_nothing_opens_and_what_begins_in_it_opens_at_its_end():
    assert openings(["02:15-02:45"], "2026-03-28 12:00", 2) == ["30 02:15+0200 open", "30 02:45+0200 shut"]
    assert openings(["02:30-04:00"], "2026-03-28 12:00", 0.8) == ["29 03:00+0200 open", "29 04:00+0200 shut"]
    assert openings(["Sun 02:15-02:45"], "2026-03-28 12:00", 9)[0] == "05 02:15+0200 open"


def test_in_the_hour_that_is_repeated_a_window_opens_twice():
    assert openings(["02:15-02:45"], "2026-10-24 12:00", 0.8) == [
        "25 02:15+0200 open",
        "25 02:45+0200 shut",
        "25 02:15+0100 open",
        "25 02:45+0100 shut",
    ]
    assert openings(["01:00-02:30"], "2026-10-24 12:00", 0.8) == [
        "25 01:00+0200 open",
        "25 02:30+0200 shut",
        "25 02:00+0100 open",
        "25 02:30+0100 shut",
    ]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "is no window"),
        ("08:00", "is no window"),
        ("Mon-Fri 08:00", "is no window"),
        ("Mun 08:00-09:00", "is no window"),
        ("08:00-18:00 and more", "is no window"),
        ("24:00-01:00", "24:00 is no time of day"),
        ("08:00-25:00", "25:00 is no time of day"),
        ("08:61-09:00", "08:61 is no time of day"),
        ("08:00-08:00", "never opens.*00:00-24:00"),
        ("Mon 10:00 - Mon 10:00", "never opens.*Sun 24:00"),
    ],
)
def test_what_is_no_window_or_never_opens_is_refused_with_the_reason(text, reason):
    with pytest.raises(ValueError, match=reason):
        window(text)


@pytest.mark.parametrize("wall", [-1e18, -1.0, 0.0, 1e11, 1e18])
def test_any_clock_gets_an_answer(wall):
    plan = schedule("Mon-Fri 08:00-18:00")
    assert plan.is_open(wall) in (True, False)
    plan.changes_at(wall)


TIMES = st.integers(0, 1439).map(lambda minute: f"{minute // 60:02}:{minute % 60:02}")


@given(TIMES, TIMES, st.floats(1.76e9, 1.80e9), st.sampled_from(["Europe/Berlin", "Australia/Lord_Howe", "UTC"]))
def test_nothing_changes_between_now_and_the_next_change(start, end, wall, zone):
    if start == end:
        return
    plan = Schedule((window(f"{start}-{end}"),), ZoneInfo(zone))
    change = plan.changes_at(wall)
    assert change is not None
    assert change > wall
    before = [plan.is_open(wall + (change - wall) * share) for share in (0.0, 0.3, 0.7, 0.999)]
    assert set(before) == {not plan.is_open(change)}


def test_a_moment_is_told_as_people_say_it():
    now = at("2026-11-27 12:00")
    hours = timedelta(hours=1).total_seconds()
    assert clock_words(now + 6 * hours, BERLIN, now) == "18:00"
    assert clock_words(now + 68 * hours, BERLIN, now) == "Mon 08:00"
    assert clock_words(now + 24 * 8 * hours, BERLIN, now) == "2026-12-05 12:00"
    assert clock_words(0.0, timezone.utc, 0.0) == "00:00"


def test_what_opens_in_the_hour_that_is_skipped_opens_in_the_very_second_at_which_it_ends():
    plan, before = schedule("02:10-04:00"), at("2026-03-29 01:00")
    assert plan.changes_at(before) == at("2026-03-29 03:00") == before + 3600


def test_a_clock_that_is_set_back_over_midnight_shows_the_evening_before_again():
    """In Newfoundland, until 2011, a minute after midnight: what comes next is a window of yesterday."""
    zone = ZoneInfo("America/St_Johns")
    before = datetime(2010, 11, 7, 0, 0, 30, tzinfo=zone).timestamp()
    opens = datetime(2010, 11, 6, 23, 30, tzinfo=zone, fold=1).timestamp()
    assert opens - before == 30 + 29 * 60
    assert Schedule((window("23:30-23:45"),), zone).changes_at(before) == opens
