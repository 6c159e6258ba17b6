"""The files of the laboratory's producers: the names and dates they may have, and how they are opened and read."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from typing import NamedTuple

__all__ = ["DATES_S", "NAMES", "OPEN", "File", "all_of", "is_removed", "next_file_time", "opened"]

CLOCK_REALTIME_COARSE = 5
"""The clock that file times are taken from: linux/time.h."""

NAMES = (
    b"a",
    b"b c",
    b"d/c",
    b"d/e/f",
    b"x",
    b"x.reason.txt",
    b"x.json",
    b".dot",
    b"-dash",
    b"new\nline",
    b"no\xff text",
    b"\xc3\xa4",
    b"n" * 255,
    b"d/" + b"m" * 250,
    b".iot-sent.a",
    b".iot-sent.#1.a",
    b".iot-sent.#1~0123456789abcdef",
    b"a.1",
    b".quarantine/y",
    b".archive/z",
)
DATES_S = (-2_000_000_000, -1, 0, 1, 2**31 + 7, 13_569_465_600, 15_000_000_000, 253_402_300_800, 2**35)
"""1906, 1969, 1970, after 2038, 2400, the last of ext4, the year 10000, and what only some file systems take."""

OPEN = os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
"""A producer who meets the agent's lease would wait; the agent stands still here, so he does something else instead."""


class File(NamedTuple):
    """A name below an outbox."""

    box: int
    path: bytes


def next_file_time() -> None:
    """Awake, since a busy machine makes a sleep of 10 ms five times as long."""
    before = time.clock_gettime_ns(CLOCK_REALTIME_COARSE)
    while time.clock_gettime_ns(CLOCK_REALTIME_COARSE) == before:
        pass


@contextlib.contextmanager
def opened(path: bytes, flags: int) -> Iterator[int]:
    descriptor = os.open(path, OPEN | flags, 0o644)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def is_removed(descriptor: int) -> bool:
    """Links tell nothing: FUSE keeps an open file under a name of its own."""
    return os.readlink(f"/proc/self/fd/{descriptor}").endswith(" (deleted)")


def all_of(descriptor: int) -> bytes:
    return os.pread(descriptor, 1 << 22, 0)
