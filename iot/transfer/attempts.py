"""The retry loop over connections, in which every operation of a client runs.

    for attempt in links.attempts():
        with attempt as session:
            ...

If the connection is lost or cannot be made, the next attempt follows after a growing wait; progress resets the
count. If the block ends in any other way, the loop ends too. A connection on which something may still be under way
is dropped, because nobody owns that work any more.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import Generic, Protocol, TypeVar

from iot.transfer.errors import Cancelled, LinkLost, PermanentError, ServerBusy, Timeout, TransferError
from iot.transfer.stop import StopFlag

__all__ = ["ANSWERS", "Attempt", "Attempts", "Connected", "Links", "Patience"]

log = logging.getLogger(__name__)

JITTER = 0.25
ANSWERS = (PermanentError, ServerBusy)
"""An operation of one request that ends with one of these leaves nothing under way."""


class Connected(Protocol):
    """A live connection to a far side, whatever the protocol."""

    @property
    def delivered_bytes(self) -> int:
        """Bytes that the far side has confirmed so far; never decreases."""


C = TypeVar("C", bound=Connected)
T = TypeVar("T")
C_co = TypeVar("C_co", bound=Connected, covariant=True)


class Links(Protocol[C_co]):
    """Provides the connections."""

    def session(self, tick: Callable[[], None]) -> C_co: ...

    def drop(self) -> None: ...

    @property
    def another_stands(self) -> bool: ...


@dataclass(frozen=True, slots=True)
class Patience:
    """attempts: connections in a row without progress. backoff_s: first wait in seconds, doubled up to cap_s."""

    attempts: int
    backoff_s: float
    cap_s: float

    def wait_s(self, failures: int) -> float:
        """Adds jitter, so that a thousand devices do not come back in the same second."""
        wait_s = min(self.backoff_s * 2.0 ** min(failures - 1, 32), self.cap_s)
        return wait_s * (1 + random.uniform(0, JITTER))  # noqa: S311 - to spread load, not to keep a secret


class Attempts(Generic[C]):
    """The attempts of one operation.

    tick: called at least every 0.25 s while connecting and waiting. harmless: errors that leave the connection usable.

    Iterating raises LinkLost, Timeout or ServerBusy when no attempt is left, Cancelled on request, and at once
    whatever else prevents a connection: AuthenticationError, ConfigurationError, LocalStateError.
    """

    def __init__(
        self,
        links: Links[C],
        patience: Patience,
        stop: StopFlag,
        tick: Callable[[], None] = lambda: None,
        harmless: tuple[type[TransferError], ...] = ANSWERS,
    ) -> None:
        self._links = links
        self._patience = patience
        self._stop = stop
        self._tick = tick
        self._harmless = harmless
        self._failures = 0
        self._over = False

    def __iter__(self) -> Iterator[Attempt[C]]:
        while not self._over:
            try:
                session = self._links.session(self._tick)
            except (LinkLost, Timeout, ServerBusy) as error:
                if not self._goes_on_after(error):
                    raise
            else:
                yield Attempt(self, session)

    def run(self, work: Callable[[C], T]) -> T:
        """-> what `work` returns on the first connection on which it ends."""
        attempts = iter(self)
        while True:
            with next(attempts) as connection:
                return work(connection)

    def progressed(self) -> None:
        """The server has confirmed something: earlier failures no longer count."""
        self._failures = 0

    def ended(self, error: BaseException | None) -> bool:
        """-> whether another attempt follows. Raises: Cancelled."""
        self._over = True
        if error is None or isinstance(error, self._harmless):
            return False
        self._links.drop()
        if isinstance(error, (LinkLost, Timeout)):
            self._over = not self._goes_on_after(error)
        return not self._over

    def _goes_on_after(self, error: TransferError) -> bool:
        if self._links.another_stands:
            return True
        self._failures += 1
        if self._stop.is_set():
            raise Cancelled("stopped on request; what was sent is kept for a resume") from error
        if self._failures >= self._patience.attempts:
            return False
        log.warning("no connection attempt=%d error=%s", self._failures, error)
        if self._stop.wait(self._patience.wait_s(self._failures), self._tick):
            raise Cancelled("stopped on request; what was sent is kept for a resume") from error
        return True


class Attempt(Generic[C]):
    """One connection, lent to one block."""

    def __init__(self, attempts: Attempts[C], session: C) -> None:
        self._attempts = attempts
        self._session = session
        self._delivered_before = session.delivered_bytes

    def __enter__(self) -> C:
        return self._session

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        if self._session.delivered_bytes > self._delivered_before:
            self._attempts.progressed()
        return self._attempts.ended(error)
