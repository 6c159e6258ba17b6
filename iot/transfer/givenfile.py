"""Files that a setting names: keys, known hosts, secrets. They are opened without waiting, so that a pipe without a
writer, or a device without an end, is an error that is told and not a process that hangs."""

from __future__ import annotations

import os
import stat
from pathlib import Path

__all__ = ["check_readable", "read_text_once"]

HANDED_OVER = ("/dev/fd/", "/proc/self/fd/")
"""Where a shell's <(command) is found."""


def check_readable(path: Path) -> None:
    """It can be read, and again at the next connection. Raises: OSError when it cannot be read or is no such file."""
    os.close(_open(path, pipe=False))


def read_text_once(path: Path) -> str:
    """The UTF-8 text of a file, or of a pipe that the shell has handed over. Raises: OSError, UnicodeDecodeError."""
    with open(_open(path, pipe=str(path).startswith(HANDED_OVER)), encoding="utf-8") as file:
        return file.read()


def _open(path: Path, *, pipe: bool) -> int:
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0))
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
