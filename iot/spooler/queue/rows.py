"""The rows of the queue: their tables, their types in Python, and the conversions between them.

A row has two halves, to spare flash: what never changes (`file`) is written once, and what does (`entry`) is short, so
that 100 changes of state are a few pages. Paths are BLOBs, because names are bytes.
"""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from iot.spooler.naming.naming import destination_for
from iot.spooler.queue.policy import Event, State, after
from iot.transfer import Fingerprint, Schema

__all__ = [
    "COLUMNS",
    "COLUMNS_OF_KNOWN",
    "QUEUE_SCHEMA",
    "SQL_DAMAGED",
    "SQL_ENTRY",
    "SQL_FILE",
    "SQL_SENT_BEFORE",
    "Destinations",
    "Entry",
    "Known",
    "NewEntry",
    "Success",
    "Total",
    "compressions_in",
    "digest_from",
    "digest_to",
    "entries_from",
    "entry_row",
    "file_row",
    "fingerprint_from",
    "forget",
    "known_from",
    "register",
    "reserve",
    "transition",
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
        """
        CREATE TABLE number (id INTEGER PRIMARY KEY CHECK (id = 1), next INTEGER NOT NULL);
        CREATE TABLE rule (
            id INTEGER PRIMARY KEY, outbox INTEGER NOT NULL, base BLOB NOT NULL, UNIQUE (outbox, base));
        INSERT INTO rule (outbox, base)
            SELECT DISTINCT file.outbox, substr(destination, 1, length(destination) - length(path))
            FROM file JOIN entry USING (id)
            WHERE attempts > 0 AND typeof(destination) = 'blob' AND substr(destination, -length(path)) = path;
        ALTER TABLE entry ADD COLUMN rule INTEGER;
        ALTER TABLE entry ADD COLUMN unanswered INTEGER NOT NULL DEFAULT 0;
        UPDATE entry SET unanswered = 1, rule = (
            SELECT rule.id FROM file JOIN rule ON rule.outbox = file.outbox
            AND base = substr(destination, 1, length(destination) - length(path))
            WHERE file.id = entry.id AND substr(destination, -length(path)) = path)
            WHERE attempts > 0;
        CREATE TABLE version (
            id INTEGER PRIMARY KEY, outbox INTEGER NOT NULL, path BLOB NOT NULL, mtime_ns INTEGER NOT NULL,
            ctime_ns INTEGER NOT NULL, inode INTEGER NOT NULL, check_final INTEGER NOT NULL);
        INSERT INTO version SELECT id, outbox, path, mtime_ns, ctime_ns, inode, check_final FROM file;
        DROP TABLE file;
        ALTER TABLE version RENAME TO file;
        CREATE INDEX file_path ON file (outbox, path)
        """,
        """
        ALTER TABLE delivered ADD COLUMN sha256 BLOB;
        ALTER TABLE file ADD COLUMN sent_before BLOB
        """,
        """
        ALTER TABLE file ADD COLUMN hash8 TEXT;
        ALTER TABLE entry ADD COLUMN destination BLOB
        """,
        """
        DROP INDEX entry_owed;
        CREATE INDEX entry_owed ON entry (state) WHERE state IN (3, 5, 6)
        """,
        """
        ALTER TABLE entry ADD COLUMN wait_s INTEGER;
        CREATE TABLE boot (id INTEGER PRIMARY KEY CHECK (id = 1), boot TEXT NOT NULL)
        """,
    ),
    compatible_from=2,
)
COLUMNS = (
    "entry.id, entry.outbox, path, state, size, mtime_ns, ctime_ns, inode, large, priority, first_seen,"
    " check_final, sent_before, hash8, attempts, failures, strikes, rule, destination, unanswered,"
    " CAST(error AS BLOB) AS error"
)
STATES = {state.value: state for state in State}
COLUMNS_OF_KNOWN = "path, id, state, size, mtime_ns, ctime_ns, inode, check_final"
SQL_SENT_BEFORE = "SELECT coalesce(sha256, sent_before) AS sha256 FROM file LEFT JOIN delivered USING (id) WHERE id = ?"
SQL_FILE = (
    "INSERT INTO file (id, outbox, path, mtime_ns, ctime_ns, inode, check_final, sent_before, hash8)"
    " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"
)
SQL_ENTRY = (
    "INSERT INTO entry (id, outbox, state, size, large, priority, rank, first_seen) VALUES (?, ?, 0, ?, ?, ?, ?, ?)"
)

SHA256_BYTES = 32
NUMBERS = 4096
"""Numbers reserved at a time; those left when the process ends are never used."""
WHOLE_NUMBERS = (
    *("entry.outbox", "size", "large", "priority", "attempts", "failures", "strikes", "unanswered"),
    *("inode", "check_final"),
)
PATH_BETWEEN_SLASHES = "CAST(x'2f' || path || x'2f' AS BLOB)"
NO_TIME = "typeof({0}) <> 'integer' AND (typeof({0}) <> 'blob' OR length({0}) <> 12)"
DAMAGES = (
    "file.id IS NULL",
    "file.outbox IS NOT entry.outbox",
    f"typeof(state) <> 'integer' OR state NOT BETWEEN {int(State.READY)} AND {int(State.DROPPED)}",
    *(f"typeof({column}) <> 'integer'" for column in WHOLE_NUMBERS),
    "large NOT IN (0, 1) OR size < 0",
    *(NO_TIME.format(column) for column in ("mtime_ns", "ctime_ns")),
    "typeof(path) <> 'blob' OR path = x'' OR instr(path, x'00')",
    *(f"instr({PATH_BETWEEN_SLASHES}, CAST('{name}' AS BLOB))" for name in ("//", "/./", "/../")),
    "rule IS NOT NULL AND rule NOT IN (SELECT rule.id FROM rule WHERE typeof(base) IN ('blob', 'text'))",
    "rule IN (SELECT rule.id FROM rule WHERE typeof(base) = 'text') AND typeof(destination) <> 'blob'",
    "typeof(destination) NOT IN ('blob', 'null') OR destination = x'' OR instr(destination, x'00')",
    f"hash8 IS NOT NULL AND (typeof(hash8) <> 'text' OR hash8 NOT GLOB '{'[0-9a-f]' * 8}')",
    "typeof(first_seen) NOT IN ('integer', 'real')",
    "typeof(next_attempt) NOT IN ('null', 'integer', 'real')",
    "typeof(wait_s) NOT IN ('null', 'integer') OR abs(wait_s) > 1e15",
)
SQL_DAMAGED = (
    f"SELECT entry.id FROM entry LEFT JOIN file USING (id) WHERE {' OR '.join(DAMAGES)}"  # noqa: S608  text above
    " UNION SELECT file.id FROM file LEFT JOIN entry USING (id) WHERE entry.id IS NULL"
)
"""Rows that make no sense: a bit flip on flash may turn a state into an unknown number, or a number into text."""


class NewEntry(NamedTuple):
    """A complete file, or a new version of a known one.

    sent_before: the SHA-256 of what was last delivered from this path, if the new version may have the same content.
    hash8: the first 8 hex digits of the SHA-256 of this version, if it was computed.
    rank: its place in the order of its outbox, lower first. first_seen: wall clock, seconds.
    """

    outbox: int
    path: bytes
    fingerprint: Fingerprint
    large: bool
    priority: int
    rank: int | bytes
    first_seen: float
    check_final: bool = False
    sent_before: str | None = None
    hash8: str | None = None


class Entry(NamedTuple):
    """A row of the queue.

    destination: of its present or next attempt; "" if it is not decided yet. left_at: another destination of earlier
    attempts, which may have left a part there. rule: the number of Naming.rule. unanswered: attempts since the server
    last answered for this file; each of them may have published it, so it keeps its destination until the server
    answers.
    """

    id: int
    outbox: int
    path: bytes
    state: State
    fingerprint: Fingerprint
    large: bool
    priority: int
    destination: str
    left_at: str | None
    rule: int | None
    unanswered: int
    first_seen: float
    check_final: bool
    sent_before: str | None
    attempts: int
    failures: int
    strikes: int
    error: str | None
    hash8: str | None = None


class Known(NamedTuple):
    """What the queue knows of a path.

    check_final: this version may have been delivered by an earlier row, and that was not examined yet.
    """

    id: int
    state: State
    fingerprint: Fingerprint
    check_final: bool = False


class Success(NamedTuple):
    """A success to record: event SENT or SENT_TO_KEEP, the proof in words, the wall clock in seconds, and the SHA-256
    of what was sent, if known."""

    entry: Entry
    event: Event
    proof: str
    at: float
    sha256: str | None = None


class Total(NamedTuple):
    """Rows of one outbox in one state: how many, their bytes, the smallest first_seen (wall clock, seconds).

    earlier: how many of them keep a destination that is no longer in the configuration.
    """

    outbox: int
    state: State
    files: int
    bytes: int
    oldest: float
    earlier: int


def transition(state: State, event: Event, changes: str = "", which: str = "id = ?") -> str:
    """The SQL of a transition: it changes a row only if that is in the state that the event leaves.

    changes: further columns. Raises: ValueError for an impossible pair.
    """
    following = after(state, event)
    where = f"WHERE state = {int(state)} AND {which}"
    if following is State.GONE:
        return f"DELETE FROM entry {where}"  # noqa: S608  text of this program
    return f"UPDATE entry SET state = {int(following)}{changes} {where}"  # noqa: S608  text of this program


def file_row(number: int, entry: NewEntry) -> tuple[object, ...]:
    _, *times_and_inode = entry.fingerprint.columns()
    content = digest_to(entry.sent_before), entry.hash8
    return number, entry.outbox, entry.path, *times_and_inode, int(entry.check_final), *content


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


class Destinations:
    """Which naming rule an attempt follows.

    rules: all that were ever in force, by number; None where the destination is in the row itself. in_force: the number
    of the current one of each outbox.
    """

    def __init__(self) -> None:
        self.rules: dict[int, str | None] = {}
        self.in_force: dict[int, int] = {}

    def of(self, row: sqlite3.Row, path: bytes, version: Fingerprint) -> tuple[int | None, str, str | None]:
        """-> rule, destination, left_at of an Entry"""
        former, present = row["rule"], self.in_force.get(row["outbox"])
        idle = row["state"] in (State.READY, State.WAITING)
        was = self._known(former, path, version) or os.fsdecode(row["destination"] or b"")
        if former is not None and (not idle or row["unanswered"] or present in (None, former)):
            return former, was, None
        return present, self._known(present, path, version), was or None

    def recorded(self, entry: Entry) -> tuple[int | None, bytes | None]:
        """The columns rule and destination of an entry that is begun."""
        is_decided = entry.rule is not None and self.rules[entry.rule] is None
        return entry.rule, os.fsencode(entry.destination) if is_decided else None

    def _known(self, number: int | None, path: bytes, version: Fingerprint) -> str:
        """The destination as far as the rule alone gives it; "" for a file that was never attempted and whose outbox is
        not in the configuration."""
        rule = self.rules[number] if number is not None else None
        return "" if rule is None else destination_for(path, rule, version.mtime_ns)


def compressions_in(rules: Iterable[str]) -> Iterator[str]:
    """Of Naming.rule; damaged ones are left out."""
    for rule in rules:
        try:
            kind = json.loads(rule).get("compression")
        except (ValueError, AttributeError):
            continue
        if isinstance(kind, str):
            yield kind


def entries_from(rows: Iterable[sqlite3.Row], destinations: Destinations, most_bytes: float) -> list[Entry]:
    """The first of these, up to the one with which they have so many bytes."""
    found: list[Entry] = []
    for row in rows:
        if most_bytes <= 0:
            break
        found.append(_entry_from(row, destinations))
        most_bytes -= found[-1].fingerprint.size
    return found


def _entry_from(row: sqlite3.Row, destinations: Destinations) -> Entry:
    path, version = row["path"], fingerprint_from(row)
    rule, destination, left_at = destinations.of(row, path, version)
    return Entry(
        id=row["id"],
        outbox=row["outbox"],
        path=path,
        state=State(row["state"]),
        fingerprint=version,
        large=bool(row["large"]),
        priority=row["priority"],
        destination=destination,
        left_at=left_at,
        rule=rule,
        unanswered=row["unanswered"],
        first_seen=row["first_seen"],
        check_final=bool(row["check_final"]),
        sent_before=digest_from(row["sent_before"]),
        attempts=row["attempts"],
        failures=row["failures"],
        strikes=row["strikes"],
        error=None if row["error"] is None else row["error"].decode("utf-8", "replace"),
        hash8=row["hash8"],
    )


def known_from(row: sqlite3.Row) -> tuple[bytes, Known]:
    """-> its path and what is known, from COLUMNS_OF_KNOWN; of every file that is there, in every walk."""
    path, number, state, size, mtime_ns, ctime_ns, inode, check_final = row
    version = Fingerprint.from_columns(size, mtime_ns, ctime_ns, inode)
    return path, Known(number, STATES[state], version, bool(check_final))


def fingerprint_from(row: sqlite3.Row) -> Fingerprint:
    return Fingerprint.from_columns(row["size"], row["mtime_ns"], row["ctime_ns"], row["inode"])


def digest_to(sha256: str | None) -> bytes | None:
    return None if sha256 is None else bytes.fromhex(sha256)


def digest_from(column: object) -> str | None:
    """None if there is none, or it is damaged: then the content is compared with the file on the server."""
    return column.hex() if isinstance(column, bytes) and len(column) == SHA256_BYTES else None


def register(db: sqlite3.Connection, path: bytes, base: bytes | str) -> None:
    db.execute("INSERT OR IGNORE INTO outbox (path) VALUES (?)", (path,))
    db.execute("INSERT OR IGNORE INTO rule (outbox, base) SELECT id, ? FROM outbox WHERE path = ?", (base, path))


def reserve(db: sqlite3.Connection, count: int) -> range:
    """Unused numbers, recorded before the first of them is used."""
    kept = db.execute("SELECT max(next) FROM number WHERE typeof(next) = 'integer' AND next < 1 << 62").fetchone()[0]
    used = [db.execute(f"SELECT max(id) FROM {table}").fetchone()[0] for table in ("file", "entry")]  # noqa: S608  own names
    first = max(kept or 1, *(1 + (number or 0) for number in used))
    numbers = range(first, first + max(count, NUMBERS))
    db.execute("INSERT OR REPLACE INTO number VALUES (1, ?)", (numbers.stop,))
    return numbers


def forget(db: sqlite3.Connection, tables: Sequence[str], ids: Sequence[int]) -> None:
    for table in tables:
        db.executemany(f"DELETE FROM {table} WHERE id = ?", [(number,) for number in ids])  # noqa: S608  own names
