"""`run --drain`: when nothing more can be done, and whether all is delivered then."""

from __future__ import annotations

import enum
import logging
from collections.abc import Callable, Sequence

from iot.spooler.leaving.owed import Owed
from iot.spooler.outbox.departure import Why
from iot.spooler.outbox.intake import Intake
from iot.spooler.queue.policy import State
from iot.spooler.queue.queue import Queue
from iot.spooler.server.availability import Availability, ServerState

__all__ = ["Draining", "End"]

log = logging.getLogger(__name__)

SETTLE_S = 10.0
LOCAL_PATIENCE_S = 20.0
OPEN_STATES = (State.READY, State.SENDING, State.WAITING, State.DELIVERED, State.QUARANTINED, State.DROPPED)


class End(enum.Enum):
    """Why the loop ended. DRAINED: all there was is delivered; REMAINS: something is left after its attempts, be it in
    the outbox or in quarantine, from this run or an earlier one, or lies in an outbox and is never sent."""

    STOPPED = enum.auto()
    DRAINED = enum.auto()
    REMAINS = enum.auto()


class Draining:
    """attempts: tries to connect until it gives up. clock: seconds, monotonic."""

    def __init__(
        self,
        queue: Queue,
        intakes: Sequence[Intake],
        owed: Owed,
        server: Availability,
        attempts: int,
        clock: Callable[[], float],
    ) -> None:
        self._queue = queue
        self._intakes = intakes
        self._owed = owed
        self._server = server
        self._attempts = attempts
        self._now = clock
        self._started_at = clock()
        self._passes: list[int] | None = None
        self._forwarded = 0

    def sent(self) -> None:
        """Jobs were tried: the outboxes have to be looked at once more."""
        self._passes = None

    def given_up(self) -> bool:
        return self._server.state is ServerState.HELD or self._server.failures >= self._attempts

    def end(self, local_error: str | None, *, waits: Callable[[], bool]) -> End | None:
        """How it ended, or None while something may still be done.

        local_error: what hinders on this device. waits: whether something is ready, or will be within this run.

        Raises: JournalUnavailable, DiskFull.
        """
        if self.given_up() or (local_error and self._now() - self._started_at > LOCAL_PATIENCE_S):
            return End.REMAINS
        if local_error or self._server.ready_at > self._now():
            return None
        if waits() or not self._looked_again():
            return None
        if self._owed.waiting.count(Why.RESTING):
            return None  # at most hold_s: what is guessed to be complete may be written to again
        watched = [intake for intake in self._intakes if len(intake.readiness)]
        settle_s = max((intake.readiness.settle_s for intake in watched), default=0.0)
        undecided = watched or self._owed.waiting.count(Why.TOUCHED)
        if undecided and self._now() - self._started_at < SETTLE_S + 3 * settle_s:
            return None
        return self._balance(watched)

    def _looked_again(self) -> bool:
        """A whole walk of every outbox, begun after the last job and the last move into one of them, has found nothing
        new."""
        if self._passes is None or self._owed.forwarded != self._forwarded:
            self._forwarded = self._owed.forwarded
            self._passes = [intake.wake() for intake in self._intakes]
        needed = zip(self._intakes, self._passes, strict=True)
        return all(intake.failed or intake.stopped or intake.passes >= passes for intake, passes in needed)

    def _balance(self, watched: Sequence[Intake]) -> End:
        numbers = {intake.number for intake in self._intakes}
        left = [total for total in self._queue.totals() if total.outbox in numbers and total.state in OPEN_STATES]
        remains = {
            "files": sum(total.files for total in left),
            "not_ready": sum(len(intake.readiness) for intake in watched),
            "without_marker": sum(intake.without_marker for intake in self._intakes),
            "unread_outboxes": sum(intake.failed is not None or intake.stopped for intake in self._intakes),
            "never_sent": sum(sum(intake.outbox.refused.reasons.values()) for intake in self._intakes),
            "stuck": len(self._owed.stuck),
            "in_quarantine": 0 if self._owed.is_quarantine_empty() else max(self._owed.quarantined, 1),
        }
        if not any(remains.values()):
            return End.DRAINED
        log.warning("not all is delivered %s", " ".join(f"{key}={number}" for key, number in remains.items() if number))
        return End.REMAINS
