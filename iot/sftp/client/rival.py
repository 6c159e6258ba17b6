"""A second connection, tried beside one that has fallen silent.

A link that was cut for a moment comes back sooner than TCP notices: its timers have doubled meanwhile. So while nothing
is answered although bytes are in flight, a new connection is dialled again and again, in a thread of its own; when it
stands, it takes over. Nothing is lost by that: what was not acked is proven or sent again, as after any loss.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from iot.sftp.client.engine import Engine
from iot.sftp.client.errors import SFTPError, TransientError

log = logging.getLogger(__name__)

REDIAL_S = 0.25
REDIAL_ROUNDS = 2
PATIENCE_S = 10.0
REFUSED_PAUSE_S = 0.25
LOGIN_S = 8.0


class Rival:
    """make(redial_s, on_dialled): connects; called until it succeeds, fails for good, or the old connection is back.

    round_trip_s: what the old connection had.
    """

    def __init__(self, make: Callable[[float, Callable[[], None]], Engine], round_trip_s: float) -> None:
        self._make = make
        self._redial_s = max(REDIAL_S, REDIAL_ROUNDS * round_trip_s)
        self._dialled = threading.Event()
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._engine: Engine | None = None
        self._thread = threading.Thread(target=self._try, name="iot-sftp rival connection", daemon=True)
        self._thread.start()

    @property
    def stands(self) -> bool:
        return self._engine is not None

    def take(self) -> Engine | None:
        """The connection, waited for if it is logging in already; None when there is none, and then it is given up."""
        if self._dialled.is_set():
            self._thread.join(LOGIN_S)
        return self._end()

    def _end(self) -> Engine | None:
        with self._lock:
            engine, self._engine = self._engine, None
            self._over.set()
        return engine

    def abandon(self) -> None:
        """The old connection lives."""
        engine = self._end()
        if engine is not None:
            engine.close()

    def _try(self) -> None:
        while not self._over.is_set():
            began = time.monotonic()
            try:
                engine = self._make(self._redial_s, self._dialled.set)
            except TransientError as error:
                log.debug("silent link: no other connection yet error=%s", error)
                self._dialled.clear()
                self._over.wait(max(0.0, REFUSED_PAUSE_S - (time.monotonic() - began)))
            except SFTPError as error:
                log.warning("silent link: no other connection error=%s", error)
                return
            else:
                self._offer(engine)
                return

    def _offer(self, engine: Engine) -> None:
        with self._lock:
            if not self._over.is_set():
                self._engine = engine
                return
        engine.close()
