"""Entries whose files may not leave their outbox yet: somebody writes to them, or nobody can know whether."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import NamedTuple

from iot.spooler.leaving.removal import Leaver
from iot.spooler.outbox.departure import Why
from iot.spooler.queue.queue import Entry

__all__ = ["Late", "Waiting"]

PAUSE_S = 0.25
"""Between two looks through all that wait."""


class Late(NamedTuple):
    """An entry that may not leave yet: when to ask again (monotonic seconds), what lets it go, its note, and why."""

    due_s: float
    entry: Entry
    leavers: Mapping[int, Leaver]
    note: str
    why: Why


class Waiting:
    """The entries that wait until they may leave. In memory only: their rows say after a restart that they are owed."""

    def __init__(self) -> None:
        self.next_s = float("inf")
        self._late: dict[int, Late] = {}

    def __len__(self) -> int:
        return len(self._late)

    def count(self, why: Why) -> int:
        """How many wait for this reason."""
        return sum(late.why is why for late in self._late.values())

    def add(self, late: Late) -> None:
        """One that waits already keeps its time."""
        kept = self._late.setdefault(late.entry.id, late)
        self.next_s = min(self.next_s, kept.due_s)

    def ripe(self, now: float, limit: int) -> list[Late]:
        """Those whose time has come, taken out."""
        if now < self.next_s:
            return []
        found = list(itertools.islice((late for late in self._late.values() if late.due_s <= now), limit))
        for late in found:
            del self._late[late.entry.id]
        first_s = min((late.due_s for late in self._late.values()), default=float("inf"))
        self.next_s = first_s if len(found) == limit else max(first_s, now + PAUSE_S)
        return found
