"""Keeps the one connection of a client: made on first use, made again after a loss, with backoff and jitter."""

from __future__ import annotations

import logging
import random
import threading
from collections.abc import Callable
from typing import TypeVar

from iot.sftp.client.engine import Engine
from iot.sftp.client.errors import Cancelled, LinkLost, ServerBusy, SFTPError, Timeout
from iot.sftp.client.settings import ClientOptions

log = logging.getLogger(__name__)
T = TypeVar("T")
JITTER = 0.25


class Connector:
    """make: connects; it is told the bytes in flight that the last connection had found. cancelled: ends waiting."""

    def __init__(
        self, make: Callable[[int | None], Engine], options: ClientOptions, cancelled: threading.Event
    ) -> None:
        self._make = make
        self._options = options
        self._cancelled = cancelled
        self.current: Engine | None = None
        self._window: int | None = None

    def engine(self) -> Engine:
        """The live connection; made, with several attempts, when there is none.

        Raises: LinkLost, Timeout, ServerBusy, AuthenticationError, Cancelled ...
        """
        failures = 0
        while self.current is None:
            try:
                self.current = self._make(self._window)
            except (LinkLost, Timeout, ServerBusy) as error:
                if self._cancelled.is_set():
                    raise Cancelled("stopped on request while connecting") from error
                failures += 1
                if failures >= self._options.attempts:
                    raise
                log.warning("connecting failed attempt=%d error=%s", failures, error)
                self.wait_before_attempt(failures)
        return self.current

    def drop(self) -> None:
        engine, self.current = self.current, None
        if engine is not None:
            self._window = engine.pace.window
            engine.close()

    def attempts(self) -> Attempts:
        """Count the attempts of one operation."""
        return Attempts(self, self._options.attempts)

    def retrying(self, work: Callable[[Engine, bool], T]) -> T:
        """Run `work(engine, again)`; after a lost link once more on a new connection, `again` being true then."""
        attempts = self.attempts()
        while True:
            try:
                return work(self.engine(), attempts.failures > 0)
            except (LinkLost, Timeout) as error:
                self.drop()
                attempts.failed(error)
            except Cancelled:
                self.drop()
                raise

    def wait_before_attempt(self, failures: int) -> None:
        """Raises: Cancelled."""
        wait_s = min(self._options.backoff_s * 2 ** (failures - 1), self._options.backoff_cap_s)
        if self._cancelled.wait(wait_s * (1 + random.uniform(0, JITTER))):  # noqa: S311 - to spread load, not to keep a secret
            raise Cancelled("stopped on request; what was sent is kept for a resume")


class Attempts:
    """How often an operation lost its link in a row; progress resets the count."""

    def __init__(self, links: Connector, most: int) -> None:
        self._links = links
        self._most = most
        self.failures = 0

    def failed(self, error: SFTPError, progressed: bool = False) -> None:
        """Wait before the next attempt. Raises: `error` when there is none left; Cancelled."""
        self.failures = 1 if progressed else self.failures + 1
        if self.failures >= self._most:
            raise error
        log.warning("link lost attempt=%d error=%s", self.failures, error)
        self._links.wait_before_attempt(self.failures)
