"""Who may use a client's connection; every hang here would be a test that times out."""

from __future__ import annotations

import gc
import signal
import threading
import time
from collections.abc import Generator
from contextlib import nullcontext
from types import FrameType

import pytest

from iot.transfer.errors import ConfigurationError
from iot.transfer.ownership import Outcomes, Ownership
from iot.transfer.stop import StopFlag


def in_thread(work: object) -> threading.Thread:
    thread = threading.Thread(target=work, daemon=True)  # type: ignore[arg-type]
    thread.start()
    return thread


def test_calls_of_several_threads_wait_for_each_other() -> None:
    ownership, inside, most = Ownership(), [], []

    def call() -> None:
        for _ in range(20):
            with ownership.held():
                inside.append(1)
                most.append(len(inside))
                time.sleep(0.0005)
                inside.pop()

    threads = [in_thread(call) for _ in range(5)]
    for thread in threads:
        thread.join(30)
    assert most == [1] * 100


def test_a_call_from_inside_a_call_is_refused_instead_of_waiting_for_itself() -> None:
    ownership = Ownership()
    with ownership.held(), pytest.raises(ConfigurationError, match="from within another operation"), ownership.held():
        pass
    with ownership.held():
        pass


def test_nobody_waits_for_a_batch() -> None:
    ownership, refused = Ownership(), []

    def call() -> None:
        try:
            with ownership.held():
                pass
        except ConfigurationError as error:
            refused.append(str(error))

    with ownership.held(batch=True):
        call()
        in_thread(call).join(10)
        assert ownership.batch_runs
        with ownership.held(from_inside=True):
            pass
        assert ownership.batch_runs
    assert len(refused) == 2
    assert "upload_many or download_many is running" in refused[0]


def test_a_batch_is_ended_by_any_thread() -> None:
    ownership = Ownership()

    def steps() -> Generator[int, None, None]:
        with ownership.held(batch=True):
            yield 1
            yield 2

    for end in (lambda outcomes: outcomes.close(), list):
        outcomes = Outcomes(nullcontext, steps)
        assert next(outcomes) == 1
        in_thread(lambda outcomes=outcomes, end=end: end(outcomes)).join(10)
        assert not ownership.batch_runs


def test_a_batch_that_is_collected_in_another_thread_frees_the_client() -> None:
    ownership = Ownership()
    held: list[object] = []

    def steps() -> Generator[int, None, None]:
        with ownership.held(batch=True):
            yield 1

    outcomes = Outcomes(nullcontext, steps)
    next(outcomes)
    held.append(outcomes)
    held.append(held)  # a cycle: only the collector finds it
    del outcomes, held
    in_thread(gc.collect).join(10)
    with ownership.held():
        pass


def test_an_outcome_asked_for_twice_at_once_is_refused() -> None:
    taken, go_on, refused = threading.Event(), threading.Event(), []

    def steps() -> Generator[int, None, None]:
        taken.set()
        go_on.wait(10)
        yield 1

    outcomes = Outcomes(nullcontext, steps)
    first = in_thread(lambda: next(outcomes))
    taken.wait(10)
    for call in (lambda: next(outcomes), outcomes.close):
        with pytest.raises(ConfigurationError, match="already waiting for an outcome"):
            call()
    go_on.set()
    first.join(10)
    assert not refused


def test_a_value_error_of_the_callers_own_code_is_left_as_it_is() -> None:
    own = ValueError("mine")

    def steps() -> Generator[int, None, None]:
        raise own
        yield 1

    with pytest.raises(ValueError, match="mine") as caught:
        next(Outcomes(nullcontext, steps))
    assert caught.value is own


def test_a_stop_from_a_signal_handler_never_deadlocks_with_what_it_interrupts() -> None:
    """The handler runs in the thread that waits on the flag, wherever that is: a lock would be held by it sometimes."""
    flag = StopFlag()
    stopped = 0

    def on_alarm(_number: int, _frame: FrameType | None) -> None:
        flag.set()

    before = signal.signal(signal.SIGALRM, on_alarm)
    signal.setitimer(signal.ITIMER_REAL, 0.0005, 0.0005)
    try:
        over_at = time.monotonic() + 2
        while time.monotonic() < over_at:
            stopped += flag.wait(0.0003)
            flag.clear()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert stopped


def test_a_flag_is_set_by_the_one_above_it_and_not_the_other_way_round() -> None:
    above = StopFlag()
    below = StopFlag(above)
    below.set()
    assert below.is_set()
    assert not above.is_set()
    below.clear()
    above.set()
    assert below.is_set()


def hold_again_and_again(ownership: Ownership) -> None:
    """Until an alarm comes, or for a second: Python itself drops one that comes in a finalizer.

    A function of its own, since Python 3.13.0 does not catch what is raised at the end of a loop in the same frame.
    """
    over_at = time.monotonic() + 1
    while time.monotonic() < over_at:
        with ownership.held():
            pass


def test_an_interrupt_at_any_moment_leaves_the_client_free() -> None:
    ownership, interrupted = Ownership(), 0

    def on_alarm(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, on_alarm)
    try:
        for number in range(400):
            try:
                signal.setitimer(signal.ITIMER_REAL, 0.0002 + number % 40 * 0.00001)
                hold_again_and_again(ownership)
            except KeyboardInterrupt:
                interrupted += 1
            with ownership.held():
                pass
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert interrupted > 380


def test_a_callback_may_end_what_it_was_called_from_and_only_where_it_asks_for_that() -> None:
    ownership = Ownership()
    for batch in (False, True):
        with ownership.held(batch=batch):
            with ownership.held(from_inside=True):
                assert ownership.batch_runs is batch
            assert ownership.batch_runs is batch  # the claim is still that of the one outside
            with pytest.raises(ConfigurationError), ownership.held():
                pass
            assert ownership.batch_runs is batch
        assert not ownership.batch_runs
    with ownership.held(from_inside=True), pytest.raises(ConfigurationError), ownership.held():
        pass


def test_one_who_was_refused_an_outcome_is_not_taken_for_the_one_who_asks() -> None:
    inside, refused = threading.Event(), threading.Event()
    asked: list[bool] = []

    def steps() -> Generator[int, None, None]:
        inside.set()
        refused.wait(10)
        asked.append(outcomes.calls_from_here)
        yield 1

    outcomes = Outcomes(nullcontext, steps)
    thread = in_thread(lambda: next(outcomes))
    assert inside.wait(10)
    assert not outcomes.calls_from_here
    with pytest.raises(ConfigurationError, match="is already waiting for an outcome"):
        next(outcomes)
    refused.set()
    thread.join(10)
    assert asked == [True]
    assert not outcomes.calls_from_here
