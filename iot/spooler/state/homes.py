"""On which mount each folder of an agent lies, remembered over restarts: a folder whose disk is missing is not used.

Below the mount point of a disk that is missing lies another, empty folder of the same name. Files that were put there
would be hidden once the disk is mounted, and what was to lie there would look removed.
"""

from __future__ import annotations

import errno
import json
import logging
import os
from collections.abc import Sequence
from pathlib import Path

from iot.spooler.naming import shown
from iot.transfer.beneath import DIRECTORY, sync

__all__ = ["Homes", "mount_point", "unmounted"]

log = logging.getLogger(__name__)

NAME = "mounts.json"


class Homes:
    """state_dir: where the mount points are kept; None: only in memory. required: mount points below which no folder is
    used while nothing is mounted there."""

    def __init__(self, state_dir: Path | None = None, required: Sequence[Path] = ()) -> None:
        self._file = state_dir / NAME if state_dir is not None else None
        self._required = required
        self._points = _read(self._file) if self._file is not None else {}
        self._devices: dict[Path, int] = {}

    def check(self, folder: Path, descriptor: int) -> None:
        """descriptor: of the folder, open. Raises: OSError (ENODEV), if it is not where it was mounted before."""
        device = os.fstat(descriptor).st_dev
        if self._devices.get(folder) == device:
            return
        missing = unmounted(folder, self._required)
        if missing is not None:
            raise OSError(errno.ENODEV, f"{missing} is not mounted")
        known = self._points.get(str(folder))
        if known is not None and Path(known) in _above(folder) and not os.path.ismount(known):
            raise OSError(errno.ENODEV, f"{known} is no longer mounted")
        self._devices[folder] = device
        self._remember(str(folder), str(mount_point(folder)))

    def _remember(self, folder: str, point: str) -> None:
        """The root of all is always there, and is not remembered: a disk may be mounted below it at any time."""
        known = self._points.get(folder, os.sep)
        if point == known:
            return
        self._points[folder] = point
        if point == os.sep:
            del self._points[folder]
        if self._file is not None:
            try:
                _write(self._file, self._points)
            except OSError as error:
                log.warning("mount points are not remembered error=%s", shown(str(error)))


def mount_point(path: Path) -> Path:
    """The topmost folder above `path` that is on the same device."""
    here = path.resolve()
    device = here.stat().st_dev
    while here != here.parent and here.parent.stat().st_dev == device:
        here = here.parent
    return here


def unmounted(folder: Path, required: Sequence[Path]) -> Path | None:
    """The first of these mount points, of those above this folder, where nothing is mounted."""
    above = _above(folder)
    return next((point for point in required if point in above and not os.path.ismount(point)), None)


def _above(folder: Path) -> set[Path]:
    """The folder and all above it, both as it is written and where symbolic links lead now."""
    here = folder.resolve()
    return {folder, *folder.parents, here, *here.parents}


def _read(file: Path) -> dict[str, str]:
    try:
        found = json.loads(file.read_bytes())
    except (OSError, ValueError):
        return {}  # the first start, or a damaged record
    known = found.items() if isinstance(found, dict) else ()
    return {folder: point for folder, point in known if isinstance(point, str) and "\0" not in point}


def _write(file: Path, points: dict[str, str]) -> None:
    fresh = file.with_name(f"{NAME}.new")
    with open(fresh, "w", encoding="ascii") as target:
        json.dump(points, target)
        target.flush()
        os.fsync(target.fileno())
    os.replace(fresh, file)
    folder = os.open(file.parent, DIRECTORY)
    try:
        sync(folder)
    finally:
        os.close(folder)
