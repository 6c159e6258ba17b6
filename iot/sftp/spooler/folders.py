"""Steps on files that cannot be led astray: by directory descriptor, never through a symlink, never over another file.

Names and paths are bytes. A path below a folder has its parts separated by "/"; b"" is the folder itself.
"""

from __future__ import annotations

import ctypes
import errno
import functools
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager

__all__ = ["directory", "free_name", "join", "make_below", "open_below", "rename_noreplace", "split"]

DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
RENAME_NOREPLACE = 1
NAME_MAX = 255
NOT_OFFERED = (errno.ENOSYS, errno.EINVAL, errno.EOPNOTSUPP, errno.EPERM)


def split(path: bytes) -> tuple[bytes, bytes]:
    """The folder part (b"" at the top) and the name."""
    folder, _, name = path.rpartition(b"/")
    return folder, name


def join(folder: bytes, name: bytes) -> bytes:
    return folder + b"/" + name if folder else name


def open_below(root: int, path: bytes) -> int:
    """A descriptor of the folder `path` below the open folder `root`. Raises: OSError (a symlink: ENOTDIR or ELOOP)."""
    here = os.dup(root)
    try:
        for part in path.split(b"/") if path else ():
            deeper = os.open(part, DIRECTORY | os.O_NOFOLLOW, dir_fd=here)
            os.close(here)
            here = deeper
    except BaseException:
        os.close(here)
        raise
    return here


def make_below(root: int, path: bytes) -> int:
    """Like open_below, and makes what is missing; each new folder's name is durable when this returns."""
    here = os.dup(root)
    try:
        for part in path.split(b"/") if path else ():
            try:
                os.mkdir(part, 0o755, dir_fd=here)
                os.fsync(here)
            except FileExistsError:
                pass  # an earlier file of the same tree made it
            deeper = os.open(part, DIRECTORY | os.O_NOFOLLOW, dir_fd=here)
            os.close(here)
            here = deeper
    except BaseException:
        os.close(here)
        raise
    return here


@contextmanager
def directory(path: str | bytes, below: bytes = b"") -> Iterator[int]:
    """The folder `below` the folder `path`, open for the time of a with-block. Raises: OSError."""
    root = os.open(path, DIRECTORY)
    try:
        here = open_below(root, below)
    finally:
        os.close(root)
    try:
        yield here
    finally:
        os.close(here)


def rename_noreplace(source_dir: int, source: bytes, target_dir: int, target: bytes) -> None:
    """Rename without replacing: renameat2(2) with RENAME_NOREPLACE, else link and unlink.

    Raises: FileExistsError when the target is there; other OSError as rename does.
    """
    call = _renameat2()
    if call is not None:
        if call(source_dir, source, target_dir, target, RENAME_NOREPLACE) == 0:
            return
        number = ctypes.get_errno()
        if number not in NOT_OFFERED:
            raise OSError(number, os.strerror(number), os.fsdecode(target))
    _link_and_unlink(source_dir, source, target_dir, target)


def _link_and_unlink(source_dir: int, source: bytes, target_dir: int, target: bytes) -> None:
    try:
        os.link(source, target, src_dir_fd=source_dir, dst_dir_fd=target_dir, follow_symlinks=False)
    except OSError as error:
        if error.errno not in NOT_OFFERED:
            raise
        _look_and_rename(source_dir, source, target_dir, target)  # FAT has no links and no flag
        return
    os.unlink(source, dir_fd=source_dir)


def _look_and_rename(source_dir: int, source: bytes, target_dir: int, target: bytes) -> None:
    try:
        os.stat(target, dir_fd=target_dir, follow_symlinks=False)
    except FileNotFoundError:
        os.rename(source, target, src_dir_fd=source_dir, dst_dir_fd=target_dir)
        return
    raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), os.fsdecode(target))


@functools.cache
def _renameat2() -> Callable[[int, bytes, int, bytes, int], int] | None:
    try:
        call = ctypes.CDLL(None, use_errno=True).renameat2
    except (OSError, AttributeError):
        return None  # a C library without it: the fallback does
    call.argtypes = (ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_char_p, ctypes.c_uint)
    call.restype = ctypes.c_int

    def renameat2(source_dir: int, source: bytes, target_dir: int, target: bytes, flags: int) -> int:
        return int(call(source_dir, source, target_dir, target, flags))

    return renameat2


def free_name(name: bytes, number: int, ending: bytes = b"") -> bytes:
    """`name` with a number (0: none) and an ending, cut so that a file can have it."""
    tail = (b".%d" % number if number else b"") + ending
    return name[: NAME_MAX - len(tail)] + tail
