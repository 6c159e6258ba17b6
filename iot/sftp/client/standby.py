"""Connections made in a thread of their own, while the caller's thread carries on.

Connecting    the next connection. Name resolution, dialling and login block, so the caller waits in small steps,
              ticks meanwhile, and may give up at any time.
Standby       a second one, tried while a connection is silent. After a short outage a link is usable again sooner than
              TCP notices, because its timers have backed off. So while nothing is answered although bytes are in
              flight, the client keeps redialling; the new connection takes over as soon as it is ready. Nothing is
              lost: what was not acked is verified or sent again, as after any loss.

The thread owns only what it makes: a connection that nobody waits for any more is closed as soon as it is made.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from iot.sftp.client.session import Session
from iot.transfer.errors import Cancelled, SFTPError, TransientError
from iot.transfer.stop import WAKE_S, StopFlag

log = logging.getLogger(__name__)

REDIAL_S = 0.25
REDIAL_ROUNDS = 2
PATIENCE_S = 10.0
REFUSED_PAUSE_S = 0.25
LOGIN_S = 8.0


class Connecting:
    """make(stop): connects, unless `stop` is set meanwhile. stop: of the client."""

    name = "iot-sftp connecting"

    def __init__(self, make: Callable[[StopFlag], Session], stop: StopFlag) -> None:
        self._make = make
        self._client_stop = stop
        self._stop = StopFlag(above=stop)
        self._over = threading.Event()
        self._lock = threading.Lock()
        self._abandoned = False
        self._session: Session | None = None
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name=self.name, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def wait(self, tick: Callable[[], None], limit_s: float = float("inf")) -> None:
        """Wait until it is over, at most `limit_s` seconds, ticking. Raises: Cancelled."""
        give_up_at = time.monotonic() + limit_s
        while not self._over.wait(WAKE_S) and time.monotonic() < give_up_at:
            tick()
            if self._client_stop.is_set():
                raise Cancelled("stopped on request while connecting")

    @property
    def session(self) -> Session | None:
        """The connection, if it is ready. Raises: whatever `make` raised."""
        if self._error is not None:
            raise self._error
        return self._session

    def abandon(self) -> None:
        """The caller no longer waits for it."""
        with self._lock:
            self._abandoned = True
            session, self._session = self._session, None
        self._stop.set()
        if session is not None:
            session.close()

    def _run(self) -> None:
        try:
            self._try()
        except BaseException as error:  # noqa: BLE001 - raised again in the thread that waits
            self._error = error
        finally:
            self._over.set()

    def _try(self) -> None:
        self._offer(self._make(self._stop))

    def _offer(self, session: Session) -> None:
        with self._lock:
            if not self._abandoned:
                self._session = session
                return
        session.close()


class Standby(Connecting):
    """make(stop, redial_s, on_dialled): called until it succeeds, fails permanently, or the old connection recovers.

    round_trip_s: that of the old connection.
    """

    name = "iot-sftp standby connection"

    def __init__(
        self, make: Callable[[StopFlag, float, Callable[[], None]], Session], stop: StopFlag, round_trip_s: float
    ) -> None:
        redial_s = max(REDIAL_S, REDIAL_ROUNDS * round_trip_s)
        self._dialled = threading.Event()
        super().__init__(lambda stop: make(stop, redial_s, self._dialled.set), stop)
        self.start()

    @property
    def stands(self) -> bool:
        return self._session is not None

    def taken_over(self, tick: Callable[[], None]) -> Session | None:
        """The connection, waiting for it if login has started; None if there is none. Raises: Cancelled."""
        if self._dialled.is_set():
            self.wait(tick, LOGIN_S)
        return self._session

    def _try(self) -> None:
        while not self._stop.is_set():
            began = time.monotonic()
            try:
                session = self._make(self._stop)
            except TransientError as error:
                log.debug("silent link: no other connection yet error=%s", error)
                self._dialled.clear()
                self._stop.wait(max(0.0, REFUSED_PAUSE_S - (time.monotonic() - began)))
            except SFTPError as error:
                log.warning("silent link: no other connection error=%s", error)
                return
            else:
                self._offer(session)
                return
