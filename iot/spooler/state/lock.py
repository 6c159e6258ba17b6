"""One agent for one state directory and for each outbox, by locks that the kernel releases with the process.

A state directory is locked by a file in it. An outbox is claimed by a name in the kernel (an abstract socket, made of
the folder's device and inode): nothing is written where producers look, a folder that is read-only can be claimed, and
no open file keeps it from being unmounted. It keeps agents of one machine apart whose network is the same, also when
they reach the folder by different paths; elsewhere than on Linux there is none.

Source: unix(7), "Abstract sockets" and SO_PEERCRED.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import socket
import struct
import sys
from collections.abc import Iterator
from pathlib import Path

from iot.transfer import DiskFull, JournalUnavailable, is_gone

__all__ = ["AlreadyRunning", "OutboxClaim", "holder", "locked"]

NAME = "lock"


class AlreadyRunning(Exception):
    """Another agent works there already; pid is its process, 0 when it does not tell."""

    def __init__(self, place: Path | str, pid: int) -> None:
        super().__init__(f"another agent (process {pid or 'unknown'}) works on {place}; one at a time")
        self.pid = pid


class OutboxClaim:
    """Held until it is released, or until the process ends.

    Raises: AlreadyRunning.
    """

    def __init__(self, folder: int, path: Path) -> None:
        """folder: the outbox, open. path: for the message."""
        self._socket: socket.socket | None = None
        if sys.platform != "linux":
            return
        status = os.fstat(folder)
        name = f"\0iot-spooler/outbox/{status.st_dev}/{status.st_ino}"
        held = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            held.bind(name)
            held.listen(1)
        except OSError as error:
            held.close()
            if error.errno == errno.EADDRINUSE and (pid := _foreign_owner(name, status.st_uid)) is not None:
                raise AlreadyRunning(path, pid) from None
            return
        self._socket = held

    def release(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None


def _foreign_owner(name: str, folder_owner: int) -> int | None:
    """The other process that has taken this name; None when it is this one, or a user who has no say in the folder."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as asking:
        asking.setblocking(False)
        try:
            asking.connect(name)
        except BlockingIOError:
            return 0  # it is there, and others ask it too
        except OSError:
            return None  # it has just ended
        pid, user, _ = struct.unpack("3i", asking.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    return pid if pid != os.getpid() and user in (0, os.geteuid(), folder_owner) else None


@contextlib.contextmanager
def locked(state_dir: Path) -> Iterator[None]:
    """Hold the state directory for the time of a with-block.

    Raises: AlreadyRunning, JournalUnavailable (the directory cannot be used), DiskFull.
    """
    try:
        state_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        file = os.open(state_dir / NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
    except OSError as error:
        kind = DiskFull if error.errno == errno.ENOSPC else JournalUnavailable
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
    """The process that holds the lock; None when nobody does.

    Raises: JournalUnavailable when that cannot be known.
    """
    try:
        file = os.open(state_dir / NAME, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError as error:
        if is_gone(error):
            return None
        raise JournalUnavailable(f"state directory {state_dir}: {error.strerror}; ask as the agent's user") from error
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
