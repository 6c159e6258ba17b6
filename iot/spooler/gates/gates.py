"""What of each outbox may be sent now, and why not more.

Several gates may each hold an outbox back; the strictest counts. A file that is held back stays in the queue; one in
flight is suspended and resumed when its outbox opens again. Each change is logged once.

The wall clock decides, since windows are times of day; only the waiting in between is by the monotonic clock. While the
wall clock is not where it was expected, it is simply looked at again, at the latest after LOOK_S. So a clock that jumps
opens or closes a window for as long as it is wrong, and nothing that was decided then outlives its correction.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import tzinfo
from typing import NamedTuple, Protocol

from iot.spooler.batches.batches import Batches
from iot.spooler.batches.markers import Markers
from iot.spooler.naming import shown
from iot.spooler.outbox.intake import Clocks, Intake
from iot.spooler.queue.policy import LATEST, Admission, Allowed
from iot.spooler.queue.queue import Queue
from iot.spooler.timetable.schedule import Schedule, clock_words, window
from iot.transfer import LocalStateError

__all__ = ["FREE", "Gate", "Gates", "Held", "Opened", "ServerGate", "WindowGate", "held"]

log = logging.getLogger(__name__)

LOOK_S = 30.0
"""How late a jump of the wall clock is noticed while nothing else happens."""
LOOKED_S = 10.0
"""So long the second look of a flushed inbox may take, which finds what has settled."""
SETTLED_S = 1.0
"""A flush goes on for settle_s and this, so that a file just written is still sent by it."""


ELSEWHERE = "fetched from [server] only, which is not used now"


class Held(NamedTuple):
    """admission: what may still be sent. reason: for people; "" where all may be."""

    admission: Admission
    reason: str


FREE = Held(Admission.ALL, "")


def held(admission: Admission, reason: str) -> Held:
    """Held for this reason; not at all without one, or if everything may be sent all the same."""
    return Held(admission, reason) if reason and admission is not Admission.ALL else FREE


class Gate(Protocol):
    """One reason to hold files back."""

    def look(self, wall: float, now: float) -> float:
        """Look how things stand -> seconds until that is due again. wall, now: both clocks."""

    def of(self, outbox: int, *, flushed: bool) -> Held:
        """What may be sent of an outbox, as of the last look. flushed: it is sent past its schedule."""

    def close(self) -> None:
        """At the end. Raises: LocalStateError."""


class WindowGate:
    """The schedule of each outbox, by number: its windows as text."""

    def __init__(self, schedules: Mapping[int, Sequence[str]], zone: tzinfo) -> None:
        self._hours = {
            number: _Hours(Schedule(tuple(map(window, texts)), zone)) for number, texts in schedules.items() if texts
        }

    def look(self, wall: float, now: float) -> float:
        return min((hours.look(wall) - wall for hours in self._hours.values()), default=float("inf"))

    def of(self, outbox: int, *, flushed: bool) -> Held:
        hours = self._hours.get(outbox)
        return FREE if flushed or hours is None else hours.held

    def close(self) -> None:
        pass  # it has nothing


class ServerGate:
    """Inboxes are fetched from the first server only: what was fetched is recorded by the names there.

    inboxes: their numbers, while the fallback is used.
    """

    def __init__(self, inboxes: Collection[int]) -> None:
        self._inboxes = frozenset(inboxes)

    def look(self, wall: float, now: float) -> float:
        return float("inf")

    def of(self, outbox: int, *, flushed: bool) -> Held:
        return Held(Admission.NONE, ELSEWHERE) if outbox in self._inboxes else FREE

    def close(self) -> None:
        pass  # it has nothing


class _Hours:
    """A schedule, and how it stood between two moments of the wall clock."""

    def __init__(self, schedule: Schedule) -> None:
        self._schedule = schedule
        self._since, self._until = float("inf"), float("-inf")
        self.held = FREE

    def look(self, wall: float) -> float:
        """-> when it changes"""
        if not self._since <= wall < self._until:
            changes_at = self._schedule.changes_at(wall)
            self._since, self._until = wall, float("inf") if changes_at is None else changes_at
            self.held = FREE if self._schedule.is_open(wall) else Held(Admission.NONE, self._words(wall))
        return self._until

    def _words(self, wall: float) -> str:
        return f"outside its window, opens {clock_words(self._until, self._schedule.zone, wall)}"


@dataclass(slots=True)
class _Flush:
    """What lies in an outbox when somebody asks: found by the scan `passes`, and settled at `settled_at`.

    up_to: its last row, once all are known; what comes later waits, or the flush would last as long as its producer.
    """

    passes: int
    settled_at: float
    up_to: int = LATEST


class Opened(Protocol):
    """An inbox, which is held back like an outbox, but not by a batch.

    looks: how often its remote folder was looked at. settles_at: when the last look's next file has settled, on the
    monotonic clock; infinity if all have. pending_files: to be fetched.
    """

    looks: int
    settles_at: float

    @property
    def label(self) -> str: ...

    @property
    def pending_files(self) -> int: ...

    def wake(self) -> None: ...


@dataclass(slots=True)
class _InboxFlush:
    """looks: of the inbox when somebody asked. until: what has not settled by then is left to the schedule, or the
    flush would last as long as files keep coming; None: it was not looked at yet."""

    looks: int
    until: float | None = None


class Gates:
    """The gates of all outboxes and inboxes together; inboxes have numbers of their own.

    look_at: when to look again, in seconds of the monotonic clock.
    """

    def __init__(
        self,
        gates: Sequence[Gate],
        batches: Batches,
        markers: Markers,
        intakes: Sequence[Intake],
        queue: Queue,
        clocks: Clocks,
        inboxes: Mapping[int, Opened] | None = None,
    ) -> None:
        self._gates = gates
        self._inboxes = dict(inboxes or {})
        self._batches = batches
        self._markers = markers
        self._intakes = {intake.number: intake for intake in intakes}
        self._queue = queue
        self._clocks = clocks
        self._held = dict.fromkeys([*self._intakes, *self._inboxes], FREE)
        self._flushed: dict[int, _Flush] = {}
        self._flushed_inboxes: dict[int, _InboxFlush] = {}
        self._missing: frozenset[int] = frozenset()
        self.look_at = float("-inf")

    def admission(self, outbox: int) -> Admission:
        return self._held[outbox].admission

    def suspended(self, outbox: int) -> str:
        """Why nothing of it may be sent; "" where something may."""
        held = self._held[outbox]
        return held.reason if held.admission is Admission.NONE else ""

    def allowed(self, outbox: int) -> Allowed:
        flush = self._flushed.get(outbox)
        up_to = LATEST if flush is None else flush.up_to
        up_to = min(self._batches.up_to(outbox), up_to)
        # no file of a folder that is not there can be sent: each try would be a failed one, and a write to the journal
        admission = Admission.NONE if outbox in self._missing else self._held[outbox].admission
        return Allowed(admission, up_to, self._markers.has(outbox))

    def allowed_up_to(self, least: Admission) -> dict[int, Allowed]:
        """What of each outbox may be sent now, and has at least this priority."""
        allowed = {number: self.allowed(number) for number in self._intakes}
        return {number: each._replace(admission=min(each.admission, least)) for number, each in allowed.items()}

    def reason(self, outbox: int) -> str | None:
        """Why not all of it may be sent."""
        return self._held[outbox].reason or (self._collecting(outbox) if outbox in self._intakes else None)

    def _collecting(self, outbox: int) -> str | None:
        return self._batches.reason(outbox) or self._markers.reason(outbox)

    def is_collecting(self) -> bool:
        """Whether a batch is being collected, or about to be released."""
        return self._batches.is_going_on() or self._markers.is_going_on()

    def end_flush(self, outbox: int) -> None:
        """Its schedule counts again."""
        self._flushed.pop(outbox, None)
        self._flushed_inboxes.pop(outbox, None)

    def flush(self, outboxes: Collection[int] | None = None) -> None:
        """What lies in these outboxes and inboxes now (None: in all outboxes) is sent, or fetched, whatever their
        schedule says."""
        now = self._clocks.monotonic()
        for number in () if outboxes is None else [each for each in outboxes if each in self._inboxes]:
            self._flush_inbox(number, now)
        chosen = self._intakes if outboxes is None else {n: self._intakes[n] for n in outboxes if n in self._intakes}
        for number, intake in chosen.items():
            if number in self._flushed or not self._is_free(number) or self._collecting(number):
                self._flushed[number] = _Flush(intake.wake(), now + intake.settings.settle_s + SETTLED_S)
                log.info("flushed past its schedule outbox=%s", shown(intake.settings.label))

    def _flush_inbox(self, number: int, now: float) -> None:
        inbox = self._inboxes[number]
        inbox.wake()
        if number in self._flushed_inboxes or not self._is_free(number):
            self._flushed_inboxes[number] = _InboxFlush(inbox.looks)
            log.info("flushed past its schedule inbox=%s", shown(inbox.label))

    def look(self, is_busy: Callable[[int], bool]) -> bool:
        """Look how things stand -> whether that has changed. An outbox that opens is scanned at once.

        is_busy: whether something of an outbox is being sent. Raises: LocalStateError, when all is looked at.
        """
        now, wall = self._clocks.monotonic(), self._clocks.wall()
        failure = self._look_at_gates(now, wall)
        try:
            flushed = {n: flush for n, flush in self._flushed.items() if flush.up_to == LATEST}
            released = self._batches.look(now, flushed)
            released = self._markers.look(now, flushed) or released
            over = [number for number in self._flushed if not self._goes_on(number, is_busy, now)]
            over += [number for number in self._flushed_inboxes if not self._goes_on_fetching(number, now)]
            for number in over:
                self.end_flush(number)
            self.look_at = now + min(self.look_at - now, self._batches.next_s(now), self._markers.next_s(now))
        finally:  # also where the journal cannot be written: what a gate holds is held
            changed = [number for number in self._held if self._take(number)]
            before, self._missing = self._missing, frozenset(n for n, each in self._intakes.items() if each.missing)
        if failure is not None:
            raise failure
        return released or bool(over or changed) or before != self._missing

    def close(self) -> None:
        """At the end: what a gate has counted is written, what it runs is ended. Raises: LocalStateError."""
        failure = self._each(lambda gate: gate.close())
        self._batches.tell_kept()
        self._markers.tell_kept()
        if failure is not None:
            raise failure

    # -- inside

    def _look_at_gates(self, now: float, wall: float) -> LocalStateError | None:
        due_s = [LOOK_S]
        failure = self._each(lambda gate: due_s.append(gate.look(wall, now)))
        self.look_at = now + min(due_s)
        return failure

    def _each(self, act: Callable[[Gate], None]) -> LocalStateError | None:
        """-> what one of them could not write; it is done to the others all the same"""
        failure: LocalStateError | None = None
        for gate in self._gates:
            try:
                act(gate)
            except LocalStateError as error:
                failure = error
        return failure

    def _is_free(self, number: int) -> bool:
        return self._held[number].admission is Admission.ALL

    def _goes_on(self, number: int, is_busy: Callable[[int], bool], now: float) -> bool:
        """Whether a flush is not over: the outbox was not scanned yet, or something of it is still to be sent."""
        flush = self._flushed[number]
        if self._intakes[number].passes < flush.passes or now < flush.settled_at:
            return True
        if flush.up_to == LATEST:
            flush.up_to = self._queue.newest(number)
        if self._of(number, flushed=False).admission is Admission.ALL:
            return False
        return (
            is_busy(number)
            or self._markers.asks(number)
            or self._queue.any_ready({number: Allowed(up_to=flush.up_to, listed=self._markers.has(number))})
        )

    def _goes_on_fetching(self, number: int, now: float) -> bool:
        """Until what lay there has been looked at, has settled, and is fetched."""
        inbox, flush = self._inboxes[number], self._flushed_inboxes[number]
        if inbox.looks == flush.looks:
            return True
        if flush.until is None:
            flush.until = inbox.settles_at + LOOKED_S
        return inbox.pending_files > 0 or (inbox.settles_at < float("inf") and now < flush.until)

    def _of(self, number: int, *, flushed: bool) -> Held:
        return min((gate.of(number, flushed=flushed) for gate in self._gates), default=FREE)

    def _take(self, number: int) -> bool:
        """Adopt what the gates say of an outbox -> whether that differs from before."""
        strictest = self._of(number, flushed=number in self._flushed or number in self._flushed_inboxes)
        before, self._held[number] = self._held[number], strictest
        if strictest == before:
            return False
        inbox = self._inboxes.get(number)
        if inbox is None:
            _tell(self._intakes[number].settings.label, before, strictest)
        if strictest.admission > before.admission:
            (inbox or self._intakes[number]).wake()
        return True


def _tell(label: str, before: Held, held: Held) -> None:
    """An outbox of which nothing may be sent is suspended: its state, which is logged as such."""
    if held.admission is Admission.URGENT:
        log.info("outbox sends only what is urgent outbox=%s reason=%s", shown(label), shown(held.reason))
    elif held.admission is Admission.ALL and before.admission is Admission.URGENT:
        log.info("outbox may send outbox=%s", shown(label))
