"""The pieces of an agent, put together: what each does is in its own file, how it is made of settings in assembly."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from iot.spooler.agent import assembly
from iot.spooler.agent.dispatch import Dispatcher
from iot.spooler.agent.draining import Draining
from iot.spooler.agent.local_hold import LocalHold
from iot.spooler.agent.loop import Loop
from iot.spooler.agent.outcomes import OutcomeRecorder
from iot.spooler.agent.pull import Pull
from iot.spooler.agent.sender import Sender, Totals
from iot.spooler.config.settings import Settings
from iot.spooler.control.states import OutboxStates
from iot.spooler.gates.gates import Gate
from iot.spooler.gates.orders import Orders
from iot.spooler.leaving.leaving import leaving
from iot.spooler.leaving.owed import Owed
from iot.spooler.outbox.intake import Clocks
from iot.spooler.queue.policy import Admission, Allowed
from iot.spooler.queue.queue import Queue
from iot.spooler.server.availability import Remote
from iot.transfer import Journal

__all__ = ["Pieces"]


class Pieces:
    """What an agent has, and what its pieces ask of each other.

    The pieces are made in the order of a file's way: found, sent, recorded, gone. totals: what earlier agents of this
    process did.
    """

    def __init__(
        self,
        settings: Settings,
        journal: Journal,
        remote: Remote,
        loop: Loop[Any],
        clocks: Clocks,
        random: Callable[[], float],
        *,
        drain: bool,
        totals: Totals,
    ) -> None:
        self.settings = settings
        self.totals = totals
        self._loop = loop
        self._now = clocks.monotonic
        self._wall = clocks.wall
        self._changed = True
        self._uploads_wait = False
        self.local = LocalHold(clocks.monotonic, self._on_change)
        self.queue = Queue(journal, clocks.boot())
        self.server = assembly.server(settings, random, drain=drain)
        self.intakes = assembly.intakes(settings, self.queue, clocks, journal_lost=assembly.was_lost(journal))
        for intake in self.intakes:
            intake.outbox.watches.subscribe = partial(loop.watch, act=intake.listen)
        self.homes = assembly.homes(settings, self.intakes)
        self.states, self.inbox_states = OutboxStates(), OutboxStates("inbox")
        self._make_what_records(journal, remote, clocks, random, drain=drain)
        self._make_what_decides(journal, remote, clocks, random, drain=drain)
        self._make_what_transfers(remote, clocks, drain=drain)
        attempts = settings.retry.drain_attempts
        self._draining = (
            Draining(self.queue, self.intakes, self.owed, self.server, attempts, self._now) if drain else None
        )

    def _make_what_records(
        self, journal: Journal, remote: Remote, clocks: Clocks, random: Callable[[], float], *, drain: bool
    ) -> None:
        ways = leaving(self.settings, self.intakes, self._loop.alive, self.homes)
        self.hooks = assembly.hooks(self.settings, self.intakes, self.queue, journal, clocks, random, drain=drain)
        self.owed = Owed(journal, self.queue, self.intakes, ways, clocks, self.hooks.after.waited_for)
        self.packing = assembly.packing(self.settings, self.intakes, self.queue, clocks)
        self.markers = assembly.markers(self.intakes, self.queue, journal, self.hooks.batches, drain=drain)
        self.outcomes = OutcomeRecorder(
            journal,
            self.queue,
            remote,
            self.intakes,
            self.owed,
            self.hooks,
            self.markers,
            assembly.rules(self.settings, self.intakes, drain=drain),
            clocks,
            random,
            self.packing,
            *assembly.among_servers(self.settings, remote),
        )

    def _make_what_decides(
        self, journal: Journal, remote: Remote, clocks: Clocks, random: Callable[[], float], *, drain: bool
    ) -> None:
        settings, intakes, queue = self.settings, self.intakes, self.queue
        withdraw = self.outcomes.withdraw
        self.budget = assembly.budget(settings, intakes, queue, self.owed, journal, clocks, withdraw, drain=drain)
        self._inboxes = assembly.inboxes(settings, journal, clocks, random, self.homes)
        self.quota = assembly.quota(settings, intakes, self._inboxes, journal, remote)
        fetched = {inbox.number: f"{inbox.settings.path} from {inbox.source}" for inbox in self._inboxes}
        self.orders = Orders(settings.state_dir, {intake.number: intake.settings.path for intake in intakes}, fetched)
        both: list[Gate] = [self.orders, self.quota]
        self.gates = assembly.gates(
            settings,
            intakes,
            queue,
            journal,
            clocks,
            both,
            self.markers,
            self.hooks.batches,
            self._inboxes,
            drain=drain,
        )
        self.follow_orders()
        self.pacer = assembly.pacer(settings, remote)

    def _make_what_transfers(self, remote: Remote, clocks: Clocks, *, drain: bool) -> None:
        self.dispatcher = Dispatcher(
            self.queue,
            self.intakes,
            self._progressed,
            self.outcomes.moved,
            self.outcomes.refused,
            self.outcomes.hindered,
            self.hooks.before,
            self.hooks.after.wants_digest,
            clocks.monotonic,
            self.packing,
            self._allowed,
            assembly.commands(self.settings, self.intakes),
        )
        self._sender = Sender(
            remote,
            self.dispatcher,
            self.outcomes,
            self.server,
            self.local,
            self.totals,
            assembly.hints(self.settings, remote, self.pacer, drain=drain),
            stopping=self._loop.stopping,
            clock=clocks.monotonic,
            on_change=self._on_change,
            on_progress=self._progressed,
        )
        self._make_what_fetches(remote, clocks)

    def _make_what_fetches(self, remote: Remote, clocks: Clocks) -> None:
        self.pull = Pull(
            self._inboxes,
            remote,
            self.server,
            self.local,
            self.gates.admission,
            lambda least: self.queue.any_ready(self.gates.allowed_up_to(least)),
            stopping=self._loop.stopping,
            clock=clocks.monotonic,
            on_change=self._on_change,
            on_progress=self._fetched,
            on_lost=self._sender.lost,
            asked_to_wait=self._sender.is_asked_to_wait,
        )

    def follow_orders(self) -> None:
        """Raises: DiskFull, JournalUnavailable."""
        self.orders.follow([*self.intakes, *self._inboxes], self.gates)

    # -- what they ask

    def _allowed(self, outbox: int) -> Allowed:
        """While it is the turn of the inboxes, only what is urgent is sent."""
        allowed = self.gates.allowed(outbox)
        return allowed._replace(admission=min(allowed.admission, Admission.URGENT)) if self._uploads_wait else allowed

    def _fetched(self) -> None:
        """The server has answered, or sent something."""
        self.server.progressed()
        self._changed = True
        self._loop.alive()

    def _on_change(self) -> None:
        self._changed = True

    def _progressed(self, news: int) -> None:
        self.server.progressed()
        self.totals.bytes += news
        self._changed = True
        self._loop.alive()
