"""The durable queue: one row for each file that is known, in the journal beside the checkpoints.

The folder is the truth for what is there; a row says how far its delivery is. "Delivered" is committed before the
source is removed, and the row is forgotten only after the removal is on the disk. Many rows go into one transaction,
and nothing is written while nothing happens.

Numbers are given in the order of sending as far as it is known, among equals in that of the walk, which goes by names:
what changes in the order of numbers costs flash least.
"""

from __future__ import annotations

import itertools
import logging
import sqlite3
from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

from iot.sftp.client import Journal
from iot.sftp.spooler.policy import Event, State, Verdict, after
from iot.sftp.spooler.rows import (
    COLUMNS,
    QUEUE_SCHEMA,
    SQL_DAMAGED,
    SQL_ENTRY,
    SQL_FILE,
    Delivery,
    Entry,
    Known,
    NewEntry,
    Total,
    entry_from,
    entry_row,
    file_row,
    fingerprint_from,
)

__all__ = ["NEVER", "QUEUE_SCHEMA", "Delivery", "Entry", "Known", "NewEntry", "Queue", "Total"]

log = logging.getLogger(__name__)
T = TypeVar("T")

NEVER = 1e15
"""A next_attempt that does not come within this run."""


class Queue:
    """The rows of all outboxes. Every method raises JournalUnavailable or DiskFull when the journal does.

    made_ready: moves on whenever something may have become ready, so that nobody need ask again and again.
    lost_rows: rows were damaged and dropped; a file that is found again may have been delivered already.
    """

    def __init__(self, journal: Journal) -> None:
        """Use the journal, which was opened with QUEUE_SCHEMA or gets it registered here."""
        self._journal = journal
        self.made_ready = 0
        self.lost_rows = False

    # -- start

    def restart(self) -> None:
        """Nothing is in flight and nobody waits: what an earlier process left in these states is ready again."""
        self._drop_damaged()
        states = (State.SENDING, State.WAITING)
        self.made_ready += 1
        if self._journal.read("SELECT 1 FROM entry WHERE state IN (?, ?) LIMIT 1", *states):
            self._journal.write(
                lambda db: db.execute(
                    "UPDATE entry SET state = ?, failures = 0, next_attempt = NULL WHERE state IN (?, ?)",
                    (State.READY, *states),
                )
            )

    def outbox(self, path: bytes) -> tuple[int, bool]:
        """The number of the outbox with this path, and whether it is new to this journal."""
        rows = self._journal.read("SELECT id FROM outbox WHERE path = ?", path)
        if rows:
            return rows[0]["id"], False
        number = self._journal.write(lambda db: db.execute("INSERT INTO outbox (path) VALUES (?)", (path,)).lastrowid)
        assert number is not None
        return number, True

    # -- what is there

    def known(self, outbox: int, paths: Sequence[bytes]) -> dict[bytes, Known]:
        """What is known of these paths (at most a few hundred)."""
        marks = ",".join("?" * len(paths))
        columns = "id, path, state, size, mtime_ns, ctime_ns, inode"
        sql = f"SELECT {columns} FROM file JOIN entry USING (id) WHERE file.outbox = ? AND path IN ({marks})"  # noqa: S608  question marks

        def read() -> dict[bytes, Known]:
            rows = self._journal.read(sql, outbox, *paths)
            return {row["path"]: Known(row["id"], State(row["state"]), fingerprint_from(row)) for row in rows}

        return self._healed(read)

    def add(self, entries: Sequence[NewEntry]) -> None:
        """Make settled files ready, new or in a new version; a row that is being sent stays as it is."""
        if entries:
            self._journal.write(lambda db: self._add(db, entries))
            self.made_ready += 1

    def _add(self, db: sqlite3.Connection, entries: Sequence[NewEntry]) -> None:
        known: dict[tuple[int, bytes], Known] = {}
        for outbox in {entry.outbox for entry in entries}:
            found = self.known(outbox, [entry.path for entry in entries if entry.outbox == outbox])
            known.update({(outbox, path): row for path, row in found.items()})
        following = itertools.count(db.execute("SELECT coalesce(max(id), 0) + 1 FROM file").fetchone()[0])
        in_order = sorted(entries, key=lambda entry: (entry.outbox, entry.large, entry.priority, entry.rank))
        rows: list[tuple[int, NewEntry]] = []
        for entry in in_order:
            before = known.get((entry.outbox, entry.path))
            if before is None or before.state is not State.SENDING:
                rows.append((before.id if before is not None else next(following), entry))
        db.executemany(SQL_FILE, [file_row(number, entry) for number, entry in rows])
        db.executemany(SQL_ENTRY, [entry_row(number, entry) for number, entry in rows])
        db.executemany("DELETE FROM delivered WHERE id = ?", [(number,) for number, _ in rows])

    def page(self, outbox: int, after_id: int, limit: int) -> list[Entry]:
        """Rows of an outbox whose number is above after_id, by number."""
        return self._entries(
            "WHERE entry.outbox = ? AND entry.id > ? ORDER BY entry.id LIMIT ?", outbox, after_id, limit
        )

    def count(self, outbox: int) -> int:
        rows = self._journal.read("SELECT count(*) AS files FROM entry WHERE outbox = ?", outbox)
        return int(rows[0]["files"])

    def drop(self, ids: Sequence[int], event: Event) -> None:
        """Forget rows whose file is not there any more or is another version (VANISHED, CHANGED)."""
        states = [state for state in State if _may(state, event)]
        if ids:
            self._journal.write(lambda db: _delete(db, ids, states))

    # -- what is next

    def heads(self, outbox: int, *, large: bool, limit: int) -> list[Entry]:
        """The first ready entries of one outbox, by priority, rank and number."""
        return self._entries(
            "WHERE state = 0 AND entry.outbox = ? AND large = ? ORDER BY priority, rank, entry.id LIMIT ?",
            outbox,
            int(large),
            limit,
        )

    def any_ready(self, outboxes: Sequence[int]) -> bool:
        """Whether one of these outboxes has something to send; there may be rows of one that is not used any more."""
        marks = ",".join("?" * len(outboxes))
        rest = f"WHERE state = 0 AND entry.outbox IN ({marks}) AND large IN (0, 1) LIMIT 1"
        sql = f"SELECT 1 FROM entry CROSS JOIN file USING (id) {rest}"  # noqa: S608  question marks
        return bool(self._journal.read(sql, *outboxes))

    def begin(self, entries: Sequence[Entry]) -> None:
        """One more attempt of each, on record before a byte is sent."""
        values = [(after(entry.state, Event.BEGUN), entry.id) for entry in entries]
        self._journal.write(
            lambda db: db.executemany("UPDATE entry SET state = ?, attempts = attempts + 1 WHERE id = ?", values)
        )

    def wake(self, now: float) -> float | None:
        """Make entries ready whose wait is over; when the next one will be, or None. Monotonic clock, seconds."""
        first = self._first_wait()
        if first is not None and first <= now:
            self._journal.write(
                lambda db: db.execute(
                    "UPDATE entry SET state = 0, next_attempt = NULL WHERE state = 2 AND next_attempt <= ?", (now,)
                )
            )
            self.made_ready += 1
            first = self._first_wait()
        return first if first is not None and first < NEVER else None

    def _first_wait(self) -> float | None:
        def read() -> float | None:
            first = self._journal.read("SELECT min(next_attempt) AS first FROM entry WHERE state = 2")[0]["first"]
            return None if first is None else float(first)

        return self._healed(read)

    # -- what came of it: inside one Journal.write, together with the client's own rows

    def deliver(self, db: sqlite3.Connection, deliveries: Iterable[Delivery]) -> None:
        items = list(deliveries)
        db.executemany(
            "UPDATE entry SET state = ?, error = NULL, next_attempt = NULL WHERE id = ?",
            [(after(State.SENDING, item.event), item.entry.id) for item in items],
        )
        db.executemany(
            "INSERT OR REPLACE INTO delivered (id, at, proof) VALUES (?, ?, ?)",
            [(item.entry.id, round(item.at), item.proof) for item in items],
        )

    def fail(self, db: sqlite3.Connection, failed: Iterable[tuple[Entry, Verdict, str | None]], now: float) -> None:
        """Write verdicts (INTERRUPTED, FAILED, GIVEN_UP) with the error's words; now: monotonic clock, seconds."""
        self.made_ready += 1
        for entry, verdict, error in failed:
            state = after(State.SENDING, verdict.event)
            wait = now + verdict.delay_s if state is State.WAITING else None
            db.execute(
                "UPDATE entry SET state = ?, failures = ?, strikes = ?, next_attempt = ?, error = coalesce(?, error)"
                " WHERE id = ?",
                (state, verdict.failures, verdict.strikes, wait, error, entry.id),
            )

    def forget(self, db: sqlite3.Connection, ids: Sequence[int]) -> None:
        """Drop rows whose file has durably left the outbox; a row that was renewed meanwhile stays."""
        _delete(db, ids, [state for state in State if _may(state, Event.SETTLED)])

    def owed(self, state: State, limit: int, after_id: int = 0) -> list[Entry]:
        """Delivered (or quarantined) entries whose file has still to leave the outbox."""
        return self._entries(f"WHERE state = {int(state)} AND entry.id > ? ORDER BY entry.id LIMIT ?", after_id, limit)

    # -- figures

    def totals(self) -> list[Total]:
        sql = (
            "SELECT outbox, state, count(*) AS files, sum(size) AS bytes, min(first_seen) AS oldest"
            " FROM entry GROUP BY outbox, state"
        )

        def read() -> list[Total]:
            rows = self._journal.read(sql)
            return [
                Total(row["outbox"], State(row["state"]), row["files"], row["bytes"], row["oldest"]) for row in rows
            ]

        return self._healed(read)

    def _entries(self, rest: str, *values: object) -> list[Entry]:
        sql = f"SELECT {COLUMNS} FROM entry CROSS JOIN file USING (id) {rest}"  # noqa: S608  text of this file
        return self._healed(lambda: [entry_from(row) for row in self._journal.read(sql, *values)])

    # -- damage

    def _healed(self, read: Callable[[], T]) -> T:
        """What was read, after rows that cannot be read were dropped."""
        try:
            return read()
        except (AttributeError, TypeError, ValueError):
            self._drop_damaged()
            return read()

    def _drop_damaged(self) -> None:
        """SQLite keeps no checksums. A row that makes no sense is forgotten: its file is found again by the scan."""
        ids = [row["id"] for row in self._journal.read(SQL_DAMAGED)]
        if ids:
            self.lost_rows = True
            log.error("damaged rows dropped from the queue rows=%d", len(ids))
            self._journal.write(lambda db: _forget_all(db, ids))


def _may(state: State, event: Event) -> bool:
    try:
        return after(state, event) is State.GONE
    except ValueError:
        return False


def _forget_all(db: sqlite3.Connection, ids: Sequence[int]) -> None:
    for table in ("entry", "file", "delivered"):
        db.executemany(f"DELETE FROM {table} WHERE id = ?", [(number,) for number in ids])  # noqa: S608  own names


def _delete(db: sqlite3.Connection, ids: Sequence[int], states: Sequence[State]) -> None:
    allowed = ",".join(str(int(state)) for state in states)
    sql = f"DELETE FROM entry WHERE id = ? AND state IN ({allowed})"  # noqa: S608  numbers of this program
    values = [(number,) for number in sorted(ids)]
    db.executemany(sql, values)
    for table in ("file", "delivered"):
        sql = f"DELETE FROM {table} WHERE id = ?1 AND NOT EXISTS (SELECT 1 FROM entry WHERE id = ?1)"  # noqa: S608  own names
        db.executemany(sql, values)
