"""A limit on the processor time of a piece of work, for regular expressions that run on names which others choose."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from typing import TypeVar

__all__ = ["TookTooLong", "within"]

T = TypeVar("T")


class TookTooLong(Exception):
    """The limit was reached; the work was broken off."""


def within(cpu_s: float, work: Callable[[], T]) -> T:
    """The result of `work`, which must be harmless to break off at any point. Python's regular expressions look for
    signals while they match, so a timer of this process's own processor time ends them.

    Only the main thread gets signals: in others nothing is limited. Raises: TookTooLong.
    """
    if threading.current_thread() is not threading.main_thread():
        return work()

    def stop(_number: int, _frame: object) -> None:
        raise TookTooLong

    before = signal.signal(signal.SIGVTALRM, stop)
    try:
        signal.setitimer(signal.ITIMER_VIRTUAL, cpu_s)
        try:
            return work()
        finally:
            signal.setitimer(signal.ITIMER_VIRTUAL, 0)
    finally:
        signal.signal(signal.SIGVTALRM, before)
