"""All hooks of an agent, beside its transfers: the loop looks at them, and is never kept waiting."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from iot.spooler.config.hooks import HookSettings
from iot.spooler.hooks.after import AFTER, AFTER_BATCH, After
from iot.spooler.hooks.batches import AfterBatch, BatchHooks, BeforeBatch
from iot.spooler.hooks.before import Before
from iot.spooler.queue.policy import RetryRules
from iot.spooler.queue.queue import Entry, Queue
from iot.transfer import Journal

__all__ = ["Hooks"]

STOP_S = 3.0
STOP_LOOK_S = 0.02


class Hooks:
    """settings, folders: of all outboxes, by number. source: the local path of an entry. environment: for all hooks.
    rules: how long a batch waits whose hook has failed. clock: seconds, monotonic. random: within [0, 1)."""

    def __init__(
        self,
        settings: Mapping[int, HookSettings],
        folders: Mapping[int, bytes],
        source: Callable[[Entry], str],
        environment: Mapping[str, str],
        rules: Mapping[int, RetryRules],
        queue: Queue,
        journal: Journal,
        clock: Callable[[], float],
        random: Callable[[], float],
    ) -> None:
        def with_any(*names: str) -> dict[int, HookSettings]:
            return {number: hooks for number, hooks in settings.items() if any(getattr(hooks, name) for name in names)}

        self.before = Before(with_any("before"), environment, source, clock)
        self.after = After(with_any(*AFTER), folders, environment, journal, clock)
        self.batches = BatchHooks(
            BeforeBatch(with_any("before_batch"), folders, environment, rules, clock, random),
            AfterBatch(with_any(AFTER_BATCH), queue, journal, self.after, clock),
        )
        self._now = clock

    def look_at(self) -> float:
        """When to look again, on the clock."""
        return self._now() + min(
            self.before.look_in_s(),
            self.after.look_in_s(),
            self.batches.before.look_in_s(),
            self.batches.after.look_in_s(),
        )

    def figures(self, outbox: int) -> int:
        """How many calls of this outbox run or are due."""
        return self.before.under_way(outbox) + self.batches.before.under_way(outbox) + self.after.pending(outbox)

    def close(self, pause: Callable[[float], None]) -> list[int]:
        """At the end: what runs may end within STOP_S, then it is killed; what was to follow a delivery is run by the
        next agent -> the entries that need not wait any more.

        pause: waits so many seconds. Raises: DiskFull, JournalUnavailable.
        """
        first = self.before.all_calls + self.batches.before.all_calls
        every = first + self.after.all_calls
        until = self._now() + STOP_S
        while any(calls.is_running() for calls in every) and self._now() < until:
            pause(STOP_LOOK_S)
            for calls in first:
                calls.ended()
            self.after.listen()
        for calls in every:
            calls.close()
        return self.after.drop_ended()
