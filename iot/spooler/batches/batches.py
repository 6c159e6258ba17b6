"""Batches: the files of an outbox are sent together, once nothing new has come for a while.

A batch is all rows up to a number. It is being collected until then, and is recorded as it is released: what an earlier
process had begun to send is finished after a restart, and what it was collecting is collected further. A new version of
a file is a new row, and so part of a later batch. So is what comes while the hook `before_batch` is asked.
"""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Mapping

from iot.spooler.hooks.batches import Batch, BatchHooks
from iot.spooler.naming import shown
from iot.spooler.queue.policy import LATEST
from iot.spooler.queue.queue import Queue
from iot.transfer import Journal, Schema

__all__ = ["BATCHES", "Batches"]

log = logging.getLogger(__name__)

BATCHES = Schema("batches", ("CREATE TABLE released (outbox INTEGER PRIMARY KEY, up_to INTEGER NOT NULL)",))


class Batches:
    """intervals: seconds of quiet that end a batch, by the number of the outbox; the others have none.

    labels: names of the outboxes.
    """

    def __init__(
        self,
        intervals: Mapping[int, float],
        labels: Mapping[int, str],
        queue: Queue,
        journal: Journal,
        hooks: BatchHooks,
    ) -> None:
        self._intervals = intervals
        self._labels = labels
        self._queue = queue
        self._journal = journal
        self._hooks = hooks
        self._complete: dict[int, int] = {}
        self._up_to: dict[int, int] = {}
        self._newest: dict[int, int] = {}
        self._quiet_at: dict[int, float] = {}
        self._seen = -1
        if intervals:
            journal.register(BATCHES)
            rows = journal.read("SELECT outbox, up_to FROM released WHERE typeof(up_to) = 'integer'")
            self._up_to = {row["outbox"]: row["up_to"] for row in rows}

    def up_to(self, outbox: int) -> int:
        """The last row of this outbox that may be sent."""
        return self._up_to.get(outbox, 0) if outbox in self._intervals else LATEST

    def look(self, now: float, flushed: Mapping[int, object]) -> bool:
        """Whether a batch was released. now: monotonic seconds. flushed: outboxes whose batch ends at once.

        Raises: DiskFull, JournalUnavailable.
        """
        if self._seen != self._queue.made_ready:
            self._seen = self._queue.made_ready
            self._take_news(now)
        due = [number for number in self._newest if number in flushed or self._quiet_at[number] <= now]
        for number in due:
            if self._newest[number] > self.up_to(number):
                self._complete.setdefault(number, self._newest[number])
        released = [number for number, up_to in self._complete.items() if self._may_go(number, up_to)]
        for number in released:
            self._release(number, self._complete[number])
        self._hooks.after.look()
        return bool(released)

    def next_s(self, now: float) -> float:
        """Seconds until the next batch may be released."""
        collected = {number: at for number, at in self._quiet_at.items() if number not in self._complete}
        waits = [at - now for number, at in collected.items() if self._newest[number] > self.up_to(number)]
        return max(min(waits, default=float("inf")), 0.0)

    def is_going_on(self) -> bool:
        """Whether a batch is being collected, or waits for its hook in this run."""
        waits = [number for number, newest in self._newest.items() if newest > self.up_to(number)]
        return any(not self._hooks.before.is_left(self._complete.get(number, 0)) for number in waits)

    def reason(self, outbox: int) -> str | None:
        """Why some of its files wait."""
        files = self._collected(outbox)
        kept_back = self._hooks.before.reason(outbox)
        if kept_back is not None and outbox in self._intervals:
            return kept_back
        return f"{files} files of a batch, sent {self._intervals[outbox]:g} s after the last" if files else None

    def tell_kept(self) -> None:
        """At the end: what was being collected is kept, and named."""
        for number in self._intervals:
            files = self._collected(number)
            if files:
                log.warning("batch is kept, it was being collected outbox=%s files=%d", self._shown(number), files)

    # -- inside

    def _take_news(self, now: float) -> None:
        for number, interval_s in self._intervals.items():
            newest = self._queue.newest(number)
            if newest != self._newest.get(number, 0):
                self._newest[number], self._quiet_at[number] = newest, now + interval_s

    def _may_go(self, number: int, up_to: int) -> bool:
        return self._hooks.before.allows(number, up_to, lambda: self._batch(number, up_to))

    def _batch(self, number: int, up_to: int) -> Batch:
        return Batch(*self._queue.waiting(number, self.up_to(number), up_to))

    def _release(self, number: int, up_to: int) -> None:
        batch, above = self._batch(number, up_to), self.up_to(number)

        def write(db: sqlite3.Connection) -> None:
            db.execute("INSERT OR REPLACE INTO released (outbox, up_to) VALUES (?, ?)", (number, up_to))
            self._hooks.after.released(db, number, up_to, batch, above)

        self._journal.write(write)
        self._up_to[number] = up_to
        del self._complete[number]
        self._hooks.before.forget(up_to)
        log.info("batch complete outbox=%s files=%d", self._shown(number), batch.files)

    def _collected(self, number: int) -> int:
        return self._queue.waiting(number, self.up_to(number))[0] if number in self._intervals else 0

    def _shown(self, number: int) -> str:
        return shown(self._labels[number])
