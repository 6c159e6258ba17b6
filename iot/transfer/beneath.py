"""File operations that cannot be redirected: relative to a directory descriptor, never through a symlink, and never
replacing another file.

Names and paths are bytes. A path below a folder is separated by "/"; b"" is the folder itself.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import functools
import os
import re
import secrets
import stat
from collections.abc import Callable

__all__ = [
    "DIRECTORY",
    "PASSING",
    "PASSING_PREFIX",
    "check_unlink_allowed",
    "free_name",
    "join",
    "make_below",
    "open_below",
    "opener",
    "rename_noreplace",
    "split",
    "sync",
]

PASSING_PREFIX = b".iot-back."
"""Prefix of files that we keep in a folder for a moment: a probe, a file on its way back from quarantine. A crash may
leave one behind; it must never be sent."""
PASSING = re.compile(re.escape(PASSING_PREFIX) + rb"(probe\.)?[0-9a-f]{16}(\.link)?")
DIRECTORY = os.O_RDONLY | os.O_DIRECTORY
RENAME_NOREPLACE = 1
NAME_MAX = 255
NOT_OFFERED = (errno.ENOSYS, errno.EINVAL, errno.EOPNOTSUPP)
"""The kernel or the file system does not support the call or its flag. A refusal (EPERM, EACCES) is not among these:
the fallback would be refused as well, perhaps half-way."""


def opener(folder: int, flags: int, mode: int = 0o600) -> Callable[[str | bytes, int], int]:
    """For `open`, in an open folder. What is opened so belongs to `open` at once: it stays open under no error, as it
    would if `open` were given a descriptor (a folder has the name, memory is short)."""
    return lambda name, _: os.open(name, flags, mode, dir_fd=folder)


def split(path: bytes) -> tuple[bytes, bytes]:
    """The folder (b"" at the top) and the name."""
    folder, _, name = path.rpartition(b"/")
    return folder, name


def join(folder: bytes, name: bytes) -> bytes:
    return folder + b"/" + name if folder else name


def open_below(root: int, path: bytes) -> int:
    """Open the folder `path` below the folder `root` -> descriptor. Raises: OSError (ENOTDIR, ELOOP: a symlink)."""
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


def make_below(root: int, path: bytes, mode: int = 0o755) -> int:
    """Like open_below, but makes missing folders; the name of each new folder is durable on return."""
    here = os.dup(root)
    try:
        for part in path.split(b"/") if path else ():
            try:
                os.mkdir(part, mode, dir_fd=here)
                sync(here)
            except FileExistsError:
                pass  # made for an earlier file of the same tree
            deeper = os.open(part, DIRECTORY | os.O_NOFOLLOW, dir_fd=here)
            os.close(here)
            here = deeper
    except BaseException:
        os.close(here)
        raise
    return here


def sync(file: int) -> bool:
    """fsync -> whether the file system supports it: some network file systems do not for folders.

    Raises: OSError if it failed.
    """
    try:
        os.fsync(file)
    except OSError as error:
        if error.errno in NOT_OFFERED:
            return False
        raise
    return True


def rename_noreplace(source_dir: int, source: bytes, target_dir: int, target: bytes) -> None:
    """Rename without replacing: renameat2(2) with RENAME_NOREPLACE, or link and unlink where that is not available.

    On an error the file has its old name and no other.

    Raises: FileExistsError if the target exists; otherwise OSError like rename(2).
    """
    call = _renameat2()
    if call is not None:
        if call(source_dir, source, target_dir, target, RENAME_NOREPLACE) == 0:
            return
        number = ctypes.get_errno()
        if number not in NOT_OFFERED:
            raise OSError(number, os.strerror(number), os.fsdecode(target))
    if _links_exist(target_dir):
        _link_and_unlink(source_dir, source, target_dir, target)
    else:
        _look_and_rename(source_dir, source, target_dir, target)


def _links_exist(folder: int) -> bool:
    """Whether the file system has hard links. FAT answers link(2) with EPERM, but a refusal looks the same: so try with
    a file of our own, which nothing else can refuse."""
    probe = PASSING_PREFIX + b"probe." + secrets.token_hex(8).encode()
    os.close(os.open(probe, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600, dir_fd=folder))
    try:
        os.link(probe, probe + b".link", src_dir_fd=folder, dst_dir_fd=folder, follow_symlinks=False)
        os.unlink(probe + b".link", dir_fd=folder)
    except OSError as error:
        if error.errno in (errno.EPERM, *NOT_OFFERED):
            return False
        raise
    finally:
        os.unlink(probe, dir_fd=folder)
    return True


def _link_and_unlink(source_dir: int, source: bytes, target_dir: int, target: bytes) -> None:
    check_unlink_allowed(source_dir, source)  # otherwise neither name could be removed again
    os.link(source, target, src_dir_fd=source_dir, dst_dir_fd=target_dir, follow_symlinks=False)
    try:
        os.unlink(source, dir_fd=source_dir)
    except OSError:
        with contextlib.suppress(OSError):  # the first error is the one to report
            os.unlink(target, dir_fd=target_dir)
        raise


def check_unlink_allowed(folder: int, name: bytes) -> None:
    """In a sticky folder, only the owner of the file or folder and root may remove a name (unlink(2)).

    Raises: PermissionError; also for a folder in which nothing can be removed at all.
    """
    if _access_is_answered() and not os.access(b".", os.W_OK | os.X_OK, dir_fd=folder, effective_ids=True):
        raise PermissionError(errno.EACCES, "nothing can be removed from this folder", os.fsdecode(name))
    status = os.fstat(folder)
    owners = (0, status.st_uid, os.stat(name, dir_fd=folder, follow_symlinks=False).st_uid)
    if status.st_mode & stat.S_ISVTX and os.geteuid() not in owners:
        raise PermissionError(errno.EPERM, "sticky folder, and the file is another user's", os.fsdecode(name))


@functools.cache
def _access_is_answered() -> bool:
    """Old container runtimes refuse the system call itself, and with it everything."""
    return os.access(b"/", os.X_OK, effective_ids=True)


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
        return None  # the C library lacks it; use the fallback
    call.argtypes = (ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_char_p, ctypes.c_uint)
    call.restype = ctypes.c_int

    def renameat2(source_dir: int, source: bytes, target_dir: int, target: bytes, flags: int) -> int:
        return int(call(source_dir, source, target_dir, target, flags))

    return renameat2


def free_name(name: bytes, number: int, ending: bytes = b"") -> bytes:
    """`name` with a number (0: none) and a suffix, truncated to a valid length."""
    tail = (b".%d" % number if number else b"") + ending
    return name[: NAME_MAX - len(tail)] + tail
