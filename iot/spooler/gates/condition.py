"""Commands that decide whether files may be sent: the state of a battery, a temperature, whether the link is metered.

Only the exit code of a command counts. What is not known holds files back, so that a broken command costs no money; the
reason says so.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from iot.spooler.commands import Command
from iot.spooler.gates.gates import Held, held
from iot.spooler.queue.policy import Admission

__all__ = ["CommandGate"]

POLL_S = 0.25


class CommandGate:
    """Runs a command every so many seconds, and holds files back as its exit code says.

    beyond: what of each outbox, by number, is still sent while the command holds it back. holds: whether this exit code
    holds back. reason: why, for people; the exit code is added.
    """

    def __init__(
        self,
        command: Sequence[str],
        beyond: Mapping[int, Admission],
        holds: Callable[[int], bool],
        reason: str,
        *,
        every_s: float,
        limit_s: float,
        environment: Mapping[str, str],
    ) -> None:
        self._command = command
        self._beyond = beyond
        self._holds = holds
        self._words = reason
        self._every_s = every_s
        self._limit_s = limit_s
        self._environment = environment
        self._running: Command | None = None
        self._next_at = float("-inf")
        self._reason = f"{reason}: not known yet"

    def look(self, wall: float, now: float) -> float:
        if self._running is None and now >= self._next_at:
            self._start(now)
        if self._running is not None:
            self._poll(self._running, now)
        return POLL_S if self._running is not None else max(self._next_at - now, 0.0)

    def of(self, outbox: int, *, flushed: bool) -> Held:
        """A flush does not overrule it."""
        return held(self._beyond[outbox], self._reason)

    def close(self) -> None:
        """End what still runs."""
        if self._running is not None:
            self._running.kill()
            self._running = None

    # -- inside

    def _start(self, now: float) -> None:
        self._next_at = now + self._every_s
        try:
            self._running = Command(self._command, self._environment, now + self._limit_s)
        except OSError as error:
            self._reason = f"{self._words}: {self._command[0]} cannot be run: {error.strerror}"

    def _poll(self, running: Command, now: float) -> None:
        ended = running.poll(now)
        if ended is None:
            return
        self._running, code = None, ended.code
        if code is None:
            self._reason = f"{self._words}: {self._command[0]} did not end in {self._limit_s:g} s"
            return
        words = f"exit code {code}" if code >= 0 else f"signal {-code}"
        self._reason = f"{self._words} ({words})" if code < 0 or self._holds(code) else ""
