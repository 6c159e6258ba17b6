"""A stop request and who waits for it, on a clock of the test's own."""

from __future__ import annotations

import pytest

from iot.transfer import stop as module
from iot.transfer.stop import WAKE_S, StopFlag, no_tick


class Clock:
    def __init__(self) -> None:
        self.now = 100.0
        self.slept: list[float] = []

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        assert seconds > 0
        self.slept.append(seconds)
        self.now += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(module, "time", clock)
    return clock


def test_a_flag_is_set_until_it_is_cleared() -> None:
    flag = StopFlag()
    assert not flag.is_set()
    flag.set()
    assert flag.is_set()
    flag.clear()
    assert not flag.is_set()


def test_to_clear_a_flag_leaves_the_one_above_it_set() -> None:
    above = StopFlag()
    below = StopFlag(above)
    above.set()
    below.clear()
    assert above.is_set()
    assert below.is_set()


@pytest.mark.parametrize(
    ("seconds", "slept"), [(0.0, []), (-1.0, []), (WAKE_S, [WAKE_S]), (2.5 * WAKE_S, [WAKE_S, WAKE_S, WAKE_S / 2])]
)
def test_one_who_waits_wakes_often_and_ticks_each_time(clock: Clock, seconds: float, slept: list[float]) -> None:
    ticks: list[float] = []
    assert StopFlag().wait(seconds, lambda: ticks.append(clock.now)) is False
    assert clock.slept == pytest.approx(slept)
    assert len(ticks) == len(slept)
    assert StopFlag().wait(seconds) is False


def test_a_flag_that_is_set_is_not_waited_for(clock: Clock) -> None:
    flag = StopFlag()
    flag.set()
    assert flag.wait(60.0, lambda: pytest.fail("no reason to tick")) is True
    assert clock.slept == []


def test_a_tick_that_sets_the_flag_ends_the_wait(clock: Clock) -> None:
    flag = StopFlag()
    assert flag.wait(60.0, flag.set) is True
    assert clock.slept == [WAKE_S]


def test_one_who_has_nothing_to_do_meanwhile_does_nothing(clock: Clock) -> None:
    assert StopFlag().wait(WAKE_S, no_tick) is False
