"""The directory of the journal: its location, its owner, and operations on its files."""

from __future__ import annotations

import contextlib
import os
import secrets
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from iot.transfer.journal.reserve import lay_out
from iot.transfer.openflags import open_flags

__all__ = [
    "default_state_dir",
    "has_room_for_index",
    "keep_private",
    "lay_out_index",
    "lay_out_wal",
    "move_aside",
    "one_at_a_time",
    "owner_of",
]

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

INDEX_BYTES = 64 * 1024
"""Of the -shm, for twice the pages that the -wal keeps."""
LAID_OUT_BYTES = 1024 * 1024
PRIVATE = 0o600
ZEROED_BYTES = 64 * 1024


def default_state_dir() -> Path:
    """Where a client used alone keeps its journal: $STATE_DIRECTORY (systemd), else the XDG state directory."""
    given = os.environ.get("STATE_DIRECTORY", "").split(":")[0]
    if given:
        return Path(given)
    base = os.environ.get("XDG_STATE_HOME") or os.path.join(os.path.expanduser("~"), ".local", "state")
    return Path(base) / "iot-sftp"


def owner_of(path: Path) -> str:
    """The name of this state directory: read, or generated once and kept."""
    try:
        text = path.read_text(encoding="ascii").strip()
        if len(text) >= 16:
            return text
    except (FileNotFoundError, UnicodeDecodeError):
        pass  # first use, or a file torn by a power cut: generate a new name
    text = secrets.token_hex(8)
    fresh = path.with_name(path.name + ".new")
    with open(fresh, "w", encoding="ascii") as file:
        file.write(text + "\n")
        file.flush()
        os.fsync(file.fileno())
    os.replace(fresh, path)
    return text


def keep_private(path: Path) -> None:
    """Make the file readable for its owner only, creating it if missing: upload tokens are often secrets. SQLite gives
    its other files the same mode."""
    file = os.open(path, open_flags("O_RDWR", "O_CREAT"), PRIVATE)
    try:
        with contextlib.suppress(OSError):  # another user's file, or a file system without modes
            if hasattr(os, "fchmod") and os.fstat(file).st_mode & 0o077:
                os.fchmod(file, PRIVATE)
    finally:
        os.close(file)


def move_aside(path: Path, word: str) -> Path:
    """Rename the file and its -wal and -shm to a dated name that is still free."""
    stamp = time.strftime("%Y%m%dT%H%M%S", time.gmtime())
    number = 0
    while True:
        target = path.with_name(f"{path.stem}.{word}-{stamp}{f'-{number}' if number else ''}{path.suffix}")
        if not target.exists():
            break
        number += 1
    for ending in ("", "-wal", "-shm"):
        with contextlib.suppress(FileNotFoundError):
            os.rename(f"{path}{ending}", f"{target}{ending}")
    return target


def lay_out_wal(path: Path) -> None:
    """Allocate blocks ahead and write the first of them: a commit then need not record that the file grew, nor that
    a block is now in use (ext4's own writes per small commit: 21 KiB with neither, 12 with allocated blocks, none with
    written ones). Call with the journal's write lock held: nobody else appends meanwhile.
    """
    with contextlib.suppress(OSError):  # only an optimisation
        file = os.open(f"{path}-wal", os.O_RDWR)
        try:
            size = os.fstat(file).st_size
            if size < LAID_OUT_BYTES:
                lay_out(file, LAID_OUT_BYTES)
                os.lseek(file, size, os.SEEK_SET)  # Windows has no pwrite
                os.write(file, bytes(max(ZEROED_BYTES - size, 0)))
        finally:
            os.close(file)


def has_room_for_index(state_dir: Path) -> bool:
    """Whether the disk can take the -shm, which SQLite maps, and a little more.

    SQLite makes sure of one byte a page. On a disk with smaller blocks, or one that fills up meanwhile, the process
    that touches the rest of a page is killed (SIGBUS). Space that is left to root alone counts for root.
    """
    if sys.platform != "linux":
        return True
    room = os.statvfs(state_dir)
    blocks = room.f_bfree if os.geteuid() == 0 else room.f_bavail
    return blocks * room.f_frsize >= 2 * INDEX_BYTES


def lay_out_index(path: Path) -> None:
    """Allocate all of the -shm, for when the disk is full later.

    Through the descriptor that SQLite has: closing another one of the same file would drop SQLite's locks.
    """
    with contextlib.suppress(OSError):  # no /proc here
        index = os.stat(f"{path}-shm")
        for number in map(int, os.listdir("/proc/self/fd")):
            with contextlib.suppress(OSError):  # the one that listed them
                if os.path.samestat(os.fstat(number), index):
                    lay_out(number, INDEX_BYTES)


@contextlib.contextmanager
def one_at_a_time(state_dir: Path | None) -> Iterator[None]:
    """Processes that open the same new or broken journal at the same time create one owner and one journal together."""
    if state_dir is None or fcntl is None:
        yield
        return
    folder = os.open(state_dir, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):  # no locks here: the user must run one process at a time
            fcntl.flock(folder, fcntl.LOCK_EX)
        yield
    finally:
        os.close(folder)
