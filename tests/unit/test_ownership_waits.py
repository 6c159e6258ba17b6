"""How calls of several threads wait for one another: without a turn of the processor, and no longer than they must."""

from __future__ import annotations

import threading
import time
from contextlib import nullcontext

import pytest

from iot.transfer import ownership as module
from iot.transfer.errors import ConfigurationError
from iot.transfer.ownership import Outcomes, Ownership


def test_one_who_waits_goes_on_as_soon_as_the_other_has_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "POLL_S", 30.0)
    ownership, waits = Ownership(), threading.Event()
    real = ownership._freed.wait

    def wait(timeout: float | None = None) -> bool:
        waits.set()
        return real(timeout)

    monkeypatch.setattr(ownership._freed, "wait", wait)
    took: list[float] = []

    def call() -> None:
        with ownership.held():
            took.append(time.monotonic())

    with ownership.held():
        thread = threading.Thread(target=call, daemon=True)
        thread.start()
        assert waits.wait(10)
    ended = time.monotonic()
    thread.join(10)
    assert took
    assert took[0] - ended < 10


def test_a_free_client_is_nobodys_batch() -> None:
    ownership = Ownership()
    assert ownership.batch_runs is False
    with ownership.held():
        assert ownership.batch_runs is False
    with ownership.held(batch=True):
        assert ownership.batch_runs is True
    assert ownership.batch_runs is False


def test_one_who_was_refused_leaves_the_claim_of_the_other() -> None:
    ownership = Ownership()
    with ownership.held(batch=True):
        with (
            pytest.raises(ConfigurationError, match="finish or close it first, or use a second client"),
            ownership.held(),
        ):
            pass
        assert ownership.batch_runs


def test_a_call_of_another_thread_waits_for_a_call_even_if_it_may_be_inside_one() -> None:
    ownership, inside, over = Ownership(), threading.Event(), []

    def call() -> None:
        inside.set()
        with ownership.held(from_inside=True):
            over.append(1)

    with ownership.held():
        thread = threading.Thread(target=call, daemon=True)
        thread.start()
        assert inside.wait(10)
        thread.join(0.02)
        assert over == []
    thread.join(10)
    assert over == [1]


def test_a_batch_that_was_ended_gives_no_more_and_may_be_ended_again() -> None:
    ended: list[int] = []

    def steps():
        try:
            yield 1
            yield 2
        finally:
            ended.append(1)

    outcomes = Outcomes(nullcontext, steps)
    assert not outcomes.calls_from_here
    assert next(outcomes) == 1
    assert not outcomes.calls_from_here
    for _ in range(2):
        outcomes.close()
    assert ended == [1]
    assert list(outcomes) == []


def test_a_callback_of_a_batch_can_neither_take_an_outcome_nor_end_it() -> None:
    told: list[str] = []

    def steps():
        for call in (lambda: next(outcomes), outcomes.close):
            with pytest.raises(ConfigurationError) as caught:
                call()
            told.append(str(caught.value))
        assert outcomes.calls_from_here
        yield 1

    outcomes = Outcomes(nullcontext, steps)
    assert next(outcomes) == 1
    assert told == [module.TWICE] * 2


def test_a_value_error_at_the_end_of_a_batch_is_the_callers_own() -> None:
    def steps():
        try:
            yield 1
        finally:
            raise ValueError("mine")

    outcomes = Outcomes(nullcontext, steps)
    next(outcomes)
    with pytest.raises(ValueError, match=r"^mine$"):
        outcomes.close()
