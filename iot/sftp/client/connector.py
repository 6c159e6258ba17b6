"""Keeps a client's connection: made on first use and after a loss, with a standby while the link is silent."""

from __future__ import annotations

from collections.abc import Callable

from iot.sftp.client.session import Beside, Making, Session
from iot.sftp.client.settings import ClientOptions
from iot.sftp.client.standby import Connecting, Standby
from iot.transfer.attempts import ANSWERS, Attempts, Patience
from iot.transfer.errors import SFTPError
from iot.transfer.rate import Meter, RateLimit
from iot.transfer.stop import StopFlag

SILENT_S = 1.0
SILENT_ROUNDS = 3


class Connector:
    """make: connects. stop: ends connecting and waiting. limit, meter: of all connections together.

    made: how many connections were used so far.
    """

    def __init__(
        self,
        make: Callable[[Making], Session],
        options: ClientOptions,
        stop: StopFlag,
        limit: RateLimit,
        meter: Meter,
    ) -> None:
        self._make = make
        self._limit = limit
        self._meter = meter
        self._patience = Patience(options.attempts, options.backoff_s, options.backoff_cap_s)
        self._stop = stop
        self.current: Session | None = None
        self.made = 0
        self._window: int | None = None
        self._standby: Standby | None = None

    def attempts(
        self, tick: Callable[[], None] = lambda: None, harmless: tuple[type[SFTPError], ...] = ANSWERS
    ) -> Attempts[Session]:
        """The attempts of one operation; see attempts.py."""
        return Attempts(self, self._patience, self._stop, tick, harmless)

    def session(self, tick: Callable[[], None] = lambda: None) -> Session:
        """The live connection. If there is none, the standby takes over, or a new one is made. Dials once.

        Raises: LinkLost, Timeout, ServerBusy, AuthenticationError, ConfigurationError, LocalStateError, Cancelled.
        """
        if self.current is None and self._standby is not None:
            self._take_over(tick)
        if self.current is None:
            self._connect(tick)
        assert self.current is not None
        return self.current

    def drop(self) -> None:
        if self.current is not None:
            self._window = self.current.pace.window
            self.current.close()  # before it is forgotten, so that an interrupt cannot leave it open
            self.current = None

    def close(self) -> None:
        """Drop the connection and the standby."""
        self.drop()
        self._give_up_standby()

    def fell_silent(self, quiet_s: float) -> bool:
        """Called several times a second with the seconds for which nothing came although bytes are in flight (0: fine).

        -> whether a standby connection is ready to take over.
        """
        round_trip_s = (self.current.pace.round_trip_s if self.current is not None else None) or 0.0
        if quiet_s < max(SILENT_S, SILENT_ROUNDS * round_trip_s):
            self._give_up_standby()
            return False
        if self._standby is None:
            self._standby = Standby(self._make_beside, self._stop, round_trip_s)
        return self._standby.stands

    @property
    def another_stands(self) -> bool:
        """A standby connection for the lost one is ready: no need to wait."""
        return self._standby is not None and self._standby.stands

    # -- inside

    def _connect(self, tick: Callable[[], None]) -> None:
        connecting = Connecting(lambda stop: self._make(self._making(stop)), self._stop)
        try:
            connecting.start()
            connecting.wait(tick)
            self._use(connecting.session)
        finally:
            if self.current is None:
                connecting.abandon()

    def _take_over(self, tick: Callable[[], None]) -> None:
        assert self._standby is not None
        try:
            self._use(self._standby.taken_over(tick))
        finally:
            if self.current is None:
                self._give_up_standby()
            self._standby = None

    def _use(self, session: Session | None) -> None:
        self.current = session
        self.made += session is not None

    def _give_up_standby(self) -> None:
        standby, self._standby = self._standby, None
        if standby is not None:
            standby.abandon()

    def _make_beside(self, stop: StopFlag, redial_s: float, on_dialled: Callable[[], None]) -> Session:
        return self._make(self._making(stop, Beside(redial_s, on_dialled)))

    def _making(self, stop: StopFlag, beside: Beside | None = None) -> Making:
        return Making(self._window, self.fell_silent, stop, self._limit, self._meter, beside)
