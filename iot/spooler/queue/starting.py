"""What a new process makes of the rows of an earlier one: waits go on, and what was under way is ready again.

A wait ends on the monotonic clock, which all processes of one boot share. Another boot's says nothing, and its wall
clock may be wrong by years, so that how much of the wait is over is not known. It is waited once more from the start of
the process, and after one more boot not at all: a device that never runs for as long as a wait tries every second time.

Entries that were under way each time the process died: perhaps one of them is why, so they do not go first again. One
file may end the process whenever it is sent (a bug, memory that runs out), and the others that were claimed with it
look the same. So at a start all that have been under way at CRASHES ends become due a little later, one after the
other, those with most attempts last: what is not to blame is delivered, and on record, before the culprit's turn comes.
A power cut is no file's fault, and costs these files a few seconds.
"""

from __future__ import annotations

import math
import sqlite3

from iot.spooler.queue.policy import NEVER, Event, State
from iot.spooler.queue.rows import transition

__all__ = ["CRASHES", "begin_anew", "go_on", "waiting"]

CRASHES = 3
FIRST_S = 2.0
STEP_S = 0.25
MOST_S = 60.0
SQL_SUSPECTS = "SELECT id FROM entry WHERE state = 1 AND unanswered >= ? ORDER BY unanswered, id"
SQL_RECORD_BOOT = (
    "INSERT INTO boot (id, boot) VALUES (1, ?) ON CONFLICT (id) DO UPDATE SET boot = excluded.boot"
    " WHERE boot.boot IS NOT excluded.boot"
)
"""Once in a boot: what is the same is not written again."""
LATEST = ":now + abs(wait_s)"
ONCE_MORE = ", next_attempt = :now + max(wait_s, 0), wait_s = -abs(wait_s)"
"""The sign of wait_s tells that it was measured in an earlier boot."""
ANEW = ", failures = 0, next_attempt = NULL"


def waiting(db: sqlite3.Connection, boot: str, now: float, wait_s: float) -> tuple[float, int | None]:
    """The columns next_attempt and wait_s of an entry that waits from now on, on the clock of this boot."""
    db.execute(SQL_RECORD_BOOT, (boot,))
    return now + wait_s, math.ceil(wait_s) if wait_s < NEVER else None


def begin_anew(db: sqlite3.Connection, boot: str, now: float) -> None:
    """Nothing waits any more, since somebody asks for a try of everything. boot, now: as for `go_on`."""
    db.execute(transition(State.WAITING, Event.RESTARTED, ANEW, "TRUE"))
    _spread(db, boot, now)
    db.execute(transition(State.SENDING, Event.RESTARTED, ANEW, "TRUE"))


def go_on(db: sqlite3.Connection, boot: str, now: float) -> None:
    """What waits waits for the rest. boot: the id of this boot, all 0 if unknown; now: its monotonic clock, seconds."""
    db.execute(transition(State.WAITING, Event.RESTARTED, ANEW, f"(wait_s IS NULL OR next_attempt >= {NEVER})"))
    if _is_of(db, boot):
        carried = transition(State.WAITING, Event.CARRIED, f", next_attempt = {LATEST}", f"next_attempt > {LATEST}")
        db.execute(carried, {"now": now})
    else:
        db.execute(transition(State.WAITING, Event.CARRIED, ONCE_MORE, "TRUE"), {"now": now})
        db.execute(SQL_RECORD_BOOT, (boot,))
    _spread(db, boot, now)
    db.execute(transition(State.SENDING, Event.RESTARTED, ", next_attempt = NULL", "TRUE"))


def _is_of(db: sqlite3.Connection, boot: str) -> bool:
    """Whether the waits were measured in this boot."""
    is_known = bool(boot.strip("0"))
    return is_known and db.execute("SELECT 1 FROM boot WHERE boot = ?", (boot,)).fetchone() is not None


def _spread(db: sqlite3.Connection, boot: str, now: float) -> None:
    suspects = [number for (number,) in db.execute(SQL_SUSPECTS, (CRASHES,))]
    postponed = transition(State.SENDING, Event.POSTPONED, ", next_attempt = ?, wait_s = ?")
    waits = [min(FIRST_S + place * STEP_S, MOST_S) for place in range(len(suspects))]
    rows = [(*waiting(db, boot, now, wait_s), number) for number, wait_s in zip(suspects, waits, strict=True)]
    db.executemany(postponed, rows)
