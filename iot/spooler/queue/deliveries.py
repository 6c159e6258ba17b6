"""The delivery record: what was delivered, when, where to, and with which proof; for the newest KEPT deliveries.

It is written in the transaction that marks an entry as delivered, so no file leaves its outbox without its line here.
The rows form a ring, in which a new one overwrites the oldest, so that the journal stays small.
"""

from __future__ import annotations

import logging
import os
import sqlite3
from collections.abc import Iterable, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import NamedTuple

from iot.spooler.naming import shown
from iot.spooler.queue.rows import Entry
from iot.transfer import Journal, LocalStateError, Schema, TransferResult

__all__ = ["DELIVERIES", "KEPT", "Delivered", "Deliveries", "last_delivered", "last_deliveries", "table"]

log = logging.getLogger(__name__)

KEPT = 1000
CLOCK = {True: "synchronised", False: "unsynchronised", None: "unknown"}
YEAR_10000 = 253_402_300_800
DELIVERIES = Schema(
    "deliveries",
    (
        """
        CREATE TABLE delivery (
            place INTEGER PRIMARY KEY, number INTEGER NOT NULL, at INTEGER NOT NULL, outbox INTEGER NOT NULL,
            path BLOB NOT NULL, base BLOB NOT NULL, below INTEGER NOT NULL, size INTEGER NOT NULL,
            proof TEXT NOT NULL, durable INTEGER NOT NULL, repeat INTEGER NOT NULL, sha256 BLOB)
        """,
        "CREATE TABLE delivery_clock (place INTEGER PRIMARY KEY, number INTEGER NOT NULL, synchronised INTEGER)",
        "CREATE TABLE delivery_server (place INTEGER PRIMARY KEY, number INTEGER NOT NULL, server TEXT NOT NULL)",
    ),
)
SQL_ADD = "INSERT OR REPLACE INTO delivery VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
SQL_NEXT = "SELECT coalesce(max(number), 0) + 1 FROM delivery WHERE typeof(number) = 'integer' AND number < 1 << 62"
SQL_ADD_CLOCK = "INSERT OR REPLACE INTO delivery_clock VALUES (?, ?, ?)"
SQL_ADD_SERVER = "INSERT OR REPLACE INTO delivery_server VALUES (?, ?, ?)"
SQL_THERE = "SELECT 1 FROM sqlite_master WHERE name = 'delivery_server'"
SQL_LAST = (
    "SELECT delivery.*, outbox.path AS folder, synchronised, server FROM delivery"
    " LEFT JOIN outbox ON outbox.id = delivery.outbox LEFT JOIN delivery_clock USING (place, number)"
    " LEFT JOIN delivery_server USING (place, number) ORDER BY number DESC LIMIT ?"
)


class Delivered(NamedTuple):
    """One delivery. at: wall clock, whole seconds. repeat: an earlier attempt may have delivered the file, too. clock:
    whether the wall clock was synchronised: a word of CLOCK. server: its address, None where there was but one."""

    at: int
    path: str
    destination: str
    bytes: int
    proof: str
    durable: bool
    repeat: bool
    sha256: str | None
    clock: str
    server: str | None = None


class Deliveries:
    """server: where files are delivered to, None where there is but one. Raises: JournalUnavailable, DiskFull, when the
    table is made."""

    def __init__(self, journal: Journal, server: str | None = None) -> None:
        self._next: int | None = None
        self._server = server
        journal.register(DELIVERIES)

    def add(
        self,
        db: sqlite3.Connection,
        at: float,
        synchronised: bool | None,
        deliveries: Sequence[tuple[Entry, TransferResult]],
    ) -> None:
        """Within a Journal.write. A failed transaction leaves nothing but a gap in the numbers.

        at: wall clock, seconds. synchronised: whether that clock is; None: unknown.
        """
        if self._next is None:
            [(self._next,)] = db.execute(SQL_NEXT)
        numbers = range(self._next, self._next + len(deliveries))
        self._next = numbers.stop
        db.executemany(
            SQL_ADD,
            [_row(number, round(at), *delivery) for number, delivery in zip(numbers, deliveries, strict=True)],
        )
        db.executemany(SQL_ADD_CLOCK, [(number % KEPT, number, synchronised) for number in numbers])
        if self._server is not None:
            db.executemany(SQL_ADD_SERVER, [(number % KEPT, number, self._server) for number in numbers])


def last_deliveries(state_dir: Path, count: int) -> list[Delivered]:
    """The newest deliveries, the newest last; does not disturb a running agent.

    Raises: JournalUnavailable.
    """
    if not Journal.look_into(state_dir, SQL_THERE):
        return []
    rows = Journal.look_into(state_dir, SQL_LAST, count)
    return [item for item in map(_from_row, reversed(rows)) if item is not None]


def last_delivered(state_dir: Path) -> dict[str, int]:
    """Destination -> time of its last delivery, as far back as the record goes; empty if there is no record."""
    try:
        return {item.destination: item.at for item in last_deliveries(state_dir, KEPT)}
    except LocalStateError as error:  # lost, never made, or on a full disk: not worth failing for
        log.warning("cannot read the delivery record error=%s", shown(str(error)))
        return {}


def table(deliveries: Iterable[Delivered]) -> str:
    """A line for each: time (UTC; "?": the clock was not synchronised), proof, bytes, source, destination."""
    return "\n".join(
        f"{datetime.fromtimestamp(item.at, timezone.utc):%Y-%m-%d %H:%M:%S}{'?' if item.clock == CLOCK[False] else ' '}"
        f" {_proof(item):<19} {item.bytes:>12}  {shown(item.path)} -> {_where(item)}"
        for item in deliveries
    )


def _where(item: Delivered) -> str:
    return shown(item.destination) + (f" at {shown(item.server)}" if item.server is not None else "")


def _proof(item: Delivered) -> str:
    return item.proof + " durable" * item.durable + " repeat" * item.repeat


def _row(number: int, at: int, entry: Entry, result: TransferResult) -> tuple[object, ...]:
    """The common end of destination and path is stored once."""
    destination = os.fsencode(result.published_as or entry.destination)
    below = destination.endswith(entry.path)
    base = destination[: len(destination) - len(entry.path)] if below else destination
    digest = bytes.fromhex(result.sha256) if result.sha256 else None
    what = (entry.outbox, entry.path, base, below, result.size)
    return number % KEPT, number, at, *what, result.proven, result.durable, result.possible_repeat, digest


def _from_row(row: sqlite3.Row) -> Delivered | None:
    """SQLite keeps no checksums, so rows that make no sense are left out."""
    try:
        path = bytes(row["path"])
        if not 0 <= row["at"] < YEAR_10000:
            return None
        return Delivered(
            int(row["at"]),
            os.path.join(os.fsdecode(row["folder"] or b""), os.fsdecode(path)),
            os.fsdecode(bytes(row["base"]) + (path if row["below"] else b"")),
            int(row["size"]),
            str(row["proof"]),
            bool(row["durable"]),
            bool(row["repeat"]),
            bytes(row["sha256"]).hex() if row["sha256"] is not None else None,
            CLOCK.get(row["synchronised"], CLOCK[None]),
            str(row["server"]) if row["server"] is not None else None,
        )
    except (TypeError, ValueError):
        return None
