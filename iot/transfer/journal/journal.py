"""The journal: one small SQLite file in a state directory that survives a power cut.

WAL with synchronous=FULL: once a transaction has returned, it is on disk (as measured, NORMAL loses the last ones).
Each user registers its tables as a Schema: the checkpoints of transfers are one, the spooler's queue is another, and
both commit together.

Failures, and how they are handled:
    missing         a new one is created
    corrupt         it is moved aside under a dated name, a new one is created, startup continues
    newer           written by a later version: used as it is if that version declares it compatible,
                    otherwise set aside under its own name and kept; never treated as corrupt
    disk full       the reserve file is deleted, so that deliveries can still be recorded and free space
    not writable    JournalUnavailable; the caller decides (a client used alone continues in memory)
"""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import sqlite3
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

from iot.transfer.errors import DiskFull, JournalUnavailable, LocalStateError
from iot.transfer.journal.reserve import FULL_ERRNOS, Reserve, is_full
from iot.transfer.journal.state_directory import (
    default_state_dir,
    has_room_for_index,
    keep_private,
    lay_out_index,
    lay_out_wal,
    move_aside,
    one_at_a_time,
    owner_of,
)

__all__ = ["Journal", "Schema", "default_state_dir"]

log = logging.getLogger(__name__)
T = TypeVar("T")

FILE_NAME = "journal.db"
OWNER_NAME = "owner"
PAGE_BYTES = 1024
WAL_PAGES = 4096
WAL_BYTES = WAL_PAGES * (PAGE_BYTES + 24)
SHRUNK_PAGES = 64
BUSY_TIMEOUT_S = 30.0
SCHEMAS_TABLE = (
    "CREATE TABLE IF NOT EXISTS room"
    " (name TEXT PRIMARY KEY, version INTEGER NOT NULL, compatible_from INTEGER NOT NULL) WITHOUT ROWID"
)
CAN_WRITE = ("BEGIN IMMEDIATE", "PRAGMA user_version=0", "ROLLBACK")


@dataclass(frozen=True, slots=True)
class Schema:
    """Tables that belong together.

    name: identifies them in the journal's table of schemas (`room`).
    migrations: SQL scripts; number i upgrades version i to i + 1. Only ever append.
    compatible_from: the oldest version of this schema whose program still works with the newest tables (it ignores
        added columns and tables).
    """

    name: str
    migrations: tuple[str, ...]
    compatible_from: int = 1

    @property
    def version(self) -> int:
        return len(self.migrations)


class NewerJournal(LocalStateError):
    """The journal was written by a later version and is not compatible with this one."""


class Corrupt(LocalStateError):
    """The journal's content is invalid."""


class Journal:
    """One SQLite file, opened once per process and shared by all that register a Schema.

    Thread-safe: while one thread is in a transaction, the reads and writes of others wait.

    owner: random hex name of this state directory; it is part of every part name, so that two devices never write to
        the same part. It is kept in a separate file and survives the loss of the journal.
    shared: in-memory data common to all users of this journal.
    moved_aside: the new path of an unusable predecessor, if there was one when this journal was opened.

    Raises: JournalUnavailable, DiskFull.
    """

    def __init__(self, state_dir: Path | None, *schemas: Schema) -> None:
        """state_dir: directory of the journal, created if missing; None keeps everything in memory."""
        self.state_dir = state_dir
        self.moved_aside: Path | None = None
        self._schemas = list(schemas)
        self._reserve = Reserve(state_dir)
        self._turn = threading.RLock()
        self.shared: dict[object, Any] = {}
        if state_dir is None:
            self.owner = secrets.token_hex(8)
            self._db = self._connect(":memory:")
            self._migrate(self._schemas)
            return
        with _translated(state_dir):
            state_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        with _translated(state_dir), one_at_a_time(state_dir):
            self.owner = owner_of(state_dir / OWNER_NAME)
            self._db = self._open_or_replace(state_dir / FILE_NAME)
            self._reserve.keep()
            self._transact(lambda _: lay_out_wal(state_dir / FILE_NAME))

    def register(self, *schemas: Schema) -> None:
        """Add tables, upgrading them in place. Call before first use. Raises: JournalUnavailable, DiskFull."""
        self._schemas.extend(schemas)
        with self._turn, _translated(self.state_dir), one_at_a_time(self.state_dir):
            try:
                self._migrate(schemas)
            except (NewerJournal, sqlite3.DatabaseError, UnicodeDecodeError) as error:
                if self.state_dir is None or not _replaceable(error, self.state_dir / FILE_NAME):
                    raise
                self._db.close()
                self._db = self._replace(self.state_dir / FILE_NAME, error)

    def write(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Run `work` in one durable transaction; once this returns, its effect survives a power cut.

        `work` may run twice (after space was freed on a full disk), so it must only use the database: any other change
        would persist if the transaction fails.

        Raises: JournalUnavailable, DiskFull: then nothing of `work` is kept. RuntimeError inside another write(): the
            inner caller would consider durable what may still be rolled back.
        """
        with self._turn, _translated(self.state_dir):
            if self._db.in_transaction:
                raise RuntimeError("write() inside the work of another write()")
            self._reserve.tend()
            for make_room in (self._reuse_wal, self._reserve.give_up, self._reuse_wal):
                try:
                    return self._transact(work)
                except sqlite3.OperationalError as error:
                    if not is_full(error, self.state_dir) or not make_room():
                        raise
            return self._transact(work)

    def read(self, query: str, *values: object) -> list[sqlite3.Row]:
        """All rows of a query. Raises: JournalUnavailable."""
        with self._turn, _translated(self.state_dir):
            return self._db.execute(query, values).fetchall()

    @staticmethod
    def look_into(state_dir: Path, query: str, *values: object) -> list[sqlite3.Row]:
        """All rows of a query on the journal of a program that may be running; nothing is created or upgraded.

        Raises: JournalUnavailable, also if there is no journal.
        """
        with _translated(state_dir):
            try:
                os.stat(state_dir / FILE_NAME)
            except FileNotFoundError as error:  # SQLite's words for it sound like a fault of the disk
                raise JournalUnavailable(f"there is no journal in {state_dir} yet") from error
            name = f"file:{quote(os.fsencode(state_dir / FILE_NAME))}?mode=ro"
            db = sqlite3.connect(name, uri=True, timeout=BUSY_TIMEOUT_S)
            try:
                db.row_factory = sqlite3.Row
                return db.execute(query, values).fetchall()
            finally:
                db.close()

    def close(self) -> None:
        with self._turn:
            with contextlib.suppress(sqlite3.Error):  # only an optimisation; it is closed already, or in use
                self._shrink()
            self._db.close()
            self._reserve.keep()  # takes the space of the -wal just removed, before others do

    # -- inside

    def _transact(self, work: Callable[[sqlite3.Connection], T]) -> T:
        try:  # also around BEGIN: a KeyboardInterrupt after it must not leave a transaction open
            self._db.execute("BEGIN IMMEDIATE")
            result = work(self._db)
            self._db.execute("COMMIT")
            return result
        except BaseException:
            if self._db.in_transaction:  # after some errors SQLite has rolled back itself
                self._db.execute("ROLLBACK")
            raise

    def _shrink(self) -> None:
        """Free pages need not be copied from the -wal to the main file, nor stay in it."""
        pages, free = (self._db.execute(f"PRAGMA {name}").fetchone()[0] for name in ("page_count", "freelist_count"))
        if free > pages // 2 and pages - free <= SHRUNK_PAGES:
            self._db.execute("PRAGMA busy_timeout=0")
            self._db.execute("VACUUM")

    def _reuse_wal(self) -> bool:
        """Copy the -wal's content to the main file, which has free pages: later commits overwrite the -wal in place."""
        with contextlib.suppress(sqlite3.OperationalError):  # no space for that either: the reserve is next
            self._db.execute("PRAGMA wal_checkpoint(RESTART)")
        return True

    def _open_or_replace(self, path: Path) -> sqlite3.Connection:
        try:
            return self._open(path)
        except (Corrupt, NewerJournal, sqlite3.DatabaseError, UnicodeDecodeError) as error:
            if is_full(error, self.state_dir) and self._reserve.give_up():
                return self._open_or_replace(path)
            if not _replaceable(error, path):
                raise
            return self._replace(path, error)

    def _replace(self, path: Path, reason: Exception) -> sqlite3.Connection:
        word = "newer" if isinstance(reason, NewerJournal) else "corrupt"
        self.moved_aside = move_aside(path, word)
        log.error("journal set aside path=%s as=%s reason=%s", path, self.moved_aside.name, reason)
        return self._open(path)

    def _open(self, path: Path) -> sqlite3.Connection:
        keep_private(path)
        if not has_room_for_index(path.parent):
            raise sqlite3.OperationalError("database or disk is full")
        self._db = self._connect(str(path))
        try:
            if self._db.execute("PRAGMA quick_check(1)").fetchone()[0] != "ok":
                raise Corrupt(f"{path} fails SQLite's integrity check")
            lay_out_index(path)
            for statement in CAN_WRITE:  # detect a read-only file now, not at the first delivery
                self._db.execute(statement)
            self._migrate(self._schemas)
        except BaseException:
            self._db.close()
            raise
        return self._db

    @staticmethod
    def _connect(name: str) -> sqlite3.Connection:
        db = sqlite3.connect(name, timeout=BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False)
        try:
            db.row_factory = sqlite3.Row
            db.execute(f"PRAGMA page_size={PAGE_BYTES}")
            db.execute("PRAGMA journal_mode=WAL")
            db.execute("PRAGMA temp_store=MEMORY")
            db.execute("PRAGMA synchronous=FULL")
            db.execute(f"PRAGMA wal_autocheckpoint={WAL_PAGES}")
            db.execute(f"PRAGMA journal_size_limit={WAL_BYTES}")
        except BaseException:
            db.close()
            raise
        return db

    def _migrate(self, schemas: Sequence[Schema]) -> None:
        """All upgrades in one transaction: every commit wears the flash."""
        due = [(schema, self._version(schema)) for schema in schemas]
        due = [(schema, version) for schema, version in due if version < schema.version]
        if due:
            self._transact(lambda db: _upgrade(db, due))

    def _version(self, schema: Schema) -> int:
        """The version of a schema's tables; 0 if they do not exist yet. Raises: NewerJournal."""
        if not self._db.execute("SELECT 1 FROM sqlite_master WHERE name = 'room'").fetchone():
            return 0
        row = self._db.execute("SELECT version, compatible_from FROM room WHERE name = ?", (schema.name,)).fetchone()
        if row is None:
            return 0
        if row["version"] > schema.version and row["compatible_from"] > schema.version:
            raise NewerJournal(
                f"schema {schema.name} has version {row['version']}; this program supports {schema.version}"
            )
        return int(row["version"])


def _upgrade(db: sqlite3.Connection, due: Sequence[tuple[Schema, int]]) -> None:
    db.execute(SCHEMAS_TABLE)
    for schema, version in due:
        for script in schema.migrations[version:]:
            for statement in filter(str.strip, script.split(";")):
                db.execute(statement)
        values = (schema.name, schema.version, schema.compatible_from)
        db.execute("INSERT OR REPLACE INTO room VALUES (?, ?, ?)", values)


def _replaceable(error: BaseException, path: Path) -> bool:
    """Whether the content is at fault (set it aside), not the disk, permissions or another process."""
    if isinstance(error, (Corrupt, NewerJournal, UnicodeDecodeError)):  # SQLite quotes garbage in its messages
        return True
    if not isinstance(error, sqlite3.OperationalError):
        return isinstance(error, sqlite3.DatabaseError)
    text = str(error)
    if "readonly" in text:  # SQLite also says this of an unknown file format
        return os.access(path, os.W_OK) and os.access(path.parent, os.W_OK)
    return "malformed" in text or "no such" in text or "unsupported file format" in text


@contextlib.contextmanager
def _translated(state_dir: Path | None) -> Iterator[None]:
    """Translate what SQLite and the file system say into this package's errors."""
    where = state_dir or "memory"
    try:
        yield
    except (sqlite3.Error, UnicodeDecodeError) as error:
        if is_full(error, state_dir):
            raise DiskFull(f"no space left for the journal in {where}: free some space on that disk") from error
        raise JournalUnavailable(
            f"journal in {where}: {error}; check the folder's permissions and disk, or move journal.db away"
        ) from error
    except OSError as error:
        if error.errno in FULL_ERRNOS:
            raise DiskFull(f"no space left in {where}: free some space on that disk") from error
        raise JournalUnavailable(
            f"state directory {where}: {error}; make sure it is a folder that this user may write to"
        ) from error
