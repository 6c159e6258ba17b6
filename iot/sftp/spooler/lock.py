"""One agent for one state directory: a lock that the kernel releases whatever happens to the process."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from iot.sftp.client import DiskFull, JournalUnavailable

__all__ = ["AlreadyRunning", "holder", "locked"]

NAME = "lock"


class AlreadyRunning(Exception):
    """Another agent works on this state directory; pid is its process, 0 when it does not tell."""

    def __init__(self, state_dir: Path, pid: int) -> None:
        super().__init__(f"another agent (process {pid or 'unknown'}) works on {state_dir}; one at a time")
        self.pid = pid


@contextlib.contextmanager
def locked(state_dir: Path) -> Iterator[None]:
    """Hold the state directory for the time of a with-block.

    Raises: AlreadyRunning, JournalUnavailable (the directory cannot be used), DiskFull.
    """
    try:
        state_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        file = os.open(state_dir / NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
    except OSError as error:
        kind = DiskFull if error.errno == 28 else JournalUnavailable
        raise kind(f"state directory {state_dir}: {error.strerror}; make it a folder this user may write to") from error
    try:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise AlreadyRunning(state_dir, _pid(file)) from None
        with contextlib.suppress(OSError):  # a full disk: the lock holds, its file just does not name us
            os.ftruncate(file, 0)
            os.pwrite(file, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        os.close(file)


def holder(state_dir: Path) -> int | None:
    """The process that holds the lock; None when nobody does."""
    try:
        file = os.open(state_dir / NAME, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return None
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return _pid(file) or None
    finally:
        os.close(file)
    return None


def _pid(file: int) -> int:
    text = os.pread(file, 32, 0).strip()
    return int(text) if text.isdigit() else 0
