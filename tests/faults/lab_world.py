"""What the laboratory and its agent's process both see: users, time, and a server that is a folder."""

from __future__ import annotations

import contextlib
import mmap
import os
import struct
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from faults.lab_hooks import Judged

__all__ = ["Clock", "Order", "Published", "Removed", "Server", "User", "as_root", "as_user"]

FAT_TIME_S = 2
"""A life begins at a whole time of FAT, so that what is cut off its times is always the same."""


class User(NamedTuple):
    uid: int
    gid: int


@contextlib.contextmanager
def as_user(user: User) -> Iterator[None]:
    """What this process does meanwhile, it does as that user."""
    if os.geteuid() != 0 or user.uid == 0:
        yield
        return
    os.setegid(user.gid)
    os.seteuid(user.uid)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(0)


@contextlib.contextmanager
def as_root() -> Iterator[None]:
    """Within as_user: what no user may hide from the laboratory."""
    uid = os.geteuid()
    os.seteuid(0)
    try:
        yield
    finally:
        os.seteuid(uid)


class Clock:
    """Monotonic and wall clock of the laboratory, seen by the agent's process and by ours."""

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, 16)
        self._set(1000.0, time.time() // FAT_TIME_S * FAT_TIME_S - 1000.0)

    @property
    def now(self) -> float:
        return self._get()[0]

    @property
    def wall(self) -> float:
        return sum(self._get())

    def passes(self, seconds: float) -> None:
        now, offset = self._get()
        self._set(now + seconds, offset)

    def tick(self) -> float:
        """A look at the monotonic clock takes a moment, too."""
        self.passes(1e-5)
        return self.now

    def _get(self) -> tuple[float, float]:
        values: tuple[float, float] = struct.unpack("dd", self._memory[:])
        return values

    def _set(self, *values: float) -> None:
        self._memory[:] = struct.pack("dd", *values)


class Removed(NamedTuple):
    """What the agent has taken away from the server; local: what had its name in the inbox at that moment."""

    name: str
    content: bytes
    local: bytes | None


class Published(NamedTuple):
    """wall: when, on the laboratory's wall clock."""

    dest: str
    content: bytes
    wall: float


@dataclass
class Server:
    """A server that is a folder. published: everything that ever got a final name. begun: destinations of jobs.

    refused: parts of names that it refuses for good. cut_after: the link is lost after so many deliveries, once.
    away: it cannot be reached. mood: of the hooks; judged: what they said. inbox: where files of it go.
    """

    root: Path
    refused: set[str] = field(default_factory=set)
    cut_after: int = 0
    away: bool = False
    published: list[Published] = field(default_factory=list)
    begun: list[str] = field(default_factory=list)
    mood: str = "good"
    judged: list[Judged] = field(default_factory=list)
    removed: list[Removed] = field(default_factory=list)
    inbox: Path | None = None

    def removes(self, name: str, content: bytes) -> None:
        assert self.inbox is not None
        place = self.inbox / name
        self.removed.append(Removed(name, content, place.read_bytes() if place.is_file() else None))


class Order(NamedTuple):
    """What the agent's process is told: how often it may pause, which step to stop at, how the server is."""

    pauses: int
    at_step: int
    refused: frozenset[str]
    cut_after: int
    away: bool
    mood: str
    stop: bool
