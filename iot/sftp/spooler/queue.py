"""The durable queue: one row for each file that is known, in the journal beside the checkpoints.

The folder is the truth for what is there; a row says how far its delivery is. "Delivered" is committed before the
source is removed, and the row is forgotten only after the removal is on the disk. Many rows go into one transaction,
and nothing is written while nothing happens. Paths are BLOBs: names are bytes.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from iot.sftp.client import Fingerprint, Journal, Schema
from iot.sftp.spooler.policy import Event, State, Verdict, after

__all__ = ["NEVER", "QUEUE_SCHEMA", "Delivery", "Entry", "Known", "NewEntry", "Queue", "Total"]

QUEUE_SCHEMA = Schema(
    "queue",
    (
        """
        CREATE TABLE outbox (id INTEGER PRIMARY KEY, path BLOB NOT NULL UNIQUE);
        CREATE TABLE entry (
            id INTEGER PRIMARY KEY, outbox INTEGER NOT NULL, path BLOB NOT NULL, state INTEGER NOT NULL,
            size INTEGER NOT NULL, mtime_ns INTEGER NOT NULL, ctime_ns INTEGER NOT NULL, inode INTEGER NOT NULL,
            large INTEGER NOT NULL, priority INTEGER NOT NULL, rank NOT NULL, destination BLOB NOT NULL,
            first_seen REAL NOT NULL, check_final INTEGER NOT NULL,
            attempts INTEGER NOT NULL DEFAULT 0, failures INTEGER NOT NULL DEFAULT 0,
            strikes INTEGER NOT NULL DEFAULT 0, next_attempt REAL, error TEXT, proof TEXT, delivered_at REAL);
        CREATE UNIQUE INDEX entry_path ON entry (outbox, path);
        CREATE INDEX entry_ready ON entry (outbox, large, priority, rank) WHERE state = 0;
        CREATE INDEX entry_waiting ON entry (next_attempt) WHERE state = 2;
        CREATE INDEX entry_owed ON entry (state) WHERE state IN (3, 5)
        """,
    ),
)
NEVER = 1e15
"""A next_attempt that does not come within this run."""
COLUMNS = (
    "id, outbox, path, state, size, mtime_ns, ctime_ns, inode, large, priority, destination, first_seen,"
    " check_final, attempts, failures, strikes, error"
)
SQL_ADD = (
    "INSERT INTO entry (outbox, path, state, size, mtime_ns, ctime_ns, inode, large, priority, rank, destination,"
    " first_seen, check_final) VALUES (?, ?, 0, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
    " ON CONFLICT (outbox, path) DO UPDATE SET state = 0, size = excluded.size, mtime_ns = excluded.mtime_ns,"
    " ctime_ns = excluded.ctime_ns, inode = excluded.inode, large = excluded.large, priority = excluded.priority,"
    " rank = excluded.rank, destination = excluded.destination, first_seen = excluded.first_seen,"
    " check_final = excluded.check_final, attempts = 0, failures = 0, strikes = 0, next_attempt = NULL, error = NULL,"
    " proof = NULL, delivered_at = NULL WHERE state != 1"
)


@dataclass(frozen=True, slots=True)
class NewEntry:
    """A settled file, or a new version of a known one.

    rank: its place in the order of its outbox, lower first. first_seen: wall clock, seconds.
    """

    outbox: int
    path: bytes
    fingerprint: Fingerprint
    large: bool
    priority: int
    rank: int | bytes
    destination: str
    first_seen: float
    check_final: bool = False


@dataclass(frozen=True, slots=True)
class Entry:
    """A row of the queue."""

    id: int
    outbox: int
    path: bytes
    state: State
    fingerprint: Fingerprint
    large: bool
    priority: int
    destination: str
    first_seen: float
    check_final: bool
    attempts: int
    failures: int
    strikes: int
    error: str | None


class Known(NamedTuple):
    """What the queue knows of a path."""

    id: int
    state: State
    fingerprint: Fingerprint


@dataclass(frozen=True, slots=True)
class Delivery:
    """A success to be written: event SENT or SENT_TO_KEEP, the proof in words, the wall clock in seconds."""

    entry: Entry
    event: Event
    proof: str
    at: float


class Total(NamedTuple):
    """Rows of one outbox in one state: how many, their bytes, the smallest first_seen (wall clock, seconds)."""

    outbox: int
    state: State
    files: int
    bytes: int
    oldest: float


class Queue:
    """The rows of all outboxes. Every method raises JournalUnavailable or DiskFull when the journal does."""

    def __init__(self, journal: Journal) -> None:
        """Use the journal, which was opened with QUEUE_SCHEMA or gets it registered here."""
        self._journal = journal

    # -- start

    def restart(self) -> None:
        """Nothing is in flight and nobody waits: what an earlier process left in these states is ready again."""
        states = (State.SENDING, State.WAITING)
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
        sql = f"SELECT {columns} FROM entry WHERE outbox = ? AND path IN ({marks})"  # noqa: S608  question marks
        rows = self._journal.read(sql, outbox, *paths)
        return {row["path"]: Known(row["id"], State(row["state"]), _fingerprint(row)) for row in rows}

    def add(self, entries: Sequence[NewEntry]) -> None:
        """Make settled files ready, new or in a new version; a row that is being sent stays as it is."""
        if entries:
            values = [_row(entry) for entry in entries]
            self._journal.write(lambda db: db.executemany(SQL_ADD, values))

    def page(self, outbox: int, after_id: int, limit: int) -> list[Entry]:
        """Rows of an outbox whose number is above after_id, by number."""
        return self._entries("WHERE outbox = ? AND id > ? ORDER BY id LIMIT ?", outbox, after_id, limit)

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
        """The first ready entries of one outbox, by priority and rank."""
        return self._entries(
            "WHERE state = 0 AND outbox = ? AND large = ? ORDER BY priority, rank LIMIT ?", outbox, int(large), limit
        )

    def any_ready(self) -> bool:
        return bool(self._journal.read("SELECT 1 FROM entry WHERE state = 0 LIMIT 1"))

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
            first = self._first_wait()
        return first if first is not None and first < NEVER else None

    def _first_wait(self) -> float | None:
        rows = self._journal.read("SELECT min(next_attempt) AS first FROM entry WHERE state = 2")
        first: float | None = rows[0]["first"]
        return first

    # -- what came of it: inside one Journal.write, together with the client's own rows

    def deliver(self, db: sqlite3.Connection, deliveries: Iterable[Delivery]) -> None:
        db.executemany(
            "UPDATE entry SET state = ?, proof = ?, delivered_at = ?, error = NULL, next_attempt = NULL WHERE id = ?",
            [(after(State.SENDING, item.event), item.proof, item.at, item.entry.id) for item in deliveries],
        )

    def fail(self, db: sqlite3.Connection, failed: Iterable[tuple[Entry, Verdict, str | None]], now: float) -> None:
        """Write verdicts (INTERRUPTED, FAILED, GIVEN_UP) with the error's words; now: monotonic clock, seconds."""
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
        return self._entries(f"WHERE state = {int(state)} AND id > ? ORDER BY id LIMIT ?", after_id, limit)

    # -- figures

    def totals(self) -> list[Total]:
        rows = self._journal.read(
            "SELECT outbox, state, count(*) AS files, sum(size) AS bytes, min(first_seen) AS oldest"
            " FROM entry GROUP BY outbox, state"
        )
        return [Total(row["outbox"], State(row["state"]), row["files"], row["bytes"], row["oldest"]) for row in rows]

    def last_error(self) -> str | None:
        rows = self._journal.read("SELECT error FROM entry WHERE state = 2 ORDER BY next_attempt DESC LIMIT 1")
        return rows[0]["error"] if rows else None

    def _entries(self, rest: str, *values: object) -> list[Entry]:
        sql = f"SELECT {COLUMNS} FROM entry {rest}"  # noqa: S608  text of this file
        return [_entry(row) for row in self._journal.read(sql, *values)]


def _may(state: State, event: Event) -> bool:
    try:
        return after(state, event) is State.GONE
    except ValueError:
        return False


def _delete(db: sqlite3.Connection, ids: Sequence[int], states: Sequence[State]) -> None:
    allowed = ",".join(str(int(state)) for state in states)
    sql = f"DELETE FROM entry WHERE id = ? AND state IN ({allowed})"  # noqa: S608  numbers of this program
    db.executemany(sql, [(number,) for number in ids])


def _row(entry: NewEntry) -> tuple[object, ...]:
    version = entry.fingerprint
    return (
        entry.outbox,
        entry.path,
        version.size,
        version.mtime_ns,
        version.ctime_ns,
        _signed(version.inode),
        int(entry.large),
        entry.priority,
        entry.rank,
        entry.destination.encode("utf-8", "surrogateescape"),
        entry.first_seen,
        int(entry.check_final),
    )


def _entry(row: sqlite3.Row) -> Entry:
    return Entry(
        id=row["id"],
        outbox=row["outbox"],
        path=row["path"],
        state=State(row["state"]),
        fingerprint=_fingerprint(row),
        large=bool(row["large"]),
        priority=row["priority"],
        destination=row["destination"].decode("utf-8", "surrogateescape"),
        first_seen=row["first_seen"],
        check_final=bool(row["check_final"]),
        attempts=row["attempts"],
        failures=row["failures"],
        strikes=row["strikes"],
        error=row["error"],
    )


def _fingerprint(row: sqlite3.Row) -> Fingerprint:
    return Fingerprint(row["size"], row["mtime_ns"], row["ctime_ns"], row["inode"] % 2**64)


def _signed(inode: int) -> int:
    """SQLite keeps 64 bits with a sign; inodes have none."""
    return inode - 2**64 if inode >= 2**63 else inode
