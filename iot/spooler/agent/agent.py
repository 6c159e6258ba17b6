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

import logging
from collections.abc import Callable, Collection, Iterable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from iot.spooler.agent.draining import Draining, End
from iot.spooler.agent.loop import Loop, Wake
from iot.spooler.agent.pieces import Pieces
from iot.spooler.agent.sender import Totals
from iot.spooler.config.effects import without_effect
from iot.spooler.config.layout import merging_rules, shared_destinations
from iot.spooler.config.settings import Settings
from iot.spooler.control.states import Causes
from iot.spooler.gates.orders import Command
from iot.spooler.naming import shown
from iot.spooler.outbox.intake import Clocks, Intake
from iot.spooler.queue.policy import Admission, State
from iot.spooler.server.availability import Remote, ServerState
from iot.transfer import Journal, LocalStateError

if TYPE_CHECKING:
    from iot.spooler.inbox.inbox import Inbox

__all__ = ["Agent", "Loop", "Wake"]

log = logging.getLogger(__name__)

TICK_S = 0.02
PATIENCE_S = 2.0


class Agent(Pieces):
    """One server, its outboxes, one queue.

    other_server: figures of the one that is not used, for the status; called with the wall clock, in seconds.
    drain: send what is there, with a few attempts each, then end. totals: what earlier agents of this process did.
    anew: nothing waits for its next try, as in a drain: somebody has asked for one.
    """

    def __init__(
        self,
        settings: Settings,
        journal: Journal,
        remote: Remote,
        loop: Loop[Agent],
        clocks: Clocks,
        random: Callable[[], float],
        *,
        drain: bool = False,
        totals: Totals | None = None,
        anew: bool = False,
    ) -> None:
        super().__init__(settings, journal, remote, loop, clocks, random, drain=drain, totals=totals or Totals())
        self.shared_destinations = shared_destinations(settings)
        self._started_at = self._now()
        self._tick_at = float("-inf")
        self._wait_over_at: float | None = None
        self._restarted = False
        self._anew = anew or drain
        self._hindered_by = ""
        self.other_server: Callable[[float], dict[str, Any] | None] = lambda _: None

    def run(self) -> End:
        """Run until stopped or, when draining, until nothing more can be done."""
        self._each((self._restart, self._tell_earlier, self.owed.resume))
        end = self._work()
        self._each((self.outcomes.record, self._close_hooks, self.owed.flush))
        self._each((self.budget.close, self.pull.close, self.gates.close, self.packing.close))
        for intake in self.intakes:
            intake.close()
            intake.outbox.release()
        self._loop.report(self, changed=True, final=True)
        return end

    def _each(self, steps: Iterable[Callable[[], None]]) -> None:
        """Also those after one for which the journal could not be written."""
        for step in steps:
            with self.local:
                step()

    def _restart(self) -> None:
        """Nothing is sent before this is written, or what an earlier process had in flight would never be sent."""
        self.outcomes.record()
        self.queue.restart(self._now(), anew=self._anew)
        self._restarted = True

    def _close_hooks(self) -> None:
        def pause(seconds: float) -> None:
            self._loop.alive()
            self._loop.pause(seconds)

        self.owed.released(self.hooks.close(pause))

    def _tell_earlier(self) -> None:
        for pair in self.shared_destinations:
            log.warning("destination shared reason=%s", shown(str(pair)))
        for reason in merging_rules(self.settings):
            log.warning("names merged reason=%s", shown(reason))
        for reason in without_effect(self.settings):
            log.warning("setting without effect reason=%s", shown(reason))
        labels = {intake.number: intake.settings.label for intake in self.intakes}
        for total in self.queue.totals():
            if total.earlier and total.state is State.READY and total.outbox in labels:
                log.warning(
                    "files already begun keep their earlier destination until the server has answered for them"
                    " outbox=%s files=%d",
                    shown(labels[total.outbox]),
                    total.earlier,
                )

    def wake(self, why: Wake = Wake.TRY, only: Collection[int] = ()) -> None:
        """Scan now and try the server now (the network is up, or the operator asks). only: flush these outboxes and
        inboxes."""
        if why is Wake.FLUSH:
            flushed = [number for number in self.orders.none_for() if not only or number in only]
            self.gates.flush(flushed)
            with self.local:
                self.queue.release(flushed)
            self.hooks.batches.before.wake()
        if self._try_server(why):
            log.info("hold released: one try now")
        self.owed.wake()
        self.pull.wake()
        for intake in self.intakes:
            intake.wake()

    def order(self, command: Command, boxes: Sequence[Intake | Inbox]) -> None:
        """Do what a command says, now and in later processes. Raises: OSError; then nothing has changed."""
        self.orders.take(command, [box.number for box in boxes])
        self._each((self.follow_orders, self._look_at_gates))

    def _look_at_gates(self) -> None:
        waited, self._uploads_wait = self._uploads_wait, self.pull.claims()
        if self.gates.look(self.dispatcher.is_busy) or waited is not self._uploads_wait:
            self._gates_changed()

    def _scanned(self) -> list[Intake]:
        return [intake for intake in self.intakes if not intake.stopped]

    def _try_server(self, why: Wake) -> bool:
        """-> whether that ends a hold"""
        if why is Wake.FLUSH:
            return self.server.wake()
        if why is Wake.NUDGE and self.server.state is ServerState.HELD:
            return False
        return self._network_up()

    def _network_up(self) -> bool:
        """-> whether that ends a hold"""
        now = self._now()
        is_held = self.server.network_up(now)
        if self.server.ready_at > now:
            log.info(
                "the first try after a long outage waits for this device's turn next_s=%.0f", self.server.ready_at - now
            )
        return is_held

    # -- the loop

    def _work(self) -> End:
        while not self._loop.stopping():
            self._tick(busy=False)
            act = self._next_act()
            if act is not None:
                act()
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
        with self.local:
            self._tend(now, busy=busy)
        self._look_at_states()
        self._loop.report(self, changed=self._changed)
        self._changed = False

    def _tick_while_busy(self) -> None:
        self._tick(busy=True)

    def _tend(self, now: float, *, busy: bool) -> None:
        if not self._restarted:
            self._restart()
        if self.outcomes.unrecorded and (not busy or self.outcomes.record_is_due(now)):
            self.outcomes.record()
        self._look_at_gates()
        self._changed = self.pull.step() or self._changed
        if self.pacer.look(self._wall()):
            log.info("rate limited bytes_per_s=%s", "none" if self.pacer.rate is None else f"{self.pacer.rate:.0f}")
            self._changed = True
        ready = self.queue.made_ready
        for intake in self._scanned():
            walked, failures = intake.walking, intake.failures
            looked = intake.step(busy=busy)
            self._changed = self._changed or looked or (walked and not intake.walking)
            if failures != intake.failures and intake.failures & (intake.failures - 1) == 0:
                self._changed = True  # it may fail for years: not a write of the status each time
        self._changed = self._changed or ready != self.queue.made_ready
        self.outcomes.drop_withdrawn()
        self.hooks.before.look()
        if self.hooks.batches.before.look():
            self._changed = True
            self._look_at_gates()  # a batch may go now
        self.owed.released(self.hooks.after.look())
        self.owed.tend()
        self.packing.tend()
        if not busy:
            self.owed.flush()
        self._changed = self.budget.look() or self._changed
        self._wait_over_at = self.queue.wake(now)

    def _look_at_states(self) -> None:
        for intake in self.intakes:
            if intake.stopped and not self.dispatcher.is_busy(intake.number):
                intake.outbox.release()
            if self.states.look(intake.settings.label, self._causes(intake), self._wall()):
                self._changed = True
        for inbox in self.pull.inboxes:
            if self.inbox_states.look(inbox.label, self._causes_of_inbox(inbox), self._wall()):
                self._changed = True

    def _causes(self, intake: Intake) -> Causes:
        held = "the server is held" if self.server.state is ServerState.HELD else ""
        number = intake.number
        return Causes(
            stopped=self.gates.suspended(number) if intake.stopped else "",
            source_failed=intake.failed or "",
            failed=self.local.error or "",
            destination_failed=held or self.outcomes.destination_failed(number),
            suspended=self.gates.suspended(number),
        )

    def _causes_of_inbox(self, inbox: Inbox) -> Causes:
        held = "the server is held" if self.server.state is ServerState.HELD else ""
        error, waits = inbox.error or "", self.gates.reason(inbox.number) or ""
        return Causes(
            stopped=waits if inbox.stopped else "",
            source_failed=held or ("" if inbox.fails_here else error),
            failed=self.local.error or "",
            destination_failed=error if inbox.fails_here else "",
            suspended=waits,
        )

    def _gates_changed(self) -> None:
        self.outcomes.released(self.dispatcher.withdraw())
        self._changed = True

    def _next_act(self) -> Callable[[], None] | None:
        """What the server is used for now."""
        if self._is_hindered():
            return None
        try:
            sends = self.queue.any_ready(
                self.gates.allowed_up_to(Admission.URGENT if self._uploads_wait else Admission.ALL)
            )
        except LocalStateError as error:
            self.local.begin(error)
            return None
        if sends:
            return self._send
        return partial(self.pull.run, self._tick_while_busy) if self.pull.wants() else None

    def _is_hindered(self) -> bool:
        hindrance = self._hindrance(self._now())
        if hindrance != self._hindered_by and hindrance:
            log.debug("nothing is sent reason=%s", shown(hindrance))
        self._hindered_by = hindrance
        return bool(hindrance)

    def _hindrance(self, now: float) -> str:
        """Why nothing may be sent now, whatever is ready; "" if something may."""
        if not self._restarted or self.local.is_on:
            return "the journal cannot be written"
        if now < self.server.ready_at:
            return "the server is held" if self.server.state is ServerState.HELD else "the link's next try is not due"
        if not self._first_look_done(now):
            return "the outboxes are looked at first, for the order"
        return "attempts are used up" if self._draining and self._draining.given_up() else ""

    def _end_of_drain(self, draining: Draining) -> End | None:
        try:
            end = draining.end(self.local.error, waits=self._waits)
            return End.REMAINS if end is End.DRAINED and self.pull.has_failed() else end
        except LocalStateError as error:
            self.local.begin(error)
            return None

    def _waits(self) -> bool:
        reading = any(intake.walking for intake in self._scanned())
        collecting = self.gates.is_collecting() or self.budget.is_to_be_listed()
        awaited = reading or self._wait_over_at is not None or not self.hooks.after.is_idle()
        idle = self.pull.is_idle() and not collecting
        return awaited or not idle or self.queue.any_ready(self.gates.allowed_up_to(Admission.ALL))

    def _first_look_done(self, now: float) -> bool:
        """The order of sending is right only after a full walk, but a huge outbox does not delay the start."""
        if now - self._started_at >= PATIENCE_S:
            return True
        return all(intake.passes or intake.failed for intake in self._scanned())

    def _pause_s(self) -> float:
        now = self._now()
        times = [intake.next_step() for intake in self._scanned()]
        times += [time for time in (self.server.ready_at, self.local.until, self.pull.next_at()) if time > now]
        times += [self.owed.waiting.next_s, self.gates.look_at, self.budget.look_at(), self.hooks.look_at()]
        if self._wait_over_at is not None:
            times.append(self._wait_over_at)
        return max(min(times) - now, 0.0)

    # -- sending

    def _send(self) -> None:
        if self._draining:
            self._draining.sent()
        self._sender.run(self._tick_while_busy)
