"""Opens folders that belong to the agent, only through folders that nobody else can replace.

A path is walked from "/" one component at a time, by descriptor. Every folder on the way must belong to this user or to
root and must not be writable by others (the sticky bit suffices, as in /tmp); every symlink must have such an owner,
too. So whatever a producer has planted is refused, never followed. For the last folder the sticky bit does not suffice.
"""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

from iot.spooler.naming import shown
from iot.transfer.beneath import DIRECTORY

__all__ = ["FOLDER_MODE", "UntrustedFolder", "open_trusted"]

FOLDER_MODE = 0o750
LINKS_MAX = 40


class UntrustedFolder(PermissionError):
    """Somebody else could replace this folder or its content."""

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(errno.EPERM, f"{path}: {reason}")


def open_trusted(path: Path, *, make: bool = False) -> int:
    """A descriptor of the folder `path`, for the caller to close. make: create what is missing, with FOLDER_MODE.

    Raises: UntrustedFolder; OSError as open does.
    """
    here, seen = os.open("/", DIRECTORY), "/"
    rest = _names(str(path))
    links = 0
    try:
        while rest:
            _check(here, seen, last=False)
            name = rest.pop(0)
            link = _link_in(here, name, os.path.join(seen, name))
            if link is None:
                here, seen = _step(here, name, make=make), os.path.join(seen, name)
                continue
            links += 1
            if links > LINKS_MAX:
                raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), str(path))
            rest = _names(link) + rest
            if link.startswith("/"):
                here, seen = _step(here, "/", make=make), "/"
        _check(here, seen, last=True)
    except BaseException:
        os.close(here)
        raise
    return here


def _names(path: str) -> list[str]:
    return [name for name in path.split("/") if name not in ("", ".")]


def _step(here: int, name: str, *, make: bool) -> int:
    """Open the folder `name` in `here`, and close `here`."""
    try:
        deeper = os.open(name, DIRECTORY | os.O_NOFOLLOW, dir_fd=here)
    except FileNotFoundError:
        if not make:
            raise
        os.mkdir(name, FOLDER_MODE, dir_fd=here)
        os.fsync(here)
        deeper = os.open(name, DIRECTORY | os.O_NOFOLLOW, dir_fd=here)
    os.close(here)
    return deeper


def _link_in(here: int, name: str, shown_path: str) -> str | None:
    """The target of the symlink `name`; None if it is not a symlink, or does not exist."""
    try:
        status = os.stat(name, dir_fd=here, follow_symlinks=False)
    except FileNotFoundError:
        return None
    if not stat.S_ISLNK(status.st_mode):
        return None
    if status.st_uid not in (0, os.geteuid()):
        raise UntrustedFolder(shown(shown_path), f"is a symlink of user {status.st_uid}; remove it")
    return os.readlink(name, dir_fd=here)


def _check(folder: int, path: str, *, last: bool) -> None:
    status = os.fstat(folder)
    if status.st_uid not in (0, os.geteuid()):
        raise UntrustedFolder(
            shown(path), f"belongs to user {status.st_uid}; it must belong to user {os.geteuid()} or root"
        )
    if status.st_mode & stat.S_ISVTX and not last:
        return
    if status.st_mode & stat.S_IWOTH:
        raise UntrustedFolder(shown(path), "everybody may write to it; remove that permission: chmod o-w")
    if status.st_mode & stat.S_IWGRP and status.st_gid not in (0, os.getegid()):
        raise UntrustedFolder(shown(path), f"group {status.st_gid} may write to it; remove that permission: chmod g-w")
