"""Why a file is sent, or not yet: told at level debug, once for each change of the reason, never once a scan."""

from __future__ import annotations

import logging

from iot.spooler.naming import shown
from iot.spooler.queue.policy import State

__all__ = ["REASONS", "Decisions"]

log = logging.getLogger(__name__)

MOST = 100_000
"""Files whose last reason is kept; of others nothing is told, since it could not be told once."""
REASONS = {
    State.READY: "queued",
    State.SENDING: "being sent",
    State.WAITING: "waiting for its next attempt",
    State.DELIVERED: "not sent again, this version is delivered and has not left the outbox yet",
    State.KEPT: "not sent again, the delivered version is the same",
    State.QUARANTINED: "on its way to the quarantine",
    State.DROPPED: "dropped, it has not left the outbox yet",
}


class Decisions:
    """Of one outbox. Costs nothing while the level is above debug."""

    def __init__(self, label: str) -> None:
        self._label = label
        self._told: dict[bytes, tuple[str, int]] = {}
        self._walk = 0

    @property
    def are_told(self) -> bool:
        return log.isEnabledFor(logging.DEBUG)

    def tell(self, path: bytes, reason: str, **details: object) -> None:
        """reason: what it is told once for. details: what may change without being a change of the decision."""
        if not self.are_told:
            return
        before = self._told.get(path)
        if before is None and len(self._told) >= MOST:
            return
        self._told[path] = reason, self._walk
        if before is None or before[0] != reason:
            more = "".join(f" {name}={shown(str(value))}" for name, value in details.items())
            log.debug("decision outbox=%s path=%s reason=%s%s", shown(self._label), shown(path), shown(reason), more)

    def tell_state(self, path: bytes, state: State) -> None:
        """Of a version that the queue knows."""
        self.tell(path, REASONS[state])

    def walked(self) -> None:
        """A whole walk is over: forget files that it has not found."""
        self._told = {path: told for path, told in self._told.items() if told[1] == self._walk}
        self._walk += 1
