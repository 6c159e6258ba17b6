"""The hook `before`: a file is handed to the server only once it has succeeded.

It runs once for each version of a file until it has succeeded, and not again for later attempts of the same process.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

from iot.spooler.commands import Ended
from iot.spooler.config.hooks import HookSettings
from iot.spooler.hooks.calls import Call, Calls, fault, variables
from iot.spooler.queue.queue import Entry

__all__ = ["Before", "HookRefusal"]

NOT_YET = 75
"""The exit code EX_TEMPFAIL of sysexits.h: try again later."""
LINE = 32
"""Files of an outbox that are claimed for their hook at a time."""
PASSED_MAX = 10_000


class HookRefusal(NamedTuple):
    """Why an entry is not sent. for_good: the hook has judged the file; otherwise it could not, or not yet."""

    reason: str
    for_good: bool


class Before:
    """hooks: of the outboxes that have this hook, by number. source: the local path of an entry."""

    def __init__(
        self,
        hooks: Mapping[int, HookSettings],
        environment: Mapping[str, str],
        source: Callable[[Entry], str],
        clock: Callable[[], float],
    ) -> None:
        self._hooks = hooks
        self._source = source
        self._calls = {number: Calls(hook.at_once, hook.limit_s, environment, clock) for number, hook in hooks.items()}
        self._asked: set[int] = set()
        self._passed: dict[int, None] = {}
        self._over: list[tuple[int, HookRefusal | None]] = []
        self._now = clock
        self._look_at = float("-inf")

    def room(self, outbox: int) -> int | None:
        """How many more entries of this outbox may be asked about; None: it has no such hook."""
        calls = self._calls.get(outbox)
        return None if calls is None else max(LINE - len(calls), 0)

    def ask(self, entry: Entry) -> None:
        """Run the hook for this entry, unless it runs already or has succeeded before."""
        self._look_at = float("-inf")
        if entry.id in self._passed:
            self._over.append((entry.id, None))
        elif entry.id not in self._asked:
            self._asked.add(entry.id)
            about = variables(self._source(entry), entry.destination, entry.fingerprint.size)
            words = self._hooks[entry.outbox].before
            self._calls[entry.outbox].ask(Call(entry.id, "before", words, about, entry.path, entry.priority))

    def answers(self) -> list[tuple[int, HookRefusal | None]]:
        """The numbers of entries whose hook has ended since the last call, with why they are not sent; None: they
        are."""
        self.look()
        over, self._over = self._over, []
        return over

    def look(self) -> None:
        """See what has ended, and start what is next, if it is time to."""
        if self._now() < self._look_at:
            return
        for number, calls in self._calls.items():
            for call, ended in calls.look():
                self._asked.discard(call.key)
                refusal = _refusal(call, ended, self._hooks[number].limit_s)
                if refusal is None:
                    self._passed[call.key] = None
                self._over.append((call.key, refusal))
        while len(self._passed) > PASSED_MAX:
            del self._passed[next(iter(self._passed))]
        self._look_at = self._now() + self.look_in_s()

    def delivered(self, number: int) -> None:
        """The entry will not come again."""
        self._passed.pop(number, None)

    def look_in_s(self) -> float:
        return min((calls.look_in_s() for calls in self._calls.values()), default=float("inf"))

    def under_way(self, outbox: int) -> int:
        """How many calls run or wait in line."""
        return len(self._calls[outbox]) if outbox in self._calls else 0

    @property
    def all_calls(self) -> list[Calls]:
        return list(self._calls.values())


def _refusal(call: Call, ended: Ended | OSError, limit_s: float) -> HookRefusal | None:
    """A hook that hangs, crashes or is missing has judged nothing."""
    reason = fault(call, ended, limit_s)
    if reason is None:
        return None
    judged = isinstance(ended, Ended) and ended.code is not None and ended.code > 0 and ended.code != NOT_YET
    return HookRefusal(reason, judged)
