"""All hooks of an agent, beside its transfers: the loop looks at them, and is never kept waiting."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from iot.spooler.config.hooks import HookSettings
from iot.spooler.hooks.after import After
from iot.spooler.hooks.before import Before
from iot.spooler.queue.queue import Entry
from iot.transfer import Journal

__all__ = ["Hooks"]

STOP_S = 3.0
STOP_LOOK_S = 0.02


class Hooks:
    """settings, folders: of all outboxes, by number. source: the local path of an entry. environment: for all hooks.
    clock: seconds, monotonic."""

    def __init__(
        self,
        settings: Mapping[int, HookSettings],
        folders: Mapping[int, bytes],
        source: Callable[[Entry], str],
        environment: Mapping[str, str],
        journal: Journal,
        clock: Callable[[], float],
    ) -> None:
        first = {number: hooks for number, hooks in settings.items() if hooks.before}
        last = {number: hooks for number, hooks in settings.items() if hooks.after_success or hooks.after_failure}
        self.before = Before(first, environment, source, clock)
        self.after = After(last, folders, environment, journal, clock)
        self._now = clock

    def look_at(self) -> float:
        """When to look again, on the clock."""
        return self._now() + min(self.before.look_in_s(), self.after.look_in_s())

    def figures(self, outbox: int) -> int:
        """How many calls of this outbox run or are due."""
        return self.before.under_way(outbox) + self.after.pending(outbox)

    def close(self, pause: Callable[[float], None]) -> list[int]:
        """At the end: what runs may end within STOP_S, then it is killed; what was to follow a delivery is run by the
        next agent -> the entries that need not wait any more.

        pause: waits so many seconds. Raises: DiskFull, JournalUnavailable.
        """
        every = self.before.all_calls + self.after.all_calls
        until = self._now() + STOP_S
        while any(calls.is_running() for calls in every) and self._now() < until:
            pause(STOP_LOOK_S)
            for calls in self.before.all_calls:
                calls.ended()
            self.after.listen()
        for calls in every:
            calls.close()
        return self.after.drop_ended()
