"""Entries that were under way each time the process died: perhaps one of them is why, so they do not go first again.

One file may end the process whenever it is sent (a bug, memory that runs out), and the others that were claimed with it
look the same. So at a start all that have been under way at CRASHES ends become due a little later, one after the
other, those with most attempts last: what is not to blame is delivered, and on record, before the culprit's turn comes.
A power cut is no file's fault, and costs these files a few seconds.
"""

from __future__ import annotations

import sqlite3

from iot.spooler.queue.policy import Event, State
from iot.spooler.queue.rows import transition

__all__ = ["CRASHES", "spread"]

CRASHES = 3
FIRST_S = 2.0
STEP_S = 0.25
MOST_S = 60.0
SQL_SUSPECTS = "SELECT id FROM entry WHERE state = 1 AND unanswered >= ? ORDER BY unanswered, id"


def spread(db: sqlite3.Connection, now: float) -> None:
    """At a start, within its transaction. now: monotonic clock, seconds."""
    suspects = [number for (number,) in db.execute(SQL_SUSPECTS, (CRASHES,))]
    postponed = transition(State.SENDING, Event.POSTPONED, ", failures = 0, next_attempt = ?")
    waits = [(now + min(FIRST_S + place * STEP_S, MOST_S), number) for place, number in enumerate(suspects)]
    db.executemany(postponed, waits)
