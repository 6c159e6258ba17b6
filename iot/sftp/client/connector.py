"""Keeps the one connection of a client: made on first use, made again after a loss, with backoff and jitter."""

from __future__ import annotations

import logging
import random
import threading
from collections.abc import Callable
from typing import TypeVar

from iot.sftp.client.engine import Beside, Engine, Making
from iot.sftp.client.errors import Cancelled, LinkLost, ServerBusy, SFTPError, Timeout
from iot.sftp.client.rival import Rival
from iot.sftp.client.settings import ClientOptions

log = logging.getLogger(__name__)
T = TypeVar("T")
JITTER = 0.25
SILENT_S = 1.0
SILENT_ROUNDS = 3


class Connector:
    """make: connects. cancelled: ends waiting."""

    def __init__(self, make: Callable[[Making], Engine], options: ClientOptions, cancelled: threading.Event) -> None:
        self._make = make
        self._options = options
        self._cancelled = cancelled
        self.current: Engine | None = None
        self._window: int | None = None
        self._rival: Rival | None = None

    def engine(self) -> Engine:
        """The live connection; made, with several attempts, when there is none.

        Raises: LinkLost, Timeout, ServerBusy, AuthenticationError, Cancelled ...
        """
        failures = 0
        if self.current is None and self._rival is not None:
            rival, self._rival = self._rival, None
            self.current = rival.take()
        while self.current is None:
            try:
                self.current = self._make(Making(self._window, self.fell_silent))
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

    def close(self) -> None:
        """Drop the connection, and the one that is tried beside it."""
        self.drop()
        rival, self._rival = self._rival, None
        if rival is not None:
            rival.abandon()

    def fell_silent(self, quiet_s: float) -> bool:
        """Told, several times a second, for how long nothing came although bytes are in flight (0: all is well).

        -> whether another connection stands that may take over.
        """
        round_trip_s = (self.current.pace.round_trip_s if self.current is not None else None) or 0.0
        if quiet_s < max(SILENT_S, SILENT_ROUNDS * round_trip_s):
            if self._rival is not None:
                self._rival.abandon()
                self._rival = None
            return False
        if self._rival is None:
            self._rival = Rival(self._make_beside, round_trip_s)
        return self._rival.stands

    def _make_beside(self, redial_s: float, on_dialled: Callable[[], None]) -> Engine:
        return self._make(Making(self._window, self.fell_silent, Beside(redial_s, on_dialled)))

    @property
    def another_stands(self) -> bool:
        """A connection that was tried beside the lost one is there already: nobody has to wait."""
        return self._rival is not None and self._rival.stands

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
        if self._links.another_stands:
            return
        self.failures = 1 if progressed else self.failures + 1
        if self.failures >= self._most:
            raise error
        log.warning("link lost attempt=%d error=%s", self.failures, error)
        self._links.wait_before_attempt(self.failures)
