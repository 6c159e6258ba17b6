"""Decides the name of a file on the server, when its first attempt is about to be recorded."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from typing import TypeVar

from iot.spooler.naming import Facts, Naming, UnsafeName
from iot.spooler.queue.queue import Entry
from iot.spooler.state.elapsed import boot_id

__all__ = ["facts_of", "name_of"]

T = TypeVar("T")
LIMIT_CPU_S = 0.1


class TookTooLong(Exception):
    """The limit of processor time was reached; the work was broken off."""


def facts_of(entry: Entry) -> Facts:
    """What a template can say of its file."""
    return Facts(entry.fingerprint.mtime_ns, entry.id, boot_id(), entry.hash8 or "")


def name_of(entry: Entry, naming: Naming) -> str:
    """Raises: UnsafeName if it cannot have one."""
    facts = facts_of(entry)
    if not naming.may_take_long:
        return naming.destination(entry.path, facts)
    try:
        return within(LIMIT_CPU_S, lambda: naming.destination(entry.path, facts))
    except TookTooLong:
        raise UnsafeName(f"the regular expressions of the rules take longer than {LIMIT_CPU_S} s for it") from None


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
