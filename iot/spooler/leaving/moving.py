"""Moves a file to another folder, also on another file system, so that a power cut at any step loses nothing.

The promise of `put`: after it and a sync of the target folder, the complete file is there under the requested name;
only then may the original be unlinked, if it still exists. Arrivals does both for many files below one folder.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Callable
from io import FileIO
from typing import BinaryIO

from iot.transfer import is_gone
from iot.transfer.beneath import make_below, open_below, opener, rename_noreplace, split, sync

__all__ = ["CREATE", "READ", "Arrivals", "copy_whole", "put"]

BUFFER_BYTES = 1024 * 1024
GRANULARITY_NS = 2 * 10**9
"""Resolution of times on FAT."""
NAMES_MAX = 100_000
READ = os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW
"""Waits for no writer of a pipe."""
CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL
"""So no link is followed either (open(2))."""


class Arrivals:
    """Files that are moved below one folder, where no other file is ever replaced.

    opened: opens the folder, which then stays open until `sync`. mode: of folders that are made in it. other_name: the
    name that a file gets where others have its own, for the numbers 1, 2 and so on. alive: see `put`.
    """

    def __init__(
        self,
        opened: Callable[[], int],
        *,
        mode: int,
        other_name: Callable[[bytes, int], bytes],
        alive: Callable[[], None] = lambda: None,
    ) -> None:
        self._opened = opened
        self._mode = mode
        self._other_name = other_name
        self._alive = alive
        self._root: int | None = None
        self._touched: set[bytes] = set()

    def root(self) -> int:
        """The folder, open; it is not for the caller to close. Raises: OSError."""
        if self._root is None:
            self._root = self._opened()
        return self._root

    def put(self, folder: int, private: bytes, path: bytes, *, staged: bytes) -> tuple[bytes, bool]:
        """Move a file to `path` below the folder -> the name that it has got there, and as the function `put`.

        Raises: OSError; then the file is where it was.
        """
        below, name = split(path)
        there = make_below(self.root(), below, self._mode)
        try:
            placed = self._placed(folder, private, there, name, staged)
        finally:
            os.close(there)
        self._touched.add(below)
        return placed

    def sync(self) -> None:
        """Make all that has come durable, and close the folder. Raises: OSError."""
        if self._root is None:
            return
        touched, self._touched = self._touched, set()
        root, self._root = self._root, None
        try:
            for path in touched:
                there = open_below(root, path)
                try:
                    sync(there)
                finally:
                    os.close(there)
        finally:
            os.close(root)

    def _placed(self, folder: int, private: bytes, there: int, name: bytes, staged: bytes) -> tuple[bytes, bool]:
        for number in range(NAMES_MAX):
            target = self._other_name(name, number) if number else name
            try:
                return target, put(folder, private, there, target, staged=staged, alive=self._alive)
            except FileExistsError:
                continue
        raise FileExistsError(errno.EEXIST, "no free name beside it", os.fsdecode(name))


def put(
    source_dir: int,
    source: bytes,
    target_dir: int,
    target: bytes,
    *,
    staged: bytes,
    alive: Callable[[], None] = lambda: None,
) -> bool:
    """Move or copy a regular file -> whether the original is still there, to be unlinked after a sync of the target.

    staged: name of a copy until it is complete; what an earlier run left under it is removed. alive: called for each
    piece of a copy. A complete copy left by an interrupted run is recognised and used.

    Raises: FileExistsError when another file has the name; OSError. Then the target folder is as it was.
    """
    try:
        rename_noreplace(source_dir, source, target_dir, target)
        return False
    except OSError as error:
        if error.errno not in (errno.EXDEV, errno.EEXIST):
            raise
        if _is_copy(source_dir, source, target_dir, target):
            return True
        if error.errno == errno.EEXIST:
            raise
    try:
        copy_whole(source_dir, source, target_dir, staged, alive)
        rename_noreplace(target_dir, staged, target_dir, target)
    except OSError:
        with contextlib.suppress(OSError):  # the first error is the one to report
            os.unlink(staged, dir_fd=target_dir)
        raise
    return True


def copy_whole(
    source_dir: int, source: bytes, target_dir: int, target: bytes, alive: Callable[[], None] = lambda: None
) -> None:
    """Copy content, times, permission bits and, as root, the owner; all of it is on the disk when this returns.

    What an earlier run left under the name `target` is removed. Raises: OSError.
    """
    with _reading(source_dir, source) as reader:
        before = os.fstat(reader.fileno())
        if not stat.S_ISREG(before.st_mode):
            raise OSError(errno.EINVAL, "not a regular file", os.fsdecode(source))
        with contextlib.suppress(FileNotFoundError):
            os.unlink(target, dir_fd=target_dir)
        try:
            with open(target, "wb", buffering=0, opener=opener(target_dir, CREATE)) as writer:
                while piece := reader.read(BUFFER_BYTES):
                    _write(writer, piece)
                    alive()
                _copy_attributes(before, writer.fileno())
                os.fsync(writer.fileno())
            after = os.fstat(reader.fileno())
            if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
                raise OSError(errno.EBUSY, "was written to while it was copied", os.fsdecode(source))
        except OSError:
            with contextlib.suppress(OSError):  # a partial or unwanted copy must not remain
                os.unlink(target, dir_fd=target_dir)
            raise


def _reading(folder: int, name: bytes) -> BinaryIO:
    """A file in an open folder. Where a folder has the name, nothing stays open. Raises: OSError."""
    return open(name, "rb", opener=opener(folder, READ))


def _write(writer: FileIO, piece: bytes) -> None:
    rest = memoryview(piece)
    while rest:
        rest = rest[writer.write(rest) :]


def _copy_attributes(status: os.stat_result, target: int) -> None:
    if os.geteuid() == 0:
        with contextlib.suppress(OSError):  # FAT knows no owners
            os.fchown(target, status.st_uid, status.st_gid)
    with contextlib.suppress(OSError):  # FAT knows no modes; 0600 until here
        os.fchmod(target, status.st_mode & 0o777)
    with contextlib.suppress(PermissionError):  # FAT and shares of another user allow writing and nothing else
        os.utime(target, ns=(status.st_atime_ns, status.st_mtime_ns))


def _is_copy(source_dir: int, source: bytes, target_dir: int, target: bytes) -> bool:
    """Whether the target is a regular file with the time and the content of the source."""
    try:
        with _reading(source_dir, source) as one, _reading(target_dir, target) as other:
            mine, theirs = os.fstat(one.fileno()), os.fstat(other.fileno())
            same_kind = stat.S_ISREG(mine.st_mode) and stat.S_ISREG(theirs.st_mode)
            apart_ns = abs(mine.st_mtime_ns - theirs.st_mtime_ns)
            if not same_kind or mine.st_size != theirs.st_size or apart_ns > GRANULARITY_NS:
                return False
            return _same_content(one, other)
    except OSError as error:
        if is_gone(error):
            return False
        raise


def _same_content(one: BinaryIO, other: BinaryIO) -> bool:
    while True:
        mine, theirs = one.read(BUFFER_BYTES), other.read(BUFFER_BYTES)
        if mine != theirs:
            return False
        if not mine:
            return True
