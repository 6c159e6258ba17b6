"""How long files have waited, whatever the wall clock says.

A file's time of modification, and the wall clock when it was found, may both be decades off on a device without a
battery-backed clock. So age is read from an odometer (see state.elapsed), which never runs fast: now and then a mark
notes its reading and the highest row of an outbox. Rows up to that number are at least as old as the mark. A mark is
made only where something has come since the last one, so an agent at rest writes nothing.
"""

from __future__ import annotations

import sqlite3
import zlib
from collections.abc import Callable, Mapping, Sequence

from iot.spooler.queue.queue import Queue
from iot.spooler.state.elapsed import Moment, Odometer
from iot.transfer import Journal, Schema

__all__ = ["AGES", "Ages"]

AGES = Schema(
    "ages",
    (
        """
        CREATE TABLE age_mark (
            outbox INTEGER NOT NULL, up_to INTEGER NOT NULL, reading_s REAL NOT NULL, crc INTEGER NOT NULL,
            PRIMARY KEY (outbox, up_to));
        CREATE TABLE odometer (
            id INTEGER PRIMARY KEY CHECK (id = 1), reading_s REAL NOT NULL, boot TEXT NOT NULL,
            since_boot_s REAL NOT NULL, wall_s REAL NOT NULL, synchronised INTEGER NOT NULL,
            crc INTEGER NOT NULL)
        """,
    ),
)
STEPS = 20
LEAST_S = 1.0
"""A file expires late by at most a STEPS-th of its time to live, or by two seconds."""


class Ages:
    """limits: seconds of the time to live, by the number of the outbox; the others have none. look: reads the clocks.

    Raises: DiskFull, JournalUnavailable.
    """

    def __init__(self, limits: Mapping[int, float], queue: Queue, journal: Journal, look: Callable[[], Moment]) -> None:
        self._limits = limits
        self._queue = queue
        self._journal = journal
        self._odometer = Odometer(look)
        self._marks: dict[int, dict[int, float]] = {number: {} for number in limits}
        self._seen = -1
        if limits:
            journal.register(AGES)
            self._restore()

    def look(self) -> float:
        """Make the marks that are due -> seconds until there is something to do again."""
        if not self._limits:
            return float("inf")
        now_s = self._odometer.now_s()
        fresh = {number: self._queue.newest(number) for number in self._limits if self._is_due(number, now_s)}
        fresh = {number: up_to for number, up_to in fresh.items() if up_to > max(self._marks[number], default=0)}
        if fresh:
            self._journal.write(lambda db: self._write(db, fresh, now_s))
            for number, up_to in fresh.items():
                self._marks[number] = {**self._worth_keeping(number), up_to: now_s}
        return max(min(limit / STEPS for limit in self._limits.values()), LEAST_S)

    def expired_up_to(self, number: int) -> int:
        """The highest row of an outbox that has surely waited for its time to live; 0: none."""
        now_s, limit = self._odometer.now_s(), self._limits[number]
        return max((up_to for up_to, read_s in self._marks[number].items() if now_s - read_s >= limit), default=0)

    def close(self) -> None:
        """At the end: time that has passed without a new file counts after a restart, too."""
        if any(self._marks.values()):
            now_s = self._odometer.now_s()
            self._journal.write(lambda db: self._write(db, {}, now_s))

    # -- inside

    def _is_due(self, number: int, now_s: float) -> bool:
        last_s = max(self._marks[number].values(), default=float("-inf"))
        return now_s - last_s >= self._limits[number] / STEPS

    def _worth_keeping(self, number: int) -> dict[int, float]:
        """All but those that an older-than-needed one makes superfluous: rows may outlive their time in flight."""
        old = self.expired_up_to(number)
        return {up_to: read_s for up_to, read_s in self._marks[number].items() if up_to >= old}

    def _write(self, db: sqlite3.Connection, fresh: Mapping[int, int], now_s: float) -> None:
        for number, up_to in fresh.items():
            old = self.expired_up_to(number)
            db.execute("DELETE FROM age_mark WHERE outbox = ? AND up_to < ?", (number, old))
            mark = number, up_to, now_s
            db.execute("INSERT OR REPLACE INTO age_mark VALUES (?, ?, ?, ?)", (*mark, _crc(mark)))
        boot, *times, synchronised = self._odometer.moment
        reading = now_s, boot, *times, int(synchronised)
        db.execute("INSERT OR REPLACE INTO odometer VALUES (1, ?, ?, ?, ?, ?, ?)", (*reading, _crc(reading)))

    def _restore(self) -> None:
        """A damaged row must not make anything look old: without the odometer's, everything counts as new."""
        for row in self._journal.read("SELECT reading_s, boot, since_boot_s, wall_s, synchronised, crc FROM odometer"):
            *reading, crc = row
            if crc != _crc(reading):
                return
            reading_s, boot, since_boot_s, wall_s, synchronised = reading
            self._odometer.restore(reading_s, Moment(boot, since_boot_s, wall_s, bool(synchronised)))
            for *mark, mark_crc in self._journal.read("SELECT outbox, up_to, reading_s, crc FROM age_mark"):
                number, up_to, read_s = mark
                if mark_crc == _crc(mark) and number in self._marks:
                    self._marks[number][up_to] = read_s


def _crc(columns: Sequence[object]) -> int:
    """SQLite keeps no checksums."""
    return zlib.crc32(repr(tuple(columns)).encode())
