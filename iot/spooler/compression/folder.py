"""The folder of compressed files: <state_dir>/compressed/<16 hex digits>.gz, made anew whenever one is missing.

The digits are those of outbox, path and version, so that a file is never taken for another, not even with a new
journal. Only a file that took long to make is synced, and kept over a restart; any other is made again.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import NamedTuple

from iot.spooler.config.packed import Compression
from iot.spooler.queue.queue import Entry
from iot.transfer import Fingerprint
from iot.transfer.beneath import DIRECTORY, opener

__all__ = ["Folder", "Made", "name_of"]

NAME = re.compile(r"[0-9a-f]{16}\.(gz|zst)")
UNFINISHED = ".new"
KEPT_BYTES = 256 * 1024
"""A smaller one is made again in a moment."""
LEAST_FREE_BYTES = 16 * 1024 * 1024
CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL
"""So no link is followed either (open(2))."""


class Made(NamedTuple):
    """A compressed file."""

    name: str
    path: str
    fingerprint: Fingerprint


def name_of(entry: Entry, outbox: Path, kind: Compression) -> str:
    identity = b"\0".join((bytes(outbox), entry.path, repr(entry.fingerprint.columns()).encode()))
    return hashlib.sha256(identity).hexdigest()[:16] + kind.suffix


class Folder:
    """Every method may be called from any thread."""

    def __init__(self, state_dir: Path) -> None:
        self.path = state_dir / "compressed"

    def has_room_for(self, size: int) -> bool:
        """Whether the file system has so many bytes, and some more for the journal. Raises: OSError."""
        self.path.mkdir(mode=0o700, exist_ok=True)
        room = os.statvfs(self.path)
        return room.f_bavail * room.f_frsize - size >= LEAST_FREE_BYTES

    @contextlib.contextmanager
    def making(self, name: str, mtime_ns: int) -> Iterator[int]:
        """A descriptor to write a file with; it gets its name when the block ends, and is gone after an error.

        mtime_ns: of the original. A file that is made again has the same time, so an upload is resumed, after its
        content was compared. Raises: OSError.
        """
        self.path.mkdir(mode=0o700, exist_ok=True)
        folder = os.open(self.path, DIRECTORY | os.O_NOFOLLOW)
        unfinished = name + UNFINISHED
        try:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(unfinished, dir_fd=folder)
            with open(unfinished, "wb", buffering=0, opener=opener(folder, CREATE)) as file:
                try:
                    yield file.fileno()
                    os.utime(file.fileno(), ns=(mtime_ns, mtime_ns))
                    if os.fstat(file.fileno()).st_size >= KEPT_BYTES:
                        os.fsync(file.fileno())
                except BaseException:
                    os.unlink(unfinished, dir_fd=folder)
                    raise
            os.rename(unfinished, name, src_dir_fd=folder, dst_dir_fd=folder)
        finally:
            os.close(folder)

    def made(self, name: str) -> Made:
        """Raises: OSError."""
        path = self.path / name
        return Made(name, str(path), Fingerprint.of(os.stat(path, follow_symlinks=False)))

    def kept(self, ours: Collection[str]) -> list[Made]:
        """What an earlier run has left and can be trusted; what is none of `ours` either is removed, but for folders.

        ours: names of what this run makes or has made. Raises: OSError.
        """
        try:
            names = os.listdir(self.path)
        except FileNotFoundError:
            return []
        kept: list[Made] = []
        for name in names:
            if name.removesuffix(UNFINISHED) in ours:
                continue
            made = self.made(name)
            if NAME.fullmatch(name) and made.fingerprint.size >= KEPT_BYTES:
                kept.append(made)
            else:
                self.remove(name)
        return kept

    def remove(self, name: str) -> None:
        """Raises: OSError."""
        with contextlib.suppress(FileNotFoundError, IsADirectoryError):
            os.unlink(self.path / name)
