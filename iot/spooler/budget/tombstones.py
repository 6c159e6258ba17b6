"""What was dropped: a row for each file, and lists of them that are delivered like files.

    <state_dir>/dropped/<outbox>/<outbox>-dropped-2026-11-29.0000000042.jsonl

A row is written in the transaction that decides to drop the file. It goes into a list once the file has left, which the
end of its entry shows. The number is that of the first file in the list, so a list that is written again after a crash
has the same name. Each list is a file of an outbox of its own, which has no budget: it is sent, and removed, like any
other. While a server stays away for so long that LISTS_MAX lists wait, rows beyond ROWS_MAX are only counted.
"""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Iterator, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from iot.spooler.leaving.trust import open_trusted
from iot.spooler.queue.queue import Entry
from iot.transfer import Journal, Schema
from iot.transfer.beneath import opener

__all__ = ["TOMBSTONES", "TombstoneLists", "Tombstones"]

TOMBSTONES = Schema(
    "tombstones",
    (
        """
        CREATE TABLE tombstone (
            id INTEGER PRIMARY KEY, outbox INTEGER NOT NULL, size INTEGER NOT NULL, line BLOB NOT NULL);
        CREATE TABLE tombstone_more (outbox INTEGER PRIMARY KEY, files INTEGER NOT NULL, bytes INTEGER NOT NULL)
        """,
    ),
)
SQL_LEFT = (
    "SELECT id, size, CAST(line AS BLOB) AS line FROM tombstone WHERE outbox = ?"
    " AND NOT EXISTS (SELECT 1 FROM entry WHERE entry.id = tombstone.id) ORDER BY id LIMIT ?"
)
SQL_MORE = (
    "INSERT INTO tombstone_more VALUES (?, ?, ?)"
    " ON CONFLICT (outbox) DO UPDATE SET files = files + excluded.files, bytes = bytes + excluded.bytes"
)
LIST_ROWS = 1000
LISTS_MAX = 50
ROWS_MAX = 2000
FRESH = ".list.new"
SUFFIX = ".jsonl"


class Tombstones:
    """The rows. Raises: DiskFull, JournalUnavailable."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        journal.register(TOMBSTONES)

    def add(self, db: sqlite3.Connection, entries: Sequence[Entry], reason: str, at: float) -> None:
        """Within the transaction that drops these entries. at: wall clock, seconds."""
        rows = [(entry.id, entry.outbox, entry.fingerprint.size, _line(entry, reason, round(at))) for entry in entries]
        db.executemany("INSERT OR REPLACE INTO tombstone VALUES (?, ?, ?, ?)", rows)

    def left(self, outbox: int, limit: int) -> list[sqlite3.Row]:
        """Rows of files that have left their outbox, the first ones first."""
        return self._journal.read(SQL_LEFT, outbox, limit)

    def count(self, outbox: int) -> int:
        return int(self._journal.read("SELECT count(*) AS files FROM tombstone WHERE outbox = ?", outbox)[0]["files"])

    def more(self, outbox: int) -> tuple[int, int]:
        """Files and bytes that were only counted."""
        rows = self._journal.read("SELECT files, bytes FROM tombstone_more WHERE outbox = ?", outbox)
        return (int(rows[0]["files"]), int(rows[0]["bytes"])) if rows else (0, 0)

    def listed(self, outbox: int, rows: Sequence[sqlite3.Row]) -> None:
        """These are in a list that is on the disk, and so is what was only counted."""
        self._journal.write(lambda db: _listed(db, outbox, rows))

    def only_count(self, outbox: int, rows: Sequence[sqlite3.Row]) -> None:
        """There is no room for these in any list."""
        size = sum(row["size"] for row in rows if isinstance(row["size"], int))

        def write(db: sqlite3.Connection) -> None:
            _drop(db, rows)
            db.execute(SQL_MORE, (outbox, len(rows), size))

        self._journal.write(write)


class TombstoneLists:
    """The lists of one outbox.

    folder: where they wait to be sent. label: the outbox's name, as part of a file's name. number: of the outbox.
    """

    def __init__(self, folder: Path, label: str, number: int, tombstones: Tombstones) -> None:
        self._folder = folder
        self._label = label
        self._number = number
        self._tombstones = tombstones

    def is_due(self) -> bool:
        """Whether something has left that is in no list."""
        return bool(self._tombstones.left(self._number, 1))

    def remain(self) -> bool:
        """Whether there is something that is in no list, be it still in the outbox."""
        return self._tombstones.count(self._number) > 0

    def write(self, wall: float) -> bool:
        """Write what there is into a list, as far as there is room -> whether a list was written.

        Raises: OSError, DiskFull, JournalUnavailable; then it is tried again.
        """
        rows = self._tombstones.left(self._number, LIST_ROWS)
        if not rows:
            return False
        folder = open_trusted(self._folder, make=True)
        try:
            if _waiting(folder) >= LISTS_MAX:
                if self._tombstones.count(self._number) > ROWS_MAX:
                    self._tombstones.only_count(self._number, rows)
                return False
            day = datetime.fromtimestamp(max(wall, 0), timezone.utc).date()
            name = f"{self._label}-dropped-{day}.{rows[0]['id']:010}{SUFFIX}"
            _put(folder, name, b"".join(self._lines(rows)))
        finally:
            os.close(folder)
        self._tombstones.listed(self._number, rows)
        return True

    def _lines(self, rows: Sequence[sqlite3.Row]) -> Iterator[bytes]:
        files, size = self._tombstones.more(self._number)
        if files:
            yield _json({"more_files": files, "more_bytes": size})
        for row in rows:
            yield row["line"]


def _line(entry: Entry, reason: str, at: int) -> bytes:
    """Of a list. Names are escaped as JSON does, bytes that are no UTF-8 as surrogates."""
    told = {
        "path": os.fsdecode(entry.path),
        "bytes": entry.fingerprint.size,
        "mtime_ns": entry.fingerprint.mtime_ns,
        "sha256_begins": entry.hash8,
        "queued_at": entry.first_seen,
        "dropped_at": at,
        "attempts": entry.attempts,
        "reason": reason,
    }
    return _json(told)


def _json(told: dict[str, Any]) -> bytes:
    return json.dumps(told).encode("ascii") + b"\n"


def _waiting(folder: int) -> int:
    with os.scandir(folder) as entries:
        return sum(entry.name.endswith(SUFFIX) for entry in entries)


def _put(folder: int, name: str, content: bytes) -> None:
    """The list is whole and on the disk when it gets its name."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW
    with open(FRESH, "wb", opener=opener(folder, flags)) as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    os.rename(FRESH, name, src_dir_fd=folder, dst_dir_fd=folder)
    os.fsync(folder)


def _drop(db: sqlite3.Connection, rows: Sequence[sqlite3.Row]) -> None:
    db.executemany("DELETE FROM tombstone WHERE id = ?", [(row["id"],) for row in rows])


def _listed(db: sqlite3.Connection, outbox: int, rows: Sequence[sqlite3.Row]) -> None:
    _drop(db, rows)
    db.execute("DELETE FROM tombstone_more WHERE outbox = ?", (outbox,))
