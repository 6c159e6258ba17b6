"""A name that takes too long to make is given up, and nothing of the limit is left behind."""

from __future__ import annotations

import signal
import threading

import pytest

from iot.spooler.outbox.names import TookTooLong, within


def spin() -> None:
    while True:
        pass


def test_work_that_takes_too_much_of_the_processor_is_broken_off_and_the_timer_is_gone() -> None:
    handler = signal.getsignal(signal.SIGVTALRM)
    with pytest.raises(TookTooLong):
        within(0.01, spin)
    assert within(5.0, lambda: "name") == "name"
    with pytest.raises(ZeroDivisionError):
        within(5.0, lambda: 1 // 0)
    assert signal.getitimer(signal.ITIMER_VIRTUAL)[0] == 0.0
    assert signal.getsignal(signal.SIGVTALRM) is handler


def test_in_another_thread_which_gets_no_signals_nothing_is_limited() -> None:
    done: list[str] = []
    thread = threading.Thread(target=lambda: done.append(within(5.0, lambda: "name")))
    thread.start()
    thread.join(10)
    assert done == ["name"]
