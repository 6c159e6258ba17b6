"""The hooks `before_batch` and `after_batch`: a batch is sent only once the first has succeeded, and the second is told
once nothing of it waits to be sent.

`before_batch` runs until it has succeeded, again after a restart that comes before the batch is recorded. The call of
`after_batch` is recorded in the transaction that ends the batch, so it runs at least once, and again only after a crash
between its end and the record of that.
"""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from iot.spooler.config.hooks import HookSettings
from iot.spooler.hooks.after import AFTER_BATCH, After
from iot.spooler.hooks.calls import Call, Calls, fault, local_path, variables
from iot.spooler.hooks.due import DueCall
from iot.spooler.naming import shown
from iot.spooler.queue.policy import NEVER, RetryRules
from iot.spooler.queue.queue import Entry, Queue
from iot.transfer import Journal, Schema, TransferResult

__all__ = ["BATCH_HOOKS", "AfterBatch", "Batch", "BatchHooks", "BeforeBatch"]

log = logging.getLogger(__name__)

BEFORE_BATCH = "before_batch"
BATCH_HOOKS = Schema(
    "batch_hooks",
    (
        """
        CREATE TABLE batch_sent (
            key INTEGER PRIMARY KEY, outbox INTEGER NOT NULL, above INTEGER, path BLOB NOT NULL,
            files INTEGER NOT NULL, bytes INTEGER NOT NULL, delivered INTEGER NOT NULL DEFAULT 0)
        """,
    ),
)
"""above: the rows of the batch are those above it, up to `key`; NULL: `key` is the row of its marker."""
SOUND = (
    "typeof(outbox) = 'integer' AND typeof(above) IN ('integer', 'null') AND typeof(path) = 'blob'"
    " AND typeof(files) = 'integer' AND typeof(bytes) = 'integer' AND typeof(delivered) = 'integer'"
    " AND NOT instr(path, x'00') AND (above IS NOT NULL OR key IN (SELECT id FROM entry))"
)
LOOK_S = 60.0
"""Files that are removed or dropped also end a batch, which nobody tells of."""


class Batch(NamedTuple):
    """files: how many, without the marker. size: their bytes. path: of its marker, in the outbox; empty without one."""

    files: int
    size: int
    path: bytes = b""


@dataclass
class _Asked:
    """A batch whose hook has not succeeded yet. batch: what it is now. path: of its marker. tries: how often its hook
    has failed. retry_at: None while it runs."""

    outbox: int
    key: int
    batch: Callable[[], Batch]
    path: bytes = b""
    tries: int = 0
    retry_at: float | None = None
    reason: str = ""
    passed: bool = False


class BeforeBatch:
    """hooks: of the outboxes that have this hook, by number. folders: of the same outboxes. rules: how long it waits
    after a failure; after max_failures of them the batch is left to the next run.

    news: changes whenever a batch may be sent that might not before.
    """

    def __init__(
        self,
        hooks: Mapping[int, HookSettings],
        folders: Mapping[int, bytes],
        environment: Mapping[str, str],
        rules: Mapping[int, RetryRules],
        clock: Callable[[], float],
        random: Callable[[], float],
    ) -> None:
        self.news = 0
        self._hooks = hooks
        self._folders = folders
        self._rules = rules
        self._now = clock
        self._random = random
        self._calls = {number: Calls(hook.at_once, hook.limit_s, environment, clock) for number, hook in hooks.items()}
        self._asked: dict[int, _Asked] = {}

    def allows(self, outbox: int, key: int, batch: Callable[[], Batch]) -> bool:
        """Whether the batch of this number may be sent; if that is not known yet, the hook runs, and is tried again."""
        if outbox not in self._hooks:
            return True
        if key not in self._asked:
            self._asked[key] = _Asked(outbox, key, batch)
            self._ask(self._asked[key])
        return self._asked[key].passed

    def forget(self, key: int) -> None:
        """The batch is recorded, or is none any more."""
        self._asked.pop(key, None)

    def look(self) -> bool:
        """Take note of what has ended, start what is due -> whether something has changed.

        Raises: DiskFull, JournalUnavailable.
        """
        changed, now, news = False, self._now(), self.news
        for asked in self._asked.values():
            if asked.retry_at is not None and asked.retry_at <= now:
                asked.retry_at = None
                self._ask(asked)
        for number, calls in self._calls.items():
            for call, ended in calls.look():
                asked_for = self._asked.get(call.key)
                if asked_for is not None:
                    self._take(asked_for, fault(call, ended, self._hooks[number].limit_s))
                    changed = True
        return changed or news != self.news

    def look_in_s(self) -> float:
        now = self._now()
        waits = [calls.look_in_s() for calls in self._calls.values()]
        waits += [asked.retry_at - now for asked in self._asked.values() if asked.retry_at is not None]
        return max(min(waits, default=float("inf")), 0.0)

    def wake(self) -> None:
        """Somebody wants to send now: try again at once."""
        for asked in self._asked.values():
            asked.retry_at = None if asked.retry_at is None else float("-inf")

    def reason(self, outbox: int) -> str | None:
        """Why a batch of this outbox is kept back."""
        mine = [asked for asked in self._asked.values() if asked.outbox == outbox and not asked.passed]
        told = next((asked.reason for asked in mine if asked.reason), f"hook {BEFORE_BATCH}: not ended yet")
        return f"a batch is kept back, {told}" if mine else None

    def is_running(self, outbox: int) -> bool:
        return bool(self._calls.get(outbox))

    def is_left(self, key: int) -> bool:
        """Whether this batch is left to the next run."""
        retry_at = self._asked[key].retry_at if key in self._asked else None
        return retry_at is not None and retry_at >= NEVER

    def under_way(self, outbox: int) -> int:
        """How many calls run or wait in line."""
        return len(self._calls[outbox]) if outbox in self._calls else 0

    @property
    def all_calls(self) -> list[Calls]:
        return list(self._calls.values())

    def _ask(self, asked: _Asked) -> None:
        """Nobody is asked about files that have gone meanwhile."""
        files, size, path = asked.batch()
        if not files and not path:
            self._take(asked, None)
            return
        asked.path = path
        about = variables(local_path(self._folders[asked.outbox], path), "", size, files=files)
        words = self._hooks[asked.outbox].before_batch
        self._calls[asked.outbox].ask(Call(asked.key, BEFORE_BATCH, words, about, path))

    def _take(self, asked: _Asked, reason: str | None) -> None:
        if reason is None:
            asked.passed, asked.reason = True, ""
            self.news += 1
            return
        asked.tries, asked.reason = asked.tries + 1, reason
        rules = self._rules[asked.outbox]
        is_left = rules.max_failures is not None and asked.tries >= rules.max_failures
        wait_s = NEVER if is_left else rules.backoff.delay_s(asked.tries, self._random())
        asked.retry_at = self._now() + wait_s
        log.warning(
            "batch kept back folder=%s marker=%s reason=%s next_s=%s",
            shown(self._folders[asked.outbox]),
            shown(asked.path),
            shown(reason),
            "never" if is_left else f"{wait_s:.1f}",
        )


class AfterBatch:
    """outboxes: the numbers of those that have this hook. after: runs it once it is due."""

    def __init__(
        self, outboxes: Iterable[int], queue: Queue, journal: Journal, after: After, clock: Callable[[], float]
    ) -> None:
        self._outboxes = frozenset(outboxes)
        self._queue = queue
        self._journal = journal
        self._after = after
        self._now = clock
        self._open: set[int] = set()
        self._seen = -1
        self._look_at = float("-inf")
        if self._outboxes:
            journal.register(BATCH_HOOKS)
            self._drop_others()
            rows = journal.read("SELECT key FROM batch_sent WHERE above IS NOT NULL")
            self._open = {row["key"] for row in rows}

    # -- what has happened: within one Journal.write

    def released(self, db: sqlite3.Connection, outbox: int, key: int, batch: Batch, above: int | None = None) -> None:
        """This batch is sent from now on. above: its rows are those above this number, up to `key`; None: `key` is its
        marker."""
        if outbox not in self._outboxes or not (batch.files or batch.path):
            return
        db.execute(
            "INSERT OR REPLACE INTO batch_sent (key, outbox, above, path, files, bytes) VALUES (?, ?, ?, ?, ?, ?)",
            (key, outbox, above, batch.path, batch.files, batch.size),
        )
        if above is not None:
            self._open.add(key)
            self._look_at = float("-inf")

    def delivered(self, db: sqlite3.Connection, outcomes: Sequence[tuple[Entry, TransferResult]]) -> None:
        self._count(db, "above < :id AND key >= :id", outcomes)

    def delivered_with_marker(self, db: sqlite3.Connection, outcomes: Sequence[tuple[Entry, TransferResult]]) -> None:
        """Before these leave the list of files of a batch. A marker ends its batch."""
        listed = "above IS NULL AND key <> :id AND key IN (SELECT batch FROM batch_file WHERE id = :id)"
        self._count(db, listed, outcomes)
        for entry, result in self._mine(outcomes):
            rows = db.execute("SELECT * FROM batch_sent WHERE key = ? AND above IS NULL", (entry.id,)).fetchall()
            self._end(db, rows, destination=result.published_as or entry.destination)

    def _mine(self, outcomes: Sequence[tuple[Entry, TransferResult]]) -> list[tuple[Entry, TransferResult]]:
        return [(entry, result) for entry, result in outcomes if entry.outbox in self._outboxes]

    def _count(self, db: sqlite3.Connection, which: str, outcomes: Sequence[tuple[Entry, TransferResult]]) -> None:
        sent = [{"outbox": each.outbox, "id": each.id} for each, result in self._mine(outcomes) if not result.skipped]
        if sent:
            sql = f"UPDATE batch_sent SET delivered = delivered + 1 WHERE outbox = :outbox AND {which}"  # noqa: S608
            db.executemany(sql, sent)

    def dropped(self, db: sqlite3.Connection, key: int) -> None:
        """The marker was taken away: this is no batch any more."""
        if self._outboxes:
            db.execute("DELETE FROM batch_sent WHERE key = ?", (key,))

    # -- the loop's part

    def look(self) -> None:
        """See which batches without a marker are through. Raises: DiskFull, JournalUnavailable."""
        if not self._open or (self._seen == self._queue.made_ready and self._now() < self._look_at):
            return
        self._seen, self._look_at = self._queue.made_ready, self._now() + LOOK_S
        through = [key for key in self._open if self._is_through(key)]
        if through:

            def write(db: sqlite3.Connection) -> None:
                for key in through:
                    self._end(db, db.execute("SELECT * FROM batch_sent WHERE key = ?", (key,)).fetchall())

            self._journal.write(write)
            self._open.difference_update(through)

    def look_in_s(self) -> float:
        return max(self._look_at - self._now(), 0.0) if self._open else float("inf")

    def _is_through(self, key: int) -> bool:
        rows = self._journal.read("SELECT outbox, above FROM batch_sent WHERE key = ?", key)
        return not any(self._queue.waits_between(row["outbox"], row["above"], key) for row in rows)

    def _end(self, db: sqlite3.Connection, rows: Iterable[sqlite3.Row], destination: str = "") -> None:
        for row in rows:
            db.execute("DELETE FROM batch_sent WHERE key = ?", (row["key"],))
            is_whole = row["delivered"] >= row["files"]
            error = "" if is_whole else f"{row['delivered']} of {row['files']} files were delivered"
            marker = row["key"] if row["above"] is None else 0
            result = "delivered" if is_whole else "incomplete"
            call = DueCall(
                row["outbox"], marker, AFTER_BATCH, row["path"], destination, result, error, row["bytes"], ""
            )
            self._after.batch_over(db, call._replace(files=row["files"]))

    def _drop_others(self) -> None:
        """What no outbox of the configuration wants any more, rows that a bad disk has damaged, and those whose marker
        is gone."""
        marks = ",".join(str(number) for number in sorted(self._outboxes))
        which = f"NOT (outbox IN ({marks}) AND {SOUND})"
        if self._journal.read(f"SELECT 1 FROM batch_sent WHERE {which} LIMIT 1"):  # noqa: S608  text above
            self._journal.write(lambda db: db.execute(f"DELETE FROM batch_sent WHERE {which}"))  # noqa: S608


class BatchHooks(NamedTuple):
    """Both hooks of all outboxes."""

    before: BeforeBatch
    after: AfterBatch
