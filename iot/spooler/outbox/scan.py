"""Scans an outbox. It only reads, and it follows no symlink on the way to any file.

A full walk examines every file. A quick walk lists only folders whose modification time has changed since the last
listing: it finds new, renamed and removed names, but not a file rewritten in place. File systems keep coarse times, so
another name may appear within the same tick: a listing is final only if it was made GRANULARITY_S after the folder's
time was first seen.

What cannot be read is unknown, never gone: an unreadable folder stays in `unread` until it can be read or is gone, and
looking up a file in it raises SourceFailed.
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
from iot.spooler.outbox.refused import DEPTH_MAX, Refused, kind_of_file
from iot.spooler.state.lock import AlreadyRunning, OutboxClaim
from iot.transfer import Fingerprint, is_gone
from iot.transfer.beneath import DIRECTORY, PASSING, PASSING_PREFIX, join, open_below, split

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
"""Prefix of the private names under which files are kept away from producers while they are removed."""
BATCH = 500
SORTED = 10_000
"""Names sorted at a time: rows that are added, found and dropped in order cause fewer writes to flash."""
GRANULARITY_S = 3.0
LOST_AND_FOUND = b"lost+found"
"""Found in an outbox that is a whole file system: it belongs to root, not to a producer."""
LOOKED_AT = 100


class SourceFailed(Exception):
    """The outbox cannot be read, so its content is unknown."""


class OutboxTaken(SourceFailed):
    """Another agent has claimed it; pid: its process, 0 when unknown."""

    def __init__(self, words: str, pid: int) -> None:
        super().__init__(words)
        self.pid = pid


class Found(NamedTuple):
    path: bytes
    fingerprint: Fingerprint


class Listed(NamedTuple):
    """A listed folder: identity, time, when that time was first seen, whether that was long enough ago."""

    inode: int
    mtime_ns: int
    since_s: float
    final: bool


class Outbox:
    """One outbox folder.

    path: the folder. wanted: whether to send a path in it. recursive: descend into folders. clock: monotonic seconds.
    excluded: whether a folder too deep to be searched is excluded anyway. unwanted: called with the path of
    each file that is not sent. refused: what lies there and is never sent.
    leftovers: private names found by the last walk; the caller recovers them and clears the list.
    unread: folders that could not be read when last tried, with the reason.
    leases, system: leases and file system of the device that the outbox is on.
    """

    def __init__(
        self,
        path: Path,
        *,
        wanted: Callable[[str], bool],
        clock: Callable[[], float],
        recursive: bool = True,
        excluded: Callable[[str], bool] = lambda _: False,
        unwanted: Callable[[bytes], None] = lambda _: None,
    ) -> None:
        self.path = path
        self.refused = Refused(path)
        self.leftovers: list[bytes] = []
        self.unread: dict[bytes, str] = {}
        self.system = FileSystem()
        self.leases: Leases | None = None
        self._wanted = wanted
        self._excluded = excluded
        self._unwanted = unwanted
        self._clock = clock
        self._recursive = recursive
        self._listed: dict[bytes, Listed] = {}
        self._complete = False
        self._home: tuple[tuple[int, int], Path] | None = None
        self._claimed: OutboxClaim | None = None

    def open(self) -> int:
        """A descriptor of the folder, for the caller to close. Raises: SourceFailed (also when it is not mounted)."""
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
        """The regular files to send, in batches (possibly empty ones, so that the caller gets its turn).

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
                self.refused.forget_all_but(self._listed)
            else:
                yield from self._changed(root)
        except OSError as error:
            raise self._failed(error) from error
        finally:
            os.close(root)

    def look(self, path: bytes) -> Fingerprint | None:
        """The present version of a file; None if there is no such regular file. Raises: SourceFailed."""
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
        """Whether each of these files is open for writing, and the version examined; None: it cannot be examined.

        Cheapest when the files are sorted by folder. Raises: SourceFailed.
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
        """Whether the completeness of files is known here or guessed; None before the outbox was first opened."""
        return self.leases.completeness if self.leases is not None else None

    def release(self) -> None:
        """Release the claim, so that another agent can have the outbox."""
        if self._claimed is not None:
            self._claimed.release()
            self._claimed = None

    def forget(self, path: bytes) -> None:
        """List this file's folder again in the next walk."""
        folder = split(path)[0]
        listed = self._listed.get(folder)
        if listed is not None:
            self._listed[folder] = listed._replace(final=False, since_s=self._clock())

    # -- inside

    def _failed(self, error: OSError, below: bytes = b"") -> SourceFailed:
        place = os.path.join(bytes(self.path), below) if below else bytes(self.path)
        return SourceFailed(f"outbox {shown(place)}: {error.strerror}")

    def _check_device(self, root: int) -> None:
        """The mount point of the folder must stay the same; a new device there means a remount."""
        status = os.fstat(root)
        identity = status.st_dev, status.st_ino
        if self._home is not None and identity == self._home[0]:
            return
        mount_point = _mount_point(self.path)
        if self._home is not None:
            if mount_point != self._home[1]:
                self.release()  # so that the old file system can be unmounted
                raise SourceFailed(f"outbox {shown(str(self.path))}: {self._home[1]} is no longer mounted")
            log.warning("outbox is now another folder path=%s device=%d inode=%d", shown(str(self.path)), *identity)
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
        if not self._claimed.counts_everywhere:
            log.warning(
                "folder cannot be locked: an agent in another container would not be seen path=%s",
                shown(str(self.path)),
            )

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
        """The files of an open folder, which is closed afterwards."""
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
        """Gone with its files, or unreadable: then its content is unknown."""
        self._listed.pop(folder, None)
        if is_gone(error):
            self.unread.pop(folder, None)
            self.refused.listed_anew(folder)
            return
        if folder != LOST_AND_FOUND:
            self.unread[folder] = f"folder {shown(folder)}: {error.strerror}"
        self.refused.tell(folder, f"folder: {error.strerror}")

    def _list(self, here: int, folder: bytes, depth: int) -> Iterator[list[Found]]:
        """The files of the open folder `here`, then those of its subfolders that are not listed yet."""
        self._mark(here, folder)
        self.refused.listed_anew(folder)
        batch: list[Found] = []
        deeper: list[bytes] = []
        with os.scandir(here) as entries:
            for entry in _by_name(entries):
                found = self._judge(entry, folder, deeper)
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
            return  # a quick walk examines it anyway
        if depth > DEPTH_MAX:
            if not self._excluded(os.fsdecode(path)):
                self.refused.add(split(path)[0], path, f"deeper than {DEPTH_MAX} folders")
            return
        try:
            inner = os.open(split(path)[1], DIRECTORY | os.O_NOFOLLOW, dir_fd=here)
        except OSError as error:
            self._cannot_read(path, error)
            return
        yield from self._list_open(inner, path, depth)

    def _judge(self, entry: os.DirEntry[str], folder: bytes, deeper: list[bytes]) -> Found | None:
        name = os.fsencode(entry.name)
        path = join(folder, name)
        if name.startswith(PRIVATE_PREFIX):
            self.leftovers.append(path)
            return None
        if (name.startswith(PASSING_PREFIX) and PASSING.fullmatch(name)) or self.system.is_removed(name):
            return None
        if entry.is_dir(follow_symlinks=False):
            if self._recursive:
                deeper.append(path)
            return None
        if not self._wanted(os.fsdecode(path) if folder else entry.name):
            self._unwanted(path)
            return None
        try:
            status = entry.stat(follow_symlinks=False)
        except OSError as error:
            if not is_gone(error):
                self.unread[split(path)[0]] = f"{shown(path)}: {error.strerror}"
            return None  # it vanished while the folder was read, or is unknown
        if not stat.S_ISREG(status.st_mode):
            self.refused.add(split(path)[0], path, kind_of_file(status.st_mode))
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


def completeness_of(path: Path) -> str:
    """What an agent of this user could know in this outbox, in words, judged by the files in it if there are any."""
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
        return f"unknown: {error.strerror}"
    return str(leases.completeness)


def _by_name(entries: Iterator[os.DirEntry[str]]) -> Iterator[os.DirEntry[str]]:
    while some := sorted(itertools.islice(entries, SORTED), key=lambda entry: entry.name, reverse=True):
        while some:
            yield some.pop()  # popped, so that each entry's cached stat is freed at once


def _mount_point(path: Path) -> Path:
    """The topmost folder above `path` that is on the same device."""
    here = path.resolve()
    device = here.stat().st_dev
    while here != here.parent and here.parent.stat().st_dev == device:
        here = here.parent
    return here
