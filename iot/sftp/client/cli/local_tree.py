"""Files and folders here: what is to be sent, and under which names what is fetched may be kept."""

from __future__ import annotations

import glob
import os
import posixpath
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from iot.sftp.client.cli.output import say
from iot.transfer.errors import NameRefused, SFTPError
from iot.transfer.source import local_error

__all__ = ["LocalFile", "Unreadable", "base_name", "expand_local", "first_twice", "local_name", "tree"]


@dataclass(frozen=True, slots=True)
class LocalFile:
    """relative: its remote name below the destination; empty for a single file. mtime_s: whole seconds."""

    path: str
    relative: str
    size: int
    mtime_s: int
    is_folder: bool = False


@dataclass(frozen=True, slots=True)
class Unreadable:
    """What cannot be sent, and why; the others go on."""

    error: SFTPError


def expand_local(words: Iterable[str]) -> list[str]:
    """Patterns that no shell has expanded; a name that is there as it is written is no pattern."""
    found: list[str] = []
    for word in words:
        names = [] if os.path.lexists(word) else sorted(glob.glob(word))
        found += [name for name in names or [word] if name not in found]
    return found


def base_name(path: str) -> str:
    """Under which a file or folder arrives in a folder; empty for "." and "..", whose content arrives there."""
    name = os.path.basename(path.rstrip(f"{os.sep}/"))
    return "" if name in (os.curdir, os.pardir) else name


def first_twice(names: Iterable[str]) -> str | None:
    """The first that comes a second time."""
    seen: set[str] = set()
    for name in names:
        if name in seen:
            return name
        seen.add(name)
    return None


def tree(path: str, *, recursive: bool) -> Iterator[LocalFile | Unreadable]:
    """A file, or all in a folder; a folder before what is in it, named with its slashes as the server wants them.

    Links to files count as these. Links to folders, below the first, and devices are named and left out.
    """
    try:
        status = os.stat(path)
    except OSError as error:
        yield Unreadable(local_error(error, path))
        return
    if not stat.S_ISDIR(status.st_mode):
        yield _file(path, "", status)
    elif not recursive:
        yield Unreadable(NameRefused(f"{path} is a folder; send it with -r"))
    else:
        yield from _below(path, "")


def _below(folder: str, relative: str) -> Iterator[LocalFile | Unreadable]:
    yield LocalFile(folder, relative, 0, 0, is_folder=True)
    try:
        with os.scandir(folder) as entries:
            found = sorted(entries, key=lambda entry: entry.name)
    except OSError as error:
        yield Unreadable(local_error(error, folder))
        return
    for entry in found:
        yield from _entry(entry, posixpath.join(relative, entry.name))


def _entry(entry: os.DirEntry[str], relative: str) -> Iterator[LocalFile | Unreadable]:
    try:
        status = entry.stat()
    except OSError as error:
        yield Unreadable(local_error(error, entry.path))
        return
    if stat.S_ISREG(status.st_mode):
        yield _file(entry.path, relative, status)
    elif entry.is_dir(follow_symlinks=False):
        yield from _below(entry.path, relative)
    else:
        kind = "a link to a folder" if stat.S_ISDIR(status.st_mode) else "not a regular file"
        say(f"left out, {kind}: {entry.path}")


def _file(path: str, relative: str, status: os.stat_result) -> LocalFile:
    return LocalFile(path, relative, status.st_size, int(status.st_mtime))


def local_name(name: str) -> str:
    """A name from the server, as long as it is a name here, too, and nothing that leads elsewhere.

    Raises: NameRefused.
    """
    separators = {os.sep, os.altsep or os.sep, "/", "\0"}
    leads_away = name in ("", os.curdir, os.pardir) or any(char in name for char in separators)
    if leads_away or os.path.splitdrive(name)[0]:
        raise NameRefused(f"{name!r} gives no local file name: say where to put it")
    return name
