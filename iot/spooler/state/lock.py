"""One agent for each state directory and each outbox, by locks that the kernel releases with the process.

A state directory is locked through a file in it. An outbox is claimed in two ways, without creating a file that
producers would see:

    a lock on the folder itself     flock(2) on its descriptor needs no write permission and holds for everybody on this
                                    machine who can reach the folder: from another container (network, process and
                                    mount namespace), as another user, by another path. A file system cannot be
                                    unmounted while an agent claims an outbox on it, except with umount -l.
    a name in the kernel            an abstract socket, named after the folder's device and inode. It identifies the
                                    process that has the outbox, and works where folders cannot be locked: on NFS and
                                    some other network file systems. It holds within one network namespace.

On NFS, agents on several machines or in several containers do not see each other: assign each outbox to one of them.
A claim by a user who may not write to the outbox keeps nobody out.

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
    """Another agent works there already; pid is its process, 0 when unknown."""

    def __init__(self, place: Path | str, pid: int) -> None:
        who = f"process {pid}" if pid else "its process cannot be seen from here: perhaps in another container"
        super().__init__(f"another agent ({who}) works on {place}; one at a time")
        self.pid = pid


class _NotTold(Exception):
    """The holder of a name could not be determined: too many processes are asking."""


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
        except _NotTold:  # strangers can exhaust the socket's queue: then the lock decides
            self._lock = _folder_locked(folder, path)
            if self._lock is None:
                raise AlreadyRunning(path, 0) from None
        except AlreadyRunning:
            self.release()
            raise

    @property
    def counts_everywhere(self) -> bool:
        """Whether the folder itself is locked, so that agents in other containers of this machine see it."""
        return self._lock is not None

    def release(self) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None
        if self._socket is not None:
            self._socket.close()
            self._socket = None


def _name_taken(folder: int, path: Path) -> socket.socket | None:
    """The socket that stands for the outbox; None where there are no such sockets. Raises: AlreadyRunning, _NotTold."""
    if sys.platform != "linux":
        return None
    status = os.fstat(folder)
    name = f"\0iot-spooler/outbox/{status.st_dev}/{status.st_ino}"
    held = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        held.bind(name)
        held.listen(socket.SOMAXCONN)  # connections are never accepted, but each takes a place in the queue
    except OSError as error:
        held.close()
        if error.errno == errno.EADDRINUSE and (pid := _other_owner(name, folder)) is not None:
            raise AlreadyRunning(path, pid) from None
        return None
    return held


def _other_owner(name: str, folder: int) -> int | None:
    """The other process that has taken this name; None if it is this one, or its user may not write to the folder."""
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
    """A descriptor that holds the lock; None if the file system has no locks, or a user without access holds it.

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
        if others or not owners:  # a holder that cannot be seen from here is in another container
            raise AlreadyRunning(path, others[0] if others else 0) from None
        return None
    return own


def _lock_owners(status: os.stat_result) -> list[tuple[int, int]]:
    """The processes that hold a lock on a folder, as far as they are visible from here, and their users."""
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
    """Whether a user may write to the folder, and so could run an agent that takes files out of it."""
    status = os.fstat(folder)
    if user in (0, os.geteuid(), status.st_uid):
        return True
    with contextlib.suppress(OSError):
        os.getxattr(folder, "system.posix_acl_access")
        return True  # the mode does not say
    return bool(status.st_mode & (stat.S_IWGRP if status.st_gid in groups else stat.S_IWOTH))


def _groups(pid: int) -> set[int]:
    """The groups of a process, as far as they can be known."""
    with contextlib.suppress(OSError):
        told = Path(f"/proc/{pid}/status").read_text(encoding="ascii", errors="replace")
        lines = re.findall(r"^(?:Gid|Groups):(.*)$", told, re.MULTILINE)
        return {int(number) for line in lines for number in line.split()}
    return set()


@contextlib.contextmanager
def locked(state_dir: Path) -> Iterator[None]:
    """Lock the state directory for the length of a with-block.

    Raises: AlreadyRunning, JournalUnavailable (the directory cannot be used), DiskFull.
    """
    try:
        state_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        file = os.open(state_dir / NAME, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o644)
    except OSError as error:
        kind = DiskFull if error.errno == errno.ENOSPC else JournalUnavailable
        raise kind(f"state directory {state_dir}: {error.strerror}; make it a folder this user may write to") from error
    try:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise AlreadyRunning(state_dir, _pid(file)) from None
        with contextlib.suppress(OSError):  # a full disk: the lock is held, its file just does not name us
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
        file = os.open(state_dir / NAME, os.O_RDONLY | os.O_NOFOLLOW)
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
