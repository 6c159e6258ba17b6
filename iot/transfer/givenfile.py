"""Files that settings refer to: keys, known hosts, secrets. They are opened without blocking, so that a pipe without a
writer, or an endless device, is reported as an error instead of hanging the process."""

from __future__ import annotations

import os
import shlex
import stat
from pathlib import Path

from iot.transfer.openflags import open_flags

__all__ = ["check_readable", "exposure", "read_text_once"]

HANDED_OVER = ("/dev/fd/", "/proc/self/fd/")
"""The location of a shell's <(command)."""


def check_readable(path: Path) -> None:
    """Check that it can be read now and on later connections. Raises: OSError if not, or if it is no regular file."""
    os.close(_open(path, pipe=False))


def read_text_once(path: Path) -> str:
    """The UTF-8 text of a file, or of a pipe passed by the shell. Raises: OSError, UnicodeDecodeError."""
    pipe = str(path).startswith(HANDED_OVER)
    with open(path, encoding="utf-8", opener=lambda name, _: _open(Path(name), pipe=pipe)) as file:
        return file.read()


def exposure(path: Path) -> str:
    """What is wrong with the permissions of a secret of ours, and what to do; "" if nothing is.

    As ssh: a file of another user, such as a mounted secret of root's, is not ours to judge.
    """
    try:
        status = os.stat(os.path.expanduser(path))
    except OSError:
        return ""  # reported where it is read
    if (
        os.name == "nt"
        or not stat.S_ISREG(status.st_mode)
        or status.st_uid != os.geteuid()
        or not status.st_mode & 0o77
    ):
        return ""
    return f"may be read by others (mode {stat.S_IMODE(status.st_mode):04o}): chmod 600 {shlex.quote(str(path))}"


def _open(path: Path, *, pipe: bool) -> int:
    descriptor = os.open(path, open_flags("O_RDONLY", "O_NONBLOCK"))
    try:
        status = os.fstat(descriptor)
        if pipe and stat.S_ISFIFO(status.st_mode):
            os.set_blocking(descriptor, True)
        elif not stat.S_ISREG(status.st_mode) and not os.path.samestat(status, os.stat(os.devnull)):
            raise OSError(0, f"is {_kind(status.st_mode)}, not a regular file")
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _kind(mode: int) -> str:
    if stat.S_ISFIFO(mode):
        return "a pipe"
    return "a folder" if stat.S_ISDIR(mode) else "a device"
