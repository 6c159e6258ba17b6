"""When a file counts as quiet, by both clocks of a device: rules without a file."""

from __future__ import annotations

import pytest

from iot.spooler.outbox import readiness as module
from iot.spooler.outbox.readiness import (
    ASK_AGAIN_MAX_S,
    ASK_AGAIN_MIN_S,
    CLOSING_S,
    JUMP_S,
    MANY,
    PAUSE_S,
    Readiness,
)
from iot.transfer import Fingerprint

WALL = 2e9  # what the wall clock shows when the other one shows 0


def version(age_s: float = 100.0, size: int = 1, ctime_age_s: float = 100.0, now: float = 1000.0) -> Fingerprint:
    """As of `now`, modified so long ago."""
    return Fingerprint(size, int((WALL + now - age_s) * 1e9), int((WALL + now - ctime_age_s) * 1e9), 5)


class Rig:
    def __init__(self, settle_s: float = 10.0) -> None:
        self.readiness = Readiness(settle_s)
        self.now = 1000.0
        self.readiness.clocks(self.now, WALL + self.now)

    def quiet(self, path: bytes, found: Fingerprint, hold_s: float = 0.0) -> bool:
        return self.readiness.quiet(path, found, self.now, WALL + self.now, hold_s)

    def due(self, limit: int = 100) -> list[bytes]:
        return self.readiness.due(self.now, limit)


@pytest.fixture
def rig() -> Rig:
    return Rig()


@pytest.mark.parametrize(("age_s", "quiet"), [(10.0, True), (9.9, False), (0.0, False), (-50.0, False)])
def test_a_file_that_is_old_enough_when_it_is_found_is_quiet_at_once(rig, age_s, quiet):
    assert rig.quiet(b"f", version(age_s)) is quiet
    assert len(rig.readiness) == (0 if quiet else 1)


def test_without_a_quiet_time_every_file_is_ready():
    assert Rig(0.0).quiet(b"f", version(-50.0))
    assert not Rig(0.5).quiet(b"f", version(0.0))
    assert not Rig(0.0).quiet(b"f", version(0.0), hold_s=5.0)


def test_a_watched_file_is_quiet_when_it_has_stayed_the_same_for_so_long(rig):
    found = version(0.0)
    assert not rig.quiet(b"f", found)
    assert rig.readiness.next_due() == 1010.0
    rig.now += 9.9
    assert not rig.quiet(b"f", found)
    rig.now += 0.1
    assert rig.quiet(b"f", found)
    assert rig.quiet(b"f", found._replace(ctime_ns=0, inode=0))  # neither size nor time


@pytest.mark.parametrize("change", [{"size": 2}, {"mtime_ns": 7}])
def test_a_change_begins_the_wait_anew(rig, change):
    found = version(0.0)
    rig.quiet(b"f", found)
    rig.now += 9.0
    assert not rig.quiet(b"f", found._replace(**change))
    rig.now += 9.0
    assert not rig.quiet(b"f", found._replace(**change))
    rig.now += 1.0
    assert rig.quiet(b"f", found._replace(**change))


def test_one_that_was_guessed_wrong_is_watched_for_longer_whatever_it_does(rig):
    found = version(0.0)
    assert not rig.quiet(b"f", found, hold_s=60.0)
    rig.now += 50.0
    assert not rig.quiet(b"f", found, hold_s=60.0)
    assert not rig.quiet(b"f", found._replace(size=2), hold_s=60.0)
    rig.now += 10.0  # since it was first seen; and for settle_s as it is
    assert rig.quiet(b"f", found._replace(size=2), hold_s=60.0)
    assert not rig.quiet(b"g", version(59.0, now=rig.now), hold_s=60.0)
    assert rig.quiet(b"h", version(60.0, now=rig.now), hold_s=60.0)


def test_when_the_wall_clock_has_jumped_times_of_files_are_worthless_for_a_while(rig):
    assert rig.quiet(b"f", version(500.0))
    rig.now += 1.0
    rig.readiness.clocks(rig.now, WALL + rig.now + JUMP_S + 1)
    assert not rig.quiet(b"g", version(500.0))
    rig.now += 9.9
    assert not rig.quiet(b"h", version(500.0))
    rig.now += 0.1
    assert rig.quiet(b"i", version(500.0))


def test_a_clock_that_drifts_does_not_jump(rig):
    for step in range(1, 20):
        rig.readiness.clocks(rig.now, WALL + rig.now + step * JUMP_S)
        assert rig.quiet(b"f", version(500.0))


# -- rested


@pytest.mark.parametrize(
    ("age_s", "ctime_age_s", "steady_s", "rested"),
    [(60.0, 60.0, 60.0, True), (59.0, 90.0, 90.0, False), (90.0, 59.0, 90.0, False), (90.0, 90.0, 59.0, False)],
)
def test_a_file_has_rested_when_neither_time_is_near_and_the_clock_was_steady(age_s, ctime_age_s, steady_s, rested):
    readiness = Readiness(0.0)
    readiness.clocks(1000.0 - steady_s, WALL + 1000.0 - steady_s)
    found = version(age_s, ctime_age_s=ctime_age_s)
    assert readiness.rested(found, 1000.0, WALL + 1000.0, 60.0) is rested
    assert readiness.rested(found, 1000.0, WALL + 1000.0, 0.0)


@pytest.mark.parametrize("seconds", [1.0, 0.1])
def test_before_the_clocks_were_told_nothing_has_rested(seconds):
    assert not Readiness(0.0).rested(version(500.0), 1000.0, WALL + 1000.0, seconds)


def test_after_a_jump_it_has_to_be_steady_again(rig):
    rig.now += 500.0
    rig.readiness.clocks(rig.now, WALL + rig.now + JUMP_S + 1)
    rig.now += 59.0
    wall = WALL + rig.now + JUMP_S + 1
    assert not rig.readiness.rested(version(500.0), rig.now, wall, 60.0)
    assert rig.readiness.rested(version(500.0), rig.now + 1.0, wall + 1.0, 60.0)


# -- who has it open


def test_a_file_that_is_open_is_asked_for_the_later_the_longer_it_lasts(rig):
    found, waits = version(0.0), []
    for after_s in (0.0, 100.0, 10_000.0):
        rig.now = 1000.0 + after_s
        rig.readiness.opened(b"f", found, rig.now)
        waits.append(rig.readiness._watched[b"f"].look_s - rig.now)
    assert waits[0] == ASK_AGAIN_MIN_S
    assert ASK_AGAIN_MIN_S < waits[1] < ASK_AGAIN_MAX_S
    assert waits[2] == ASK_AGAIN_MAX_S
    assert rig.readiness.open_files == 1
    rig.readiness.opened(b"f", found._replace(size=2), rig.now)  # another version
    assert rig.readiness._watched[b"f"].look_s - rig.now == ASK_AGAIN_MIN_S


def test_a_file_that_was_closed_a_moment_ago_is_asked_for_at_once_and_then_as_all_others(rig):
    """The kernel tells of a close a moment before the lease is free."""
    waits, closed = [], []
    for soon in (False, True, True, False):
        rig.readiness.opened(b"f", version(0.0), rig.now, soon=soon)
        waits.append(round(rig.readiness._watched[b"f"].look_s - rig.now, 3))
        closed.append(rig.readiness.was_closed(b"f"))
    assert waits == [ASK_AGAIN_MIN_S, CLOSING_S, ASK_AGAIN_MIN_S, ASK_AGAIN_MIN_S]
    assert closed == [False, True, True, True]
    assert not rig.readiness.was_closed(b"never seen")


def test_a_file_is_open_only_if_it_was_found_so(rig):
    rig.quiet(b"quiet", version(0.0))
    rig.readiness.opened(b"open", version(0.0), rig.now)
    assert [rig.readiness.is_open(path) for path in (b"quiet", b"open", b"never seen")] == [False, True, False]
    assert not rig.readiness.was_closed(b"quiet")


def test_open_files_are_counted_among_the_watched(rig):
    rig.quiet(b"f", version(0.0))
    rig.readiness.opened(b"g", version(0.0), rig.now)
    assert (len(rig.readiness), rig.readiness.open_files) == (2, 1)
    rig.readiness.forget(b"g")
    rig.readiness.forget(b"g")
    assert (len(rig.readiness), rig.readiness.open_files) == (1, 0)


# -- which come up


def test_what_is_due_comes_up_once_and_again_when_it_was_not_decided(rig):
    assert rig.readiness.next_due() == float("inf")
    for number in range(3):
        rig.quiet(b"%d" % number, version(0.0))
        rig.now += 1.0
    assert (rig.readiness.next_due(), rig.due()) == (1010.0, [])
    rig.now = 1011.0
    assert rig.due() == [b"0", b"1"]
    assert rig.due() == []
    rig.now = 1011.0 + ASK_AGAIN_MIN_S
    assert set(rig.due()) >= {b"0", b"1"}


def test_no_more_come_up_than_are_wanted_and_the_rest_at_once(rig):
    for number in range(5):
        rig.quiet(b"%d" % number, version(0.0))
    rig.now += 10.0
    assert rig.due(2) == [b"0", b"1"]
    assert rig.readiness.next_due() <= rig.now
    assert rig.due(9) == [b"2", b"3", b"4"]


def test_many_files_are_not_gone_through_without_a_pause(rig):
    for number in range(MANY + 1):
        rig.quiet(b"%d" % number, version(0.0))
        rig.now += 0.001
    rig.now = 1010.0
    assert rig.due() == [b"0"]
    assert rig.readiness.next_due() == rig.now + PAUSE_S


@pytest.mark.parametrize(("more", "limit", "paused"), [(0, 100, False), (1, 1, False), (1, 2, True)])
def test_a_pause_is_made_only_where_many_were_gone_through_and_no_more_are_due(rig, more, limit, paused):
    for number in range(MANY + more):
        rig.quiet(b"%d" % number, version(0.0))
        rig.now += 0.001
    rig.now = 1010.0
    assert rig.due(limit) == [b"0"]
    assert (rig.readiness.next_due() == rig.now + PAUSE_S) is paused


def test_so_many_are_watched_and_the_next_walk_finds_the_rest(rig, monkeypatch):
    monkeypatch.setattr(module, "WATCHED_MAX", 2)
    for number in range(2):
        rig.quiet(b"%d" % number, version(0.0))
    assert not rig.readiness.overflowed
    assert not rig.quiet(b"more", version(0.0))
    assert rig.readiness.overflowed
    assert len(rig.readiness) == 2
    rig.readiness.overflowed = False
    rig.now += 5.0
    rig.quiet(b"1", version(0.0, size=2))  # one that is watched already
    assert not rig.readiness.overflowed
