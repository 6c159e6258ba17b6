"""One agent for one state directory and for each outbox, by locks that the kernel releases with the process.

A state directory is locked by a file in it. An outbox is claimed twice, and nothing is written where producers look:

    a lock on the folder itself     flock(2) on its descriptor needs no right to write and counts for everybody who
                                    reaches this folder on this machine: from another container (network, process and
                                    mount namespace), as another user, by another path. A file system cannot be
                                    unmounted while an agent claims an outbox on it, except with umount -l.
    a name in the kernel            an abstract socket, made of the folder's device and inode. It tells for certain
                                    which process has the outbox, and does where folders cannot be locked: NFS, and some
                                    other network file systems. It counts within one network namespace.

On NFS, agents of several machines or containers do not see each other: give each outbox to one of them. A claim of a
user who may not write to the outbox keeps nobody out.

Source: flock(2), nfs(5), unix(7), "Abstract sockets" and SO_PEERCRED; proc_locks(5).
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import socket
import stat
import struct
import sys
from collections.abc import Collection, Iterator
from pathlib import Path

from iot.transfer import DiskFull, JournalUnavailable, is_gone
from iot.transfer.beneath import DIRECTORY

__all__ = ["AlreadyRunning", "OutboxClaim", "holder", "locked"]

NAME = "lock"
LOCK_LINE = re.compile(r"^\d+: FLOCK +\S+ +\S+ +(\d+) ([0-9a-f]+:[0-9a-f]+):(\d+) ", re.MULTILINE)


class AlreadyRunning(Exception):
    """Another agent works there already; pid is its process, 0 when it does not tell."""

    def __init__(self, place: Path | str, pid: int) -> None:
        who = f"process {pid}" if pid else "its process cannot be seen from here: perhaps in another container"
        super().__init__(f"another agent ({who}) works on {place}; one at a time")
        self.pid = pid


class _NotTold(Exception):
    """Who has taken a name is not told: too many ask."""


class OutboxClaim:
    """Held until it is released, or until the process ends.

    Raises: AlreadyRunning.
    """

    def __init__(self, folder: int, path: Path) -> None:
        """folder: the outbox, open; it may be closed then. path: for the message."""
        self._lock: int | None = None
        self._socket: socket.socket | None = None
        try:
            self._socket = _name_taken(folder, path)
            self._lock = _folder_locked(folder, path)
        except _NotTold:  # strangers can see to it that nobody is told: then the lock decides
            self._lock = _folder_locked(folder, path)
            if self._lock is None:
                raise AlreadyRunning(path, 0) from None
        except AlreadyRunning:
            self.release()
            raise

    @property
    def counts_everywhere(self) -> bool:
        """Whether agents in other containers of this machine see it: the folder itself is locked."""
        return self._lock is not None

    def release(self) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None
        if self._socket is not None:
            self._socket.close()
            self._socket = None


def _name_taken(folder: int, path: Path) -> socket.socket | None:
    """The socket that stands for the outbox; None where there is no such thing. Raises: AlreadyRunning, _NotTold."""
    if sys.platform != "linux":
        return None
    status = os.fstat(folder)
    name = f"\0iot-spooler/outbox/{status.st_dev}/{status.st_ino}"
    held = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        held.bind(name)
        held.listen(socket.SOMAXCONN)  # nobody answers those who ask, but each of them takes a place
    except OSError as error:
        held.close()
        if error.errno == errno.EADDRINUSE and (pid := _other_owner(name, folder)) is not None:
            raise AlreadyRunning(path, pid) from None
        return None
    return held


def _other_owner(name: str, folder: int) -> int | None:
    """The other process that has taken this name; None when it is this one, or a user who has no say in the folder."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as asking:
        asking.setblocking(False)
        try:
            asking.connect(name)
        except BlockingIOError:
            raise _NotTold from None
        except OSError:
            return None  # it has just ended
        pid, user, _ = struct.unpack("3i", asking.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    return pid if pid != os.getpid() and _has_say(folder, user, _groups(pid)) else None


def _folder_locked(folder: int, path: Path) -> int | None:
    """A descriptor that holds the lock; None where the file system has none, or a stranger sits on it.

    Raises: AlreadyRunning.
    """
    own = os.open(".", DIRECTORY, dir_fd=folder)
    try:
        fcntl.flock(own, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(own)
        if error.errno != errno.EWOULDBLOCK:
            return None  # NFS
        owners = _lock_owners(os.fstat(folder))
        others = [pid for pid, user in owners if pid != os.getpid() and _has_say(folder, user, _groups(pid))]
        if others or not owners:  # whom nobody can see from here is in another container
            raise AlreadyRunning(path, others[0] if others else 0) from None
        return None
    return own


def _lock_owners(status: os.stat_result) -> list[tuple[int, int]]:
    """The processes that hold a lock on a folder, as far as they can be seen from here, and their users."""
    try:
        locks = LOCK_LINE.findall(Path("/proc/locks").read_text(encoding="ascii"))
    except OSError:
        return []
    device = f"{os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x}"
    mine = [(pid, where) for pid, where, inode in locks if int(inode) == status.st_ino]
    exact = [(pid, where) for pid, where in mine if where == device]
    owners = []
    for pid, _ in exact or mine:  # btrfs and overlayfs show another device there
        with contextlib.suppress(OSError):
            owners.append((int(pid), os.stat(f"/proc/{pid}").st_uid))
    return owners


def _has_say(folder: int, user: int, groups: Collection[int]) -> bool:
    """Whether a user may write to the folder, and so may be an agent that takes files out of it."""
    status = os.fstat(folder)
    if user in (0, os.geteuid(), status.st_uid):
        return True
    with contextlib.suppress(OSError):
        os.getxattr(folder, "system.posix_acl_access")
        return True  # the mode does not tell
    return bool(status.st_mode & (stat.S_IWGRP if status.st_gid in groups else stat.S_IWOTH))


def _groups(pid: int) -> set[int]:
    """Of a process; none when that cannot be known."""
    with contextlib.suppress(OSError):
        told = Path(f"/proc/{pid}/status").read_text(encoding="ascii", errors="replace")
        lines = re.findall(r"^(?:Gid|Groups):(.*)$", told, re.MULTILINE)
        return {int(number) for line in lines for number in line.split()}
    return set()


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
