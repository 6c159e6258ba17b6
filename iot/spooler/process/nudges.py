"""What ends a wait for the server early: the network is back, or somebody touches a file.

A nudge counts while the server is waited for, and only then is the file looked at. An interface that comes and goes
makes no more tries than `min_s` allows; that grows while they are in vain.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from pathlib import Path

from iot.spooler.config.changes import look
from iot.spooler.config.settings import Settings
from iot.spooler.naming import shown
from iot.spooler.server.availability import Availability, ServerState
from iot.spooler.server.network import AddressWatch
from iot.spooler.state.running import wake_path

__all__ = ["Nudges", "nudges_of"]

log = logging.getLogger(__name__)

LOOK_S = 1.0
DOUBLED_MAX = 16
Watch = Callable[[int, Callable[[], None]], Callable[[], None]]


def nudges_of(
    settings: Settings, environment: Mapping[str, str], watch: Watch, server: Availability, clock: Callable[[], float]
) -> Nudges:
    wake = settings.wake
    file = wake.file or wake_path(environment)
    listen = watch if wake.on_address else None
    return Nudges(file, listen, server, min_s=wake.min_s, max_s=settings.retry.cap_s, clock=clock)


class Nudges:
    """file: the one to be touched. watch: of the loop, for what the kernel says of addresses; None: it is not asked.

    min_s, max_s: between two tries. clock: seconds, monotonic.
    """

    def __init__(
        self,
        file: Path | None,
        watch: Watch | None,
        server: Availability,
        *,
        min_s: float,
        max_s: float,
        clock: Callable[[], float],
    ) -> None:
        self._server = server
        self._file = file
        self._touched = look(file) if file is not None else None
        self._min_s, self._max_s = min_s, max(min_s, max_s)
        self._now = clock
        self._look_at = self._try_at = float("-inf")
        self._in_vain = 0
        self._asked_by = ""
        self._addresses: AddressWatch | None = None
        self._unwatch: Callable[[], None] = lambda: None
        if watch is not None:
            self._listen(watch)

    def due(self) -> bool:
        """Whether the server is to be tried now, before its wait is over."""
        now = self._now()
        if self._server.state is ServerState.CONNECTED:
            self._in_vain = 0
        if not self._server.waits(now):
            self._asked_by = ""
            return False
        self._look_at_file(now)
        if not self._asked_by or now < self._try_at:
            return False
        self._try_at = now + min(self._min_s * 2**self._in_vain, self._max_s)
        self._in_vain = min(self._in_vain + 1, DOUBLED_MAX)
        log.info("server tried before its wait is over reason=%s", self._asked_by)
        self._asked_by = ""
        return True

    def next_s(self) -> float:
        """Seconds until `due` is to be asked again; a nudge of the network ends a pause by itself."""
        now = self._now()
        if not self._server.waits(now):
            return float("inf")
        if self._asked_by:
            return max(self._try_at - now, 0.0)
        return LOOK_S if self._file is not None else float("inf")

    def close(self) -> None:
        self._unwatch()
        self._unwatch = lambda: None
        if self._addresses is not None:
            self._addresses.close()
            self._addresses = None

    # -- inside

    def _listen(self, watch: Watch) -> None:
        try:
            self._addresses = AddressWatch()
        except OSError as error:
            log.info("addresses are not watched reason=%s", shown(str(error.strerror or error)))
            return
        self._unwatch = watch(self._addresses.descriptor, self._heard)

    def _heard(self) -> None:
        assert self._addresses is not None
        try:
            if self._addresses.news():
                self._asked_by = "network"
        except OSError as error:
            log.warning("addresses are no longer watched error=%s", shown(str(error.strerror or error)))
            self.close()

    def _look_at_file(self, now: float) -> None:
        if self._file is None or now < self._look_at:
            return
        self._look_at = now + LOOK_S
        seen = look(self._file)
        if seen != self._touched:
            self._touched = seen
            if seen is not None:  # removing it is no touch
                self._asked_by = "file"
