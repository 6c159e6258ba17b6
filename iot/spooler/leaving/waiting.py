"""Entries whose files may not leave their outbox yet: they are open for writing, or that cannot be known."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import NamedTuple

from iot.spooler.leaving.removal import Leaver
from iot.spooler.outbox.departure import Why
from iot.spooler.queue.queue import Entry

__all__ = ["Late", "Waiting"]

PAUSE_S = 0.25
"""Between two searches through all that wait."""


class Late(NamedTuple):
    """An entry that may not leave yet: when to try again (monotonic seconds), its leavers, its note, the reason."""

    due_s: float
    entry: Entry
    leavers: Mapping[int, Leaver]
    note: str
    why: Why


class Waiting:
    """The entries that wait to leave. Only in memory: after a restart their rows show that they have to leave."""

    def __init__(self) -> None:
        self.next_s = float("inf")
        self._late: dict[int, Late] = {}

    def __len__(self) -> int:
        return len(self._late)

    def count(self, why: Why) -> int:
        """Number of entries that wait for this reason."""
        return sum(late.why is why for late in self._late.values())

    def add(self, late: Late) -> None:
        """Add an entry; one that waits already keeps its time."""
        kept = self._late.setdefault(late.entry.id, late)
        self.next_s = min(self.next_s, kept.due_s)

    def discard(self, number: int) -> None:
        """Remove an entry that has left or is superseded."""
        self._late.pop(number, None)

    def ripe(self, now: float, limit: int) -> list[Late]:
        """Take out those that are due."""
        if now < self.next_s:
            return []
        found = list(itertools.islice((late for late in self._late.values() if late.due_s <= now), limit))
        for late in found:
            del self._late[late.entry.id]
        first_s = min((late.due_s for late in self._late.values()), default=float("inf"))
        self.next_s = first_s if len(found) == limit else max(first_s, now + PAUSE_S)
        return found
