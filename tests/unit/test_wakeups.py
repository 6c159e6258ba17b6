"""What ends a pause of the loop, on real pipes."""

from __future__ import annotations

import os
import signal
import threading
import time

import pytest

from iot.spooler.process.wakeups import Wakeups

LONG_S = 30.0
SOON_S = 10.0


@pytest.fixture
def wakeups():
    made = Wakeups()
    yield made
    made.close()


def _act(wakeups: Wakeups, seconds: float = 0.0) -> None:
    for act in wakeups.wait(seconds):
        act()


def _wait_s(wakeups: Wakeups, seconds: float) -> float:
    began = time.monotonic()
    _act(wakeups, seconds)
    return time.monotonic() - began


def test_a_poke_ends_the_pause_and_one_before_it_the_next(wakeups: Wakeups) -> None:
    wakeups.poke()
    assert _wait_s(wakeups, LONG_S) < SOON_S
    assert _wait_s(wakeups, 0.05) >= 0.04, "a poke ends one pause only"


def test_however_often_it_is_poked_it_blocks_nobody_and_wakes_once(wakeups: Wakeups) -> None:
    for _ in range(100_000):
        wakeups.poke()
    for _ in range(100_000 // 4096 + 20):
        _act(wakeups)
    assert _wait_s(wakeups, 0.05) >= 0.04


def test_a_signal_handler_and_a_thread_may_poke_while_it_waits(wakeups: Wakeups) -> None:
    before = signal.signal(signal.SIGUSR1, lambda *_: wakeups.poke())
    try:
        for wake in (lambda: os.kill(os.getpid(), signal.SIGUSR1), wakeups.poke):
            timer = threading.Timer(0.05, wake)
            timer.start()
            assert _wait_s(wakeups, LONG_S) < SOON_S
            timer.join()
    finally:
        signal.signal(signal.SIGUSR1, before)


def test_what_can_be_read_is_acted_on_in_a_pause_and_between_steps(wakeups: Wakeups) -> None:
    end, other = os.pipe()
    seen: list[bytes] = []
    unwatch = wakeups.watch(end, lambda: seen.append(os.read(end, 100)))
    try:
        _act(wakeups)
        assert not seen
        os.write(other, b"one")
        assert _wait_s(wakeups, LONG_S) < SOON_S
        os.write(other, b"two")
        _act(wakeups)
        assert seen == [b"one", b"two"]
        unwatch()
        os.write(other, b"three")
        _act(wakeups)
        assert len(seen) == 2, "watched no longer"
        unwatch()  # twice is once
    finally:
        os.close(end)
        os.close(other)


def test_descriptors_above_those_that_select_can_take_are_watched_too(wakeups: Wakeups) -> None:
    end, other = os.pipe()
    high = 1500
    os.dup2(end, high)
    seen: list[bytes] = []
    wakeups.watch(high, lambda: seen.append(os.read(high, 1)))
    try:
        os.write(other, b"x")
        _act(wakeups)
        assert seen == [b"x"]
    finally:
        for descriptor in (high, end, other):
            os.close(descriptor)


def test_no_time_is_no_pause(wakeups: Wakeups) -> None:
    for seconds in (0.0, -1.0, -1e9):
        assert wakeups.wait(seconds) == []


def test_what_is_watched_no_more_wakes_nobody_and_may_be_ended_twice(wakeups: Wakeups) -> None:
    reader, writer = os.pipe()
    unwatch = wakeups.watch(reader, lambda: None)
    os.write(writer, b"x")
    assert len(wakeups.wait(0.0)) == 1
    for _ in range(2):
        unwatch()
        assert wakeups.wait(0.0) == []
    os.close(reader)
    os.close(writer)


def test_at_the_end_nothing_of_it_is_open() -> None:
    before = set(os.listdir("/proc/self/fd"))
    Wakeups().close()
    assert set(os.listdir("/proc/self/fd")) == before
