"""Finds what lies in an outbox. Reads only; every file it names was reached without following a symlink.

A whole walk looks at every file. A quick walk looks only into folders whose modification time has moved since they
were listed: it finds new, renamed-in and removed names, but not a file rewritten in place. A folder counts as listed
for good only when it was listed GRANULARITY_S after its time was first seen: file systems keep coarse times, and the
next name may come within the same tick.
"""

from __future__ import annotations

import itertools
import logging
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from iot.sftp.client import Fingerprint
from iot.sftp.spooler.folders import DIRECTORY, join, open_below, split
from iot.sftp.spooler.naming import shown

__all__ = ["BATCH", "PRIVATE_PREFIX", "Found", "Outbox", "SourceFailed"]

log = logging.getLogger(__name__)

PRIVATE_PREFIX = b".iot-sent."
"""Names under which files are put out of the producers' way while they are removed."""
BATCH = 500
SORTED = 10_000
"""So many names at a time are put in order: rows that are added, found and dropped in order cost less flash."""
GRANULARITY_S = 3.0
DEPTH_MAX = 100
TOLD_MAX = 1000


class SourceFailed(Exception):
    """The outbox cannot be read; what lies in it is not known."""


class Found(NamedTuple):
    path: bytes
    fingerprint: Fingerprint


class Listed(NamedTuple):
    """A folder as it was listed: identity, time, when that time was first seen, whether that was long enough ago."""

    inode: int
    mtime_ns: int
    since_s: float
    final: bool


class Outbox:
    """One outbox folder.

    path: the folder. wanted: tells of a path below it whether it is to be sent. hidden: folders below it that are not
    scanned (archive, quarantine). recursive: look into folders. clock: monotonic seconds.
    leftovers: paths of private names met by the last walk; the caller recovers them and clears the list.
    """

    def __init__(
        self,
        path: Path,
        *,
        wanted: Callable[[str], bool],
        clock: Callable[[], float],
        hidden: frozenset[bytes] = frozenset(),
        recursive: bool = True,
    ) -> None:
        self.path = path
        self.leftovers: list[bytes] = []
        self._wanted = wanted
        self._clock = clock
        self._hidden = hidden
        self._recursive = recursive
        self._listed: dict[bytes, Listed] = {}
        self._complete = False
        self._told: set[bytes] = set()
        self._home: tuple[int, Path] | None = None

    def open(self) -> int:
        """A descriptor of the folder; the caller closes it. Raises: SourceFailed (also when it is not mounted)."""
        try:
            root = os.open(self.path, DIRECTORY)
        except OSError as error:
            raise SourceFailed(f"outbox {shown(str(self.path))}: {error.strerror}") from error
        try:
            self._check_device(os.fstat(root).st_dev)
        except BaseException:
            os.close(root)
            raise
        return root

    def walk(self, *, whole: bool) -> Iterator[list[Found]]:
        """Regular files that are wanted, in batches (some may be empty, so that the caller can breathe).

        Raises: SourceFailed.
        """
        root = self.open()
        try:
            if whole or not self._complete:
                self._complete = False
                self._listed.clear()
                yield from self._list(root, b"", 0)
                self._complete = True
            else:
                yield from self._changed(root)
        except OSError as error:
            raise SourceFailed(f"outbox {shown(str(self.path))}: {error.strerror}") from error
        finally:
            os.close(root)

    def look(self, path: bytes) -> Fingerprint | None:
        """The version that is there now; None when there is no such regular file. Raises: SourceFailed."""
        folder, name = split(path)
        root = self.open()
        try:
            here = open_below(root, folder)
            try:
                status = os.stat(name, dir_fd=here, follow_symlinks=False)
            finally:
                os.close(here)
        except OSError as error:
            if error.errno == 5:  # EIO says nothing about whether the file is there
                raise SourceFailed(f"outbox {shown(str(self.path))}: {error.strerror}") from error
            return None
        finally:
            os.close(root)
        return Fingerprint.of(status) if stat.S_ISREG(status.st_mode) else None

    def forget(self, path: bytes) -> None:
        """Look into this file's folder again at the next walk."""
        folder = split(path)[0]
        listed = self._listed.get(folder)
        if listed is not None:
            self._listed[folder] = listed._replace(final=False, since_s=self._clock())

    # -- inside

    def _check_device(self, device: int) -> None:
        """The mount point behind the folder must stay the same; a new device behind it is a remount."""
        if self._home is None:
            self._home = device, _mount_point(self.path)
            return
        if device == self._home[0]:
            return
        mount_point = _mount_point(self.path)
        if mount_point != self._home[1]:
            raise SourceFailed(f"outbox {shown(str(self.path))}: {self._home[1]} is not mounted any more")
        log.warning("outbox remounted path=%s device=%d", shown(str(self.path)), device)
        self._home = device, mount_point
        self._complete = False

    def _changed(self, root: int) -> Iterator[list[Found]]:
        for folder, listed in list(self._listed.items()):
            try:
                status = os.stat(folder or b".", dir_fd=root, follow_symlinks=False)
            except OSError:
                self._listed.pop(folder, None)  # gone with its files, or out of reach: the whole walk will tell
                continue
            if (status.st_ino, status.st_mtime_ns) == listed[:2] and listed.final:
                continue
            yield from self._enter(root, folder)

    def _enter(self, root: int, folder: bytes) -> Iterator[list[Found]]:
        try:
            here = open_below(root, folder)
        except OSError as error:
            self._refuse(folder, f"folder: {error.strerror}")
            self._listed.pop(folder, None)
            return
        try:
            yield from self._list(here, folder, folder.count(b"/") + 1)
        finally:
            os.close(here)

    def _list(self, here: int, folder: bytes, depth: int) -> Iterator[list[Found]]:
        """The files of the open folder `here`, then those of folders below it that are not listed yet."""
        self._mark(here, folder)
        batch: list[Found] = []
        deeper: list[bytes] = []
        with os.scandir(here) as entries:
            for entry in _by_name(entries):
                path = join(folder, os.fsencode(entry.name))
                found = self._judge(entry, path, deeper)
                if found is not None:
                    batch.append(found)
                if len(batch) >= BATCH:
                    yield batch
                    batch = []
        yield batch
        for path in deeper:
            yield from self._descend(here, path, depth + 1)

    def _descend(self, here: int, path: bytes, depth: int) -> Iterator[list[Found]]:
        if path in self._listed:
            return  # a quick walk looks at it by itself
        if depth > DEPTH_MAX:
            self._refuse(path, f"deeper than {DEPTH_MAX} folders")
            return
        try:
            inner = os.open(split(path)[1], DIRECTORY | os.O_NOFOLLOW, dir_fd=here)
        except OSError as error:
            self._refuse(path, f"folder: {error.strerror}")
            return
        try:
            yield from self._list(inner, path, depth)
        finally:
            os.close(inner)

    def _judge(self, entry: os.DirEntry[str], path: bytes, deeper: list[bytes]) -> Found | None:
        if entry.name.startswith(os.fsdecode(PRIVATE_PREFIX)):
            self.leftovers.append(path)
            return None
        if entry.is_dir(follow_symlinks=False):
            if self._recursive and path not in self._hidden:
                deeper.append(path)
            return None
        if not self._wanted(os.fsdecode(path)):
            return None
        try:
            status = entry.stat(follow_symlinks=False)
        except OSError:
            return None  # it went while the folder was read
        if not stat.S_ISREG(status.st_mode):
            self._refuse(path, _kind(status.st_mode))
            return None
        return Found(path, Fingerprint.of(status))

    def _mark(self, here: int, folder: bytes) -> None:
        status = os.fstat(here)
        before = self._listed.get(folder)
        since_s = self._clock()
        if before is not None and before[:2] == (status.st_ino, status.st_mtime_ns):
            since_s = before.since_s
        final = self._clock() - since_s >= GRANULARITY_S
        self._listed[folder] = Listed(status.st_ino, status.st_mtime_ns, since_s, final)

    def _refuse(self, path: bytes, reason: str) -> None:
        if path in self._told or len(self._told) >= TOLD_MAX:
            return
        self._told.add(path)
        log.warning("refused outbox=%s path=%s reason=%s", shown(str(self.path)), shown(path), shown(reason))


def _by_name(entries: Iterator[os.DirEntry[str]]) -> Iterator[os.DirEntry[str]]:
    while some := sorted(itertools.islice(entries, SORTED), key=lambda entry: entry.name, reverse=True):
        while some:
            yield some.pop()  # it goes with what it remembers of its file


def _mount_point(path: Path) -> Path:
    """The topmost folder on the same device, on the way up from `path`."""
    here = path.resolve()
    device = here.stat().st_dev
    while here != here.parent and here.parent.stat().st_dev == device:
        here = here.parent
    return here


def _kind(mode: int) -> str:
    for test, word in (
        (stat.S_ISLNK, "symlink"),
        (stat.S_ISFIFO, "fifo"),
        (stat.S_ISSOCK, "socket"),
        (stat.S_ISBLK, "block device"),
        (stat.S_ISCHR, "character device"),
    ):
        if test(mode):
            return word
    return "not a regular file"
