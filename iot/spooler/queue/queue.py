"""The durable queue: one row for each version of a file that is known, in the journal beside the checkpoints.

The folder decides what there is to send; a row tells how far its delivery is. "Delivered" is committed before the
source is removed, and the row is forgotten only after the removal is on the disk. Many rows share a transaction, and
nothing is written while nothing happens.

Numbers are assigned in the order of sending as far as it is known, otherwise in the order of the walk, which sorts by
name: rows that change in the order of their numbers wear flash least. A number is never reused in a journal's life, and
a new version is a new row, so nothing that arrives late for an old version can affect it.

Every change of state is a row of policy.TRANSITIONS, in memory and in SQL: a row that is not in the state that the
event leaves is a bug, and raises. Only damaged rows are dropped in another way.
"""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

from iot.spooler.queue.policy import LATEST, NEVER, TRANSITIONS, Allowed, Event, State, Verdict, after
from iot.spooler.queue.rows import (
    COLUMNS,
    COLUMNS_OF_KNOWN,
    QUEUE_SCHEMA,
    SQL_DAMAGED,
    SQL_ENTRY,
    SQL_FILE,
    SQL_SENT_BEFORE,
    Destinations,
    Entry,
    Known,
    NewEntry,
    Success,
    Total,
    compressions_in,
    digest_from,
    digest_to,
    entries_from,
    entry_row,
    file_row,
    forget,
    known_from,
    register,
    reserve,
    transition,
)
from iot.spooler.queue.starting import begin_anew, go_on, waiting
from iot.transfer import Journal, terminal_safe

__all__ = ["QUEUE_SCHEMA", "Entry", "Known", "NewEntry", "Queue", "Success", "Total"]

log = logging.getLogger(__name__)
T = TypeVar("T")
Row = TypeVar("Row", Entry, Known)
ANY, ALL = float("inf"), Allowed()
SQL_FIGURES = "SELECT count(*) AS files, sum(size) AS bytes FROM entry"


class Queue:
    """The rows of all outboxes. Every method raises JournalUnavailable or DiskFull when the journal does.

    made_ready: changes whenever something may have become ready, so that nobody needs to poll.
    lost_rows: damaged rows were dropped; a file that is found again may have been delivered already.
    """

    def __init__(self, journal: Journal, boot: str = "") -> None:
        """boot: the id of this boot, in which the monotonic clock goes on; all 0 or "" if unknown."""
        self._journal = journal
        self._boot = boot
        self.made_ready = 0
        self.lost_rows = False
        self._destinations = Destinations()
        self._numbers = range(0)
        self._damaged: set[int] = set()

    # -- start

    def restart(self, now: float = 0.0, *, anew: bool = True) -> None:
        """At a start nothing is in flight: what an earlier process left so becomes ready, except suspects of having
        ended it. now: monotonic clock, seconds. anew: waits are over, too."""
        self._drop_damaged()
        self.made_ready += 1
        states = (State.WAITING, State.SENDING)
        if self._journal.read("SELECT 1 FROM entry WHERE state IN (?, ?) LIMIT 1", *states):
            begin = begin_anew if anew else go_on
            self._journal.write(lambda db: begin(db, self._boot, now))

    def outbox(self, path: bytes, rule: str, *, decided: bool = False) -> tuple[int, bool]:
        """The number of the outbox with this path, and whether it is new to this journal.

        rule: where its files go from now on, except those with an unanswered attempt. decided: see Naming. Such a rule
        is kept as text, so that versions which know no such rules drop its rows, and find their files again.
        """
        base = rule if decided else rule.encode("utf-8", "surrogateescape")
        known = self._journal.read("SELECT id FROM outbox WHERE path = ?", path)
        in_force = "SELECT 1 FROM rule WHERE outbox = ? AND base = ?"
        if not known or not self._journal.read(in_force, known[0]["id"], base):
            self._journal.write(lambda db: register(db, path, base))
        number = self._journal.read("SELECT id FROM outbox WHERE path = ?", path)[0]["id"]
        for row in self._journal.read("SELECT id, outbox, base FROM rule WHERE typeof(base) IN ('blob', 'text')"):
            in_row = isinstance(row["base"], str)
            self._destinations.rules[row["id"]] = None if in_row else row["base"].decode("utf-8", "surrogateescape")
            if (row["outbox"], row["base"]) == (number, base):
                self._destinations.in_force[number] = row["id"]
        return number, not known

    def compressions(self, outbox: int) -> frozenset[str]:
        """How files of this outbox are compressed, or were at any time."""
        rows = self._journal.read("SELECT base FROM rule WHERE outbox = ? AND typeof(base) = 'text'", outbox)
        return frozenset(compressions_in(row["base"] for row in rows))

    # -- what is there

    def known(self, outbox: int, paths: Sequence[bytes]) -> dict[bytes, Known]:
        """The newest known version of each of these paths (at most a few hundred)."""
        marks = ",".join("?" * len(paths))
        rest = f"WHERE file.outbox = ? AND path IN ({marks}) ORDER BY id"
        sql = f"SELECT {COLUMNS_OF_KNOWN} FROM file JOIN entry USING (id) {rest}"  # noqa: S608

        def read() -> dict[bytes, Known]:
            return dict(known_from(row) for row in self._journal.read(sql, outbox, *paths))

        return self._healed(read)

    def sent_before(self, known: Known) -> str | None:
        """The SHA-256 of what was last delivered from the path of this version, if known."""
        rows = self._journal.read(SQL_SENT_BEFORE, known.id)
        return digest_from(rows[0]["sha256"]) if rows else None

    def add(self, entries: Sequence[NewEntry]) -> None:
        """Add complete files, new or in a new version, as ready; not while an earlier version is being sent."""
        if entries:
            known: dict[tuple[int, bytes], Known] = {}
            for outbox in {entry.outbox for entry in entries}:
                found = self.known(outbox, [entry.path for entry in entries if entry.outbox == outbox])
                known.update({(outbox, path): row for path, row in found.items()})
            self._numbers = self._journal.write(lambda db: self._add(db, entries, known))
            self.made_ready += 1

    def _add(
        self, db: sqlite3.Connection, entries: Sequence[NewEntry], known: Mapping[tuple[int, bytes], Known]
    ) -> range:
        """-> the numbers that are left"""
        self._move(db, Event.RENEWED, [row for row in known.values() if (row.state, Event.RENEWED) in TRANSITIONS])
        busy = {place for place, row in known.items() if row.state is State.SENDING}
        fresh = [entry for entry in entries if (entry.outbox, entry.path) not in busy]
        fresh.sort(key=lambda entry: (entry.outbox, entry.large, entry.priority, entry.rank))
        numbers = self._numbers if len(fresh) <= len(self._numbers) else reserve(db, len(fresh))
        rows = list(zip(numbers, fresh, strict=False))
        db.executemany(SQL_FILE, [file_row(number, entry) for number, entry in rows])
        db.executemany(SQL_ENTRY, [entry_row(number, entry) for number, entry in rows])
        return numbers[len(rows) :]

    def page(self, outbox: int, after_id: int, limit: int) -> list[Entry]:
        """Rows of an outbox whose number is above after_id, by number."""
        return self._entries(
            "WHERE entry.outbox = ? AND entry.id > ? ORDER BY entry.id LIMIT ?", outbox, after_id, limit
        )

    def count(self, outbox: int) -> int:
        return int(self._journal.read(f"{SQL_FIGURES} WHERE outbox = ?", outbox)[0]["files"])

    def drop(self, entries: Sequence[Entry], event: Event) -> None:
        """Forget entries whose file is gone or has another version (VANISHED, CHANGED)."""
        if entries:
            self._journal.write(lambda db: self.lose(db, entries, event))

    # -- what may be dropped

    def backlog(self, outbox: int) -> tuple[int, int]:
        """Files that wait to be sent or are being sent, and their bytes."""
        [row] = self._journal.read(f"{SQL_FIGURES} WHERE outbox = ? AND state IN (0, 1, 2)", outbox)
        return int(row["files"]), int(row["bytes"] or 0)

    def idle(self, outbox: int, above: int, below: int, limit: int, *, newest_first: bool) -> list[Entry]:
        """Entries that wait and that nobody sends, with a number between these two, in the order of the numbers."""
        order = "DESC" if newest_first else "ASC"
        which = "WHERE entry.outbox = ? AND state IN (0, 2) AND entry.id > ? AND entry.id < ?"
        return self._entries(f"{which} ORDER BY entry.id {order} LIMIT ?", outbox, above, below, limit)

    def evict(self, db: sqlite3.Connection, entries: Sequence[Entry], event: Event, why: str) -> list[Entry]:
        """EVICTED or EXPIRED, within a Journal.write: their files have to leave -> the updated entries."""
        return self._move(db, event, entries, ", next_attempt = NULL, error = ?", lambda _: (why,))

    # -- what is next

    def heads(
        self, outbox: int, *, large: bool, limit: int, most_bytes: float = ANY, allowed: Allowed = ALL
    ) -> list[Entry]:
        """The first ready entries of one outbox that may be sent, by priority, rank and number: `limit` of them, or
        fewer that have `most_bytes` together."""
        may_go = f"state = 0 AND entry.outbox = ? AND large = ? AND {_may_go(allowed)}"
        first = f"WHERE {may_go} ORDER BY priority, rank, entry.id LIMIT ?"
        values = outbox, int(large), int(allowed.admission), allowed.up_to, limit
        return self._entries(first, *values, most_bytes=most_bytes)

    def any_ready(self, outboxes: Mapping[int, Allowed]) -> bool:
        """Whether one of these outboxes has something that may be sent. Others may have left rows."""
        return any(self._has_ready(number, allowed) for number, allowed in outboxes.items())

    def _has_ready(self, outbox: int, allowed: Allowed) -> bool:
        rest = f"WHERE state = 0 AND entry.outbox = ? AND large IN (0, 1) AND {_may_go(allowed)} LIMIT 1"
        sql = f"SELECT 1 FROM entry CROSS JOIN file USING (id) {rest}"  # noqa: S608  text of this file
        return bool(self._journal.read(sql, outbox, int(allowed.admission), allowed.up_to))

    def newest(self, outbox: int) -> int:
        """The highest number of a row of this outbox; 0 if there is none."""
        [row] = self._journal.read("SELECT max(id) AS newest FROM entry WHERE outbox = ?", outbox)
        return int(row["newest"] or 0)

    def waiting(self, outbox: int, above: int, up_to: int = LATEST) -> tuple[int, int]:
        """Files of an outbox that wait to be sent and whose row is between these numbers, and their bytes."""
        which = "WHERE outbox = ? AND id > ? AND id <= ? AND state IN (0, 2)"
        [row] = self._journal.read(f"{SQL_FIGURES} {which}", outbox, above, up_to)
        return int(row["files"]), int(row["bytes"] or 0)

    def waits_between(self, outbox: int, above: int, up_to: int) -> bool:
        """Whether one of these rows waits to be sent, or is being sent."""
        which = "WHERE outbox = ? AND id > ? AND id <= ? AND state IN (0, 1, 2) LIMIT 1"
        return bool(self._journal.read(f"SELECT 1 FROM entry {which}", outbox, above, up_to))  # noqa: S608  text above

    def begin(self, entries: Sequence[Entry]) -> list[Entry]:
        """Record one more attempt of each, with its destination, before a byte is sent -> the updated entries."""
        changes = ", attempts = attempts + 1, unanswered = unanswered + 1, rule = ?, destination = ?"
        begun = self._journal.write(
            lambda db: self._move(db, Event.BEGUN, entries, changes, self._destinations.recorded)
        )
        return [entry._replace(attempts=entry.attempts + 1, unanswered=entry.unanswered + 1) for entry in begun]

    def wake(self, now: float) -> float | None:
        """Make entries ready whose wait is over -> when the next wait ends, or None. Monotonic clock, seconds."""
        first = self._first_wait()
        if first is not None and first <= now:
            due = transition(State.WAITING, Event.DUE, ", next_attempt = NULL", "next_attempt <= ?")
            self._journal.write(lambda db: db.execute(due, (now,)))
            self.made_ready += 1
            first = self._first_wait()
        return first if first is not None and first < NEVER else None

    def release(self, outboxes: Iterable[int]) -> None:
        """Somebody asks for a try: what waits in these outboxes is ready, but for what is left to the next run."""
        which = f"outbox = ? AND next_attempt < {NEVER}"
        found = f"SELECT 1 FROM entry WHERE state = {int(State.WAITING)} AND {which}"  # noqa: S608  text of this file
        waits = [(number,) for number in outboxes if self._journal.read(f"{found} LIMIT 1", number)]
        if waits:
            due = transition(State.WAITING, Event.DUE, ", next_attempt = NULL", which)
            self._journal.write(lambda db: db.executemany(due, waits))
            self.made_ready += 1

    def _first_wait(self) -> float | None:
        def read() -> float | None:
            first = self._journal.read("SELECT min(next_attempt) AS first FROM entry WHERE state = 2")[0]["first"]
            return None if first is None else float(first)

        return self._healed(read)

    # -- outcomes: within one Journal.write; each returns the updated entries

    def deliver(self, db: sqlite3.Connection, deliveries: Iterable[Success]) -> list[Entry]:
        items = {item.entry.id: item for item in deliveries}
        moved: list[Entry] = []
        for event in {item.event for item in items.values()}:
            mine = [item.entry for item in items.values() if item.event is event]
            moved += self._move(db, event, mine, ", error = NULL, next_attempt = NULL")
        db.executemany(
            "INSERT OR REPLACE INTO delivered (id, at, proof, sha256) VALUES (?, ?, ?, ?)",
            [
                (entry.id, round(items[entry.id].at), items[entry.id].proof, digest_to(items[entry.id].sha256))
                for entry in moved
            ],
        )
        return moved

    def fail(
        self, db: sqlite3.Connection, failed: Iterable[tuple[Entry, Verdict, str | None]], now: float
    ) -> list[Entry]:
        """Record verdicts, with the text of the error. now: monotonic clock, seconds."""
        self.made_ready += 1
        items = {entry.id: (entry, verdict, error) for entry, verdict, error in failed}
        counts = ", attempts = ?, unanswered = ?, failures = ?, strikes = ?"
        changes = f"{counts}, next_attempt = ?, wait_s = ?, error = coalesce(?, error)"

        def values(entry: Entry) -> tuple[object, ...]:
            _, verdict, error = items[entry.id]
            waits = after(entry.state, verdict.event) is State.WAITING
            wait = waiting(db, self._boot, now, verdict.delay_s) if waits else (None, None)
            told = error and terminal_safe(error)  # a name in it may be no UTF-8, which SQLite does not take
            return *_attempts(entry, verdict.event), verdict.failures, verdict.strikes, *wait, told

        moved: list[Entry] = []
        for event in {verdict.event for _, verdict, _ in items.values()}:
            mine = [entry for entry, verdict, _ in items.values() if verdict.event is event]
            moved += self._move(db, event, mine, changes, values)
        return moved

    def lose(self, db: sqlite3.Connection, entries: Sequence[Entry], event: Event) -> None:
        """Forget entries whose file is gone or has another version (VANISHED, CHANGED)."""
        self._move(db, event, entries)

    def forget(self, db: sqlite3.Connection, entries: Sequence[Entry]) -> None:
        """Drop entries whose file has left the outbox durably."""
        self._move(db, Event.LEFT, entries)

    def _move(
        self,
        db: sqlite3.Connection,
        event: Event,
        entries: Sequence[Row],
        changes: str = "",
        values: Callable[[Row], tuple[object, ...]] = lambda _: (),
    ) -> list[Row]:
        """Apply a transition to these rows, on disk and in what is returned; changes, values: further columns.

        Raises: ValueError when one is not in the state that the event leaves.
        """
        moved: list[Row] = []
        sound = [entry for entry in entries if entry.id not in self._damaged]
        for state in sorted({entry.state for entry in sound}):
            following = after(state, event)
            mine = [row for row in sorted(sound, key=lambda row: row.id) if row.state is state]
            parameters = [values(row) + (row.id,) for row in mine]  # noqa: RUF005  mypy cannot follow the unpacking
            count = db.executemany(transition(state, event, changes), parameters).rowcount
            if count < len(mine):
                mine = self._without_damaged(db, mine)
            if missing := len(mine) - count:
                raise ValueError(f"{event.name}: {missing} of {len(mine)} entries were not {state.name}")
            if following is State.GONE:
                forget(db, ("file", "delivered"), [row.id for row in mine])
            moved.extend(row._replace(state=following) for row in mine)
        return moved

    def _without_damaged(self, db: sqlite3.Connection, rows: Sequence[Row]) -> list[Row]:
        """Those that still make sense; the others were damaged after they were read, and are forgotten."""
        damaged = {found["id"] for found in db.execute(SQL_DAMAGED)}
        forget(db, ("entry", "file", "delivered"), [row.id for row in rows if row.id in damaged])
        self.lost_rows = self.lost_rows or bool(damaged)
        self._damaged |= damaged
        return [row for row in rows if row.id not in damaged]

    def owed(self, state: State, limit: int, after_id: int = 0) -> list[Entry]:
        """Delivered (or quarantined) entries whose file still has to leave the outbox."""
        return self._entries(f"WHERE state = {int(state)} AND entry.id > ? ORDER BY entry.id LIMIT ?", after_id, limit)

    def entries(self, ids: Sequence[int]) -> list[Entry]:
        """Those of these rows that exist (at most a few hundred)."""
        return self._entries(f"WHERE entry.id IN ({','.join('?' * len(ids))})", *ids)

    # -- figures

    def totals(self) -> list[Total]:
        in_force = ",".join(map(str, self._destinations.in_force.values()))
        earlier = f"count(CASE WHEN unanswered > 0 AND rule NOT IN ({in_force}) THEN 1 END)"
        figures = f"count(*) AS files, sum(size) AS bytes, min(first_seen) AS oldest, {earlier} AS earlier"
        sql = f"SELECT outbox, state, {figures} FROM entry GROUP BY outbox, state"  # noqa: S608  text and numbers above

        def total(row: Any) -> Total:
            return Total(row["outbox"], State(row["state"]), row["files"], row["bytes"], row["oldest"], row["earlier"])

        return self._healed(lambda: [total(row) for row in self._journal.read(sql)])

    def _entries(self, rest: str, *values: object, most_bytes: float = ANY) -> list[Entry]:
        sql = f"SELECT {COLUMNS} FROM entry CROSS JOIN file USING (id) {rest}"  # noqa: S608  text of this file
        return self._healed(lambda: entries_from(self._journal.read(sql, *values), self._destinations, most_bytes))

    # -- damage

    def _healed(self, read: Callable[[], T]) -> T:
        """The result of a read, which is repeated after unreadable rows were dropped."""
        try:
            return read()
        except (AttributeError, LookupError, TypeError, ValueError):
            self._drop_damaged()
            return read()

    def _drop_damaged(self) -> None:
        """SQLite keeps no checksums. Rows that make no sense are forgotten; the scan finds their files again."""
        ids = [row["id"] for row in self._journal.read(SQL_DAMAGED)]
        if ids:
            self.lost_rows = True
            log.error("damaged rows dropped from the queue rows=%d", len(ids))
            self._journal.write(lambda db: forget(db, ("entry", "file", "delivered"), ids))
            self._damaged.update(ids)


def _may_go(allowed: Allowed) -> str:
    """The condition in SQL, with the admission and up_to to be filled in."""
    listed = " AND entry.id IN (SELECT id FROM batch_file)" if allowed.listed else ""
    return f"priority <= ? AND entry.id <= ?{listed}"


def _attempts(entry: Entry, event: Event) -> tuple[int, int]:
    """-> attempts, unanswered: an error of the file itself is an answer; an entry never handed out had no attempt;
    what a hook has refused had one, but not at the server"""
    if event is Event.RELEASED:
        return entry.attempts - 1, entry.unanswered - 1
    if event is Event.SKIPPED:
        return entry.attempts, entry.unanswered - 1
    return entry.attempts, 0 if event in (Event.FAILED, Event.GIVEN_UP) else entry.unanswered
