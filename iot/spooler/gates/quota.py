"""How much the wire may carry a day and a month, and what happens when that is used up.

Everything counts that the remote's connections carry, in both directions: logins, headers, retransmissions. A period is
a day or month of the local calendar, and named by it, so that a clock that jumps begins another period, and finds the
right one again when it is corrected: the last few are kept. What was carried is recorded now and then, not each time; a
crash forgets at most SAVE_SHARE of a quota. An idle connection, which carries little, has nothing written.
"""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta, tzinfo
from typing import Any

from iot.spooler.gates.gates import Held, held
from iot.spooler.queue.policy import Admission
from iot.spooler.timetable.schedule import clock_words, local_time
from iot.transfer import Journal, Schema, Wire, human_bytes

__all__ = ["QUOTA", "QuotaGate"]

log = logging.getLogger(__name__)

SAVE_SHARE = 0.01
SAVE_S = 10.0
LEAST_BYTES = 16 * 1024
"""Less than this is recorded at the end only."""
KEPT = 8
"""Periods that are remembered, those last written."""
QUOTA = Schema("quota", ("CREATE TABLE carried (period TEXT PRIMARY KEY, bytes INTEGER NOT NULL)",))
SQL_KEEP = "DELETE FROM carried WHERE rowid NOT IN (SELECT rowid FROM carried ORDER BY rowid DESC LIMIT ?)"
FORMS = {"day": "%Y-%m-%d", "month": "%Y-%m"}


class QuotaGate:
    """limits: bytes by "day" and "month". beyond: what of each outbox is still sent when one is used up.

    wire: what the remote's connections have carried so far.
    """

    def __init__(
        self,
        limits: Mapping[str, int],
        beyond: Mapping[int, Admission],
        zone: tzinfo,
        journal: Journal,
        wire: Callable[[], Wire],
    ) -> None:
        self._limits = limits
        self._beyond = beyond
        self._zone = zone
        self._journal = journal
        self._wire = wire
        self._seen_bytes = 0
        self._periods: dict[str, str] = {}
        self._used = dict.fromkeys(limits, 0)
        self._unsaved_bytes = 0
        self._save_at = float("inf")
        self._reason = ""
        if limits:
            journal.register(QUOTA)

    def look(self, wall: float, now: float) -> float:
        """Raises: DiskFull, JournalUnavailable."""
        if not self._limits:
            return float("inf")
        local = local_time(wall, self._zone)
        self._count()
        self._turn_over(local)
        if self._unsaved_bytes > LEAST_BYTES and self._save_at == float("inf"):
            self._save_at = now + SAVE_S
        if now >= self._save_at or self._unsaved_bytes > min(self._limits.values()) * SAVE_SHARE:
            self.save()
        spent = next((per for per, limit in self._limits.items() if self._used[per] >= limit), None)
        self._reason = "" if spent is None else self._words(spent, local, wall)
        return _ends(local, "day").timestamp() - wall

    def of(self, outbox: int, *, flushed: bool) -> Held:
        """A flush does not go beyond a quota."""
        return held(self._beyond[outbox], self._reason)

    def close(self) -> None:
        self.save()

    def save(self) -> None:
        """Raises: DiskFull, JournalUnavailable."""
        if self._unsaved_bytes:
            rows = [(self._periods[per], used) for per, used in self._used.items()]
            self._journal.write(lambda db: _write(db, rows))
        self._unsaved_bytes, self._save_at = 0, float("inf")

    def carried_also(self, wire: Wire) -> None:
        """What another connection has carried than those of the remote."""
        if self._limits:
            self._add(sum(wire))

    def figures(self, wall: float) -> list[dict[str, Any]]:
        """For the status."""
        local = local_time(wall, self._zone)
        return [
            {"per": per, "bytes": limit, "used_bytes": self._used[per], "resets_at": _ends(local, per).timestamp()}
            for per, limit in self._limits.items()
        ]

    # -- inside

    def _count(self) -> None:
        carried = sum(self._wire())
        news, self._seen_bytes = carried - self._seen_bytes, carried
        self._add(news)

    def _add(self, news: int) -> None:
        self._unsaved_bytes += news
        if self._periods:  # else it is the first look, and the row is yet to be read
            self._used = {per: used + news for per, used in self._used.items()}

    def _turn_over(self, local: datetime) -> None:
        periods = {per: local.strftime(FORMS[per]) for per in self._limits}
        if periods == self._periods:
            return
        if self._periods:
            self.save()
        for per, period in periods.items():
            if period != self._periods.get(per):
                self._used[per] = self._read(period) + (0 if self._periods else self._unsaved_bytes)
        self._periods = periods

    def _read(self, period: str) -> int:
        rows = self._journal.read("SELECT bytes FROM carried WHERE period = ? AND typeof(bytes) = 'integer'", period)
        return int(rows[0]["bytes"]) if rows else 0

    def _words(self, per: str, local: datetime, wall: float) -> str:
        resets = clock_words(_ends(local, per).timestamp(), self._zone, wall)
        return f"the quota of {human_bytes(self._limits[per])} a {per} is used up until {resets}"


def _write(db: sqlite3.Connection, rows: list[tuple[str, int]]) -> None:
    db.executemany("INSERT OR REPLACE INTO carried (period, bytes) VALUES (?, ?)", rows)
    db.execute(SQL_KEEP, (KEPT,))


def _ends(local: datetime, per: str) -> datetime:
    """The next local midnight, or that at which the next month begins."""
    midnight = local.replace(hour=0, minute=0, second=0, microsecond=0, fold=0)
    if per == "day":
        return midnight + timedelta(days=1)
    return (midnight.replace(day=1) + timedelta(days=32)).replace(day=1)
