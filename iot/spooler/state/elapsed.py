"""A lower bound of the elapsed time, across restarts and reboots of a device without a battery-backed clock.

Within one boot the kernel's boot clock is used. Across a reboot the wall clock is used if it was synchronised both
before and after; otherwise only the time since boot counts. So a jump of the wall clock, such as the first
synchronisation after a start in 1970, ages nothing: the result may be too short, never too long.
"""

from __future__ import annotations

import ctypes
import functools
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

__all__ = ["Clocks", "Moment", "Odometer", "boot_id", "elapsed_s", "is_synchronised", "observe"]

TIME_ERROR = 5
TIMEX_BYTES = 1024
"""Larger than struct timex on any platform."""


BOOT_DIGITS = 8
TIMESYNCD = "/run/systemd/timesync/synchronized"


class Moment(NamedTuple):
    """A reading of all clocks: the boot and the seconds since, the wall clock and whether it is synchronised."""

    boot: str
    since_boot_s: float
    wall_s: float
    synchronised: bool


def observe() -> Moment:
    clock = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
    return Moment(_boot(), time.clock_gettime(clock), time.time(), is_synchronised() is True)


def boot_id() -> str:
    """8 hex digits that are another number after each boot; all 0 if the kernel does not provide one."""
    return _boot().replace("-", "")[:BOOT_DIGITS] or "0" * BOOT_DIGITS


def is_synchronised() -> bool | None:
    """Whether the wall clock is synchronised, by adjtimex(2), or where that is refused by what systemd-timesyncd leaves
    behind; None: unknown."""
    call = _adjtimex()
    state = call(bytes(TIMEX_BYTES)) if call is not None else -1
    if state == -1:
        return os.path.exists(TIMESYNCD) or None
    return state != TIME_ERROR


@dataclass(frozen=True, slots=True)
class Clocks:
    """Both clocks, in seconds: the monotonic one drives everything, the wall clock is for file times and records.
    synchronised: whether the wall clock is; None: unknown. boot: the id of the boot that the monotonic clock is of."""

    monotonic: Callable[[], float]
    wall: Callable[[], float]
    synchronised: Callable[[], bool | None] = is_synchronised
    boot: Callable[[], str] = boot_id


def elapsed_s(before: Moment, now: Moment) -> float:
    """The least number of seconds that have passed between two readings."""
    if before.boot and before.boot == now.boot:
        return max(now.since_boot_s - before.since_boot_s, 0.0)
    least_s = now.since_boot_s if before.boot and now.boot else 0.0
    if before.synchronised and now.synchronised:
        return max(now.wall_s - before.wall_s, least_s)
    return least_s


class Odometer:
    """The least number of seconds since it was first started, kept across restarts.

    look: reads the clocks. moment: the last reading.
    """

    def __init__(self, look: Callable[[], Moment]) -> None:
        self._look = look
        self._seconds = 0.0
        self.moment = look()

    def now_s(self) -> float:
        moment = self._look()
        self._seconds += elapsed_s(self.moment, moment)
        self.moment = moment
        return self._seconds

    def restore(self, seconds: float, moment: Moment) -> None:
        """Continue from the reading of an earlier process."""
        self._seconds, self.moment = seconds, moment
        self.now_s()


@functools.cache
def _boot() -> str:
    """ "" if the kernel does not provide it: then no two readings count as the same boot."""
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
            return file.read().strip()
    except OSError:
        return ""


@functools.cache
def _adjtimex() -> Callable[[bytes], int] | None:
    try:
        call = ctypes.CDLL(None).adjtimex
    except (OSError, AttributeError):
        return None
    call.restype = ctypes.c_int
    return lambda zeros: int(call(ctypes.create_string_buffer(zeros, len(zeros))))
