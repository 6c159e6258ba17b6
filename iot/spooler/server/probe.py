"""Asks the server that is not used whether it would let us in, beside the transfers with the other one.

A login of its own, in a thread: no checkpoint, no file, nothing of the connection that is in use. Only a login tells a
server that works from a port that is open.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Any

from iot.spooler.server.hint import Hints
from iot.transfer import ConfiguredRemote, Journal, LinkLost, TransferError, Wire

__all__ = ["Probe"]

log = logging.getLogger(__name__)


class Probe:
    """One question. error, wait_s, wire: its answer, once it `is_over`: what failed; how long the server asks to be
    left alone; what it took.

    hint_file: of the server, if its wish to be left alone counts. when_over: called in the thread.
    """

    def __init__(
        self, server: ConfiguredRemote, device_id: str, hint_file: str | None, when_over: Callable[[], None]
    ) -> None:
        self.error: TransferError | None = None
        self.wait_s = 0.0
        self.wire = Wire()
        self.is_over = False
        self._server = server
        self._device_id = device_id
        self._hint_file = hint_file
        self._when_over = when_over
        self._remote: Any = None
        self._is_cancelled = False

    def start(self) -> None:
        try:
            threading.Thread(target=self._run, name="probe", daemon=True).start()
        except RuntimeError as error:  # this device has no thread to spare
            self.error, self.is_over = LinkLost(str(error)), True

    def cancel(self) -> None:
        """Nobody waits for the answer any more."""
        self._is_cancelled = True
        if self._remote is not None:
            self._remote.cancel()

    # -- inside

    def _run(self) -> None:
        try:
            self._ask()
        except TransferError as error:
            self.error = error
        except Exception as error:
            log.exception("the question to the other server failed")
            self.error = LinkLost(f"{type(error).__name__}: {error}")
        finally:
            self.is_over = True
            self._when_over()

    def _ask(self) -> None:
        """The journal is one in memory: SQLite is used in the thread that has opened it."""
        remote = self._remote = self._server.remote(Journal(None), self._device_id)
        try:
            if not self._is_cancelled:
                remote.connect()
            if self._hint_file is not None and not self._is_cancelled:
                self.wait_s = Hints(remote, self._hint_file, self._device_id, lambda _: None).look(lambda: None)
        finally:
            remote.close()
            self.wire = remote.wire
