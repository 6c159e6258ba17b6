"""The identity of folders, so that they can be compared whatever their paths.

Two paths may lead to the same folder through a symlink, a bind mount, a second mount of a file system, or upper and
lower case on FAT. So folders, and all folders above them, are compared by device and inode. A bind mount of a folder
deep in a tree has no common parent with it: the kernel's list of mounts tells which part of a file system is visible
where.

Source: proc_pid_mountinfo(5). Without /proc only devices and inodes are compared.
"""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

__all__ = ["Mounts", "Whereabouts", "mounted_now", "whereabouts"]

MOUNTINFO = Path("/proc/self/mountinfo")
ESCAPED = re.compile(rb"\\([0-7]{3})")
Key = tuple[int, int, tuple[str, ...]]
"""Device and inode of a folder; for a missing one, those of its nearest existing parent, and the names below that."""
Region = tuple[bytes, tuple[bytes, ...]]
"""A device, and the path of a folder in its file system."""


class Mount(NamedTuple):
    """device: its file system. root: the part of it that is visible at `point`."""

    device: bytes
    root: tuple[bytes, ...]
    point: tuple[bytes, ...]


Mounts = Mapping[int, Mount]


class Whereabouts(NamedTuple):
    """key: the folder itself. above: the folders above it, both as written and as resolved.
    regions: the parts of file systems that can be reached through it, its own first; none without /proc.
    """

    key: Key
    above: frozenset[Key]
    regions: tuple[Region, ...]

    def is_same(self, other: Whereabouts) -> bool:
        return self.key == other.key or (bool(self.regions) and self.regions[:1] == other.regions[:1])

    def overlaps(self, other: Whereabouts) -> bool:
        """Whether they are the same, one lies within the other, or anything can be reached through both."""
        if self.is_same(other) or self.key in other.above or other.key in self.above:
            return True
        pairs = itertools.product(self.regions, other.regions)
        return any(_holds(mine, theirs) or _holds(theirs, mine) for mine, theirs in pairs)

    def is_within(self, other: Whereabouts) -> bool:
        """Whether it is this folder or lies in it."""
        if self.key == other.key or other.key in self.above:
            return True
        return bool(self.regions and other.regions) and _holds(other.regions[0], self.regions[0])


def whereabouts(path: Path, mounts: Mounts) -> Whereabouts:
    """Where the folder `path` is, or will be once it is created. mounts: from mounted_now()."""
    written, resolved = Path(os.path.normpath(path)), Path(os.path.realpath(path))
    above = {_key(parent) for parent in itertools.chain(written.parents, resolved.parents)}
    return Whereabouts(_key(path), frozenset(above), tuple(_regions(resolved, mounts)))


def mounted_now() -> Mounts:
    """The mounts visible to this process, by number; empty if that cannot be determined."""
    try:
        lines = MOUNTINFO.read_bytes().splitlines()
    except OSError:
        return {}
    mounts = {}
    for line in lines:
        number, _, device, root, point, *_ = line.split(b" ")
        if root.startswith(b"/"):  # a namespace that is mounted has no path
            mounts[int(number)] = Mount(device, _names(_unescaped(root)), _names(_unescaped(point)))
    return mounts


def _key(path: Path) -> Key:
    _, missing, status = _nearest(path)
    return status.st_dev, status.st_ino, missing


def _nearest(path: Path) -> tuple[Path, tuple[str, ...], os.stat_result]:
    """The folder, or its nearest parent that can be examined; and the names that are missing."""
    missing: tuple[str, ...] = ()
    while True:
        try:
            return path, missing, os.stat(path)
        except OSError:
            if path == path.parent:
                raise
            path, missing = path.parent, (path.name, *missing)


def _regions(path: Path, mounts: Mounts) -> Iterable[Region]:
    there, missing, _ = _nearest(path)
    mount, place = _mount_of(there, mounts)
    if mount is None:
        return
    inside = place[len(mount.point) :] + tuple(map(os.fsencode, missing))
    yield mount.device, mount.root + inside
    if not missing:
        yield from (
            (m.device, m.root) for m in mounts.values() if len(m.point) > len(place) and _starts(m.point, place)
        )


def _mount_of(path: Path, mounts: Mounts) -> tuple[Mount | None, tuple[bytes, ...]]:
    """The mount through which a folder is visible, and the names of the path to it."""
    try:
        folder = os.open(path, os.O_PATH)
    except (OSError, AttributeError):  # O_PATH is Linux's
        return None, ()
    try:
        told = Path(f"/proc/self/fdinfo/{folder}").read_text(encoding="ascii")
        place = _names(os.readlink(os.fsencode(f"/proc/self/fd/{folder}")))
    except OSError:
        return None, ()
    finally:
        os.close(folder)
    number = re.search(r"^mnt_id:\s*(\d+)$", told, re.MULTILINE)
    mount = mounts.get(int(number[1])) if number else None
    return (mount, place) if mount is not None and _starts(place, mount.point) else (None, ())


def _holds(outer: Region, inner: Region) -> bool:
    return outer[0] == inner[0] and _starts(inner[1], outer[1])


def _starts(names: tuple[bytes, ...], beginning: tuple[bytes, ...]) -> bool:
    return names[: len(beginning)] == beginning


def _names(path: bytes) -> tuple[bytes, ...]:
    return tuple(name for name in path.split(b"/") if name)


def _unescaped(text: bytes) -> bytes:
    return ESCAPED.sub(lambda match: bytes([int(match[1], 8)]), text)
