"""The main loop: scan, queue, send, record outcomes. One thread; everything that may block has its own deadline.

    while not stopped:
        tick       a step of the scan, outcomes recorded, expired waits, status, watchdog
        send       while there is work and the server may be tried: the client pulls jobs from the queue, and ticks
                   whether or not it has a free slot
        pause      until the next of these is due, or somebody wakes the loop

A lost link ends one `send`; the next one resumes where it stopped. While the journal cannot be written, no new jobs
start and files stay where they are; it is tried again.
"""

from __future__ import annotations

import enum
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

from iot.spooler import assembly
from iot.spooler.availability import TO_DO, Remote, ServerState, failure_kind
from iot.spooler.config.layout import merging_rules, shared_destinations
from iot.spooler.config.settings import Settings
from iot.spooler.dispatch import Dispatcher
from iot.spooler.draining import Draining, End
from iot.spooler.leaving.leaving import leaving
from iot.spooler.leaving.owed import Owed
from iot.spooler.naming import shown
from iot.spooler.outbox.intake import Clocks
from iot.spooler.outcomes import OutcomeRecorder
from iot.spooler.queue.policy import FailureKind, State
from iot.spooler.queue.queue import Queue
from iot.transfer import (
    AuthenticationError,
    Cancelled,
    Failure,
    Journal,
    LinkLost,
    LocalStateError,
    TransferError,
    TransferResult,
    UploadJob,
)

__all__ = ["Agent", "Loop", "Totals", "Wake"]

log = logging.getLogger(__name__)

RECORD_FILES = 256
RECORD_S = 1.0
TICK_S = 0.02
LOCAL_HOLD_S = 5.0
PATIENCE_S = 2.0


class Wake(enum.Enum):
    """TRY: scan and try the server at once. FLUSH: that, and send past the schedule."""

    TRY = enum.auto()
    FLUSH = enum.auto()


class Loop(Protocol):
    """The process around the loop."""

    def stopping(self) -> bool: ...

    def alive(self) -> None:
        """The loop has made progress: the watchdog may be fed."""

    def pause(self, seconds: float) -> None:
        """Wait for at most so many seconds, or until somebody wakes the loop."""

    def woken(self) -> Wake | None:
        """What somebody has asked for since the last call."""

    def report(self, agent: Agent, *, changed: bool, final: bool = False) -> None:
        """Publish the status if it is due. changed: something happened since the last call; final: publish now."""


@dataclass
class Totals:
    """Since the start of the process: files delivered, and bytes that the server has confirmed."""

    files: int = 0
    bytes: int = 0


class Agent:
    """One server, its outboxes, one queue.

    drain: send what is there, with a few attempts each, then end. totals: what earlier agents of this process did.
    """

    def __init__(
        self,
        settings: Settings,
        journal: Journal,
        remote: Remote,
        loop: Loop,
        clocks: Clocks,
        random: Callable[[], float],
        *,
        drain: bool = False,
        totals: Totals | None = None,
    ) -> None:
        self.settings = settings
        self.queue = Queue(journal)
        self.server = assembly.server(settings, random, drain=drain)
        self.intakes = assembly.intakes(settings, self.queue, clocks, journal_lost=assembly.was_lost(journal))
        rules = assembly.rules(settings, drain=drain)
        ways = leaving(settings, self.intakes, loop.alive)
        self.owed = Owed(journal, self.queue, self.intakes, ways, clocks)
        self.outcomes = OutcomeRecorder(journal, self.queue, remote, self.intakes, self.owed, rules, clocks, random)
        self.quota = assembly.quota(settings, self.intakes, journal, remote)
        self.gates = assembly.gates(settings, self.intakes, self.queue, journal, clocks, self.quota, drain=drain)
        self.pacer = assembly.pacer(settings, remote)
        self.dispatcher = Dispatcher(
            self.queue,
            self.intakes,
            self._progressed,
            self.outcomes.moved,
            self.outcomes.refused,
            clocks.monotonic,
            self.gates.allowed,
        )
        self.totals = totals or Totals()
        self.local_error: str | None = None
        self.shared_destinations = shared_destinations(settings)
        self._remote = remote
        self._loop = loop
        self._now = clocks.monotonic
        self._wall = clocks.wall
        drain_attempts = settings.retry.drain_attempts
        self._draining = (
            Draining(self.queue, self.intakes, self.owed, self.server, drain_attempts, self._now) if drain else None
        )
        self._started_at = self._now()
        self._tick_at = self._record_at = self._hold_until = float("-inf")
        self._wait_over_at: float | None = None
        self._changed = True
        self._jobs_ended = self._refused = False
        self._restarted = False
        self._hindered_by = ""

    def run(self) -> End:
        """Run until stopped or, when draining, until nothing more can be done."""
        self._restarted = False
        self._locally(self._restart)
        self._locally(self._tell_earlier)
        self._locally(self.owed.resume)
        end = self._work()
        self._locally(self.outcomes.record)
        self._locally(self.owed.flush)
        self._locally(self.gates.close)
        for intake in self.intakes:
            intake.close()
            intake.outbox.release()
        self._loop.report(self, changed=True, final=True)
        return end

    def _restart(self) -> None:
        """Nothing is sent before this is written, or what an earlier process had in flight would never be sent."""
        self.outcomes.record()
        self.queue.restart()
        self._restarted = True

    def _tell_earlier(self) -> None:
        for pair in self.shared_destinations:
            log.warning("destination shared reason=%s", shown(str(pair)))
        for reason in merging_rules(self.settings):
            log.warning("names merged reason=%s", shown(reason))
        labels = {intake.number: intake.settings.label for intake in self.intakes}
        for total in self.queue.totals():
            if total.earlier and total.state is State.READY and total.outbox in labels:
                log.warning(
                    "files already begun keep their earlier destination until the server has answered for them"
                    " outbox=%s files=%d",
                    shown(labels[total.outbox]),
                    total.earlier,
                )

    def wake(self, why: Wake = Wake.TRY) -> None:
        """Scan now and try the server now (the network is up, or the operator asks)."""
        if why is Wake.FLUSH:
            self.gates.flush()
        if self.server.wake():
            log.info("hold released: one try now")
        self.owed.wake()
        for intake in self.intakes:
            intake.wake()

    # -- the loop

    def _work(self) -> End:
        while not self._loop.stopping():
            self._tick(busy=False)
            if self._may_send():
                self._send()
                continue
            end = self._end_of_drain(self._draining) if self._draining else None
            if end is not None:
                return end
            self._loop.pause(self._pause_s())
        return End.STOPPED

    def _tick(self, *, busy: bool) -> None:
        now = self._now()
        self._loop.alive()
        if busy and now < self._tick_at:
            return
        self._tick_at = now + TICK_S
        why = self._loop.woken()
        if why is not None:
            self.wake(why)
        self._locally(lambda: self._tend(now, busy=busy))
        self._loop.report(self, changed=self._changed)
        self._changed = False

    def _tick_while_busy(self) -> None:
        self._tick(busy=True)

    def _tend(self, now: float, *, busy: bool) -> None:
        if not self._restarted:
            self._restart()
        full = self.outcomes.unrecorded >= RECORD_FILES
        if self.outcomes.unrecorded and (full or not busy or now >= self._record_at):
            self.outcomes.record()
        if self.gates.look(self.dispatcher.is_busy):
            self._gates_changed()
        if self.pacer.look(self._wall()):
            log.info("rate limited bytes_per_s=%s", "none" if self.pacer.rate is None else f"{self.pacer.rate:.0f}")
            self._changed = True
        for intake in self.intakes:
            passes = intake.passes
            intake.step(busy=busy)
            self._changed = self._changed or intake.walking or passes != intake.passes == 1
        self.outcomes.drop_withdrawn()
        self.owed.tend()
        if not busy:
            self.owed.flush()
        self._wait_over_at = self.queue.wake(now)

    def _gates_changed(self) -> None:
        self.outcomes.released(self.dispatcher.withdraw())
        self._changed = True

    def _locally(self, work: Callable[[], None]) -> None:
        """Do something that needs the journal; if that cannot be written, start no jobs for a while and log it."""
        try:
            work()
        except LocalStateError as error:
            self._held_here(error)
            return
        if self.local_error is not None and self._now() >= self._hold_until:
            log.info("journal writable again")
            self.local_error = None

    def _held_here(self, error: LocalStateError) -> None:
        words = f"{type(error).__name__}: {error}"
        if self.local_error != words:
            log.error("held by this device error=%s", shown(words))
        self.local_error = words
        self._hold_until = self._now() + LOCAL_HOLD_S
        self._changed = True

    def _may_send(self) -> bool:
        hindrance = self._hindrance(self._now())
        if hindrance != self._hindered_by and hindrance:
            log.debug("nothing is sent reason=%s", shown(hindrance))
        self._hindered_by = hindrance
        if hindrance:
            return False
        try:
            return self._any_ready()
        except LocalStateError as error:
            self._held_here(error)
            return False

    def _hindrance(self, now: float) -> str:
        """Why nothing may be sent now, whatever is ready; "" if something may."""
        if not self._restarted or now < self._hold_until:
            return "the journal cannot be written"
        if now < self.server.ready_at:
            return "the server is held" if self.server.state is ServerState.HELD else "the link's next try is not due"
        if not self._first_look_done(now):
            return "the outboxes are looked at first, for the order"
        return "attempts are used up" if self._draining and self._draining.given_up() else ""

    def _end_of_drain(self, draining: Draining) -> End | None:
        try:
            return draining.end(self.local_error, waits=self._waits)
        except LocalStateError as error:
            self._held_here(error)
            return None

    def _any_ready(self) -> bool:
        return self.queue.any_ready(self.gates.allowed_by_number())

    def _waits(self) -> bool:
        reading = any(intake.walking for intake in self.intakes)
        return reading or self._wait_over_at is not None or self._any_ready()

    def _first_look_done(self, now: float) -> bool:
        """The order of sending is right only after a full walk, but a huge outbox does not delay the start."""
        if now - self._started_at >= PATIENCE_S:
            return True
        return all(intake.passes or intake.failed for intake in self.intakes)

    def _pause_s(self) -> float:
        now = self._now()
        times = [intake.next_step() for intake in self.intakes]
        times += [time for time in (self.server.ready_at, self._hold_until) if time > now]
        times += [self.owed.waiting.next_s, self.gates.look_at]
        if self._wait_over_at is not None:
            times.append(self._wait_over_at)
        return max(min(times) - now, 0.0) if times else 1.0

    # -- sending

    def _send(self) -> None:
        """One run of the client: ends when nothing is ready, the link is lost, or the loop is stopped."""
        lost: TransferError | None = None
        self._jobs_ended = self._refused = False
        if self._draining:
            self._draining.sent()
        try:
            for outcome in self._remote.upload_many(self._jobs(), hold_checkpoints=True, tick=self._tick_while_busy):
                lost = self._book(outcome) or lost
        except LocalStateError as error:
            self._held_here(error)
        except Cancelled:
            pass  # the loop is being stopped; transfers in flight are abandoned below
        except TransferError as error:
            lost = error
        else:
            if lost is None and not self._jobs_ended and not self._loop.stopping():
                lost = LinkLost("the connection could not be made")
        flying, claimed = self.dispatcher.abandon()
        self.outcomes.interrupted(flying)
        self.outcomes.released(claimed)
        if lost is not None:
            self._lost(lost)
        self._locally(self.outcomes.record)

    def _jobs(self) -> Iterator[UploadJob | None]:
        """The jobs that the client pulls."""
        while not self._loop.stopping() and not self._refused:
            job = self.dispatcher.next_job() if self._now() >= self._hold_until else None
            if job is None and not self.dispatcher.in_flight:
                break
            yield job
        self._jobs_ended = True

    def _book(self, outcome: TransferResult | Failure) -> TransferError | None:
        """Book an outcome -> the error, if it was the link's or the server's as a whole."""
        flight = self.dispatcher.finished(outcome)
        if not self.outcomes.unrecorded:
            self._record_at = self._now() + RECORD_S
        self._changed = True
        if isinstance(outcome, TransferResult):
            self.outcomes.succeeded(flight.entry, outcome)
            self.totals.files += outcome.proof is not None  # else it had been delivered before
            self._progressed(max(outcome.size - max(flight.done_bytes, outcome.resumed_at), 0))
            return None
        if isinstance(outcome.error, Cancelled) and not self._loop.stopping():
            log.info("suspended path=%s done=%d", shown(flight.entry.path), flight.done_bytes)
        self.outcomes.failed(flight.entry, outcome, progressed=flight.progressed)
        if isinstance(outcome.error, AuthenticationError):
            self._refused = True  # it is that of every file: no more jobs
            return outcome.error
        return outcome.error if failure_kind(outcome.error) is FailureKind.LINK else None

    def _lost(self, error: TransferError) -> None:
        self.server.lost(error, self._now())
        wait_s = max(self.server.ready_at - self._now(), 0.0)
        words = shown(self.server.last_error or "")
        if self.server.state is ServerState.HELD:
            log.error("link held error=%s next_s=%.0f to_do=%s", words, wait_s, shown(TO_DO))
        else:
            log.warning("link %s error=%s next_s=%.1f", self.server.state.value, words, wait_s)
        self._changed = True

    def _progressed(self, news: int) -> None:
        self.server.progressed()
        self.totals.bytes += news
        self._changed = True
        self._loop.alive()
