"""Which of two servers is used: [server], or [fallback] while the first is down. Decisions only, no input or output.

    FIRST --the first is down for after_s, and the second answers--> SECOND
    SECOND --the first answers, and again back_after_s later--> FIRST
    SECOND --the second is down or held, and the first answers--> FIRST

Down is what cannot be reached, ends its connections or says that it is busy, and confirms nothing in between. A server
that refuses the login or shows another host key is held, not down: somebody has to look at it, and files that went
elsewhere meanwhile would hide it. `when_held` has it counted as down. A server that asks to be left alone is not down.

A first server that lets us in and then confirms nothing is left again after PROBATION_S, and gone back to ever later.

The server that is not used is asked by a login of its own, so nothing changes while both are away, as when the device
is offline. Whoever leaves a server begins nothing there any more, and ends what is in flight: an upload is finished
where it was begun, or started over on the other server.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from dataclasses import dataclass

from iot.spooler.queue.policy import Backoff
from iot.spooler.server.availability import Availability, ServerState
from iot.transfer import AuthenticationError, TransferError

__all__ = ["Failover", "FailoverRules", "Step"]

SPREAD = 0.25
"""Of after_s: all devices lose a server in the same second, and must not come to the other one in step."""
PROBATION_S = 60.0
RELAPSES_MAX = 16
BACK_MAX_S = 6 * 3600.0


class Step(enum.Enum):
    """What is to be done now. PROBE: ask the other server. LEAVE: end what is in flight, then use the other one."""

    NOTHING = enum.auto()
    PROBE = enum.auto()
    LEAVE = enum.auto()


@dataclass(frozen=True, slots=True)
class FailoverRules:
    """after_s, back_after_s, when_held: as in the settings. check: waits between two questions to the server that is
    not used; hold: the same once it has refused a login."""

    after_s: float
    back_after_s: float
    when_held: bool
    check: Backoff
    hold: Backoff


class Failover:
    """is_second: which one is used. Times are seconds of the monotonic clock; random: within [0, 1)."""

    def __init__(self, rules: FailoverRules, random: Callable[[], float], *, is_second: bool = False) -> None:
        self.is_second = is_second
        self.leaving_since: float | None = None
        self.next_at = float("-inf")
        self.error: TransferError | None = None
        self.answered_at: float | None = None
        self._rules = rules
        self._random = random
        self._failures = 0
        self._is_asking = self._on_probation = False
        self._relapses = 0
        self._spread = 1 + SPREAD * random()

    def look(self, link: Availability, now: float, *, may_send: bool) -> Step:
        """link: the server that is used. may_send: whether anything may be sent, by whatever server."""
        if self.leaving_since is not None:
            return Step.LEAVE
        if self._on_probation and link.confirms:
            self._on_probation, self._relapses = False, 0
        if not self._wants_other(link, now):
            self._forget()
            return Step.NOTHING
        if self._is_asking or not may_send or now < self.next_at:
            return Step.NOTHING
        self._is_asking = True
        return Step.PROBE

    def next_s(self, link: Availability, now: float) -> float:
        """Seconds until `look` may say something else, if nothing happens until then."""
        if self._is_asking or self.leaving_since is not None:
            return float("inf")
        wanted_at = self._wanted_at(link)
        return float("inf") if wanted_at is None else max(wanted_at - now, self.next_at - now, 0.0)

    def asked(self, error: TransferError | None, link: Availability, now: float, wait_s: float = 0.0) -> None:
        """What came of the question; error: None: it has let us in. wait_s: for which it asks to be left alone."""
        self._is_asking, self.error = False, error
        if error is not None or wait_s:
            self.answered_at = None
            self._failures += 1
            rules = self._rules.hold if isinstance(error, AuthenticationError) else self._rules.check
            self.next_at = now + (wait_s or rules.delay_s(self._failures, self._random()))
        elif self._wants_other(link, now):
            self._came_good(link, now)

    def wake(self) -> None:
        """Somebody asks for a try at once."""
        self.next_at = float("-inf")

    def switched(self, link: Availability, now: float) -> None:
        """The other server is used from now on. link: the one that was left; it is asked when its hold is over."""
        is_held = link.state is ServerState.HELD
        wait_s = self._rules.check.delay_s(1, self._random())
        self.is_second = not self.is_second
        self._relapses = min(self._relapses + (self.is_second and self._on_probation), RELAPSES_MAX)
        self._on_probation = not self.is_second
        self._forget()
        self.leaving_since = self.error = None
        self._spread = 1 + SPREAD * self._random()
        self.next_at = max(now + wait_s, link.ready_at if is_held else now)
        self._failures = link.holds if is_held else 1

    # -- inside

    def _wants_other(self, link: Availability, now: float) -> bool:
        wanted_at = self._wanted_at(link)
        return wanted_at is not None and now >= wanted_at

    def _wanted_at(self, link: Availability) -> float | None:
        """On the second server the way back is always looked for."""
        if self.is_second:
            return float("-inf")
        since = self._bad_since(link)
        after_s = self._rules.after_s * self._spread
        return None if since is None else since + (min(after_s, PROBATION_S) if self._on_probation else after_s)

    def _bad_since(self, link: Availability) -> float | None:
        given = (link.down_since, link.held_since if self._rules.when_held or self.is_second else None)
        return min((since for since in given if since is not None), default=None)

    def _came_good(self, link: Availability, now: float) -> None:
        self._failures = 0
        first_at = self.answered_at = now if self.answered_at is None else self.answered_at
        is_needed = not self.is_second or self._bad_since(link) is not None
        if is_needed or now - first_at >= self._back_after_s:
            self.leaving_since = now
        else:
            self.next_at = first_at + self._back_after_s

    @property
    def _back_after_s(self) -> float:
        """Longer after each time that the first server has answered, and was of no use."""
        wait_s = self._rules.back_after_s
        if not self._relapses:
            return wait_s
        return max(wait_s, min(max(wait_s, self._rules.check.base_s) * 2.0**self._relapses, BACK_MAX_S))

    def _forget(self) -> None:
        """What is known of the other server is old by the time that it is wanted."""
        self.answered_at = None
        self.next_at, self._failures = float("-inf"), 0
