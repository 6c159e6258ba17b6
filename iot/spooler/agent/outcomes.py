"""Outcomes of jobs: records them, many in one transaction, and then lets the files leave.

The order matters: "delivered" is on the disk before the file leaves the outbox (see owed).
"""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

from iot.spooler.batches.markers import Markers
from iot.spooler.compression.packing import Packing
from iot.spooler.config.outboxes import AfterUpload
from iot.spooler.decisions import REASONS
from iot.spooler.hooks.before import HookRefusal
from iot.spooler.hooks.hooks import Hooks
from iot.spooler.leaving.owed import Owed
from iot.spooler.naming import shown
from iot.spooler.outbox.intake import Clocks, Intake
from iot.spooler.outbox.place import SourceFailed
from iot.spooler.queue.deliveries import Deliveries
from iot.spooler.queue.policy import NEVER, Event, FailureKind, RetryRules, State, Tries, Verdict, after, judge
from iot.spooler.queue.queue import Entry, Queue, Success
from iot.spooler.server.availability import Remote, failure_kind
from iot.transfer import Elsewhere, Failure, Journal, TransferResult

__all__ = ["OutcomeRecorder"]

log = logging.getLogger(__name__)

RECORD_FILES = 256
RECORD_S = 1.0
EXISTS = '"another file has this name"'


class Refused(NamedTuple):
    """The last file of an outbox that the server has refused: the number of its entry, and what it said."""

    entry: int
    words: str


class OutcomeRecorder:
    """Records the outcomes of the jobs of all outboxes.

    last_error: the last error of a file. rules: by the number of the outbox. server: where this agent delivers to, None
    where there is but one. elsewhere: what was begun with another one.
    """

    def __init__(
        self,
        journal: Journal,
        queue: Queue,
        remote: Remote,
        intakes: Sequence[Intake],
        owed: Owed,
        hooks: Hooks,
        markers: Markers,
        rules: Mapping[int, RetryRules],
        clocks: Clocks,
        random: Callable[[], float],
        packing: Packing,
        server: str | None = None,
        elsewhere: Elsewhere | None = None,
    ) -> None:
        self.last_error: str | None = None
        self._refusals: dict[int, Refused] = {}
        self._journal = journal
        self._queue = queue
        self._remote = remote
        self._intakes = {intake.number: intake for intake in intakes}
        self._rules = rules
        self._clocks = clocks
        self._random = random
        self._packing = packing
        self._owed = owed
        self._after = hooks.after
        self._after_batch = hooks.batches.after
        self._markers = markers
        self._elsewhere = elsewhere
        self._deliveries = Deliveries(journal, server)
        self._successes: list[tuple[Entry, TransferResult]] = []
        self._failures: list[tuple[Entry, Verdict, str | None]] = []
        self._lost: dict[Event, list[Entry]] = {Event.CHANGED: [], Event.VANISHED: []}
        self._losses: dict[int, int] = {}
        self._record_at = float("-inf")

    @property
    def unrecorded(self) -> int:
        """Number of outcomes not recorded yet."""
        return len(self._successes) + len(self._failures) + sum(map(len, self._lost.values()))

    def record_is_due(self, now: float) -> bool:
        """Whether they are many, or the first has waited for RECORD_S. now: seconds, monotonic."""
        return self.unrecorded >= RECORD_FILES or now >= self._record_at

    # -- outcomes

    def succeeded(self, entry: Entry, result: TransferResult) -> None:
        self._collect()
        if self._elsewhere is not None and not result.skipped and self._elsewhere.may_stand(result):
            result = replace(result, possible_repeat=True)
        self._successes.append((entry, result))
        self._losses.pop(entry.id, None)
        self._refusals.pop(entry.outbox, None)
        if result.skipped:
            words = "skipped path=%s dest=%s reason=%s outbox=%s"
            log.info(words, shown(entry.path), shown(entry.destination), EXISTS, self._label(entry))
            return
        if result.already_done and result.proof is None:
            log.info("touched, content as delivered before path=%s bytes=%d", shown(entry.path), result.size)
            return
        log.info(
            "delivered path=%s dest=%s bytes=%d sent=%d resumed_at=%d s=%.3f proof=%s durable=%s repeat=%s",
            shown(entry.path),
            shown(result.published_as or entry.destination),
            result.size,
            result.sent_bytes,
            result.resumed_at,
            result.seconds,
            result.proven,
            result.durable,
            result.possible_repeat,
        )

    def failed(self, entry: Entry, failure: Failure, *, progressed: bool) -> None:
        """A job has failed; a file that vanished or changed meanwhile is told apart from one that is refused."""
        self._collect()
        kind, level = failure_kind(failure.error), logging.WARNING
        try:
            event = self._gone_or_changed(entry) if kind in (FailureKind.PERMANENT, FailureKind.CHANGED) else None
        except SourceFailed:
            # the file cannot be examined, so this may not be its fault; and of the outbox, its state tells, once
            kind, event, level = FailureKind.TRANSIENT, None, logging.DEBUG
        if event is not None:
            self._lost[event].append(entry)
            self._losses.pop(entry.id, None)
            self._out_of_the_way(entry)
            log.info("%s path=%s", event.name.lower(), shown(entry.path))
            return
        verdict = self._verdict(FailureKind.TRANSIENT if kind is FailureKind.CHANGED else kind, entry, progressed)
        self._tell_decision(entry, verdict)
        words = f"{type(failure.error).__name__}: {failure.error}"
        self._failures.append((entry, verdict, words))
        if verdict.event is not Event.FAILED and verdict.event is not Event.GIVEN_UP:
            return  # the link's error, or a stop: the loop reports it
        self.last_error = f"{shown(entry.path)}: {words}"
        if verdict.event is Event.GIVEN_UP:
            self._out_of_the_way(entry)
        elif kind is FailureKind.PERMANENT:
            self._refusals[entry.outbox] = Refused(entry.id, self.last_error)
        self._tell_failure(entry, verdict, words, level)

    def destination_failed(self, outbox: int) -> str:
        """Why the server refuses what this outbox sends; "" where the last file that it refused has left, or another
        was delivered since."""
        refusal = self._refusals.get(outbox)
        return refusal.words if refusal is not None else ""

    def _out_of_the_way(self, entry: Entry) -> None:
        refusal = self._refusals.get(entry.outbox)
        if refusal is not None and refusal.entry == entry.id:
            del self._refusals[entry.outbox]

    def refused(self, entry: Entry, reason: str) -> None:
        """An entry that cannot be named, or must not be sent: no attempt would come to another end."""
        verdict = Verdict(Event.GIVEN_UP, entry.failures + 1, entry.strikes + 1)
        self._failures.append((entry, verdict, reason))
        self.last_error = f"{shown(entry.path)}: {reason}"
        log.warning("not sent path=%s reason=%s outbox=%s", shown(entry.path), shown(reason), self._label(entry))

    def hindered(self, entry: Entry, refusal: HookRefusal) -> None:
        """An entry that its hook `before` has refused: it was not handed out, and is tried again like a failed one."""
        self._collect()
        kind = FailureKind.PERMANENT if refusal.for_good else FailureKind.TRANSIENT
        verdict = self._verdict(kind, entry, progressed=False)
        if verdict.event is Event.FAILED:
            verdict = verdict._replace(event=Event.SKIPPED)
        self._tell_decision(entry, verdict)
        self._failures.append((entry, verdict, refusal.reason))
        self.last_error = f"{shown(entry.path)}: {refusal.reason}"
        self._tell_failure(entry, verdict, refusal.reason)

    def _collect(self) -> None:
        if not self.unrecorded:
            self._record_at = self._clocks.monotonic() + RECORD_S

    def _tell_decision(self, entry: Entry, verdict: Verdict) -> None:
        decisions = self._intakes[entry.outbox].decisions
        if verdict.delay_s:
            left = verdict.delay_s >= NEVER
            decisions.tell(entry.path, REASONS[State.WAITING], next_s="never" if left else f"{verdict.delay_s:.1f}")
        else:
            decisions.tell_state(entry.path, after(State.SENDING, verdict.event))

    def _tell_failure(self, entry: Entry, verdict: Verdict, words: str, level: int = logging.WARNING) -> None:
        log.log(
            level,
            "failed path=%s error=%s attempt=%d strikes=%d next_s=%s outbox=%s",
            shown(entry.path),
            shown(words),
            entry.attempts,
            verdict.strikes,
            f"{verdict.delay_s:.1f}" if verdict.delay_s < NEVER else "never",
            self._label(entry),
        )

    def _label(self, entry: Entry) -> str:
        return shown(self._intakes[entry.outbox].settings.label)

    def interrupted(self, entries: Sequence[Entry]) -> None:
        """Jobs that ended without an outcome."""
        self._return(entries, Event.INTERRUPTED)

    def released(self, entries: Sequence[Entry]) -> None:
        """Entries that were claimed and never handed out."""
        self._return(entries, Event.RELEASED)

    def moved(self, entries: Sequence[Entry]) -> None:
        """Entries whose destination was changed after an attempt: what that left on the server may be removed."""
        left = [(entry, entry.left_at) for entry in entries if entry.left_at is not None]
        self._remote.give_up([(self._packing.path(entry, dest), dest) for entry, dest in left])

    def _return(self, entries: Sequence[Entry], event: Event) -> None:
        self._failures += [(entry, Verdict(event, entry.failures, entry.strikes), None) for entry in entries]

    def _verdict(self, kind: FailureKind, entry: Entry, progressed: bool) -> Verdict:
        tries = Tries(entry.failures, entry.strikes, self._losses.pop(entry.id, 0))
        verdict = judge(kind, tries, self._rules[entry.outbox], progressed=progressed, random=self._random())
        if verdict.losses:
            self._losses[entry.id] = verdict.losses
        return verdict

    def _gone_or_changed(self, entry: Entry) -> Event | None:
        """What became of a file whose job has failed. Raises: SourceFailed."""
        outbox = self._intakes[entry.outbox].outbox
        found = outbox.look(entry.path)
        outbox.forget(entry.path)
        if found is None:
            return Event.VANISHED
        if entry.check_final and outbox.system.may_be_same(found, entry.fingerprint):
            return None  # touched before it was compared: its row stays until the scan passes on what it knows
        return Event.CHANGED if found != entry.fingerprint else None

    # -- record

    def record(self) -> None:
        """Record all outcomes in one transaction, then let the delivered files leave.

        The remote's records are written around it: what it may clean up is recorded before the row is dropped, and what
        it needs to recognise a finished upload is dropped only after "delivered" is on the disk. After a crash between
        these the step is repeated.

        Raises: DiskFull, JournalUnavailable; then nothing is lost: the next call tries again.
        """
        if not self.unrecorded:
            return
        self.withdraw(self._lost[Event.VANISHED])
        delivered, failed, gone = self._journal.write(self._write)
        results = [result for _, result in self._successes]
        notes = {entry.id: words or "" for entry, _, words in self._failures}
        for entries in self._lost.values():
            entries.clear()
        self._owed.forgotten(gone)
        self._successes.clear()
        self._failures.clear()
        if results:
            self._remote.release_checkpoints(results)
        given_up = [entry for entry in failed if entry.state is State.QUARANTINED]
        self._owed.leave([entry for entry in delivered if entry.state is State.DELIVERED], given_up, notes)
        if self._elsewhere is not None:
            self._elsewhere.overtaken(results)

    def _write(self, db: sqlite3.Connection) -> tuple[list[Entry], list[Entry], list[Entry]]:
        at = self._clocks.wall()
        delivered = self._queue.deliver(db, [self._delivery(entry, result, at) for entry, result in self._successes])
        results = {entry.id: result for entry, result in self._successes}
        sent = [entry for entry in delivered if results[entry.id].proof is not None]  # others were recorded before
        self._deliveries.add(db, at, self._clocks.synchronised(), [(entry, results[entry.id]) for entry in sent])
        self._after.delivered(db, [(entry, results[entry.id]) for entry in sent if not results[entry.id].skipped])
        outcomes = [(entry, results[entry.id]) for entry in delivered]
        self._after_batch.delivered(db, outcomes)
        self._markers.delivered(db, outcomes)
        failed = self._queue.fail(db, self._failures, self._clocks.monotonic())
        self._markers.given_up(db, [entry.id for entry in failed if entry.state is State.QUARANTINED])
        self._after.failed(db, [(entry, verdict.event, words) for entry, verdict, words in self._failures])
        for event, entries in self._lost.items():
            self._queue.lose(db, entries, event)
        return delivered, failed, self._owed.forget_many(db)

    def withdraw(self, entries: Sequence[Entry]) -> None:
        """These files are not sent any more; an attempt may have left something on the server, which may go."""
        begun = [(entry, entry.left_at or entry.destination) for entry in entries]
        left = [(self._packing.path(entry, dest), dest) for entry, dest in begun if dest]
        if left:
            self._remote.give_up(left)

    def _delivery(self, entry: Entry, result: TransferResult, at: float) -> Success:
        event = Event.SENT_TO_KEEP if self._keeps(entry) or result.skipped else Event.SENT
        words = result.proven + " durable" * result.durable + " repeat" * result.possible_repeat
        delivered = None if result.skipped else result.sha256  # the same content later is not a delivered one
        return Success(entry, event, words, at, delivered)

    def _keeps(self, entry: Entry) -> bool:
        return self._intakes[entry.outbox].settings.after_upload is AfterUpload.KEEP

    def drop_withdrawn(self) -> None:
        """If the journal cannot be written, the next full walk finds them again."""
        for intake in self._intakes.values():
            withdrawn = intake.take_withdrawn()
            self.withdraw(withdrawn)
            self._queue.drop(withdrawn, Event.VANISHED)
