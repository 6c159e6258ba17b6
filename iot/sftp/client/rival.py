"""A second connection, tried beside one that has fallen silent.

A link that was cut for a moment comes back sooner than TCP notices: its timers have doubled meanwhile. So while nothing
is answered although bytes are in flight, a new connection is tried about every second, in a thread of its own; when it
stands, it takes over. Nothing is lost by that: what was not acked is proven or sent again, as after any loss.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from iot.sftp.client.engine import Engine
from iot.sftp.client.errors import SFTPError, TransientError

log = logging.getLogger(__name__)

AGAIN_S = 1.0


class Rival:
    """make: connects; it is called until it succeeds, or fails for good, or the old connection has come back."""

    def __init__(self, make: Callable[[], Engine]) -> None:
        self._make = make
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._engine: Engine | None = None
        self._thread = threading.Thread(target=self._try, name="iot-sftp rival connection", daemon=True)
        self._thread.start()

    @property
    def stands(self) -> bool:
        return self._engine is not None

    def take(self, wait_s: float) -> Engine | None:
        """The connection; None when it does not stand in time, and then it is given up."""
        self._thread.join(wait_s)
        with self._lock:
            engine, self._engine = self._engine, None
            self._over.set()
        return engine

    def abandon(self) -> None:
        """The old connection lives."""
        engine = self.take(0.0)
        if engine is not None:
            engine.close()

    def _try(self) -> None:
        while not self._over.is_set():
            try:
                engine = self._make()
            except TransientError as error:
                log.debug("silent link: no other connection yet error=%s", error)
                self._over.wait(AGAIN_S)
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
