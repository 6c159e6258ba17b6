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

from iot.spooler.batches.marked_files import FLUSHED, MarkedFiles, Row
from iot.spooler.hooks.batches import Batch, BatchHooks
from iot.spooler.naming import shown
from iot.spooler.outbox.intake import Intake
from iot.spooler.outbox.place import SourceFailed
from iot.spooler.queue.policy import State
from iot.spooler.queue.queue import Entry, Queue
from iot.transfer import Journal, TransferResult, counted_files

__all__ = ["MarkedOutbox", "Markers"]

log = logging.getLogger(__name__)

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
        self,
        outboxes: Mapping[int, MarkedOutbox],
        queue: Queue,
        journal: Journal,
        hooks: BatchHooks,
        *,
        everything: bool = False,
    ) -> None:
        self._outboxes = outboxes
        self._queue = queue
        self._journal = journal
        self._hooks = hooks
        if outboxes:
            self._files = MarkedFiles(journal)
        self._everything = everything
        self._open: dict[int, dict[int, _Open]] = {number: {} for number in outboxes}
        self._seen = dict.fromkeys(outboxes, 0)
        self._look_at = float("-inf")
        self._news = (-1, -1)

    def has(self, outbox: int) -> bool:
        """Whether only what is listed in batch_file may be sent of this outbox."""
        return outbox in self._outboxes

    # -- what has happened: within one Journal.write

    def delivered(self, db: sqlite3.Connection, outcomes: Sequence[tuple[Entry, TransferResult]]) -> None:
        if self._outboxes:
            self._hooks.after.delivered_with_marker(db, outcomes)
            self._files.delivered(db, [entry.id for entry, _ in outcomes])
            self._look_at = float("-inf")

    def given_up(self, db: sqlite3.Connection, ids: Sequence[int]) -> None:
        """A file in quarantine is missing in its batch until it comes back."""
        if self._outboxes:
            self._files.given_up(db, ids)

    # -- the loop's part

    def look(self, now: float, flushed: Mapping[int, object]) -> bool:
        """Whether files may be sent that might not before. now: monotonic seconds.

        Raises: DiskFull, JournalUnavailable.
        """
        news = self._queue.made_ready, self._hooks.before.news
        if not self._outboxes or (now < self._look_at and news == self._news and not flushed):
            return False
        self._news = news
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
            (self._awaited(number) and not self._conflict(number)) or self._due(number) for number in self._outboxes
        )

    def _awaited(self, number: int) -> bool:
        return any(not self._hooks.before.is_left(marker) for marker in self._open[number])

    def asks(self, outbox: int) -> bool:
        """Whether the hook of one of its batches runs."""
        return self._hooks.before.is_running(outbox)

    def reason(self, outbox: int) -> str | None:
        """Why some of its files wait."""
        if outbox not in self._outboxes:
            return None
        conflict, missing = self._conflict(outbox), self._files.missing(outbox)
        if conflict:
            return f"files claimed by two markers, {shown(conflict[0])} and {shown(conflict[1])}: take one away"
        if missing:
            return f"a marker waits for {shown(missing)}, which is in quarantine"
        kept_back = self._hooks.before.reason(outbox)
        if kept_back is not None:
            return kept_back
        files = self._files.count_unclaimed(outbox)
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
        fresh = self._files.unclaimed(number, self._seen[number])
        closed = self._files.batches(number)
        for key, path, _ in fresh:
            if outbox.is_marker(path) and key not in closed:
                for old in [old for old, each in self._open[number].items() if each.path == path]:
                    self._drop_open(number, old)  # an earlier version of it
                self._open[number][key] = _Open(path, now + outbox.grace_s)
        if fresh:
            self._seen[number] = fresh[-1].id

    def _collect(self, number: int, marker: int, now: float, *, at_once: bool) -> bool:
        """Take a marker one step further -> whether its batch is complete and recorded."""
        each, intake = self._open[number][marker], self._outboxes[number].intake
        if not self._files.exists(marker):
            self._drop_open(number, marker)
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
        if not self._hooks.before.allows(number, marker, lambda: _batch(each, self._files_of(number, each))):
            return False
        self._close(number, marker, each)
        return True

    def _drop_open(self, number: int, marker: int) -> None:
        del self._open[number][marker]
        self._hooks.before.forget(marker)

    def _files_of(self, number: int, each: _Open) -> list[Row]:
        """What belongs to it of what is there now."""
        is_marker = self._outboxes[number].is_marker
        inner = [other.folder for other in self._open[number].values() if other.folder != each.folder]
        inner = [folder for folder in inner if _is_below(folder + b"/x", each.folder)]
        assert each.watched is not None
        return [
            file
            for file in self._files.unclaimed(number)
            if _is_below(file.path, each.folder)
            and (file.id <= each.up_to or file.path in each.watched)
            and not is_marker(file.path)
            and not any(_is_below(file.path, folder) for folder in inner)
        ]

    def _close(self, number: int, marker: int, each: _Open) -> None:
        files = self._files_of(number, each)

        def write(db: sqlite3.Connection) -> None:
            self._files.close(db, number, Row(marker, each.path, 0), files)
            self._hooks.after.released(db, number, marker, _batch(each, files))

        self._journal.write(write)
        self._drop_open(number, marker)
        label = shown(self._outboxes[number].intake.settings.label)
        log.info("batch complete outbox=%s marker=%s files=%d", label, shown(each.path), len(files))

    def _release_unmarked(self, number: int) -> bool:
        """What no marker is going to claim is sent all the same."""
        is_marker, folders = self._outboxes[number].is_marker, [each.folder for each in self._open[number].values()]
        files = [
            file
            for file in self._files.unclaimed(number)
            if not is_marker(file.path) and not any(_is_below(file.path, folder) for folder in folders)
        ]
        if files:
            self._journal.write(lambda db: self._files.add(db, number, FLUSHED, files))
        return bool(files)

    # -- finishing

    def _finish(self, number: int) -> bool:
        """Release the markers of batches that are through -> whether anything may be sent that might not before."""
        released = False
        for marker in self._files.batches(number):
            if not self._files.exists(marker):
                self._forget(marker)
            else:
                released = self._follow(number, marker) or released
        due = [Row(marker, path, 0) for marker, path in self._due(number).items()]
        for row in due:
            self._list(number, row)
        return released or bool(due)

    def _due(self, number: int) -> dict[int, bytes]:
        """The markers of batches that are through, below which no batch goes on."""
        closed = {marker: _Open(path, 0.0) for marker, path in self._files.batches(number).items()}
        all_of_them = [*closed.values(), *self._open[number].values()]
        return {
            marker: each.path
            for marker, each in closed.items()
            if not self._files.of(marker)
            and not any(_is_below(o.path, each.folder) for o in all_of_them if o.folder != each.folder)
        }

    def _follow(self, number: int, marker: int) -> bool:
        """A file of a batch that has a new version or was gone for a while stays in it -> whether there was one."""
        intake, moved = self._outboxes[number].intake, False
        for key, path, missing in self._files.of(marker):
            if key == marker or self._files.exists(key):
                continue
            known = self._queue.known(number, [path]).get(path)
            if known is not None and known.id > key and known.state in UNSENT:
                self._files.renumber(key, known.id)
                moved = True
            elif (known is not None and known.id > key) or (not missing and _is_gone(intake, path)):
                self._files.unlist(key)
                log.info("file of a batch is gone outbox=%s path=%s", shown(intake.settings.label), shown(path))
        return moved

    def _forget(self, marker: int) -> None:
        """Its marker was taken away: what was not sent waits for another one."""

        def write(db: sqlite3.Connection) -> None:
            self._files.forget(db, marker)
            self._hooks.after.dropped(db, marker)

        self._journal.write(write)

    # -- inside

    def _list(self, number: int, marker: Row) -> None:
        self._journal.write(lambda db: self._files.add(db, number, marker.id, [marker]))

    def _is_busy(self) -> bool:
        return any(self._open[number] or self._files.batches(number) for number in self._outboxes)

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


def _batch(each: _Open, files: Sequence[Row]) -> Batch:
    return Batch(len(files), sum(file.size for file in files), each.path)


def _is_gone(intake: Intake, path: bytes) -> bool:
    try:
        return intake.outbox.look(path) is None
    except SourceFailed:
        return False  # not known
