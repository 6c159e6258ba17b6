"""The folder in which the journal lives: where it is, whose it is, and what may be done to its files."""

from __future__ import annotations

import contextlib
import os
import secrets
import time
from collections.abc import Iterator
from pathlib import Path

from iot.transfer.journal.reserve import lay_out

__all__ = ["default_state_dir", "keep_private", "lay_out_wal", "move_aside", "one_at_a_time", "owner_of"]

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

LAID_OUT_BYTES = 1024 * 1024
PRIVATE = 0o600
ZEROED_BYTES = 64 * 1024


def default_state_dir() -> Path:
    """Where a client used alone keeps its journal: $STATE_DIRECTORY (systemd), else the XDG state folder."""
    given = os.environ.get("STATE_DIRECTORY", "").split(":")[0]
    if given:
        return Path(given)
    base = os.environ.get("XDG_STATE_HOME") or os.path.join(os.path.expanduser("~"), ".local", "state")
    return Path(base) / "iot-sftp"


def owner_of(path: Path) -> str:
    """The name of this state directory: read, or made once and kept."""
    try:
        text = path.read_text(encoding="ascii").strip()
        if len(text) >= 16:
            return text
    except (FileNotFoundError, UnicodeDecodeError):
        pass  # first use, or a file torn by a power cut: a new name is made
    text = secrets.token_hex(8)
    fresh = path.with_name(path.name + ".new")
    with open(fresh, "w", encoding="ascii") as file:
        file.write(text + "\n")
        file.flush()
        os.fsync(file.fileno())
    os.replace(fresh, path)
    return text


def keep_private(path: Path) -> None:
    """A file that only its owner may read, made when missing: tokens of uploads are often secrets. What SQLite puts
    beside it gets the same mode."""
    file = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0), PRIVATE)
    try:
        with contextlib.suppress(OSError):  # another user's, or a file system without modes
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
    """Blocks taken ahead, the first of them written: a commit need not write down that the file has grown, nor that a
    block holds something now (ext4: 21 KiB of its own for a small commit, 12, none). To be called with the journal's
    write lock: nobody else appends meanwhile.
    """
    with contextlib.suppress(OSError):  # only a saving
        file = os.open(f"{path}-wal", os.O_RDWR | os.O_CLOEXEC)
        try:
            size = os.fstat(file).st_size
            if size < LAID_OUT_BYTES:
                lay_out(file, LAID_OUT_BYTES)
                os.pwrite(file, bytes(max(ZEROED_BYTES - size, 0)), size)
        finally:
            os.close(file)


@contextlib.contextmanager
def one_at_a_time(state_dir: Path | None) -> Iterator[None]:
    """Processes that open the same new or broken journal at once make one owner and one journal between them."""
    if state_dir is None or fcntl is None:
        yield
        return
    folder = os.open(state_dir, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):  # a file system without locks: one process at a time is the user's care
            fcntl.flock(folder, fcntl.LOCK_EX)
        yield
    finally:
        os.close(folder)
