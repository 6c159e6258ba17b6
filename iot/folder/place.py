"""The base folder: whether what should be mounted there is mounted, and ways below it that lead nowhere else.

Nothing is kept open between two calls, so that a disk can be unmounted while nothing is sent. A path is walked by
descriptors, and a symbolic link on the way is refused: it could lead out of the folder.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator

from iot.transfer.beneath import DIRECTORY, make_below, open_below
from iot.transfer.errors import (
    AlreadyExists,
    LinkLost,
    NameRefused,
    NoSpaceOnServer,
    NotFound,
    PermissionDenied,
    ServerBusy,
    ServerRefused,
    TransferError,
)
from iot.transfer.terminal import quoted

__all__ = ["Place", "is_mounted", "translated"]

FULL = (errno.ENOSPC, errno.EDQUOT)
GONE = (errno.ENOENT, errno.ENOTDIR)
REFUSED = (errno.EACCES, errno.EPERM, errno.ELOOP)
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
"""The disk or share is in trouble, not the file: EROFS too, to which Linux turns a file system with errors."""


class Place:
    """path: the base folder, absolute. marker: a name that is in it while the right disk is mounted; "" for none.
    mounted: it must lie on a mounted file system, not on that of the root folder.
    """

    def __init__(self, path: str, *, marker: str = "", mounted: bool = False) -> None:
        self.path = path
        self._marker = marker
        self._mounted = mounted
        self._mount: str | None = None

    def check(self) -> None:
        """Raises: LinkLost when it is not there, or something else is: an unmounted disk is never an empty folder."""
        os.close(self._open())

    @contextlib.contextmanager
    def folder(self, path: bytes, *, make: bool = False, about: bytes = b"") -> Iterator[int]:
        """A descriptor of a folder below the base; what goes wrong in it, as our errors about a path.

        make: folders that are missing.

        Raises: LinkLost, NotFound, PermissionDenied (a link on the way), NameRefused ...
        """
        base = self._open()
        try:
            with translated(about or path):
                here = make_below(base, path) if make else open_below(base, path)
                try:
                    yield here
                finally:
                    os.close(here)
        finally:
            os.close(base)

    def parent(self, path: bytes, *, make: bool = False) -> contextlib.AbstractContextManager[int]:
        """The folder that a file lies in."""
        return self.folder(parts_of(path)[0], make=make, about=path)

    def _open(self) -> int:
        try:
            base = os.open(self.path, DIRECTORY)
        except OSError as error:
            if error.errno in REFUSED:
                raise PermissionDenied(f"{self.path}: {error.strerror}") from error
            raise LinkLost(f"{self.path} is not there: {error.strerror}") from error
        try:
            self._check_mount()
            if self._marker:
                self._check_marker(base)
        except BaseException:
            os.close(base)
            raise
        return base

    def _check_mount(self) -> None:
        """It stays on the mount that it was first seen on; with `mounted`, that is not the root folder's."""
        mount = _mount_point(self.path)
        if self._mounted and mount == os.sep:
            raise LinkLost(f"{self.path} is not mounted")
        if self._mount is not None and mount != self._mount:
            raise LinkLost(f"{self._mount} is not mounted any more")
        self._mount = mount

    def _check_marker(self, base: int) -> None:
        try:
            os.stat(self._marker, dir_fd=base, follow_symlinks=False)
        except OSError as error:
            raise LinkLost(f"{self.path} has no {self._marker}: it is not the disk that it should be") from error


def parts_of(path: bytes) -> tuple[bytes, bytes]:
    """The folder below the base, and the name in it. Raises: NameRefused."""
    parts = [part for part in path.split(b"/") if part not in (b"", b".")]
    if b".." in parts:
        raise NameRefused(f'{quoted(path)} leads out of the folder: ".." is not taken')
    return b"/".join(parts[:-1]), parts[-1] if parts else b""


def is_mounted(path: str) -> bool:
    """Whether it lies on another file system than the root folder. Raises: LinkLost."""
    return _mount_point(path) != os.sep


def _mount_point(path: str) -> str:
    """The mount that a folder lies on."""
    try:
        here = os.path.realpath(path)
        while not os.path.ismount(here):
            here = os.path.dirname(here)
    except OSError as error:
        raise LinkLost(f"{path}: {error.strerror}") from error
    return here


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
