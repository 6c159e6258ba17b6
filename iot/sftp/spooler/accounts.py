"""What came of the jobs: writes it down, many in one transaction, and then lets the files go.

The order is the promise: "delivered" is on the disk before the file leaves the outbox, and the row is forgotten after
the folder it left has been synced. What an interrupted run owes is made good by `resume`.
"""

from __future__ import annotations

import logging
import os
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime, timezone

from iot.sftp.client import Failure, Journal, TransferResult
from iot.sftp.spooler.departure import Why
from iot.sftp.spooler.intake import Clocks, Intake
from iot.sftp.spooler.leaving import Leaving, unclaimed
from iot.sftp.spooler.naming import shown
from iot.sftp.spooler.outbox import SourceFailed
from iot.sftp.spooler.policy import Event, Kind, Rules, State, Tries, Verdict, judge
from iot.sftp.spooler.queue import Delivery, Entry, Queue
from iot.sftp.spooler.remote import Remote, kind_of
from iot.sftp.spooler.removal import Item, Leaver, Outcome, recover, take_away
from iot.sftp.spooler.settings import AfterUpload
from iot.sftp.spooler.waiting import Late, Waiting

__all__ = ["Accounts"]

log = logging.getLogger(__name__)

PAGE = 256
FORGET_FILES = 1024
"""Rows of files that have gone are dropped so many at a time, or when there is nothing else to do."""
OWED_RETRY_S = 30.0
OWED_RETRY_MAX_S = 600.0
RECOUNT_S = 60.0
COUNT_STEPS = 4
TIDY_S = 0.02
OPEN_RETRY_S = 10.0
TOUCHED_RETRY_S = 1.0


class Accounts:
    """The books of all outboxes.

    last_error: what last went wrong with a file. held: of each outbox the entries that cannot leave it, with why.
    waiting: delivered files that may not leave yet.
    """

    def __init__(
        self,
        journal: Journal,
        queue: Queue,
        remote: Remote,
        intakes: Sequence[Intake],
        leaving: Leaving,
        rules: Rules,
        clocks: Clocks,
        random: Callable[[], float],
    ) -> None:
        self.held: dict[int, dict[int, str]] = {intake.number: {} for intake in intakes}
        self.last_error: str | None = None
        self.destination_failed: dict[int, str] = {}
        self._journal = journal
        self._queue = queue
        self._remote = remote
        self._intakes = {intake.number: intake for intake in intakes}
        self._rules = rules
        self._clocks = clocks
        self._random = random
        self._leaving = leaving
        self._successes: list[tuple[Entry, TransferResult]] = []
        self._failures: list[tuple[Entry, Verdict, str | None]] = []
        self._lost: dict[Event, list[Entry]] = {Event.CHANGED: [], Event.VANISHED: []}
        self._losses: dict[int, int] = {}
        self._gone: dict[int, Entry] = {}
        self.waiting = Waiting()
        self._owed: Iterator[None] | None = None
        self._owed_at = float("-inf")
        self._owed_wait_s = OWED_RETRY_S
        self._recount_at = float("-inf")

    @property
    def quarantined(self) -> int:
        """Files that lie in quarantine, those of earlier runs included."""
        return self._leaving.census.files

    def is_quarantine_empty(self) -> bool:
        """Looked at now, in one go."""
        self._leaving.census.begin()
        self._leaving.census.finish()
        return not self._leaving.census.files and self._leaving.census.failed is None

    def wake(self) -> None:
        """Try again to let go what could not go, and look into the quarantine, at the next occasion."""
        self._owed_at = self._recount_at = float("-inf")

    @property
    def unsettled(self) -> int:
        """Outcomes that are not written down yet."""
        return len(self._successes) + len(self._failures) + sum(map(len, self._lost.values()))

    # -- outcomes

    def succeeded(self, entry: Entry, result: TransferResult) -> None:
        self._successes.append((entry, result))
        self._losses.pop(entry.id, None)
        self.destination_failed.pop(entry.outbox, None)
        log.info(
            "delivered path=%s dest=%s bytes=%d sent=%d resumed_at=%d s=%.3f proof=%s durable=%s repeat=%s",
            shown(entry.path),
            shown(entry.destination),
            result.size,
            result.sent_bytes,
            result.resumed_at,
            result.seconds,
            result.proven,
            result.durable,
            result.possible_repeat,
        )

    def failed(self, entry: Entry, failure: Failure, *, progressed: bool) -> None:
        """A job's own failure; a file that went or changed meanwhile is told from one that is refused."""
        kind = kind_of(failure.error)
        try:
            event = self._gone_or_changed(entry) if kind in (Kind.PERMANENT, Kind.CHANGED) else None
        except SourceFailed:
            kind, event = Kind.TRANSIENT, None  # nothing is known of the file: it may not be its fault
        if event is not None:
            self._lost[event].append(entry)
            self._losses.pop(entry.id, None)
            log.info("%s path=%s", event.name.lower(), shown(entry.path))
            return
        verdict = self._verdict(Kind.TRANSIENT if kind is Kind.CHANGED else kind, entry, progressed)
        words = f"{type(failure.error).__name__}: {failure.error}"
        self._failures.append((entry, verdict, words))
        if verdict.event is not Event.FAILED and verdict.event is not Event.GIVEN_UP:
            return  # the link's, or a stop: the loop tells it
        self.last_error = f"{shown(entry.path)}: {words}"
        if kind is Kind.PERMANENT:
            self.destination_failed[entry.outbox] = self.last_error
        log.warning(
            "failed path=%s error=%s attempt=%d strikes=%d next_s=%.1f",
            shown(entry.path),
            shown(words),
            entry.attempts,
            verdict.strikes,
            verdict.delay_s,
        )

    def interrupted(self, entries: Sequence[Entry]) -> None:
        """Jobs that ended without a word of their own."""
        self._return(entries, Event.INTERRUPTED)

    def released(self, entries: Sequence[Entry]) -> None:
        """Entries that were claimed and never handed out."""
        self._return(entries, Event.RELEASED)

    def moved(self, entries: Sequence[Entry]) -> None:
        """Entries whose destination was changed after an attempt: what that has left there may go."""
        self._remote.give_up([(self._source(entry), entry.left_at) for entry in entries if entry.left_at is not None])

    def _return(self, entries: Sequence[Entry], event: Event) -> None:
        self._failures += [(entry, Verdict(event, entry.failures, entry.strikes), None) for entry in entries]

    def _verdict(self, kind: Kind, entry: Entry, progressed: bool) -> Verdict:
        tries = Tries(entry.failures, entry.strikes, self._losses.pop(entry.id, 0))
        verdict = judge(kind, tries, self._rules, progressed=progressed, random=self._random())
        if verdict.losses:
            self._losses[entry.id] = verdict.losses
        return verdict

    def _source(self, entry: Entry) -> str:
        return self._intakes[entry.outbox].source(entry)

    def _gone_or_changed(self, entry: Entry) -> Event | None:
        """What the folder says of a file whose job has failed. Raises: SourceFailed."""
        outbox = self._intakes[entry.outbox].outbox
        found = outbox.look(entry.path)
        outbox.forget(entry.path)
        if found is None:
            return Event.VANISHED
        return Event.CHANGED if found != entry.fingerprint else None

    # -- settling

    def settle(self) -> None:
        """Write all outcomes down in one transaction, then let the delivered files go.

        The remote's own records frame it: what it may clean up is on record before the row goes, and what it needs to
        recognise a finished upload goes only after "delivered" is on the disk. A crash between repeats the step.

        Raises: DiskFull, JournalUnavailable; then nothing is lost: the next call tries again.
        """
        if not self.unsettled:
            return
        self._withdraw(self._lost[Event.VANISHED])
        gone = list(self._gone.values()) if len(self._gone) >= FORGET_FILES else []
        delivered, failed = self._journal.write(lambda db: self._write(db, gone))
        results = [result for _, result in self._successes]
        notes = {entry.id: words or "" for entry, _, words in self._failures}
        for entries in self._lost.values():
            entries.clear()
        for entry in gone:
            del self._gone[entry.id]
        self._successes.clear()
        self._failures.clear()
        if results:
            self._remote.settle(results)
        given_up = [entry for entry in failed if entry.state is State.QUARANTINED]
        self._let_go([entry for entry in delivered if entry.state is State.DELIVERED], self._leaving.delivered, {})
        self._let_go(given_up, self._leaving.given_up, notes)
        self._count_quarantined(given_up)

    def _write(self, db: sqlite3.Connection, gone: Sequence[Entry]) -> tuple[list[Entry], list[Entry]]:
        at = self._clocks.wall()
        delivered = self._queue.deliver(db, [self._delivery(entry, result, at) for entry, result in self._successes])
        failed = self._queue.fail(db, self._failures, self._clocks.monotonic())
        for event, entries in self._lost.items():
            self._queue.lose(db, entries, event)
        self._queue.forget(db, gone)
        return delivered, failed

    def _withdraw(self, entries: Sequence[Entry]) -> None:
        """Their producer has taken the files away: an attempt may have left something on the server."""
        if entries:
            self._remote.give_up([(self._source(entry), entry.destination) for entry in entries])

    def _delivery(self, entry: Entry, result: TransferResult, at: float) -> Delivery:
        event = Event.SENT_TO_KEEP if self._keeps(entry) else Event.SENT
        words = result.proven + " durable" * result.durable + " repeat" * result.possible_repeat
        return Delivery(entry, event, words, at)

    def _keeps(self, entry: Entry) -> bool:
        return self._intakes[entry.outbox].settings.after_upload is AfterUpload.KEEP

    def _count_quarantined(self, entries: Sequence[Entry]) -> None:
        self._leaving.census.files += len(entries)
        self._recount_at = self._clocks.monotonic()
        for entry in entries:
            log.error("quarantined path=%s attempts=%d", shown(entry.path), entry.attempts)

    # -- letting files go

    def resume(self) -> None:
        """Make good what is owed: delivered and given-up files that are still in their outbox."""
        for _ in self._pay():
            pass
        self.flush()

    def _pay(self) -> Iterator[None]:
        self._owed_at = float("inf")
        held = {key for some in self.held.values() for key in some}
        seen: set[int] = set()
        for state, leavers in ((State.DELIVERED, self._leaving.delivered), (State.QUARANTINED, self._leaving.given_up)):
            after_id = 0
            while page := self._queue.owed(state, PAGE, after_id):
                after_id = page[-1].id
                mine = [entry for entry in page if entry.outbox in self._intakes and entry.id not in self._gone]
                self._let_go(mine, leavers, {entry.id: entry.error or "" for entry in mine})
                seen.update(entry.id for entry in mine)
                yield
        for some in self.held.values():
            for key in held.difference(seen):
                some.pop(key, None)  # another version has come in its place
        stuck = held and all(any(key in some for some in self.held.values()) for key in held)
        self._owed_wait_s = min(self._owed_wait_s * 2, OWED_RETRY_MAX_S) if stuck else OWED_RETRY_S

    def tend(self) -> None:
        """Now and then, each time a small step: try again to let go what could not go, put back what no row claims,
        tidy the archives, count what lies in quarantine."""
        now = self._clocks.monotonic()
        if self._owed is None and now >= self._owed_at:
            self._owed = self._pay()
        if self._owed is not None and next(self._owed, self) is self:
            self._owed = None
        self._let_go_late(now)
        self._count(now)
        for intake in self._intakes.values():
            self._drop_withdrawn(intake)
            self._recover(intake)
        for archive in self._leaving.archives:
            archive.tidy(TIDY_S / len(self._leaving.archives))

    def _count(self, now: float) -> None:
        """Files are released or removed by others: what was counted is counted again now and then."""
        census = self._leaving.census
        if now >= self._recount_at:
            self._recount_at = float("inf")
            census.begin()
        counted = any(not census.step() for _ in range(COUNT_STEPS))
        if counted and (census.files or census.failed):
            self._recount_at = min(self._recount_at, now + RECOUNT_S)

    def flush(self) -> None:
        """Forget the rows of files that have gone. Raises: DiskFull, JournalUnavailable."""
        if self._gone:
            gone = list(self._gone.values())
            self._journal.write(lambda db: self._queue.forget(db, gone))
            self._gone.clear()

    def _drop_withdrawn(self, intake: Intake) -> None:
        """Where the journal cannot be written, they are found again by the next whole walk."""
        withdrawn, intake.withdrawn = intake.withdrawn, []
        self._withdraw(withdrawn)
        self._queue.drop(withdrawn, Event.VANISHED)

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
                recover(root, path)
                intake.outbox.forget(path)
        except OSError as error:
            log.warning("cannot put back outbox=%s error=%s", shown(intake.settings.label), shown(str(error)))
        finally:
            os.close(root)

    def _let_go(
        self,
        entries: Sequence[Entry],
        leavers: Mapping[int, Leaver],
        notes: Mapping[int, str],
        *,
        rested: bool = False,
    ) -> None:
        """rested: they have stayed as they are for their hold time."""
        for number in {entry.outbox for entry in entries}:
            mine = {entry.id: entry for entry in entries if entry.outbox == number}
            outcome = self._take_away(self._intakes[number], mine, leavers[number], notes, rested=rested)
            for key, why in outcome.stays if outcome is not None else ():
                self._stay(self._intakes[number], mine[key], leavers, notes.get(key, ""), why)

    def _let_go_late(self, now: float) -> None:
        """Ask again for those that could not leave when they were delivered."""
        ripe = self.waiting.ripe(now, PAGE)
        for leavers in (self._leaving.delivered, self._leaving.given_up):
            for rested in (True, False):
                chosen = [late for late in ripe if late.leavers is leavers and (late.why is Why.RESTING) is rested]
                notes = {late.entry.id: late.note for late in chosen if late.note}
                self._let_go([late.entry for late in chosen], leavers, notes, rested=rested)

    def _stay(self, intake: Intake, entry: Entry, leavers: Mapping[int, Leaver], note: str, why: Why) -> None:
        held = self.held[intake.number]
        if why is Why.OPEN and held.get(entry.id) != why.value:
            log.info("delivered and open for writing path=%s", shown(entry.path))
            held[entry.id] = why.value
        if why is Why.TOUCHED:
            held.pop(entry.id, None)
            if self._is_superseded(entry):
                self._gone[entry.id] = entry
                return
            intake.outbox.forget(entry.path)  # the scan finds it and has it compared
        wait_s = {Why.RESTING: intake.settings.hold_s, Why.TOUCHED: TOUCHED_RETRY_S, Why.OPEN: OPEN_RETRY_S}[why]
        self.waiting.add(Late(self._clocks.monotonic() + wait_s, entry, leavers, note, why))

    def _is_superseded(self, entry: Entry) -> bool:
        """Whether what lies there now is another entry's."""
        known = self._queue.known(entry.outbox, [entry.path]).get(entry.path)
        return known is not None and known.id != entry.id

    def _take_away(
        self, intake: Intake, entries: Mapping[int, Entry], leaver: Leaver, notes: Mapping[int, str], *, rested: bool
    ) -> Outcome | None:
        at = self._clocks.wall()
        items = [Item(key, entry.path, entry.fingerprint, _about(entry, notes, at)) for key, entry in entries.items()]
        try:
            root = intake.outbox.open()
        except SourceFailed as error:
            self._owe(intake, error)
            return None
        try:
            outcome = take_away(root, items, leaver, intake.departure(rested=rested))
        finally:
            os.close(root)
        for key in outcome.done:
            self._gone[key] = entries[key]
            self.held[intake.number].pop(key, None)
        if outcome.failed:
            self._hold(intake, {key: entry.path for key, entry in entries.items()}, outcome.failed)
        return outcome

    def _hold(self, intake: Intake, paths: Mapping[int, bytes], failed: Sequence[tuple[int, OSError]]) -> None:
        """They stay delivered (or given up) and are not sent again; the next try comes later and later."""
        held = self.held[intake.number]
        for key, error in failed:
            reason = error.strerror or str(error)
            if held.get(key) != reason:
                log.error("cannot take out path=%s reason=%s", shown(paths[key]), shown(reason))
            held[key] = reason
        self.last_error = f"{intake.settings.label}: cannot take files out of the outbox: {failed[0][1]}"
        self._owed_at = self._clocks.monotonic() + self._owed_wait_s

    def _owe(self, intake: Intake, error: SourceFailed) -> None:
        self.last_error = f"{intake.settings.label}: cannot take files out of the outbox: {error}"
        self._owed_at = self._clocks.monotonic() + self._owed_wait_s
        log.error("cannot take out outbox=%s error=%s", shown(intake.settings.label), shown(str(error)))


def _about(entry: Entry, notes: Mapping[int, str], at: float) -> dict[str, str | int]:
    """What the quarantine keeps of an entry."""
    day = datetime.fromtimestamp(at, timezone.utc)
    return {
        "destination": entry.destination,
        "attempts": entry.attempts,
        "reason": notes.get(entry.id, ""),
        "at": day.isoformat(timespec="seconds"),
    }
