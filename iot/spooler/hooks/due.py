"""The calls of hooks that are due: recorded with what they are about, in the transaction of what they follow.

A call is dropped after it has ended. So each runs at least once, and again after a power cut before that was recorded.
"""

from __future__ import annotations

import logging
import os
import sqlite3
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from iot.transfer import Journal, Schema, terminal_safe

__all__ = ["HOOKS", "Due", "DueCall"]

log = logging.getLogger(__name__)

HOOKS = Schema(
    "hooks",
    (
        """
        CREATE TABLE hook_due (
            id INTEGER PRIMARY KEY, outbox INTEGER NOT NULL, entry INTEGER NOT NULL, hook TEXT NOT NULL,
            path BLOB NOT NULL, destination BLOB NOT NULL, result TEXT NOT NULL, error TEXT NOT NULL,
            bytes INTEGER NOT NULL, sha256 TEXT NOT NULL);
        CREATE INDEX hook_of_entry ON hook_due (entry)
        """,
        "ALTER TABLE hook_due ADD COLUMN files INTEGER NOT NULL DEFAULT 0",
    ),
)
SOUND = (
    "typeof(outbox) = 'integer' AND typeof(entry) = 'integer' AND typeof(hook) = 'text' AND typeof(path) = 'blob'"
    " AND typeof(destination) = 'blob' AND typeof(result) = 'text' AND typeof(error) = 'text'"
    " AND typeof(bytes) = 'integer' AND typeof(sha256) = 'text' AND NOT instr(path, x'00')"
    " AND typeof(files) = 'integer'"
    " AND NOT instr(destination, x'00')"
)
COLUMNS = "id, outbox, entry, hook, path, destination, result, error, bytes, sha256, files"


class DueCall(NamedTuple):
    """entry: the number of its row in the queue; 0 for a batch without a marker. path: in the outbox. files: those of a
    batch. id: 0 before it is recorded."""

    outbox: int
    entry: int
    hook: str
    path: bytes
    destination: str
    result: str
    error: str
    size: int
    sha256: str
    id: int = 0
    files: int = 0


class Due:
    """The table of one journal. Methods raise DiskFull and JournalUnavailable when the journal does."""

    def __init__(self, journal: Journal, outboxes: Sequence[int]) -> None:
        """outboxes: those whose calls may be run; what is due of others is dropped."""
        self._journal = journal
        journal.register(HOOKS)
        self._drop_others(outboxes)
        self._last = int(journal.read("SELECT max(id) AS last FROM hook_due")[0]["last"] or 0)

    def add(self, db: sqlite3.Connection, calls: Iterable[DueCall]) -> None:
        """Within a transaction. Numbers ascend for as long as this object is used."""
        for call in calls:
            self._last += 1
            db.execute(
                f"INSERT INTO hook_due ({COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",  # noqa: S608  text above
                (
                    self._last,
                    *(call.outbox, call.entry, call.hook, call.path, os.fsencode(call.destination), call.result),
                    *(terminal_safe(call.error), call.size, call.sha256, call.files),
                ),
            )

    def page(self, outbox: int, after_id: int, limit: int) -> list[DueCall]:
        """The next ones, in the order in which they came."""
        sql = f"SELECT {COLUMNS} FROM hook_due WHERE outbox = ? AND id > ? ORDER BY id LIMIT ?"  # noqa: S608  text above
        return [_from(row) for row in self._journal.read(sql, outbox, after_id, limit)]

    def drop(self, ids: Sequence[int]) -> None:
        """They have ended."""
        self._journal.write(
            lambda db: db.executemany("DELETE FROM hook_due WHERE id = ?", [(number,) for number in ids])
        )

    def count(self, outbox: int) -> int:
        return int(self._journal.read("SELECT count(*) AS calls FROM hook_due WHERE outbox = ?", outbox)[0]["calls"])

    def waited_for(self, entries: Sequence[int]) -> set[int]:
        """Those of these entries (at most a few hundred) that something is due for."""
        marks = ",".join("?" * len(entries))
        rows = self._journal.read(f"SELECT entry FROM hook_due WHERE entry IN ({marks})", *entries)  # noqa: S608
        return {row["entry"] for row in rows}

    def _drop_others(self, outboxes: Sequence[int]) -> None:
        """What no outbox of the configuration wants any more, and rows that a bad disk has damaged."""
        marks = ",".join("?" * len(outboxes))
        which = f"NOT (outbox IN ({marks}) AND {SOUND})"
        rows = self._journal.read(f"SELECT count(*) AS calls FROM hook_due WHERE {which}", *outboxes)  # noqa: S608
        if rows[0]["calls"]:
            log.warning("hooks dropped, they are no longer configured or are unreadable calls=%d", rows[0]["calls"])
            self._journal.write(lambda db: db.execute(f"DELETE FROM hook_due WHERE {which}", tuple(outboxes)))  # noqa: S608


def _from(row: sqlite3.Row) -> DueCall:
    return DueCall(
        row["outbox"],
        row["entry"],
        row["hook"],
        row["path"],
        os.fsdecode(row["destination"]),
        row["result"],
        row["error"],
        row["bytes"],
        row["sha256"],
        row["id"],
        row["files"],
    )
