"""The timetable of the rate."""

from __future__ import annotations

from datetime import datetime, timezone

import pytest

from iot.spooler.timetable.pacing import Pacer, timed_rate


def at(text: str) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=timezone.utc).timestamp()


def test_the_first_entry_whose_window_is_open_counts_and_each_change_is_told_once():
    told: list[float | None] = []
    pacer = Pacer(["Fri 12:00-13:00 2 Mbit/s", "08:00-18:00 1 Mbit/s"], timezone.utc, 5e6, told.append)
    for clock in ("07:59", "08:00", "11:59", "12:00", "13:00", "18:00", "18:01"):
        pacer.look(at(f"2026-11-27 {clock}"))
    assert told == [125_000.0, 250_000.0, 125_000.0, 5e6]


def test_without_a_timetable_the_rate_of_the_server_stays_and_nobody_is_told():
    told: list[float | None] = []
    pacer = Pacer([], timezone.utc, 5e6, told.append)
    assert not pacer.look(0.0)
    assert (pacer.rate, told) == (5e6, [])


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("1 Mbit/s", "must be a window and a rate"),
        ("08:00-18:00", "must be a window and a rate"),
        ("08:00-18:00 fast", "must be a window and a rate"),
        ("08:00-18:00 2 Mbps/s", "must be bytes a second"),
        ("08:00-08:00 2 Mbit/s", "never opens"),
        ("08:00-18:00 1 bit/s", "at least 1000 bytes a second"),
    ],
)
def test_a_wrong_entry_is_refused_with_the_reason(text, reason):
    with pytest.raises(ValueError, match=reason):
        timed_rate(text)


def test_a_server_may_lower_the_rate_and_never_raises_it():
    told: list[float | None] = []
    pacer = Pacer(["08:00-18:00 1 Mbit/s"], timezone.utc, None, told.append)
    noon, night = at("2026-11-27 12:00"), at("2026-11-27 23:00")
    assert [pacer.look(noon), pacer.rate] == [True, 125_000.0]
    for at_most, wall, rate in (
        (1000.0, noon, 1000.0),
        (1e9, noon, 125_000.0),
        (1e9, night, 1e9),
        (1000.0, night, 1000.0),
        (None, night, None),
    ):
        pacer.lower(at_most)
        assert pacer.look(wall)
        assert pacer.rate == rate
        assert not pacer.look(wall)
    assert told == [125_000.0, 1000.0, 125_000.0, 1e9, 1000.0, None]


@pytest.mark.parametrize("text", ["08:00-18:00 1 Mbit/s", " 08:00-18:00\t1 mbit/s ", "08:00-18:00 0.125 MB/s"])
def test_a_rate_is_read_with_its_window_however_it_is_spaced(text):
    when, rate = timed_rate(text)
    assert (when, rate) == (timed_rate("08:00-18:00 125000 B/s")[0], 125_000.0)
