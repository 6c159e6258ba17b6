"""The base folder: checks that the right file system is mounted there, and opens paths that cannot leave it.

Nothing stays open between two calls, so that an idle disk can be unmounted. A path is walked by descriptors, and a
symbolic link on the way is refused: it could lead out of the folder.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator

from iot.folder.mounts import mount_number, mount_point
from iot.transfer.beneath import DIRECTORY, make_below, open_below
from iot.transfer.errors import (
    AccessRefused,
    AlreadyExists,
    LinkLost,
    NameRefused,
    NoSpaceOnServer,
    NotFound,
    PermissionDenied,
    ServerBusy,
    ServerRefused,
    TransferError,
    is_gone,
)
from iot.transfer.terminal import quoted

__all__ = ["Place", "is_mounted", "translated"]

FULL = (errno.ENOSPC, errno.EDQUOT)
GONE = (errno.ENOENT, errno.ENOTDIR)
NOT_OURS = (errno.EACCES, errno.EPERM)
REFUSED = (*NOT_OURS, errno.ELOOP)
BAD_NAME = (errno.ENAMETOOLONG, errno.EINVAL, errno.EILSEQ)
BUSY = (errno.EBUSY, errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ETXTBSY)
LOST = (
    errno.EIO,
    errno.ESTALE,
    errno.ENODEV,
    errno.ENXIO,
    errno.EROFS,
    errno.ENOTCONN,
    errno.ESHUTDOWN,
    errno.ECONNRESET,
    errno.ECONNABORTED,
    errno.ETIMEDOUT,
    errno.EHOSTDOWN,
    errno.EHOSTUNREACH,
    errno.ENETUNREACH,
    getattr(errno, "ENOMEDIUM", errno.EIO),
    getattr(errno, "EREMOTEIO", errno.EIO),
)
"""Errors of the disk or share, not of the file. EROFS too, of a disk that is mounted below the folder."""


class Place:
    """path: the base folder, absolute. marker: a file name that exists only while the right disk is mounted; "": none.
    mounted: the folder must be on a mount of its own, not on the root file system.
    """

    def __init__(self, path: str, *, marker: str = "", mounted: bool = False) -> None:
        self.path = path
        self._marker = marker
        self._mounted = mounted
        self._mount: str | None = None
        self._number: int | None = None

    def check(self) -> None:
        """Raises: LinkLost if it is missing or another disk: an unmounted disk is never taken for an empty folder."""
        os.close(self._open())

    @contextlib.contextmanager
    def folder(self, path: bytes, *, make: bool = False, about: bytes = b"") -> Iterator[int]:
        """A descriptor of a folder below the base; errors inside the block are translated to ours, about the path.

        make: make missing folders.

        Raises: LinkLost, AccessRefused, NotFound, PermissionDenied (a link on the way), NameRefused, AlreadyExists,
            NoSpaceOnServer, ServerRefused.
        """
        base = self._open()
        try:
            with translated(about or path), self._judged(base, path):
                here = make_below(base, path) if make else open_below(base, path)
                try:
                    yield here
                finally:
                    os.close(here)
        finally:
            os.close(base)

    def parent(self, path: bytes, *, make: bool = False) -> contextlib.AbstractContextManager[int]:
        """The folder that contains a file."""
        return self.folder(parts_of(path)[0], make=make, about=path)

    def _open(self) -> int:
        try:
            base = os.open(self.path, DIRECTORY)
        except OSError as error:
            if error.errno in NOT_OURS:
                raise AccessRefused(f"{self.path} {self._not_open(error)}") from error
            if error.errno in REFUSED:
                raise PermissionDenied(f"{self.path}: {error.strerror}") from error
            raise LinkLost(f"{self.path} is not available: {error.strerror}") from error
        try:
            self._check_mount(base)
            if self._marker:
                self._check_marker(base)
        except BaseException:
            os.close(base)
            raise
        return base

    @contextlib.contextmanager
    def _judged(self, base: int, path: bytes) -> Iterator[None]:
        """Whether an error is that of the whole folder, which a human has to mend. Raises: AccessRefused, OSError."""
        try:
            yield
        except OSError as error:
            if error.errno == errno.EROFS and _is_read_only(base):
                raise AccessRefused(
                    f"{self.path} is mounted read-only: mount it for writing; a kernel that met errors on the disk does"
                    " that, too"
                ) from error
            if error.errno in NOT_OURS and not _may_write(base) and _is_made_in(base, path):
                raise AccessRefused(f"{self.path} {self._not_open(error)}") from error
            raise

    def _not_open(self, error: OSError) -> str:
        user = f" for user {os.geteuid()}" if hasattr(os, "geteuid") else ""
        return f"cannot be used: {error.strerror}{user}; give this user the folder, or rights to it"

    def _check_mount(self, base: int) -> None:
        """It must stay on the mount where it was first seen; with `mounted`, that must not be the root file system."""
        number = mount_number(base)
        if number is not None and number == self._number:
            return  # as it was looked at before
        mount = _mount_point(self.path, number)
        if self._mounted and mount == os.sep:
            raise LinkLost(f"{self.path} is not mounted")
        if self._mount is not None and mount != self._mount:
            raise LinkLost(f"{self._mount} is no longer mounted")
        self._mount, self._number = mount, number

    def _check_marker(self, base: int) -> None:
        try:
            os.stat(self._marker, dir_fd=base, follow_symlinks=False)
        except OSError as error:
            raise LinkLost(f"{self.path} has no {self._marker}: this is not the expected disk") from error


def _is_read_only(base: int) -> bool:
    return bool(os.fstatvfs(base).f_flag & os.ST_RDONLY)


def _may_write(base: int) -> bool:
    return os.access(".", os.W_OK | os.X_OK, dir_fd=base, effective_ids=True)


def _is_made_in(base: int, path: bytes) -> bool:
    """Whether a file in this folder is made right in the base, or a missing folder on the way to it is."""
    first = path.strip(b"/").split(b"/")[0]
    try:
        if first not in (b"", b"."):
            os.stat(first, dir_fd=base, follow_symlinks=False)
            return False
    except OSError as error:
        return is_gone(error)
    return True


def parts_of(path: bytes) -> tuple[bytes, bytes]:
    """Split into the folder below the base and the name in it. Raises: NameRefused."""
    parts = [part for part in path.split(b"/") if part not in (b"", b".")]
    if b".." in parts:
        raise NameRefused(f'{quoted(path)} leads out of the folder: ".." is not allowed')
    return b"/".join(parts[:-1]), parts[-1] if parts else b""


def is_mounted(path: str) -> bool:
    """Whether it lies on another mount than the root folder. Raises: LinkLost."""
    try:
        base = os.open(path, DIRECTORY)
    except OSError as error:
        raise LinkLost(f"{path}: {error.strerror}") from error
    try:
        return _mount_point(path, mount_number(base)) != os.sep
    finally:
        os.close(base)


def _mount_point(path: str, number: int | None) -> str:
    """Raises: LinkLost."""
    try:
        return mount_point(path, number)
    except OSError as error:
        raise LinkLost(f"{path}: {error.strerror}") from error


@contextlib.contextmanager
def translated(path: bytes) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise _error(error, path) from error


def _error(error: OSError, path: bytes) -> TransferError:
    text = f"{quoted(path)}: {error.strerror or error}"
    kinds: tuple[tuple[tuple[int, ...], type[TransferError]], ...] = (
        (FULL, NoSpaceOnServer),
        (GONE, NotFound),
        (REFUSED, PermissionDenied),
        (BAD_NAME, NameRefused),
        (BUSY, ServerBusy),
        (LOST, LinkLost),
        ((errno.EEXIST,), AlreadyExists),
    )
    return next((kind for numbers, kind in kinds if error.errno in numbers), ServerRefused)(text)
