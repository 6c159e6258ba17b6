"""Finds what lies in an outbox. Reads only; every file it names was reached without following a symlink.

A whole walk looks at every file. A quick walk looks only into folders whose modification time has moved since they
were listed: it finds new, renamed-in and removed names, but not a file rewritten in place. A folder counts as listed
for good only when it was listed GRANULARITY_S after its time was first seen: file systems keep coarse times, and the
next name may come within the same tick.

What cannot be looked at is unknown, never gone: a folder that cannot be read stays in `unread` until it can or is gone,
and to ask for a file in it raises SourceFailed.
"""

from __future__ import annotations

import itertools
import logging
import os
import stat
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from iot.spooler.naming import shown
from iot.spooler.outbox.lease import Answer, Completeness, Leases, Writer
from iot.spooler.outbox.mounts import FileSystem, file_system
from iot.spooler.state.lock import AlreadyRunning, OutboxClaim
from iot.transfer import Fingerprint, is_gone
from iot.transfer.beneath import DIRECTORY, PASSING, join, open_below, split

__all__ = [
    "BATCH",
    "PRIVATE_PREFIX",
    "Found",
    "Outbox",
    "OutboxTaken",
    "SourceFailed",
    "completeness_of",
]

log = logging.getLogger(__name__)

PRIVATE_PREFIX = b".iot-sent."
"""Names under which files are put out of the producers' way while they are removed."""
BATCH = 500
SORTED = 10_000
"""So many names at a time are put in order: rows that are added, found and dropped in order cost less flash."""
GRANULARITY_S = 3.0
DEPTH_MAX = 100
LOST_AND_FOUND = b"lost+found"
"""Of an outbox that is a whole file system: root's, and no producer's."""
TOLD_MAX = 1000
LOOKED_AT = 100


class SourceFailed(Exception):
    """The outbox cannot be read; what lies in it is not known."""


class OutboxTaken(SourceFailed):
    """Another agent works on it; pid: its process, 0 when that is not known."""

    def __init__(self, words: str, pid: int) -> None:
        super().__init__(words)
        self.pid = pid


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

    path: the folder. wanted: tells of a path below it whether it is to be sent. recursive: look into folders.
    clock: monotonic seconds.
    leftovers: paths of private names met by the last walk; the caller recovers them and clears the list.
    unread: folders below it that could not be read when they were last looked at, with the reason.
    leases, system: who can be known to write there, and the file system; of the device it is on.
    """

    def __init__(
        self,
        path: Path,
        *,
        wanted: Callable[[str], bool],
        clock: Callable[[], float],
        recursive: bool = True,
    ) -> None:
        self.path = path
        self.leftovers: list[bytes] = []
        self.unread: dict[bytes, str] = {}
        self.system = FileSystem()
        self.leases: Leases | None = None
        self._wanted = wanted
        self._clock = clock
        self._recursive = recursive
        self._listed: dict[bytes, Listed] = {}
        self._complete = False
        self._told: set[bytes] = set()
        self._home: tuple[tuple[int, int], Path] | None = None
        self._claimed: OutboxClaim | None = None

    def open(self) -> int:
        """A descriptor of the folder; the caller closes it. Raises: SourceFailed (also when it is not mounted)."""
        try:
            root = os.open(self.path, DIRECTORY)
        except OSError as error:
            raise self._failed(error) from error
        try:
            self._check_device(root)
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
                self.unread.clear()
                yield from self._list(root, b"", 0)
                self._complete = True
            else:
                yield from self._changed(root)
        except OSError as error:
            raise self._failed(error) from error
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
            if not is_gone(error):
                raise self._failed(error, path) from error
            return None
        finally:
            os.close(root)
        return Fingerprint.of(status) if stat.S_ISREG(status.st_mode) else None

    def ask(self, files: Sequence[Found]) -> Iterator[tuple[Found, Answer | None]]:
        """Who has these files open for writing, and which version that was asked of; None: it cannot be looked at.

        Cheapest when they come folder by folder. Raises: SourceFailed.
        """
        root = self.open()
        here, opened = -1, None
        try:
            for found in files:
                folder, name = split(found.path)
                try:
                    if folder != opened:
                        if here >= 0:
                            os.close(here)
                        here, opened = -1, None
                        here, opened = open_below(root, folder), folder
                    assert self.leases is not None
                    answer = self.leases.ask(here, name)
                except OSError as error:
                    yield found, Answer(Writer.UNKNOWN, None) if is_gone(error) else None
                else:
                    yield found, answer
        finally:
            if here >= 0:
                os.close(here)
            os.close(root)

    @property
    def completeness(self) -> Completeness | None:
        """Whether it can be known here that a file is complete; None before the outbox was first opened."""
        return self.leases.completeness if self.leases is not None else None

    def release(self) -> None:
        """Let another agent have it."""
        if self._claimed is not None:
            self._claimed.release()
            self._claimed = None

    def forget(self, path: bytes) -> None:
        """Look into this file's folder again at the next walk."""
        folder = split(path)[0]
        listed = self._listed.get(folder)
        if listed is not None:
            self._listed[folder] = listed._replace(final=False, since_s=self._clock())

    # -- inside

    def _failed(self, error: OSError, below: bytes = b"") -> SourceFailed:
        place = os.path.join(bytes(self.path), below) if below else bytes(self.path)
        return SourceFailed(f"outbox {shown(place)}: {error.strerror}")

    def _check_device(self, root: int) -> None:
        """The mount point behind the folder must stay the same; a new device behind it is a remount."""
        status = os.fstat(root)
        identity = status.st_dev, status.st_ino
        if self._home is not None and identity == self._home[0]:
            return
        mount_point = _mount_point(self.path)
        if self._home is not None:
            if mount_point != self._home[1]:
                raise SourceFailed(f"outbox {shown(str(self.path))}: {self._home[1]} is not mounted any more")
            log.warning("outbox is another folder now path=%s device=%d inode=%d", shown(str(self.path)), *identity)
            self._complete = False
        self._claim(root)
        self.system = file_system(root)
        self.leases = Leases(root)
        self._home = identity, mount_point

    def _claim(self, root: int) -> None:
        self.release()
        try:
            self._claimed = OutboxClaim(root, self.path)
        except AlreadyRunning as error:
            raise OutboxTaken(str(error), error.pid) from None

    def _changed(self, root: int) -> Iterator[list[Found]]:
        for folder in [folder for folder in self.unread if folder not in self._listed]:
            yield from self._enter(root, folder)
        for folder, listed in list(self._listed.items()):
            try:
                status = os.stat(folder or b".", dir_fd=root, follow_symlinks=False)
            except OSError as error:
                self._cannot_read(folder, error)
                continue
            if (status.st_ino, status.st_mtime_ns) == listed[:2] and listed.final and folder not in self.unread:
                continue
            yield from self._enter(root, folder)

    def _enter(self, root: int, folder: bytes) -> Iterator[list[Found]]:
        try:
            here = open_below(root, folder)
        except OSError as error:
            self._cannot_read(folder, error)
            return
        yield from self._list_open(here, folder, folder.count(b"/") + 1)

    def _list_open(self, here: int, folder: bytes, depth: int) -> Iterator[list[Found]]:
        """The files of an open folder, which is closed then."""
        self.unread.pop(folder, None)
        try:
            yield from self._list(here, folder, depth)
        except OSError as error:
            if not folder:
                raise
            self._cannot_read(folder, error)
        finally:
            os.close(here)

    def _cannot_read(self, folder: bytes, error: OSError) -> None:
        """Gone with its files, or out of reach: then what lies in it is not known."""
        self._listed.pop(folder, None)
        if is_gone(error):
            self.unread.pop(folder, None)
            return
        if folder != LOST_AND_FOUND:
            self.unread[folder] = f"folder {shown(folder)}: {error.strerror}"
        self._refuse(folder, f"folder: {error.strerror}")

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
            self._cannot_read(path, error)
            return
        yield from self._list_open(inner, path, depth)

    def _judge(self, entry: os.DirEntry[str], path: bytes, deeper: list[bytes]) -> Found | None:
        if entry.name.startswith(os.fsdecode(PRIVATE_PREFIX)):
            self.leftovers.append(path)
            return None
        if PASSING.fullmatch(os.fsencode(entry.name)) or self.system.is_removed(os.fsencode(entry.name)):
            return None
        if entry.is_dir(follow_symlinks=False):
            if self._recursive:
                deeper.append(path)
            return None
        if not self._wanted(os.fsdecode(path)):
            return None
        try:
            status = entry.stat(follow_symlinks=False)
        except OSError as error:
            if not is_gone(error):
                self.unread[split(path)[0]] = f"{shown(path)}: {error.strerror}"
            return None  # it went while the folder was read, or is not known
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


def completeness_of(path: Path) -> str:
    """What an agent of this user would know in this outbox, in words; told by the files that lie there, if any do."""
    try:
        root = os.open(path, DIRECTORY)
        try:
            leases = Leases(root)
            with os.scandir(root) as entries:
                files = (entry for entry in entries if entry.is_file(follow_symlinks=False))
                for entry in itertools.islice(files, LOOKED_AT):
                    leases.ask(root, os.fsencode(entry.name))
        finally:
            os.close(root)
    except OSError as error:
        return f"not known: {error.strerror}"
    return str(leases.completeness)


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
