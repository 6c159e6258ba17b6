"""The rows of the queue: their tables, what they are in Python, and the way between.

A row has two halves, for flash's sake: what never changes (`file`) is written once, what moves (`entry`) is short, so
that a change of 100 states is a few pages. Paths are BLOBs: names are bytes.
"""

from __future__ import annotations

import sqlite3
from typing import NamedTuple

from iot.sftp.client import Fingerprint, Schema
from iot.sftp.spooler.policy import Event, State

__all__ = [
    "COLUMNS",
    "QUEUE_SCHEMA",
    "SQL_DAMAGED",
    "SQL_ENTRY",
    "SQL_FILE",
    "Delivery",
    "Entry",
    "Known",
    "NewEntry",
    "Total",
    "entry_from",
    "entry_row",
    "file_row",
    "fingerprint_from",
]

QUEUE_SCHEMA = Schema(
    "queue",
    (
        """
        CREATE TABLE outbox (id INTEGER PRIMARY KEY, path BLOB NOT NULL UNIQUE);
        CREATE TABLE file (
            id INTEGER PRIMARY KEY, outbox INTEGER NOT NULL, path BLOB NOT NULL, mtime_ns INTEGER NOT NULL,
            ctime_ns INTEGER NOT NULL, inode INTEGER NOT NULL, destination BLOB NOT NULL, check_final INTEGER NOT NULL);
        CREATE UNIQUE INDEX file_path ON file (outbox, path);
        CREATE TABLE entry (
            id INTEGER PRIMARY KEY, outbox INTEGER NOT NULL, state INTEGER NOT NULL, size INTEGER NOT NULL,
            large INTEGER NOT NULL, priority INTEGER NOT NULL, rank NOT NULL, first_seen REAL NOT NULL,
            attempts INTEGER NOT NULL DEFAULT 0, failures INTEGER NOT NULL DEFAULT 0,
            strikes INTEGER NOT NULL DEFAULT 0, next_attempt REAL, error TEXT);
        CREATE INDEX entry_ready ON entry (outbox, large, priority, rank) WHERE state = 0;
        CREATE INDEX entry_waiting ON entry (next_attempt) WHERE state = 2;
        CREATE INDEX entry_owed ON entry (state) WHERE state IN (3, 5);
        CREATE TABLE delivered (id INTEGER PRIMARY KEY, at REAL NOT NULL, proof TEXT NOT NULL)
        """,
    ),
)
COLUMNS = (
    "entry.id, entry.outbox, path, state, size, mtime_ns, ctime_ns, inode, large, priority, destination, first_seen,"
    " check_final, attempts, failures, strikes, CAST(error AS BLOB) AS error"
)
SQL_FILE = (
    "INSERT OR REPLACE INTO file (id, outbox, path, mtime_ns, ctime_ns, inode, destination, check_final)"
    " VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
)
SQL_ENTRY = (
    "INSERT OR REPLACE INTO entry (id, outbox, state, size, large, priority, rank, first_seen)"
    " VALUES (?, ?, 0, ?, ?, ?, ?, ?)"
)

WHOLE_NUMBERS = (
    *("entry.outbox", "size", "large", "priority", "attempts", "failures", "strikes"),
    *("mtime_ns", "ctime_ns", "inode", "check_final"),
)
SQL_DAMAGED = " OR ".join(
    (
        "SELECT entry.id FROM entry LEFT JOIN file USING (id) WHERE file.id IS NULL",
        "file.outbox IS NOT entry.outbox",
        f"typeof(state) <> 'integer' OR state NOT BETWEEN {int(State.READY)} AND {int(State.QUARANTINED)}",
        *(f"typeof({column}) <> 'integer'" for column in WHOLE_NUMBERS),
        "large NOT IN (0, 1) OR size < 0",
        *(f"typeof({name}) <> 'blob' OR {name} = x'' OR instr({name}, x'00')" for name in ("path", "destination")),
        "typeof(first_seen) NOT IN ('integer', 'real')",
        "typeof(next_attempt) NOT IN ('null', 'integer', 'real')",
    )
)
"""Rows that make no sense: a bit that flipped on flash gives a number that is no state, or text where a number was."""


class NewEntry(NamedTuple):
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


class Entry(NamedTuple):
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


class Delivery(NamedTuple):
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


def file_row(number: int, entry: NewEntry) -> tuple[object, ...]:
    version = entry.fingerprint
    return (
        number,
        entry.outbox,
        entry.path,
        version.mtime_ns,
        version.ctime_ns,
        _signed(version.inode),
        entry.destination.encode("utf-8", "surrogateescape"),
        int(entry.check_final),
    )


def entry_row(number: int, entry: NewEntry) -> tuple[object, ...]:
    return (
        number,
        entry.outbox,
        entry.fingerprint.size,
        int(entry.large),
        entry.priority,
        entry.rank,
        round(entry.first_seen),
    )


def entry_from(row: sqlite3.Row) -> Entry:
    return Entry(
        id=row["id"],
        outbox=row["outbox"],
        path=row["path"],
        state=State(row["state"]),
        fingerprint=fingerprint_from(row),
        large=bool(row["large"]),
        priority=row["priority"],
        destination=row["destination"].decode("utf-8", "surrogateescape"),
        first_seen=row["first_seen"],
        check_final=bool(row["check_final"]),
        attempts=row["attempts"],
        failures=row["failures"],
        strikes=row["strikes"],
        error=None if row["error"] is None else row["error"].decode("utf-8", "replace"),
    )


def fingerprint_from(row: sqlite3.Row) -> Fingerprint:
    return Fingerprint(row["size"], row["mtime_ns"], row["ctime_ns"], row["inode"] % 2**64)


def _signed(inode: int) -> int:
    """SQLite keeps 64 bits with a sign; inodes have none."""
    return inode - 2**64 if inode >= 2**63 else inode
