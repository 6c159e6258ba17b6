"""What has been fetched: the journal's table of one inbox.

    fetched     complete and durable in the hidden folder; its name and its hook are still to come
    published   it has its name, durably; the file on the server is still to be deleted or moved
    taken       nothing is left to do
    refused     it failed its checksum or its hook, and is not fetched again in this version

A version that differs from the recorded one begins anew. What is no longer on the server is dropped, unless something
is still to be done about it.
"""

from __future__ import annotations

import enum
import logging
import sqlite3
from collections.abc import Iterable
from typing import NamedTuple

from iot.spooler.inbox.place import Content
from iot.spooler.naming import shown
from iot.transfer import Journal, RemoteFile, Schema

__all__ = ["INBOX", "FileState", "Record", "Records", "version_of"]

log = logging.getLogger(__name__)

SQL = (
    "CREATE TABLE inbox_file (inbox TEXT NOT NULL, path BLOB NOT NULL, state TEXT NOT NULL, version TEXT NOT NULL,"
    " checksum TEXT NOT NULL, bytes INTEGER NOT NULL, mtime_s INTEGER, sha256 TEXT NOT NULL, reason TEXT NOT NULL,"
    " taken_at REAL NOT NULL, PRIMARY KEY (inbox, path)) WITHOUT ROWID"
)
INBOX = Schema("inbox", (SQL,))
COLUMNS = "path, state, version, checksum, bytes, mtime_s, sha256, reason, taken_at"
SOUND = (
    "typeof(path) = 'blob' AND state IN ('fetched', 'published', 'taken', 'refused') AND typeof(version) = 'text' AND"
    " typeof(checksum) = 'text' AND typeof(bytes) = 'integer' AND typeof(mtime_s) IN ('integer', 'null') AND"
    " typeof(sha256) = 'text' AND typeof(reason) = 'text' AND typeof(taken_at) = 'real'"
)


class FileState(str, enum.Enum):
    FETCHED = "fetched"
    PUBLISHED = "published"
    TAKEN = "taken"
    REFUSED = "refused"


class Record(NamedTuple):
    """path: below the inbox. version: of the remote file as it was listed; checksum: that of its checksum file, ""
    without one. size, mtime_s: of what was fetched; they may say more than the listing. taken_at: since 1970, seconds.
    """

    path: bytes
    state: FileState
    version: str
    checksum: str
    size: int
    mtime_s: int | None
    sha256: str = ""
    reason: str = ""
    taken_at: float = 0.0

    @property
    def content(self) -> Content:
        """The very bytes it is about."""
        return Content(self.path, self.sha256)


def version_of(file: RemoteFile | None) -> str:
    """What changes when a remote file does, as far as its server tells."""
    return "" if file is None else f"{file.size}@{file.mtime_s}"


class Records:
    """inbox: identifies it: its local and its remote folder."""

    def __init__(self, inbox: str, journal: Journal) -> None:
        self._inbox = inbox
        self._journal = journal
        journal.register(INBOX)
        self._drop_damaged()
        rows = journal.read(f"SELECT {COLUMNS} FROM inbox_file WHERE inbox = ? AND {SOUND}", inbox)  # noqa: S608
        self._records = {record.path: record for record in map(_from, rows)}
        self._open = {path: each for path, each in self._records.items() if each.state is not FileState.TAKEN}

    def get(self, path: bytes) -> Record | None:
        return self._records.get(path)

    def of(self, state: FileState) -> list[Record]:
        """For any state but TAKEN, of which there may be many."""
        return [record for record in self._open.values() if record.state is state]

    def write(self, records: Iterable[Record]) -> None:
        """In one transaction. Raises: DiskFull, JournalUnavailable."""
        fresh = list(records)
        if fresh:
            self._journal.write(lambda db: self._put(db, fresh))
            for record in fresh:
                self._records[record.path] = record
                self._open[record.path] = record
                if record.state is FileState.TAKEN:
                    del self._open[record.path]

    def keep_only(self, paths: set[bytes]) -> None:
        """Drop what is no longer on the server and needs nothing more. Raises: DiskFull, JournalUnavailable."""
        over = (FileState.TAKEN, FileState.REFUSED)
        gone = [path for path, each in self._records.items() if each.state in over and path not in paths]
        self.drop(gone)

    def drop(self, paths: Iterable[bytes]) -> None:
        """Raises: DiskFull, JournalUnavailable."""
        gone = list(paths)
        if gone:
            sql = "DELETE FROM inbox_file WHERE inbox = ? AND path = ?"
            self._journal.write(lambda db: db.executemany(sql, [(self._inbox, path) for path in gone]))
            for path in gone:
                self._records.pop(path, None)
                self._open.pop(path, None)

    # -- inside

    def _put(self, db: sqlite3.Connection, records: Iterable[Record]) -> None:
        sql = f"INSERT OR REPLACE INTO inbox_file (inbox, {COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"  # noqa: S608
        db.executemany(sql, [(self._inbox, each.path, each.state.value, *each[2:]) for each in records])

    def _drop_damaged(self) -> None:
        """Rows that a bad disk has damaged: what they stood for is fetched again."""
        where = f"inbox = ? AND NOT ({SOUND})"
        [row] = self._journal.read(f"SELECT count(*) AS files FROM inbox_file WHERE {where}", self._inbox)  # noqa: S608
        if row["files"]:
            log.warning("records of an inbox are unreadable inbox=%s files=%d", shown(self._inbox), row["files"])
            self._journal.write(lambda db: db.execute(f"DELETE FROM inbox_file WHERE {where}", (self._inbox,)))  # noqa: S608


def _from(row: sqlite3.Row) -> Record:
    values = {name: row[name] for name in COLUMNS.split(", ")}
    return Record(
        bytes(values["path"]),
        FileState(values["state"]),
        *(values[name] for name in ("version", "checksum", "bytes", "mtime_s", "sha256", "reason", "taken_at")),
    )
