"""The rows of batches with a marker: which batches are recorded, and which files belong to them."""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Sequence
from typing import NamedTuple

from iot.transfer import Journal, Schema

__all__ = ["FLUSHED", "MARKERS", "MarkedFiles", "Row"]

log = logging.getLogger(__name__)

MARKERS = Schema(
    "markers",
    (
        """
        CREATE TABLE batch (marker INTEGER PRIMARY KEY, outbox INTEGER NOT NULL, path BLOB NOT NULL);
        CREATE TABLE batch_file (
            id INTEGER PRIMARY KEY, batch INTEGER NOT NULL, outbox INTEGER NOT NULL, path BLOB NOT NULL,
            missing INTEGER NOT NULL DEFAULT 0);
        CREATE INDEX batch_file_batch ON batch_file (batch)
        """,
    ),
)
UNCLAIMED = "entry.outbox = ? AND state IN (0, 2) AND entry.id NOT IN (SELECT id FROM batch_file)"
SQL_UNCLAIMED = (
    f"SELECT entry.id, path, size FROM entry JOIN file USING (id) WHERE {UNCLAIMED} AND entry.id > ? ORDER BY entry.id"  # noqa: S608
)
SQL_COUNT_UNCLAIMED = f"SELECT count(*) AS files FROM entry WHERE {UNCLAIMED}"  # noqa: S608  text above
SQL_DAMAGED = (
    "typeof(outbox) <> 'integer' OR typeof(path) <> 'blob'",
    "typeof(batch) <> 'integer' OR typeof(outbox) <> 'integer' OR typeof(path) <> 'blob' OR missing NOT IN (0, 1)",
)
ORPHANED = "batch > 0 AND batch NOT IN (SELECT marker FROM batch) OR batch = 0 AND id NOT IN (SELECT id FROM entry)"
"""Without their batch, or flushed and gone since."""
FLUSHED = 0
"""Instead of the number of a marker: files that were flushed without one."""


class Row(NamedTuple):
    """A file that waits to be sent. id: of its row in the queue. size: its bytes."""

    id: int
    path: bytes
    size: int


class MarkedFiles:
    """The tables of one journal. Every method raises DiskFull and JournalUnavailable when the journal does."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        journal.register(MARKERS)
        self._drop_damaged()

    # -- within one Journal.write

    def close(self, db: sqlite3.Connection, outbox: int, marker: Row, files: Sequence[Row]) -> None:
        """These files are the batch of this marker."""
        db.execute("INSERT OR REPLACE INTO batch VALUES (?, ?, ?)", (marker.id, outbox, marker.path))
        self.add(db, outbox, marker.id, files)

    def add(self, db: sqlite3.Connection, outbox: int, batch: int, files: Sequence[Row]) -> None:
        """These files may be sent."""
        db.executemany(
            "INSERT OR REPLACE INTO batch_file (id, batch, outbox, path) VALUES (?, ?, ?, ?)",
            [(file.id, batch, outbox, file.path) for file in files],
        )

    def delivered(self, db: sqlite3.Connection, ids: Sequence[int]) -> None:
        rows = [(number,) for number in ids]
        db.executemany("DELETE FROM batch_file WHERE id = ?", rows)
        db.executemany("DELETE FROM batch WHERE marker = ?", rows)

    def given_up(self, db: sqlite3.Connection, ids: Sequence[int]) -> None:
        db.executemany("UPDATE batch_file SET missing = 1 WHERE id = ?", [(number,) for number in ids])

    def forget(self, db: sqlite3.Connection, marker: int) -> None:
        """This is no batch any more."""
        db.execute("DELETE FROM batch_file WHERE batch = ?", (marker,))
        db.execute("DELETE FROM batch WHERE marker = ?", (marker,))

    # -- alone

    def unlist(self, key: int) -> None:
        self._journal.write(lambda db: db.execute("DELETE FROM batch_file WHERE id = ?", (key,)))

    def renumber(self, old: int, new: int) -> None:
        def write(db: sqlite3.Connection) -> None:
            db.execute("DELETE FROM batch_file WHERE id = ?", (new,))
            db.execute("UPDATE batch_file SET id = ?, missing = 0 WHERE id = ?", (new, old))

        self._journal.write(write)

    def unclaimed(self, outbox: int, after_id: int = 0) -> list[Row]:
        """The files of an outbox that belong to no batch."""
        return [Row(row["id"], row["path"], row["size"]) for row in self._journal.read(SQL_UNCLAIMED, outbox, after_id)]

    def count_unclaimed(self, outbox: int) -> int:
        return int(self._journal.read(SQL_COUNT_UNCLAIMED, outbox)[0]["files"])

    def batches(self, outbox: int) -> dict[int, bytes]:
        """The recorded batches: marker -> its path."""
        rows = self._journal.read("SELECT marker, path FROM batch WHERE outbox = ?", outbox)
        return {row["marker"]: row["path"] for row in rows}

    def of(self, marker: int) -> list[tuple[int, bytes, int]]:
        """The files that this batch still has: row, path, and whether it is missing."""
        rows = self._journal.read("SELECT id, path, missing FROM batch_file WHERE batch = ?", marker)
        return [(row["id"], row["path"], row["missing"]) for row in rows]

    def exists(self, key: int) -> bool:
        """Whether the queue has this row."""
        return bool(self._journal.read("SELECT 1 FROM entry WHERE id = ?", key))

    def missing(self, outbox: int) -> bytes | None:
        """A file in quarantine that a batch waits for."""
        rows = self._journal.read("SELECT path FROM batch_file WHERE outbox = ? AND missing LIMIT 1", outbox)
        return rows[0]["path"] if rows else None

    # -- damage

    def _drop_damaged(self) -> None:
        """SQLite keeps no checksums. What is not listed any more waits for a marker again."""
        for table, damaged in zip(("batch", "batch_file"), SQL_DAMAGED, strict=True):
            if self._journal.read(f"SELECT 1 FROM {table} WHERE {damaged} LIMIT 1"):  # noqa: S608  text above
                log.error("damaged rows dropped table=%s", table)
                self._drop(table, damaged)
        if self._journal.read(f"SELECT 1 FROM batch_file WHERE {ORPHANED} LIMIT 1"):  # noqa: S608  text above
            self._drop("batch_file", ORPHANED)

    def _drop(self, table: str, which: str) -> None:
        self._journal.write(lambda db: db.execute(f"DELETE FROM {table} WHERE {which}"))  # noqa: S608  text above
