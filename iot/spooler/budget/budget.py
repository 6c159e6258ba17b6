"""Keeps what waits in each outbox within its budget: decides what is dropped, and sees to it that it leaves.

    look        what has waited for too long, what exceeds the limits of the backlog, what the disk lacks
    drop        the files are chosen (urgent ones last, preserved ones never), and one transaction records that they
                are dropped, with a line each for the list of dropped files
    leave       they leave the outbox in the way of delivered files: only that very version, never an open file
    list        once they have left, their lines become a file that is delivered

Only entries that wait are chosen: one that is in flight, or whose outcome is not recorded yet, is SENDING, and stays.
"""

from __future__ import annotations

import itertools
import logging
import sqlite3
from collections.abc import Callable, Mapping, Sequence

from iot.spooler.budget.ages import Ages
from iot.spooler.budget.excess import Excess, beyond_backlog, beyond_space
from iot.spooler.budget.shelf import NEVER_S, Shelf
from iot.spooler.budget.tombstones import Tombstones
from iot.spooler.config.budget import Expired
from iot.spooler.leaving.owed import Owed
from iot.spooler.naming import shown
from iot.spooler.outbox.intake import Clocks
from iot.spooler.queue.policy import Event
from iot.spooler.queue.queue import Entry, Queue
from iot.transfer import Journal

__all__ = ["Budget"]

log = logging.getLogger(__name__)

MOST = 512
"""Files dropped at a time, so that the loop gets its turn."""
LOOK_S = 2.0
"""Between two looks at a disk, which also gives what was dropped time to leave."""
OVER_S = 10.0
COST_SHARE = 50.0
LIST_S = 60.0
RETRY_S = 30.0


class Budget:
    """The budgets of all outboxes that have one.

    ages: of those with a time to live. withdraw: told of entries that were attempted, before they are dropped: what
    that left on the server may go. drain: lists are written at once.
    """

    def __init__(
        self,
        shelves: Sequence[Shelf],
        ages: Ages,
        tombstones: Tombstones | None,
        queue: Queue,
        owed: Owed,
        journal: Journal,
        clocks: Clocks,
        withdraw: Callable[[Sequence[Entry]], None],
        *,
        drain: bool,
    ) -> None:
        self._shelves = {shelf.intake.number: shelf for shelf in shelves}
        self._ages = ages
        self._tombstones = tombstones
        self._queue = queue
        self._owed = owed
        self._journal = journal
        self._clocks = clocks
        self._withdraw = withdraw
        self._list_s = 0.0 if drain else LIST_S
        self._ages_at = float("-inf") if any(shelf.settings.ttl_s for shelf in shelves) else NEVER_S
        self._all = tuple(shelves)
        for shelf in shelves:
            shelf.list_at = float("-inf") if shelf.lists else NEVER_S  # what an earlier process has dropped

    def look_at(self) -> float:
        """When there is something to look at, monotonic seconds."""
        times = [min(shelf.backlog_at(), shelf.space_at, shelf.list_at) for shelf in self._all]
        return min([self._ages_at, *times])

    def look(self) -> bool:
        """Do what is due -> whether something was dropped. Raises: DiskFull, JournalUnavailable."""
        now = self._clocks.monotonic()
        if now < self.look_at():
            return False
        dropped = 0
        if now >= self._ages_at:
            self._ages_at = now + self._ages.look()
            dropped += sum(self._expire(shelf, now) for shelf in self._all if shelf.settings.ttl_s is not None)
        for shelf in self._all:
            if now >= shelf.backlog_at():
                dropped += self._keep_backlog(shelf, now)
            if now >= shelf.space_at:
                dropped += self._keep_space(shelf, now)
            if now >= shelf.list_at:
                self._list(shelf)
        return dropped > 0

    def is_to_be_listed(self) -> bool:
        """Whether something has left that is in no list yet, and can be."""
        return any(shelf.lists.is_due() for shelf in self._all if shelf.lists and shelf.list_at < NEVER_S)

    def figures(self, outbox: int) -> Mapping[str, object]:
        """For the status: what was dropped since the start, and why there is too much all the same."""
        shelf = self._shelves.get(outbox)
        if shelf is None:
            return {"dropped": 0, "dropped_bytes": 0, "over_budget": None}
        return {
            "dropped": shelf.dropped["files"],
            "dropped_bytes": shelf.dropped["bytes"],
            "over_budget": "; ".join(shelf.over.values()) or None,
        }

    def close(self) -> None:
        """At the end. Raises: DiskFull, JournalUnavailable."""
        for shelf in self._all:
            if shelf.list_at < NEVER_S:
                self._list(shelf)
        self._ages.close()

    # -- inside

    def _expire(self, shelf: Shelf, now: float) -> int:
        up_to = self._ages.expired_up_to(shelf.intake.number)
        old = shelf.old(up_to) if up_to else []
        if shelf.is_in_the_middle:
            self._ages_at = now  # there is more
        why = f"waited for longer than ttl_s = {shelf.settings.ttl_s:g}"
        if shelf.settings.expired is Expired.QUARANTINE:
            self._quarantine(old, why)
        else:
            self._drop(shelf, old, why, now)
        return len(old)

    def _keep_backlog(self, shelf: Shelf, now: float) -> int:
        shelf.seen = self._queue.made_ready
        excess = beyond_backlog(shelf.settings, *self._queue.backlog(shelf.intake.number))
        dropped = self._reduce(shelf, excess, 1, now, "backlog")
        shelf.paced_until = now + (self._clocks.monotonic() - now) * COST_SHARE
        unfinished = dropped >= MOST or shelf.is_in_the_middle
        shelf.again_at = now if unfinished else now + OVER_S if "backlog" in shelf.over else NEVER_S
        return dropped

    def _keep_space(self, shelf: Shelf, now: float) -> int:
        space = shelf.space()
        shelf.space_at = now + LOOK_S
        if space is None:
            return 0
        return self._reduce(shelf, beyond_space(shelf.settings, space), space.block_bytes, now, "space")

    def _reduce(self, shelf: Shelf, excess: Excess, block_bytes: int, now: float, what: str) -> int:
        """Drop as much as that, as far as it may be dropped, and not too many at a time -> how many files."""
        why = excess.why
        chosen, excess = _chosen(shelf, excess, block_bytes) if excess.is_over else ([], excess)
        self._drop(shelf, chosen, why, now)
        if not shelf.is_in_the_middle:
            self._say_over(shelf, what, why if excess.is_over and len(chosen) < MOST else "")
        return len(chosen)

    def _say_over(self, shelf: Shelf, what: str, why: str) -> None:
        if why and shelf.over.get(what) != why:
            label = shown(shelf.intake.settings.label)
            log.warning("over budget, and nothing more may be dropped outbox=%s reason=%s", label, shown(why))
        if why:
            shelf.over[what] = why
        else:
            shelf.over.pop(what, None)

    def _quarantine(self, entries: Sequence[Entry], why: str) -> None:
        if not entries:
            return
        self._withdraw([entry for entry in entries if entry.attempts])
        given_up = self._journal.write(lambda db: self._queue.evict(db, entries, Event.EXPIRED, why))
        self._owed.leave([], given_up, {entry.id: why for entry in given_up})

    def _drop(self, shelf: Shelf, entries: Sequence[Entry], why: str, now: float) -> None:
        """They are recorded as dropped before they leave."""
        if not entries:
            return
        assert self._tombstones is not None
        self._withdraw([entry for entry in entries if entry.attempts])
        tombstones, at = self._tombstones, self._clocks.wall()

        def write(db: sqlite3.Connection) -> list[Entry]:
            tombstones.add(db, entries, why, at)
            return self._queue.evict(db, entries, Event.EVICTED, why)

        gone = self._journal.write(write)
        shelf.dropped.update(files=len(gone), bytes=sum(entry.fingerprint.size for entry in gone))
        shelf.list_at = min(shelf.list_at, now + self._list_s)
        shelf.tell(gone, why, now)
        self._owed.drop(gone)

    def _list(self, shelf: Shelf) -> None:
        """Write the list of what has left; what cannot be listed yet is tried again."""
        if shelf.lists is None or shelf.sender is None:
            return
        try:
            written = shelf.lists.write(self._clocks.wall())
        except OSError as error:
            label = shown(shelf.intake.settings.label)
            log.warning("cannot write the list of dropped files outbox=%s error=%s", label, shown(str(error)))
            written = False
        if written:
            shelf.sender.wake()
        again_s = max(self._list_s, 1.0 if written else RETRY_S)
        shelf.list_at = self._clocks.monotonic() + again_s if shelf.lists.remain() else NEVER_S


def _chosen(shelf: Shelf, excess: Excess, block_bytes: int) -> tuple[list[Entry], Excess]:
    """-> the first ones that may be dropped, at most MOST of them, and the excess without them"""
    chosen: list[Entry] = []
    for entry in itertools.chain.from_iterable(shelf.candidates()):
        chosen.append(entry)
        excess = excess.without(entry.fingerprint.size, block_bytes)
        if len(chosen) == MOST or not excess.is_over:
            shelf.begin_anew()
            break
    return chosen, excess
