"""When an outbox is walked: pure times, on a clock of the test's own."""

from __future__ import annotations

import pytest

from iot.spooler.outbox.cadence import (
    BUSY_SHARE,
    CHECK_S,
    FAILED_MIN_S,
    QUICK_MAX_S,
    QUICK_SHARE,
    SOON_S,
    TOLD_S,
    UNTOLD_S,
    WHOLE_MAX_S,
    Cadence,
    Walk,
)

NOW = 1000.0


def walked(cadence: Cadence, now: float = NOW, cost_s: float = 0.0, *, again: bool = False) -> Walk:
    """A walk of one step."""
    walk = cadence.begin(now)
    cadence.stepped(now, now + cost_s, busy=False)
    cadence.finished(walk, now, again=again)
    return walk


@pytest.mark.parametrize(
    ("scan_s", "told", "expected"),
    [(None, False, UNTOLD_S), (None, True, TOLD_S), (7.0, False, 7.0), (7.0, True, 7.0)],
)
def test_the_first_walk_is_due_at_once_and_the_next_as_configured_or_as_the_kernel_tells(scan_s, told, expected):
    cadence = Cadence(scan_s)
    cadence.told = told
    assert cadence.next_s == cadence.step_at == float("-inf")
    assert walked(cadence) is Walk.WHOLE
    assert (cadence.scan_s, cadence.next_s) == (expected, NOW + expected)


def test_walks_take_a_small_share_of_the_time_and_whole_ones_a_smaller_one():
    cadence = Cadence(10.0)
    walked(cadence, cost_s=1.0)
    assert cadence.next_s == NOW + QUICK_SHARE
    assert walked(cadence, NOW + QUICK_SHARE) is Walk.QUICK  # which costs nothing
    assert cadence.next_s == NOW + QUICK_SHARE + 10.0
    assert walked(cadence, NOW + WHOLE_MAX_S - 1) is Walk.QUICK
    assert cadence.next_s == NOW + WHOLE_MAX_S
    assert walked(cadence, NOW + WHOLE_MAX_S, 100.0) is Walk.WHOLE
    assert cadence.next_s == NOW + WHOLE_MAX_S + QUICK_MAX_S


def test_all_steps_of_a_walk_count_and_those_beside_transfers_come_less_often():
    cadence = Cadence(10.0)
    cadence.begin(NOW)
    assert cadence.step_at == NOW
    cadence.stepped(NOW, NOW + 0.5, busy=False)
    assert cadence.step_at == NOW + 0.5
    cadence.stepped(NOW + 1, NOW + 1.5, busy=True)
    assert cadence.step_at == NOW + 1 + 0.5 * BUSY_SHARE
    cadence.finished(Walk.QUICK, NOW, again=False)
    assert cadence._quick_at == NOW + 1.0 * QUICK_SHARE
    cadence.begin(NOW)
    cadence.finished(Walk.QUICK, NOW, again=False)
    assert cadence._quick_at == NOW + 10.0  # that one before does not count any more


def test_who_asks_for_a_walk_during_one_gets_another_and_new_folders_change_no_time():
    cadence = Cadence(10.0)
    assert walked(cadence, again=True) is Walk.WHOLE
    assert cadence.next_s == float("-inf")
    assert walked(cadence) is Walk.WHOLE
    before = cadence.next_s
    cadence.lost = True
    cadence.finished(Walk.NEW, NOW + 500, again=False)
    assert (cadence.next_s, cadence.lost) == (before, True)
    cadence.step_at = NOW
    cadence.wake()
    assert cadence.next_s == cadence.step_at == float("-inf")
    assert walked(cadence) is Walk.WHOLE


@pytest.mark.parametrize(("scan_s", "wait_s"), [(900.0, SOON_S), (4.0, 4.0), (0.5, FAILED_MIN_S)])
def test_after_a_failure_everything_is_walked_before_long(scan_s, wait_s):
    cadence = Cadence(scan_s)
    walked(cadence)
    cadence.failed(NOW)
    assert (cadence.next_s, cadence.lost) == (NOW + wait_s, True)
    cadence._whole_at = NOW + 5000
    assert walked(cadence, NOW + wait_s) is Walk.WHOLE
    assert not cadence.lost


def test_what_is_doubtful_is_walked_soon_and_never_later_than_planned():
    cadence = Cadence(900.0)
    walked(cadence)
    cadence.soon(NOW)
    assert (cadence._quick_at, cadence._whole_at) == (NOW + SOON_S, NOW + 900.0)
    cadence.soon(NOW + 5)
    assert cadence._quick_at == NOW + SOON_S
    assert walked(cadence, NOW + SOON_S) is Walk.QUICK
    assert cadence._quick_at == NOW + SOON_S + 900.0


def test_whoever_needs_a_whole_walk_soon_gets_one_after_the_walk_that_is_under_way_too():
    cadence = Cadence(900.0)
    walked(cadence)
    cadence.whole_soon(NOW)
    assert (cadence._quick_at, cadence._whole_at) == (NOW + 900.0, NOW + SOON_S)
    walk = cadence.begin(NOW + SOON_S)
    assert walk is Walk.WHOLE
    cadence.whole_soon(NOW + SOON_S + 1)
    cadence.finished(walk, NOW + 100, again=False)
    assert cadence.next_s == NOW + 100 + SOON_S
    assert walked(cadence, NOW + 100 + SOON_S) is Walk.WHOLE
    assert cadence.next_s == NOW + 100 + SOON_S + 900.0  # once


def test_what_is_soon_is_later_where_walks_take_long():
    cadence = Cadence(900.0)
    walked(cadence, cost_s=2.0)
    cadence.soon(NOW)
    assert cadence._quick_at == NOW + 2.0 * QUICK_SHARE
    walked(cadence, cost_s=100.0)
    cadence.soon(NOW)
    assert cadence._quick_at == NOW + QUICK_MAX_S


def test_the_folder_itself_is_looked_at_from_time_to_time():
    cadence = Cadence(None)
    assert cadence.next_check_s == float("-inf")
    assert cadence.check_is_due(NOW)
    assert cadence.next_check_s == NOW + CHECK_S
    assert not cadence.check_is_due(NOW + CHECK_S - 0.1)
    assert cadence.check_is_due(NOW + CHECK_S)
