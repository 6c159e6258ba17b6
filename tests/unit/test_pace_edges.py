"""How much may be in flight, to the byte: measured by hand on links whose numbers are known."""

from __future__ import annotations

import pytest

from iot.sftp.client.pipeline.pace import (
    BLOCK_S,
    FIRST_BYTES,
    FLAT_ROUNDS,
    GAIN,
    RATE_MEMORY_S,
    SMALL_BLOCK,
    SPARE_BLOCKS,
    START_BYTES,
    START_GAIN,
    START_MAX_BYTES,
    START_RATE,
    Pace,
)
from iot.transfer.rate import FULL_PACKETS, RateLimit

KIB = 1024
MIB = 1024 * KIB


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def answered(pace: Pace, cost: int, sent_at: float, answered_at: float) -> None:
    pace.answered(pace.sent(sent_at, cost), cost, answered_at)


# -- room


def test_the_window_may_be_filled_to_its_last_byte() -> None:
    pace = Pace(MIB, 32 * KIB, start_bytes=100 * KIB)
    assert pace.window == 100 * KIB
    assert pace.has_room(MIB), "alone, anything goes"
    pace.sent(0.0, 40 * KIB)
    assert pace.has_room(60 * KIB)
    assert not pace.has_room(60 * KIB + 1)


def test_what_was_found_earlier_is_the_first_window_and_no_more_than_is_allowed() -> None:
    assert Pace(MIB, 32 * KIB).window == FIRST_BYTES
    assert Pace(64 * KIB, 32 * KIB).window == 64 * KIB
    assert Pace(64 * KIB, 32 * KIB, start_bytes=2 * MIB).window == 64 * KIB


@pytest.mark.parametrize(("in_flight", "cost", "waits"), [(0, MIB, True), (1, 99, True), (1, 100, False)])
def test_only_what_would_have_room_waits_for_the_rate(in_flight: int, cost: int, waits: bool) -> None:
    clock = Clock()
    limit = RateLimit(1000.0, clock)
    pace = Pace(MIB, 32 * KIB, start_bytes=100, limit=limit)
    limit.spend(1000)
    pace.in_flight = in_flight
    assert pace.limited_s(cost) == (1.0 if waits else 0.0)
    assert not pace.has_room(cost)
    clock.now = 2.0
    assert pace.limited_s(cost) == 0.0
    assert pace.has_room(cost) is waits


def test_who_is_courteous_fills_the_link_to_its_last_byte() -> None:
    pace = Pace(8 * MIB, 32 * KIB)
    assert not pace.has_room(1, courteous=True), "before anything is known"
    answered(pace, 100_000, 0.0, 0.5)  # 200,000 bytes a second, and half a second there and back
    assert pace.has_room(100_000, courteous=True)
    assert not pace.has_room(100_001, courteous=True)


# -- what is charged to the rate


def owed(pace: Pace) -> float:
    return pace.limit.wait_s() * 1000.0


@pytest.fixture
def limited() -> Pace:
    return Pace(MIB, 32 * KIB, limit=RateLimit(1000.0, Clock()))


def test_a_payload_is_charged_with_the_headers_of_its_packets(limited: Pace) -> None:
    limited.sent(0.0, 0)
    assert owed(limited) == 0.0
    limited.sent(0.0, 1448)
    assert owed(limited) == pytest.approx(1500)


def test_what_the_wire_carries_beyond_that_is_charged_once(limited: Pace) -> None:
    limited.sent(0.0, 1448)
    limited.carried(1499)
    assert owed(limited) == pytest.approx(1500)
    limited.carried(1700)
    limited.carried(1700)
    assert owed(limited) == pytest.approx(1700)
    limited.carried(1701)
    assert owed(limited) == pytest.approx(1701)


def test_what_was_asked_for_comes_the_other_way(limited: Pace) -> None:
    """So all that the wire carries from here is beyond it."""
    limited.sent(0.0, 1448, asks=True)
    limited.carried(100)
    assert owed(limited) == pytest.approx(1448 * FULL_PACKETS + 100)


# -- what is measured


def test_the_rate_counts_from_the_first_byte_in_flight_and_not_from_an_idle_time_before() -> None:
    pace = Pace(8 * MIB, 32 * KIB)
    answered(pace, 100_000, 100.0, 101.0)
    assert (pace.rate, pace.round_trip_s, pace.delivered, pace.in_flight) == (100_000, 1.0, 100_000, 0)
    first, second = pace.sent(200.0, 50_000), pace.sent(200.25, 50_000)
    pace.answered(first, 50_000, 200.5)
    pace.answered(second, 50_000, 200.75)
    assert pace.rate == pytest.approx(100_000 / 0.75)
    assert pace.round_trip_s == 0.5


def test_an_answer_in_no_time_is_a_fast_one_and_no_crash() -> None:
    pace = Pace(8 * MIB, 32 * KIB)
    answered(pace, 1000, 5.0, 5.0)
    assert (pace.round_trip_s, pace.rate) == (1e-6, pytest.approx(1e9))


def test_the_best_rate_of_the_last_seconds_counts() -> None:
    pace = Pace(8 * MIB, 32 * KIB)
    answered(pace, 4000, 0.0, 1.0)
    answered(pace, 1000, 1.0, 2.0)
    answered(pace, 2000, 2.0, 3.0)
    assert pace.rate == 4000
    answered(pace, 500, 3.0, 1.0 + RATE_MEMORY_S)
    assert pace.rate == 4000
    answered(pace, 100, 4.0, 4.5)
    assert pace.rate == 2000


# -- the window


def rounds(pace: Pace, *costs: int) -> None:
    """Round trips of a quarter of a second that bring so many bytes each."""
    for number, cost in enumerate(costs):
        answered(pace, cost, number * 0.25, (number + 1) * 0.25)


def settled(rate: float, round_trip_s: float, block: int) -> int:
    return int(GAIN * rate * round_trip_s + SPARE_BLOCKS * max(block, rate * BLOCK_S))


@pytest.mark.parametrize(("last", "goes_on"), [(62_500, True), (62_499, False)])
def test_the_start_ends_when_the_rate_has_not_grown_by_a_quarter_three_times(last: int, goes_on: bool) -> None:
    pace = Pace(8 * MIB, 32 * KIB)
    rounds(pace, *[50_000] * FLAT_ROUNDS)
    assert pace.window == START_GAIN * 50_000
    again = Pace(8 * MIB, 32 * KIB)
    rounds(again, *[50_000] * FLAT_ROUNDS, last)
    rate = 4.0 * last
    assert again.window == (int(START_GAIN * rate * 0.25) if goes_on else settled(rate, 0.25, SMALL_BLOCK))


def test_growth_begins_the_count_anew_and_what_has_ended_does_not_begin_again() -> None:
    pace = Pace(8 * MIB, 32 * KIB)
    rounds(pace, 20_000, 20_000, 20_000, 30_000, 30_000, 30_000)
    assert pace.window == START_GAIN * 30_000
    ended = Pace(8 * MIB, 32 * KIB)
    rounds(ended, 20_000, 20_000, 20_000, 20_000, 60_000)
    assert ended.window == settled(240_000, 0.25, SMALL_BLOCK)


def test_what_may_be_in_flight_at_the_start_has_a_least_and_a_most() -> None:
    slow = Pace(8 * MIB, 32 * KIB)
    answered(slow, 1000, 0.0, 0.25)
    assert slow.window == FIRST_BYTES
    near = Pace(8 * MIB, 32 * KIB)
    answered(near, 100_000, 0.0, 0.0625)
    assert near.window == START_BYTES
    far = Pace(8 * MIB, 32 * KIB)
    answered(far, 100_000, 0.0, 0.125)
    assert far.window == START_RATE * 0.125
    very_far = Pace(8 * MIB, 32 * KIB)
    answered(very_far, 400_000, 0.0, 0.5)
    assert very_far.window == START_MAX_BYTES


def test_a_block_takes_a_few_milliseconds_of_the_link_and_of_the_limit() -> None:
    pace = Pace(8 * MIB, 32 * KIB)
    assert pace.block == SMALL_BLOCK
    pace.allow_blocks(255 * KIB)
    answered(pace, 10_000_000, 0.0, 1.0)
    assert pace.block == 10_000_000 * BLOCK_S
    answered(pace, 100_000_000, 1.0, 2.0)
    assert pace.block == 255 * KIB
    assert Pace(8 * MIB, 1000).block == 1000
    limited = Pace(8 * MIB, 255 * KIB, limit=RateLimit(40_000.0, Clock()))
    assert limited.block == 10_000
    answered(limited, 10_000_000, 0.0, 1.0)
    assert limited.block == 10_000
