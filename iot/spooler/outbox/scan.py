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
import operator
import os
import stat
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from iot.spooler.naming import shown
from iot.spooler.outbox.place import Found, Place, SourceFailed
from iot.spooler.outbox.refused import DEPTH_MAX, Refused, kind_of_file
from iot.spooler.outbox.watches import Watches, is_private
from iot.transfer import Fingerprint, is_gone
from iot.transfer.beneath import DIRECTORY, PASSING, PASSING_PREFIX, join, open_below, split

__all__ = ["ARRIVING", "BATCH", "Outbox"]

ARRIVING = b".iot-inbox"
"""A folder in which files of an inbox arrive: its agent may fetch them into our outbox."""
BATCH = 500
SORTED = 10_000
"""Names sorted at a time: rows that are added, found and dropped in order cause fewer writes to flash."""
GRANULARITY_S = 3.0
NAME = operator.attrgetter("name")
LOST_AND_FOUND = b"lost+found"
"""Found in an outbox that is a whole file system: it belongs to root, not to a producer."""


class Listed(NamedTuple):
    """A listed folder: identity, time, when that time was first seen, whether that was long enough ago."""

    inode: int
    mtime_ns: int
    since_s: float
    final: bool


class Outbox(Place):
    """One outbox folder and what is in it.

    path: the folder. wanted: whether to send a path in it. recursive: descend into folders. clock: monotonic seconds.
    excluded: whether a folder too deep to be searched is excluded anyway. unwanted: called with the path of
    each file that is not sent. refused: what lies there and is never sent.
    leftovers: private names found by the last walk; the caller recovers them and clears the list.
    unread: folders that could not be read when last tried, with the reason.
    again: files to look at again, which the caller does after a while and clears. doubted: a walk should be soon, which
    the caller clears, too. watches: of all its folders.
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
        super().__init__(path)
        self.watches = Watches(str(path))
        self.again: dict[bytes, bool] = {}
        self.doubted = False
        self.refused = Refused(path)
        self.leftovers: list[bytes] = []
        self.unread: dict[bytes, str] = {}
        self._wanted = wanted
        self._excluded = excluded
        self._unwanted = unwanted
        self._clock = clock
        self._recursive = recursive
        self._listed: dict[bytes, Listed] = {}
        self._complete = False

    def walk(self, *, whole: bool) -> Iterator[list[Found]]:
        """The regular files to send, in batches (possibly empty ones, so that the caller gets its turn).

        Raises: SourceFailed.
        """
        root = self.open()
        try:
            if self.moved:
                self.moved = self._complete = False
                self.watches.close()
            if whole or not self._complete:
                yield from self._whole(root)
            else:
                yield from self._changed(root)
        except OSError as error:
            raise self._failed(error) from error
        finally:
            os.close(root)

    def enter(self, folders: Iterable[bytes]) -> Iterator[list[Found]]:
        """The files in these new folders, as for `walk`. Raises: SourceFailed."""
        root = self.open()
        try:
            for folder in folders:
                is_meant = (self._recursive or not folder) and ARRIVING not in folder.split(b"/")
                if is_meant and not self._is_too_deep(folder):
                    yield from self._enter(root, folder)
        finally:
            os.close(root)

    def leave(self, folder: bytes) -> None:
        """A folder is gone from here, and all that was in it."""
        for path in [path for path in self._listed if path == folder or path.startswith(folder + b"/")]:
            del self._listed[path]
            self.refused.listed_anew(path)
            self.unread.pop(path, None)
        self.watches.forget_below(folder)

    def find(self, paths: Iterable[bytes]) -> list[Found]:
        """Those of these names that are files to send; what cannot be looked at is left to the next walk."""
        found = [self._find(path) for path in sorted(paths) if self._is_meant(path)]
        return [each for each in found if each is not None]

    def forget(self, path: bytes, *, closed: bool = False) -> None:
        """Look at this file again, and list its folder again in the next walk. closed: its writer is done with it."""
        self.again[path] = closed or self.again.get(path, False)
        self.relist(split(path)[0])

    def relist(self, folder: bytes) -> None:
        """List it again in the next walk."""
        listed = self._listed.get(folder)
        if listed is not None:
            self._listed[folder] = listed._replace(final=False, since_s=self._clock())

    def doubt(self, folder: bytes) -> None:
        """What is known of it may be wrong: list it again in the next walk, which should be soon."""
        self.relist(folder)
        self.doubted = True

    def removed(self, path: bytes) -> bool:
        """A name is reported to be gone -> whether that is so."""
        folder = split(path)[0]
        if folder in self.refused:
            self.doubt(folder)
        try:
            return self._status(path) is None
        except SourceFailed:
            return False  # not known

    def release(self) -> None:
        super().release()
        self.watches.close()

    # -- inside

    def _whole(self, root: int) -> Iterator[list[Found]]:
        self._complete = False
        self._listed.clear()
        self.unread.clear()
        self.watches.begin()
        yield from self._list(root, b"")
        self._complete = True
        self.refused.forget_all_but(self._listed)
        self.watches.forget_all_but(self._listed)

    def _find(self, path: bytes) -> Found | None:
        try:
            status = self._status(path)
        except SourceFailed:
            self.doubt(split(path)[0])
            return None
        if status is None:
            return None
        if not stat.S_ISREG(status.st_mode):
            self.doubt(split(path)[0])  # it is refused, and counted when its folder is listed
            return None
        return Found(path, Fingerprint.of(status))

    def _is_meant(self, path: bytes) -> bool:
        folder, name = split(path)
        if is_private(name) or self._is_nothing(name) or (folder and not self._recursive):
            return False
        if ARRIVING in folder.split(b"/"):
            return False
        if not self._wanted(os.fsdecode(path)):
            self._unwanted(path)
            return False
        return True

    def _is_ours(self, name: bytes, path: bytes) -> bool:
        """Whether this is no file of a producer; those that were to be removed are noted."""
        if is_private(name):
            self.leftovers.append(path)
            return True
        return self._is_nothing(name)

    def _is_nothing(self, name: bytes) -> bool:
        """An agent's own, or the remainder of a removed file."""
        return (
            name == ARRIVING
            or (name.startswith(PASSING_PREFIX) and bool(PASSING.fullmatch(name)))
            or self.system.is_removed(name)
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
        yield from self._list_open(here, folder)

    def _list_open(self, here: int, folder: bytes) -> Iterator[list[Found]]:
        """The files of an open folder, which is closed afterwards."""
        self.unread.pop(folder, None)
        try:
            yield from self._list(here, folder)
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

    def _list(self, here: int, folder: bytes) -> Iterator[list[Found]]:
        """The files of the open folder `here`, then those of its subfolders that are not listed yet."""
        self.watches.watch(here, folder)  # before it is listed: what comes later is reported
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
            yield from self._descend(here, path)

    def _descend(self, here: int, path: bytes) -> Iterator[list[Found]]:
        if path in self._listed:
            return  # a quick walk examines it anyway
        if self._is_too_deep(path):
            return
        try:
            inner = os.open(split(path)[1], DIRECTORY | os.O_NOFOLLOW, dir_fd=here)
        except OSError as error:
            self._cannot_read(path, error)
            return
        yield from self._list_open(inner, path)

    def _is_too_deep(self, path: bytes) -> bool:
        if path.count(b"/") < DEPTH_MAX:
            return False
        if not self._excluded(os.fsdecode(path)):
            self.refused.add(split(path)[0], path, f"deeper than {DEPTH_MAX} folders")
        return True

    def _judge(self, entry: os.DirEntry[str], folder: bytes, deeper: list[bytes]) -> Found | None:
        name = os.fsencode(entry.name)
        path = join(folder, name)
        if name.startswith(b".") and self._is_ours(name, path):
            return None
        if entry.is_dir(follow_symlinks=False):
            if self._recursive:
                deeper.append(path)
            return None
        if not self._wanted(os.fsdecode(path)):
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


def _by_name(entries: Iterator[os.DirEntry[str]]) -> Iterator[os.DirEntry[str]]:
    while some := sorted(itertools.islice(entries, SORTED), key=NAME, reverse=True):
        while some:
            yield some.pop()  # popped, so that each entry's cached stat is freed at once
