"""On which mount a folder lies, also where two mounts show one file system (proc(5), /proc/PID/mountinfo)."""

from __future__ import annotations

import os
import posixpath
import re
from collections.abc import Mapping
from typing import NamedTuple

__all__ = ["mount_number", "mount_point"]

MOUNTS = "/proc/self/mountinfo"
ESCAPED = re.compile(r"\\([0-7]{3})")


class Mount(NamedTuple):
    """root: what of the file system on `device` is shown at `point`."""

    parent: int
    device: str
    root: str
    point: str


def mount_number(descriptor: int) -> int | None:
    """The number of the mount through which this was opened; None where the system does not tell."""
    try:
        with open(f"/proc/self/fdinfo/{descriptor}", encoding="utf-8") as lines:
            found = next((line.split()[1] for line in lines if line.startswith("mnt_id:")), None)
    except OSError:
        return None
    return int(found) if found is not None else None


def mount_point(path: str, number: int | None) -> str:
    """Where the mount of a folder is. number: see `mount_number`. Raises: OSError."""
    mounts = _mounts() if number is not None else {}
    return _shown_at(number, mounts) if number in mounts else _by_device(path)


def _shown_at(number: int | None, mounts: Mapping[int | None, Mount]) -> str:
    """A folder that is mounted onto itself is no mount of its own: so systemd opens a folder to a unit, be there a disk
    on it or not."""
    here = mounts[number]
    while (above := mounts.get(here.parent)) is not None and above != here:
        inside = posixpath.relpath(here.point, above.point)
        if here.device != above.device or here.root != posixpath.normpath(posixpath.join(above.root, inside)):
            break
        here = above
    return here.point


def _mounts() -> dict[int | None, Mount]:
    try:
        with open(MOUNTS, encoding="utf-8", errors="surrogateescape") as lines:
            rows = [line.split(" ") for line in lines]
    except OSError:
        return {}
    return {int(row[0]): Mount(int(row[1]), row[2], _plain(row[3]), _plain(row[4])) for row in rows}


def _plain(field: str) -> str:
    return ESCAPED.sub(lambda found: chr(int(found[1], 8)), field)


def _by_device(path: str) -> str:
    here = os.path.realpath(path)
    while not os.path.ismount(here):
        here = os.path.dirname(here)
    return here
