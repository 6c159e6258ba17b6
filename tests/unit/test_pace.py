"""Bytes in flight follow the link: full, and not much more than full, on simulated links."""

from __future__ import annotations

import heapq

import pytest
from hypothesis import given
from hypothesis import strategies as st

from iot.sftp.client.pipeline.pace import FIRST_BYTES, FLOOR_BYTES, SMALL_BLOCK, Mark, Pace

MIB = 1024 * 1024
BLOCK = 255 * 1024


def run(
    pace: Pace, rate: float, round_trip_s: float, seconds: float, now: float = 0.0
) -> tuple[float, list[tuple[float, int]]]:
    """A link that takes `rate` bytes a second and answers a round trip later.

    -> bytes a second, and bytes in flight over time
    """
    answers: list[tuple[float, int, Mark, int]] = []
    free_at, done, number, seen = now, 0, 0, []
    began, end = now, now + seconds
    while now < end:
        while pace.has_room(pace.block):
            block = pace.block
            free_at = max(free_at, now) + block / rate
            number += 1
            heapq.heappush(answers, (free_at + round_trip_s, number, pace.sent(now, block), block))
        seen.append((now, pace.in_flight))
        now, _, mark, block = heapq.heappop(answers)
        done += block
        pace.answered(mark, block, now)
    for at, _, mark, block in sorted(answers):  # nothing is left in flight
        pace.answered(mark, block, at)
    return done / (now - began), seen


LINKS = [
    (50e6 / 8, 0.1),
    (20e6 / 8, 0.6),
    (10e6 / 8, 0.1),
    (1e6 / 8, 0.3),
    (20e6 / 8, 0.02),
    (1e9 / 8, 0.001),
    (64e3 / 8, 0.8),
]


@pytest.mark.parametrize(("rate", "round_trip_s"), LINKS)
def test_the_window_fills_the_link_and_little_more(rate: float, round_trip_s: float) -> None:
    pace = Pace(16 * MIB, BLOCK)
    pace.allow_blocks(BLOCK)
    run(pace, rate, round_trip_s, max(60.0, 30 * round_trip_s))
    reached, seen = run(pace, rate, round_trip_s, max(2.0, 40 * round_trip_s), now=1000.0)
    product = rate * round_trip_s
    assert reached >= 0.9 * rate
    assert pace.window >= min(product, 16 * MIB)
    assert max(in_flight for _, in_flight in seen) <= max(4 * product + 6 * pace.block, 256 * 1024)


@pytest.mark.parametrize(("rate", "round_trip_s"), LINKS)
def test_the_link_is_full_after_a_few_round_trips(rate: float, round_trip_s: float) -> None:
    pace = Pace(16 * MIB, BLOCK)
    run(pace, rate, round_trip_s, 10 * round_trip_s)
    assert pace.window >= rate * round_trip_s


def test_answers_that_were_held_up_and_come_at_once_are_no_faster_link() -> None:
    pace = Pace(16 * MIB, BLOCK)
    run(pace, 50e6 / 8, 0.1, 2)
    rate, now = pace.rate, 3.0
    early = [pace.sent(now, BLOCK) for _ in range(8)]
    late = pace.sent(now + 0.49, BLOCK)
    for mark in (*early, late):
        pace.answered(mark, BLOCK, now + 0.6)
    assert pace.rate <= rate


def test_a_link_that_becomes_slower_gets_a_smaller_window_within_seconds() -> None:
    pace = Pace(16 * MIB, BLOCK)
    run(pace, 50e6 / 8, 0.1, 5)
    fast = pace.window
    run(pace, 1e6 / 8, 0.1, 20, now=5.0)
    assert pace.window < fast / 4
    assert pace.window <= 4 * (1e6 / 8) * 0.1 + 6 * SMALL_BLOCK + FLOOR_BYTES


def test_blocks_grow_with_the_rate_up_to_what_the_server_takes() -> None:
    slow, fast = Pace(16 * MIB, BLOCK), Pace(16 * MIB, BLOCK)
    run(slow, 1e6 / 8, 0.1, 5)
    run(fast, 1e9 / 8, 0.001, 1)
    assert slow.block == SMALL_BLOCK
    assert fast.block == BLOCK


def test_a_fast_link_without_delay_does_not_run_dry_while_this_side_pauses_for_a_moment() -> None:
    rate, pace = 400e6, Pace(16 * MIB, BLOCK)
    pace.allow_blocks(BLOCK)
    run(pace, rate, 0.0003, 1)
    assert 0.009 * rate < pace.window < 0.02 * rate


def test_before_any_answer_it_is_careful() -> None:
    pace = Pace(16 * MIB, BLOCK)
    assert pace.block == SMALL_BLOCK
    assert pace.window == FIRST_BYTES
    assert pace.rate == 0.0
    assert pace.round_trip_s is None


def test_answers_without_payload_tell_the_round_trip_and_leave_the_window() -> None:
    pace = Pace(16 * MIB, BLOCK)
    before = pace.window
    pace.answered(pace.sent(1.0, 0), 0, 1.25)
    assert pace.round_trip_s == 0.25
    assert pace.window == before


@given(
    st.integers(64 * 1024, 64 * MIB),
    st.integers(1, MIB),
    st.lists(st.tuples(st.floats(0, 100), st.integers(0, MIB), st.floats(0, 100)), max_size=50),
)
def test_limits_hold_whatever_is_measured(
    max_bytes: int, max_block: int, answers: list[tuple[float, int, float]]
) -> None:
    pace = Pace(max_bytes, max_block)
    now = 0.0
    for waited, cost, took in answers:  # a clock that stands still or leaps is only another measurement
        now += waited
        mark = pace.sent(now, cost)
        now += took
        pace.answered(mark, cost, now)
        assert 1 <= pace.block <= max_block
        assert pace.window <= max_bytes
        assert pace.window >= min(FLOOR_BYTES, max_bytes)


def test_memory_stays_flat_over_a_long_run() -> None:
    pace = Pace(8 * MIB, BLOCK)
    now = 0.0
    for number in range(20_000):  # falling rates are the worst case for a running maximum
        mark = pace.sent(now, 32 * 1024)
        now += 0.001 + number * 1e-7
        pace.answered(mark, 32 * 1024, now)
    assert len(pace._rates) < 4000
