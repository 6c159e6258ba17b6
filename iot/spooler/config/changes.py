"""Whether a file has changed: what a refused login waits for. A look now and then, and none while nobody waits."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterable
from pathlib import Path

__all__ = ["Changes", "look"]

EVERY_S = 15.0

Look = tuple[int, ...] | None


class Changes:
    """Since this was made, or since the last change that was told. clock: seconds, monotonic.

    every_s: looks are at least so far apart.
    """

    every_s = EVERY_S

    def __init__(self, files: Iterable[Path], clock: Callable[[], float]) -> None:
        self._seen = {file: look(file) for file in files}
        self._now = clock
        self._next_at = float("-inf")

    def next(self) -> Path | None:
        """A file that has changed, has come or has gone; None when none has, and when it is not yet time to look."""
        return None if self._now() < self._next_at else self.look_now()

    def look_now(self) -> Path | None:
        """As next, but at once: somebody asks."""
        self._next_at = self._now() + EVERY_S
        changed = None
        for file, seen in self._seen.items():
            found = look(file)
            if found != seen:
                self._seen[file] = found
                changed = file
        return changed


def look(file: Path) -> Look:
    """What a change of content, of rights or of the file itself changes; None where it cannot be seen.

    Of a folder, which may be a destination, what lies in it does not count, but whether it may be written to does.
    """
    try:
        status = os.stat(file)
        if stat.S_ISDIR(status.st_mode):
            flags = os.statvfs(file).f_flag
            return status.st_dev, status.st_ino, status.st_mode, status.st_uid, status.st_gid, flags
    except OSError:
        return None
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns
