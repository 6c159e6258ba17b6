"""The archive of an outbox: delivered files with their tree, kept within limits of age and size."""

from __future__ import annotations

import heapq
import logging
import os
from collections.abc import Iterator
from pathlib import Path

from iot.sftp.spooler.naming import shown
from iot.sftp.spooler.removal import MoveTo

__all__ = ["Archive"]

log = logging.getLogger(__name__)

TIDY_S = 600.0
AT_ONCE = 10_000


class Archive(MoveTo):
    """Where delivered files go.

    max_age_s: seconds since they were archived; max_bytes: of all together, the oldest go first. None: no limit.
    """

    def __init__(self, folder: Path, *, max_age_s: float | None = None, max_bytes: int | None = None) -> None:
        super().__init__(folder)
        self._folder = folder
        self._max_age_s = max_age_s
        self._max_bytes = max_bytes
        self._tidy_at = float("-inf")

    def tidy(self, now: float, wall: float) -> None:
        """Remove what is beyond the limits, at most every TIDY_S. now: monotonic, wall: wall clock, seconds."""
        if now < self._tidy_at or (self._max_age_s is None and self._max_bytes is None):
            return
        self._tidy_at = now + TIDY_S
        try:
            self._remove_beyond(wall)
        except OSError as error:
            log.warning("cannot tidy archive=%s error=%s", shown(str(self._folder)), shown(str(error)))

    def _remove_beyond(self, wall: float) -> None:
        total = sum(size for _, size, _ in _files(self._folder))
        removed = 0
        for archived_at, size, path in heapq.nsmallest(AT_ONCE, _files(self._folder)):
            too_old = self._max_age_s is not None and wall - archived_at > self._max_age_s
            too_much = self._max_bytes is not None and total > self._max_bytes
            if not too_old and not too_much:
                break
            os.unlink(path)
            total -= size
            removed += 1
        if removed:
            log.info("archive tidied folder=%s removed=%d bytes=%d", shown(str(self._folder)), removed, total)


def _files(folder: Path) -> Iterator[tuple[float, int, str]]:
    """When each file was archived (its ctime: the rename into the archive set it), its size, its path."""
    for root, _, names in os.walk(folder):
        for name in names:
            path = os.path.join(root, name)
            status = os.lstat(path)
            yield status.st_ctime, status.st_size, path
