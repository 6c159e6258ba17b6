"""Whether a file is open for writing, where the kernel can tell.

A read lease (fcntl F_SETLEASE, F_RDLCK) is granted only while no descriptor and no shared mapping of the file allows
writing. It is requested and released at once: it answers a question. Only while a file leaves is it held for a moment
(see Held), so that one answer covers all of that. Three traps:

    a writer that opens the file meanwhile  the holder gets a signal; the default one, SIGIO, would kill this process,
                                            so SIGURG is requested, which is ignored by default
    another user's file                     only the owner or a process with CAP_LEASE may request a lease
    a shared file system                    writers on other machines are invisible here, so no lease is requested

Source: fcntl(2), "Leases".
"""

from __future__ import annotations

import contextlib
import enum
import errno
import fcntl
import os
import signal
import stat
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from iot.spooler.outbox.mounts import file_system
from iot.transfer import Fingerprint, is_gone

__all__ = ["Answer", "Completeness", "Held", "Leases", "Writer"]

CAP_LEASE = 28
READ_ONLY = os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_NOCTTY


class Writer(enum.Enum):
    """Whether a file is open for writing. UNKNOWN: the kernel cannot tell."""

    NONE = enum.auto()
    SOME = enum.auto()
    UNKNOWN = enum.auto()


class Answer(NamedTuple):
    """fingerprint: the version that the answer is about; None: not a regular file."""

    writer: Writer
    fingerprint: Fingerprint | None


class Completeness(NamedTuple):
    """Whether the kernel tells of an outbox's files that nobody writes to them any more; otherwise that is guessed from
    a quiet time. reason: why it is guessed, or known for some files only."""

    known: bool
    reason: str = ""

    def __str__(self) -> str:
        return ("known" if self.known else "guessed") + (f" ({self.reason})" if self.reason else "")


NOT_OFFERED = Completeness(known=False, reason="the file system offers no leases")


class Held(NamedTuple):
    """An open file whose lease we hold: nobody has it open for writing, and whoever opens it so must wait."""

    file: int

    def answer(self) -> Answer:
        return Answer(Writer.NONE, Fingerprint.of(os.fstat(self.file)))

    def named(self, folder: int, name: bytes) -> Fingerprint | None:
        """Its version, if it is what has this name. Raises: OSError when that cannot be known."""
        try:
            status = os.stat(name, dir_fd=folder, follow_symlinks=False)
        except FileNotFoundError:
            return None
        return Fingerprint.of(status) if os.path.samestat(status, os.fstat(self.file)) else None

    def is_waited_for(self) -> bool:
        """Whether somebody is opening it for writing. Timestamps cannot show it: a writer may reset them, and a rename
        changes ctime."""
        return fcntl.fcntl(self.file, fcntl.F_GETLEASE) != fcntl.F_RDLCK


class Leases:
    """Requests leases for the files of one outbox, and remembers what can be known there: see `completeness`."""

    def __init__(self, root: int) -> None:
        """root: the open folder of the outbox."""
        self.completeness = _first_guess(root)
        self._offered = self.completeness.known

    def ask(self, folder: int, name: bytes) -> Answer:
        """Whether anybody writes to the file `name` in the open folder.

        Raises: OSError when it cannot be examined (is_gone: it does not exist).
        """
        try:
            file = os.open(name, READ_ONLY, dir_fd=folder)
        except OSError as error:
            return _not_opened(error, folder, name)
        try:
            writer = self._writer(file)
            return Answer(writer, _version(os.fstat(file)))
        finally:
            os.close(file)

    @contextlib.contextmanager
    def hold(self, folder: int, name: bytes) -> Iterator[Held | None]:
        """Hold the lease for the length of this block; None where it is not granted, and `ask` says why."""
        try:
            file = os.open(name, READ_ONLY, dir_fd=folder)
        except OSError:
            yield None
            return
        try:
            yield Held(file) if self._offered and _take_lease(file) == 0 else None
        finally:
            os.close(file)  # and with it the lease

    def _writer(self, file: int) -> Writer:
        if not self._offered:
            return Writer.UNKNOWN
        match _lease(file):
            case 0:
                return Writer.NONE
            case errno.EAGAIN:
                return Writer.SOME
            case errno.EACCES | errno.EPERM:
                self.completeness = Completeness(known=False, reason="files of other users, and no CAP_LEASE")
            case _:
                self._offered = False
                self.completeness = NOT_OFFERED
        return Writer.UNKNOWN


def _first_guess(root: int) -> Completeness:
    """Before the first lease was requested: judged by the file system and by a lease on an unnamed file there."""
    if sys.platform != "linux":
        return NOT_OFFERED
    system = file_system(root)
    if system.shared:
        return Completeness(known=False, reason=f"{system.name}: others may write unseen")
    if _probe(root) == errno.EINVAL:
        return NOT_OFFERED
    return Completeness(known=True, reason="" if _has_cap_lease() else "files of this user only: no CAP_LEASE")


def _probe(root: int) -> int | None:
    """Result of a lease on an unnamed file; None where none can be created (no permission, or FAT)."""
    try:
        made = os.open(".", os.O_TMPFILE | os.O_RDWR, dir_fd=root)
    except OSError:
        return None
    try:
        file = os.open(f"/proc/self/fd/{made}", os.O_RDONLY)
    except OSError:
        os.close(made)
        return None
    os.close(made)  # it was open for writing
    try:
        return _lease(file)
    finally:
        os.close(file)


def _lease(file: int) -> int:
    """Request a read lease and release it: 0 when it was granted, else the errno."""
    refused = _take_lease(file)
    if not refused:
        fcntl.fcntl(file, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    return refused


def _take_lease(file: int) -> int:
    """0 when it was granted, else the errno."""
    try:
        fcntl.fcntl(file, fcntl.F_SETSIG, signal.SIGURG)
        fcntl.fcntl(file, fcntl.F_SETLEASE, fcntl.F_RDLCK)
    except OSError as error:
        return error.errno or errno.EINVAL
    return 0


def _not_opened(error: OSError, folder: int, name: bytes) -> Answer:
    if is_gone(error):
        raise error
    version = _version(os.stat(name, dir_fd=folder, follow_symlinks=False))
    if version is None or error.errno in (errno.EACCES, errno.EPERM):
        return Answer(Writer.UNKNOWN, version)
    if error.errno == errno.EWOULDBLOCK:
        return Answer(Writer.SOME, version)  # somebody holds a lease for writing
    raise error


def _version(status: os.stat_result) -> Fingerprint | None:
    return Fingerprint.of(status) if stat.S_ISREG(status.st_mode) else None


def _has_cap_lease() -> bool:
    try:
        lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    except OSError:
        return False
    effective = next((line for line in lines if line.startswith("CapEff:")), "CapEff: 0")
    return bool(int(effective.split()[1], 16) >> CAP_LEASE & 1)
