"""Batches by marker: a file whose path matches a pattern says that the files of its folder, and below, belong together.

Files wait for their marker. When it has come, what lies in its folder then, or comes within the grace, is a batch: that
is recorded, its files are sent, and the marker last. What comes later waits for the next marker. A folder below that
has a marker of its own is a batch of its own, which the marker above waits for. Two markers of one folder claim the
same files: these wait until one of the markers is taken away.

A batch that is being collected at a stop is collected further by the next agent; one that is recorded is finished.
"""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from iot.spooler.naming import shown
from iot.spooler.outbox.intake import Intake
from iot.spooler.outbox.place import SourceFailed
from iot.spooler.queue.policy import State
from iot.spooler.queue.queue import Queue
from iot.transfer import Journal, Schema, counted_files

__all__ = ["MARKERS", "MarkedOutbox", "Markers"]

log = logging.getLogger(__name__)

MARKERS = Schema(
    "markers",
    (
        """
        CREATE TABLE batch (marker INTEGER PRIMARY KEY, outbox INTEGER NOT NULL, path BLOB NOT NULL);
        CREATE TABLE batch_file (
            id INTEGER PRIMARY KEY, batch INTEGER NOT NULL, outbox INTEGER NOT NULL, path BLOB NOT NULL,
            missing INTEGER NOT NULL DEFAULT 0);
        CREATE INDEX batch_file_batch ON batch_file (batch)
        """,
    ),
)
UNCLAIMED = "entry.outbox = ? AND state IN (0, 2) AND entry.id NOT IN (SELECT id FROM batch_file)"
SQL_UNCLAIMED = (
    f"SELECT entry.id, path FROM entry JOIN file USING (id) WHERE {UNCLAIMED} AND entry.id > ? ORDER BY entry.id"  # noqa: S608
)
SQL_COUNT_UNCLAIMED = f"SELECT count(*) AS files FROM entry WHERE {UNCLAIMED}"  # noqa: S608  text above
SQL_DAMAGED = (
    "typeof(outbox) <> 'integer' OR typeof(path) <> 'blob'",
    "typeof(batch) <> 'integer' OR typeof(outbox) <> 'integer' OR typeof(path) <> 'blob' OR missing NOT IN (0, 1)",
)
ORPHANED = "batch > 0 AND batch NOT IN (SELECT marker FROM batch) OR batch = 0 AND id NOT IN (SELECT id FROM entry)"
"""Without their batch, or flushed and gone since."""
FLUSHED = 0
"""Instead of the number of a marker: files that were flushed without one."""
LOOK_S = 1.0
UNSENT = (State.READY, State.SENDING, State.WAITING)


class MarkedOutbox(NamedTuple):
    """is_marker: whether a path is that of a marker. grace_s: seconds in which files may still come."""

    intake: Intake
    is_marker: Callable[[bytes], bool]
    grace_s: float


@dataclass
class _Open:
    """A marker whose files are being collected. up_to: the last row that belongs to them, once the folder was looked at
    after close_at; with it the files that were being watched then, which belong to them, too."""

    path: bytes
    close_at: float
    passes: int | None = None
    up_to: int = 0
    watched: frozenset[bytes] | None = None

    @property
    def folder(self) -> bytes:
        return self.path.rpartition(b"/")[0]


class Markers:
    """The marked batches of all outboxes that have them, by number. everything: do not wait for markers."""

    def __init__(
        self, outboxes: Mapping[int, MarkedOutbox], queue: Queue, journal: Journal, *, everything: bool = False
    ) -> None:
        self._outboxes = outboxes
        self._queue = queue
        self._journal = journal
        self._everything = everything
        self._open: dict[int, dict[int, _Open]] = {number: {} for number in outboxes}
        self._seen = dict.fromkeys(outboxes, 0)
        self._look_at = float("-inf")
        self._made_ready = -1
        if outboxes:
            journal.register(MARKERS)
            _drop_damaged(journal)

    def has(self, outbox: int) -> bool:
        """Whether only what is listed in batch_file may be sent of this outbox."""
        return outbox in self._outboxes

    # -- what has happened: within one Journal.write

    def delivered(self, db: sqlite3.Connection, ids: Sequence[int]) -> None:
        if self._outboxes:
            rows = [(number,) for number in ids]
            db.executemany("DELETE FROM batch_file WHERE id = ?", rows)
            db.executemany("DELETE FROM batch WHERE marker = ?", rows)
            self._look_at = float("-inf")

    def given_up(self, db: sqlite3.Connection, ids: Sequence[int]) -> None:
        """A file in quarantine is missing in its batch until it comes back."""
        if self._outboxes:
            db.executemany("UPDATE batch_file SET missing = 1 WHERE id = ?", [(number,) for number in ids])

    # -- the loop's part

    def look(self, now: float, flushed: Mapping[int, object]) -> bool:
        """Whether files may be sent that might not before. now: monotonic seconds.

        Raises: DiskFull, JournalUnavailable.
        """
        news = self._made_ready != self._queue.made_ready
        if not self._outboxes or (now < self._look_at and not news and not flushed):
            return False
        self._made_ready = self._queue.made_ready
        self._look_at = now + LOOK_S if self._is_busy() else float("inf")
        released = False
        for number, outbox in self._outboxes.items():
            self._find_markers(number, outbox, now)
            at_once = self._everything or number in flushed
            for marker in list(self._open[number]):
                released = self._collect(number, marker, now, at_once=at_once) or released
            if at_once:
                released = self._release_unmarked(number) or released
            released = self._finish(number) or released
        if self._is_busy():
            self._look_at = now + LOOK_S
        return released

    def next_s(self, now: float) -> float:
        return max(self._look_at - now, 0.0) if self._outboxes else float("inf")

    def is_going_on(self) -> bool:
        """Whether a batch is being collected, or its marker about to be released.

        Not while its files wait: they may wait for a window, or for the next run.
        """
        return any(
            (self._open[number] and not self._conflict(number)) or self._due(number) for number in self._outboxes
        )

    def reason(self, outbox: int) -> str | None:
        """Why some of its files wait."""
        if outbox not in self._outboxes:
            return None
        conflict, missing = self._conflict(outbox), self._missing(outbox)
        if conflict:
            return f"files claimed by two markers, {shown(conflict[0])} and {shown(conflict[1])}: take one away"
        if missing:
            return f"a marker waits for {shown(missing)}, which is in quarantine"
        files = self._journal.read(SQL_COUNT_UNCLAIMED, outbox)[0]["files"]
        if not files:
            return None
        return counted_files(files) + (" of a batch, being collected" if self._open[outbox] else " without a marker")

    def tell_kept(self) -> None:
        """At the end: what was being collected is kept, and named."""
        for number, outbox in self._outboxes.items():
            label = shown(outbox.intake.settings.label)
            for each in self._open[number].values():
                log.warning("batch is kept, it was being collected outbox=%s marker=%s", label, shown(each.path))

    # -- collecting

    def _find_markers(self, number: int, outbox: MarkedOutbox, now: float) -> None:
        fresh = self._unclaimed(number, self._seen[number])
        closed = self._batches(number)
        for key, path in fresh:
            if outbox.is_marker(path) and key not in closed:
                for old in [old for old, each in self._open[number].items() if each.path == path]:
                    del self._open[number][old]  # an earlier version of it
                self._open[number][key] = _Open(path, now + outbox.grace_s)
        if fresh:
            self._seen[number] = fresh[-1][0]

    def _collect(self, number: int, marker: int, now: float, *, at_once: bool) -> bool:
        """Take a marker one step further -> whether its batch is complete and recorded."""
        each, intake = self._open[number][marker], self._outboxes[number].intake
        if not self._exists(marker):
            del self._open[number][marker]
            return False
        if (now < each.close_at and not at_once) or self._rival(number, each) is not None:
            return False
        if each.passes is None:
            each.passes = intake.wake()
        if intake.passes < each.passes and not intake.failed:
            return False
        watched = frozenset(path for path in intake.readiness.paths() if _is_below(path, each.folder))
        if each.watched is None:
            each.watched, each.up_to = watched, self._queue.newest(number)
        if each.watched & watched and not self._everything:
            return False
        self._close(number, marker, each)
        return True

    def _close(self, number: int, marker: int, each: _Open) -> None:
        is_marker = self._outboxes[number].is_marker
        inner = [other.folder for other in self._open[number].values() if other.folder != each.folder]
        inner = [folder for folder in inner if _is_below(folder + b"/x", each.folder)]
        assert each.watched is not None
        files = [
            (key, path)
            for key, path in self._unclaimed(number)
            if _is_below(path, each.folder)
            and (key <= each.up_to or path in each.watched)
            and not is_marker(path)
            and not any(_is_below(path, folder) for folder in inner)
        ]

        def write(db: sqlite3.Connection) -> None:
            db.execute("INSERT OR REPLACE INTO batch VALUES (?, ?, ?)", (marker, number, each.path))
            _add(db, number, marker, files)

        self._journal.write(write)
        del self._open[number][marker]
        label = shown(self._outboxes[number].intake.settings.label)
        log.info("batch complete outbox=%s marker=%s files=%d", label, shown(each.path), len(files))

    def _release_unmarked(self, number: int) -> bool:
        """What no marker is going to claim is sent all the same."""
        is_marker, folders = self._outboxes[number].is_marker, [each.folder for each in self._open[number].values()]
        files = [
            (key, path)
            for key, path in self._unclaimed(number)
            if not is_marker(path) and not any(_is_below(path, folder) for folder in folders)
        ]
        if files:
            self._list(number, FLUSHED, files)
        return bool(files)

    # -- finishing

    def _finish(self, number: int) -> bool:
        """Release the markers of batches that are through -> whether anything may be sent that might not before."""
        released = False
        for marker in self._batches(number):
            if not self._exists(marker):
                self._forget(marker)
            else:
                released = self._follow(number, marker) or released
        for marker, path in self._due(number).items():
            self._list(number, marker, [(marker, path)])
            released = True
        return released

    def _due(self, number: int) -> dict[int, bytes]:
        """The markers of batches that are through, below which no batch goes on."""
        closed = {marker: _Open(path, 0.0) for marker, path in self._batches(number).items()}
        all_of_them = [*closed.values(), *self._open[number].values()]
        return {
            marker: each.path
            for marker, each in closed.items()
            if not self._files(marker)
            and not any(_is_below(o.path, each.folder) for o in all_of_them if o.folder != each.folder)
        }

    def _follow(self, number: int, marker: int) -> bool:
        """A file of a batch that has a new version or was gone for a while stays in it -> whether there was one."""
        intake, moved = self._outboxes[number].intake, False
        for key, path, missing in self._files(marker):
            if key == marker or self._exists(key):
                continue
            known = self._queue.known(number, [path]).get(path)
            if known is not None and known.id > key and known.state in UNSENT:
                self._renumber(key, known.id)
                moved = True
            elif (known is not None and known.id > key) or (not missing and _is_gone(intake, path)):
                self._unlist(key)
                log.info("file of a batch is gone outbox=%s path=%s", shown(intake.settings.label), shown(path))
        return moved

    def _forget(self, marker: int) -> None:
        """Its marker was taken away: what was not sent waits for another one."""

        def write(db: sqlite3.Connection) -> None:
            db.execute("DELETE FROM batch_file WHERE batch = ?", (marker,))
            db.execute("DELETE FROM batch WHERE marker = ?", (marker,))

        self._journal.write(write)

    # -- inside

    def _list(self, outbox: int, batch: int, files: Sequence[tuple[int, bytes]]) -> None:
        self._journal.write(lambda db: _add(db, outbox, batch, files))

    def _unlist(self, key: int) -> None:
        self._journal.write(lambda db: db.execute("DELETE FROM batch_file WHERE id = ?", (key,)))

    def _renumber(self, old: int, new: int) -> None:
        def write(db: sqlite3.Connection) -> None:
            db.execute("DELETE FROM batch_file WHERE id = ?", (new,))
            db.execute("UPDATE batch_file SET id = ?, missing = 0 WHERE id = ?", (new, old))

        self._journal.write(write)

    def _is_busy(self) -> bool:
        return any(self._open[number] or self._batches(number) for number in self._outboxes)

    def _unclaimed(self, number: int, after_id: int = 0) -> list[tuple[int, bytes]]:
        return [(row["id"], row["path"]) for row in self._journal.read(SQL_UNCLAIMED, number, after_id)]

    def _batches(self, number: int) -> dict[int, bytes]:
        rows = self._journal.read("SELECT marker, path FROM batch WHERE outbox = ?", number)
        return {row["marker"]: row["path"] for row in rows}

    def _files(self, marker: int) -> list[tuple[int, bytes, int]]:
        rows = self._journal.read("SELECT id, path, missing FROM batch_file WHERE batch = ?", marker)
        return [(row["id"], row["path"], row["missing"]) for row in rows]

    def _exists(self, key: int) -> bool:
        return bool(self._journal.read("SELECT 1 FROM entry WHERE id = ?", key))

    def _missing(self, number: int) -> bytes | None:
        rows = self._journal.read("SELECT path FROM batch_file WHERE outbox = ? AND missing LIMIT 1", number)
        return rows[0]["path"] if rows else None

    def _rival(self, number: int, each: _Open) -> _Open | None:
        others = (other for other in self._open[number].values() if other is not each)
        return next((other for other in others if other.folder == each.folder), None)

    def _conflict(self, number: int) -> tuple[bytes, bytes] | None:
        for each in self._open[number].values():
            rival = self._rival(number, each)
            if rival is not None:
                return each.path, rival.path
        return None


def _is_below(path: bytes, folder: bytes) -> bool:
    return not folder or path.startswith(folder + b"/")


def _is_gone(intake: Intake, path: bytes) -> bool:
    try:
        return intake.outbox.look(path) is None
    except SourceFailed:
        return False  # not known


def _add(db: sqlite3.Connection, outbox: int, batch: int, files: Sequence[tuple[int, bytes]]) -> None:
    db.executemany(
        "INSERT OR REPLACE INTO batch_file (id, batch, outbox, path) VALUES (?, ?, ?, ?)",
        [(key, batch, outbox, path) for key, path in files],
    )


def _drop_damaged(journal: Journal) -> None:
    """SQLite keeps no checksums. What is not listed any more waits for a marker again."""
    for table, damaged in zip(("batch", "batch_file"), SQL_DAMAGED, strict=True):
        if journal.read(f"SELECT 1 FROM {table} WHERE {damaged} LIMIT 1"):  # noqa: S608  text above
            log.error("damaged rows dropped table=%s", table)
            _drop(journal, table, damaged)
    if journal.read(f"SELECT 1 FROM batch_file WHERE {ORPHANED} LIMIT 1"):  # noqa: S608  text above
        _drop(journal, "batch_file", ORPHANED)


def _drop(journal: Journal, table: str, which: str) -> None:
    journal.write(lambda db: db.execute(f"DELETE FROM {table} WHERE {which}"))  # noqa: S608  text above
