"""Files of an inbox that failed: when each is tried again, and what was said about it."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from typing import NamedTuple

from iot.spooler.naming import shown
from iot.spooler.queue.policy import Backoff

__all__ = ["Retries"]

log = logging.getLogger(__name__)

TOLD_MAX = 1000


class _Failed(NamedTuple):
    """times: in a row. again_at: seconds, monotonic."""

    times: int
    again_at: float
    reason: str


class Retries:
    """label: of the inbox. clock: seconds, monotonic."""

    def __init__(self, label: str, backoff: Backoff, random: Callable[[], float], clock: Callable[[], float]) -> None:
        self._label = label
        self._backoff = backoff
        self._random = random
        self._now = clock
        self._failed: dict[bytes, _Failed] = {}
        self._told: set[tuple[bytes, str]] = set()

    def put_off(self, path: bytes, reason: str, *, wait_s: float | None = None) -> float:
        """Try this file again later -> when. wait_s: so many seconds later, instead of ever longer waits."""
        times = self._failed[path].times + 1 if path in self._failed else 1
        again_at = self._now() + (self.wait_s(times) if wait_s is None else wait_s)
        self._failed[path] = _Failed(times, again_at, reason)
        self.tell(path, reason)
        return again_at

    def wait_s(self, failures: int) -> float:
        """The wait after so many failures in a row."""
        return self._backoff.delay_s(failures, self._random())

    def again_at(self, path: bytes) -> float:
        """When it may be tried."""
        return self._failed[path].again_at if path in self._failed else float("-inf")

    def has_failed(self, path: bytes) -> bool:
        """Whether it has not succeeded since."""
        return path in self._failed

    def forget(self, path: bytes) -> None:
        """It has succeeded."""
        self._failed.pop(path, None)

    def forget_all_but(self, paths: set[bytes]) -> None:
        self._failed = {path: each for path, each in self._failed.items() if path in paths}

    def wake(self) -> None:
        """All may be tried now."""
        self._failed = {path: each._replace(again_at=float("-inf")) for path, each in self._failed.items()}

    @property
    def reasons(self) -> dict[str, str]:
        return {os.fsdecode(path): each.reason for path, each in self._failed.items()}

    def tell(self, path: bytes, reason: str) -> None:
        """Log why it is not taken, once."""
        if (path, reason) not in self._told and len(self._told) < TOLD_MAX:
            self._told.add((path, reason))
            log.warning("not taken inbox=%s path=%s reason=%s", shown(self._label), shown(path), shown(reason))
