"""Files that are delivered, given up or dropped and have to leave their outbox, those of an interrupted run included.

Their rows are forgotten after the folder that they left has been synced.
"""

from __future__ import annotations

import logging
import os
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime, timezone

from iot.spooler.leaving.leaving import Leaving, unclaimed
from iot.spooler.leaving.removal import Item, Leaver, Outcome, recover, take_away
from iot.spooler.leaving.unlinking import Unlinker, Unlinking
from iot.spooler.leaving.waiting import Late, Waiting
from iot.spooler.naming import shown
from iot.spooler.outbox.departure import Why
from iot.spooler.outbox.intake import Clocks, Intake
from iot.spooler.outbox.place import SourceFailed
from iot.spooler.queue.policy import State
from iot.spooler.queue.queue import Entry, Queue
from iot.transfer import Journal

__all__ = ["Owed"]

log = logging.getLogger(__name__)

PAGE = 256
FORGET_FILES = 1024
"""Rows of files that have left are dropped so many at a time, or when there is nothing else to do."""
OWED_RETRY_S = 30.0
OWED_RETRY_MAX_S = 600.0
RECOUNT_S = 60.0
COUNT_STEPS = 4
TIDY_S = 0.02
OPEN_RETRY_S = 10.0
TOUCHED_RETRY_S = 1.0


class Owed:
    """Takes files out of the outboxes.

    last_error: the last error. held: for each outbox, the entries that cannot leave it, with the reason. waiting:
    delivered files that may not leave yet. stuck: for each outbox, leftovers that cannot be put back, with the reason.
    waited_for: the numbers of those entries whose hook has not ended: they stay until `released`.
    """

    def __init__(
        self,
        journal: Journal,
        queue: Queue,
        intakes: Sequence[Intake],
        leaving: Leaving,
        clocks: Clocks,
        waited_for: Callable[[Sequence[Entry]], set[int]] = lambda _: set(),
    ) -> None:
        self.held: dict[int, dict[int, str]] = {intake.number: {} for intake in intakes}
        self.last_error: str | None = None
        self.waiting = Waiting()
        self._journal = journal
        self._queue = queue
        self._intakes = {intake.number: intake for intake in intakes}
        self._leaving = leaving
        self._ways = {
            State.DELIVERED: leaving.delivered,
            State.QUARANTINED: leaving.given_up,
            State.DROPPED: leaving.dropped,
        }
        self._clocks = clocks
        self._waited_for = waited_for
        self._gone: dict[int, Entry] = {}
        self._unlinker = Unlinker()
        self._unlinking: dict[int, tuple[Intake, Entry]] = {}
        self.stuck: dict[tuple[int, bytes], str] = {}
        self._paying: Iterator[None] | None = None
        self._retry_at = float("-inf")
        self._retry_wait_s = OWED_RETRY_S
        self._recount_at = float("-inf")

    @property
    def quarantined(self) -> int:
        """Number of files in quarantine, those of earlier runs included."""
        return self._leaving.census.files

    @property
    def forwarded(self) -> int:
        """Number of files that this run has moved into another outbox."""
        return sum(forward.moved for forward in self._leaving.forwards)

    def is_quarantine_empty(self) -> bool:
        """Count them now, at once."""
        self._leaving.census.begin()
        self._leaving.census.finish()
        return not self._leaving.census.files and self._leaving.census.failed is None

    def wake(self) -> None:
        """At the next opportunity, retry what could not leave, and count the quarantine."""
        self._retry_at = self._recount_at = float("-inf")

    def leave(self, delivered: Sequence[Entry], given_up: Sequence[Entry], notes: Mapping[int, str]) -> None:
        """Take these out of their outbox as far as they may leave. notes: why they were given up, by number."""
        waited_for = self._waited_for([*delivered, *given_up])
        delivered = [entry for entry in delivered if entry.id not in waited_for]
        given_up = [entry for entry in given_up if entry.id not in waited_for]
        self._let_go(delivered, self._leaving.delivered, {})
        self._let_go(given_up, self._leaving.given_up, notes)
        self._leaving.census.files += len(given_up)
        if given_up:
            self._recount_at = self._clocks.monotonic()
        for entry in given_up:
            self._tell_given_up(entry, notes.get(entry.id) or entry.error or "")

    def _tell_given_up(self, entry: Entry, reason: str) -> None:
        label = shown(self._intakes[entry.outbox].settings.label)
        words = "quarantined path=%s attempts=%d reason=%s outbox=%s"
        log.error(words, shown(entry.path), entry.attempts, shown(reason), label)

    def drop(self, entries: Sequence[Entry]) -> None:
        """Remove these from their outbox undelivered, as far as they may leave."""
        self._let_go(entries, self._leaving.dropped, {})

    def released(self, numbers: Sequence[int]) -> None:
        """A hook of these entries has ended: take out those that were to leave."""
        for start in range(0, len(numbers), PAGE):
            entries = self._queue.entries(numbers[start : start + PAGE])
            mine = [entry for entry in entries if entry.outbox in self._intakes and not self._is_leaving(entry)]
            given_up = [entry for entry in mine if entry.state is State.QUARANTINED]
            notes = {entry.id: entry.error or "" for entry in given_up}
            self.leave([entry for entry in mine if entry.state is State.DELIVERED], given_up, notes)

    def forget_many(self, db: sqlite3.Connection) -> list[Entry]:
        """Within a transaction that is made anyway: drop the rows of files that have left, if there are many.

        Pass the result to `forgotten` once the transaction is on the disk.
        """
        self._collect()
        gone = list(self._gone.values()) if len(self._gone) >= FORGET_FILES else []
        self._queue.forget(db, gone)
        return gone

    def forgotten(self, entries: Sequence[Entry]) -> None:
        for entry in entries:
            del self._gone[entry.id]

    def resume(self) -> None:
        """After a start: take out delivered and given-up files that are still in their outbox."""
        for _ in self._pay():
            pass
        self.flush()

    def _pay(self) -> Iterator[None]:
        self._retry_at = float("inf")
        held = {key for some in self.held.values() for key in some}
        seen: set[int] = set()
        for state, leavers in self._ways.items():
            after_id = 0
            while page := self._queue.owed(state, PAGE, after_id):
                after_id = page[-1].id
                mine = [entry for entry in page if entry.outbox in self._intakes and not self._is_leaving(entry)]
                waited_for = self._waited_for(mine)
                mine = [entry for entry in mine if entry.id not in waited_for]
                self._let_go(mine, leavers, {entry.id: entry.error or "" for entry in mine})
                seen.update(entry.id for entry in mine)
                yield
        for some in self.held.values():
            for key in held.difference(seen):
                some.pop(key, None)  # another version has come in its place
        still = {key for some in self.held.values() for key in some} - self._unlinking.keys()
        stuck = held and held <= still
        self._retry_wait_s = min(self._retry_wait_s * 2, OWED_RETRY_MAX_S) if stuck else OWED_RETRY_S

    def tend(self) -> None:
        """From time to time, in small steps: retry what could not leave, put back what no row claims, tidy the
        archives, count the quarantine."""
        self._collect()
        now = self._clocks.monotonic()
        if self._paying is None and now >= self._retry_at:
            self._paying = self._pay()
        if self._paying is not None and next(self._paying, self) is self:
            self._paying = None
        self._let_go_late(now)
        self._count(now)
        for intake in self._intakes.values():
            self._recover(intake)
        for archive in self._leaving.archives:
            archive.tidy(TIDY_S / len(self._leaving.archives))

    def _count(self, now: float) -> None:
        """Others release or remove files, so the quarantine is counted again from time to time."""
        census = self._leaving.census
        if now >= self._recount_at:
            self._recount_at = float("inf")
            census.begin()
        counted = any(not census.step() for _ in range(COUNT_STEPS))
        if counted and (census.files or census.failed):
            self._recount_at = min(self._recount_at, now + RECOUNT_S)

    def flush(self) -> None:
        """Wait for what is leaving, then forget the rows of files that have left.

        Raises: DiskFull, JournalUnavailable.
        """
        self._collect(wait=True)
        if self._gone:
            gone = list(self._gone.values())
            self._journal.write(lambda db: self._queue.forget(db, gone))
            self._gone.clear()

    def _recover(self, intake: Intake) -> None:
        if not intake.outbox.leftovers:
            return
        leftovers, intake.outbox.leftovers = intake.outbox.leftovers, []
        try:
            root = intake.outbox.open()
        except SourceFailed:
            return  # the next walk finds them again
        try:
            for path in unclaimed(self._queue, intake.number, leftovers):
                self._put_back(intake, root, path)
        finally:
            os.close(root)

    def _put_back(self, intake: Intake, root: int, path: bytes) -> None:
        """One that cannot be renamed stays, delays no other, and is reported once."""
        place = (intake.number, path)
        try:
            recover(root, path)
        except OSError as error:
            reason = error.strerror or str(error)
            if self.stuck.get(place) != reason:
                log.warning("cannot put back path=%s reason=%s", shown(path), shown(reason))
            self.stuck[place] = reason
            return
        self.stuck.pop(place, None)
        intake.outbox.forget(path)

    def _let_go(
        self,
        entries: Sequence[Entry],
        leavers: Mapping[int, Leaver],
        notes: Mapping[int, str],
        *,
        rested: bool = False,
    ) -> None:
        """rested: they have been unchanged for hold_s. What is leaving already is left out: one that waits for its own
        time may have been taken with all that is owed."""
        entries = [entry for entry in entries if not self._is_leaving(entry)]
        for number in {entry.outbox for entry in entries}:
            mine = {entry.id: entry for entry in entries if entry.outbox == number}
            outcome = self._take_away(self._intakes[number], mine, leavers[number], notes, rested=rested)
            for key, why in outcome.stays if outcome is not None else ():
                self._stay(self._intakes[number], mine[key], leavers, notes.get(key, ""), why)

    def _let_go_late(self, now: float) -> None:
        """Try those again that could not leave when they were delivered."""
        ripe = self.waiting.ripe(now, PAGE)
        for leavers in self._ways.values():
            for rested in (True, False):
                chosen = [late for late in ripe if late.leavers is leavers and (late.why is Why.RESTING) is rested]
                notes = {late.entry.id: late.note for late in chosen if late.note}
                self._let_go([late.entry for late in chosen], leavers, notes, rested=rested)

    def _stay(self, intake: Intake, entry: Entry, leavers: Mapping[int, Leaver], note: str, why: Why) -> None:
        held = self.held[intake.number]
        if why is Why.OPEN and held.get(entry.id) != why.value:
            log.info("%s and open for writing path=%s", entry.state.name.lower(), shown(entry.path))
            held[entry.id] = why.value
        if why is Why.TOUCHED:
            held.pop(entry.id, None)
            if self._is_superseded(entry):
                self._left(entry)
                return
            intake.outbox.forget(entry.path)  # the scan finds it, and its content is compared
        wait_s = {Why.RESTING: intake.settings.hold_s, Why.TOUCHED: TOUCHED_RETRY_S, Why.OPEN: OPEN_RETRY_S}[why]
        self.waiting.add(Late(self._clocks.monotonic() + wait_s, entry, leavers, note, why))

    def _collect(self, *, wait: bool = False) -> None:
        """See to what the unlinker is done with."""
        for work in self._unlinker.finished(wait=wait):
            for key in work.done:
                self._has_left(*self._unlinking.pop(key))
            for key, error in work.failed:
                intake, entry = self._unlinking.pop(key)
                self._hold(intake, {key: entry.path}, [(key, error)])

    def _is_leaving(self, entry: Entry) -> bool:
        return entry.id in self._gone or entry.id in self._unlinking

    def _has_left(self, intake: Intake, entry: Entry) -> None:
        self._left(entry)
        intake.left(entry)
        self.held[intake.number].pop(entry.id, None)

    def _left(self, entry: Entry) -> None:
        """However it left: nothing may refer to it once its row is forgotten."""
        self._gone[entry.id] = entry
        self.waiting.discard(entry.id)

    def _is_superseded(self, entry: Entry) -> bool:
        """Whether the file that is there now belongs to another entry."""
        known = self._queue.known(entry.outbox, [entry.path]).get(entry.path)
        return known is not None and known.id != entry.id

    def _take_away(
        self, intake: Intake, entries: Mapping[int, Entry], leaver: Leaver, notes: Mapping[int, str], *, rested: bool
    ) -> Outcome | None:
        at = self._clocks.wall()
        items = [Item(key, entry.path, entry.fingerprint, _about(entry, notes, at)) for key, entry in entries.items()]

        def unlink(work: Unlinking) -> None:
            keys = (*work.done, *work.names, *(key for key, _ in work.failed))
            self._unlinking.update((key, (intake, entries[key])) for key in keys)
            self._unlinker.start(work)

        try:
            root = intake.outbox.open()
        except SourceFailed as error:
            self._owe(intake, error)
            return None
        try:
            outcome = take_away(root, items, leaver, intake.departure(rested=rested), unlink)
        finally:
            os.close(root)
        for key in outcome.done:
            self._has_left(intake, entries[key])
        if outcome.failed:
            self._hold(intake, {key: entry.path for key, entry in entries.items()}, outcome.failed)
        return outcome

    def _hold(self, intake: Intake, paths: Mapping[int, bytes], failed: Sequence[tuple[int, OSError]]) -> None:
        """They stay delivered (or given up) and are not sent again; they are retried at growing intervals."""
        held = self.held[intake.number]
        for key, error in failed:
            reason = error.strerror or str(error)
            if held.get(key) != reason:
                log.error("cannot take out path=%s reason=%s", shown(paths[key]), shown(reason))
            held[key] = reason
        self.last_error = f"{intake.settings.label}: cannot take files out of the outbox: {failed[0][1]}"
        self._retry_at = self._clocks.monotonic() + self._retry_wait_s

    def _owe(self, intake: Intake, error: SourceFailed) -> None:
        self.last_error = f"{intake.settings.label}: cannot take files out of the outbox: {error}"
        self._retry_at = self._clocks.monotonic() + self._retry_wait_s
        log.error("cannot take out outbox=%s error=%s", shown(intake.settings.label), shown(str(error)))


def _about(entry: Entry, notes: Mapping[int, str], at: float) -> dict[str, str | int]:
    """What the quarantine records of an entry."""
    day = datetime.fromtimestamp(at, timezone.utc)
    return {
        "destination": entry.destination,
        "attempts": entry.attempts,
        "reason": notes.get(entry.id, ""),
        "at": day.isoformat(timespec="seconds"),
    }
