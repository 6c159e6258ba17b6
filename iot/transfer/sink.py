"""The target of a download: a part beside the destination that is renamed when complete, or an open file."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import shutil
import stat
from collections.abc import Iterator
from threading import BoundedSemaphore, Thread
from typing import BinaryIO, NamedTuple, Protocol

from iot.transfer.errors import DiskFull, LocalStateError, PermanentError
from iot.transfer.model import Span
from iot.transfer.openflags import open_flags
from iot.transfer.source import HASH_BLOCK, local_error
from iot.transfer.terminal import human_bytes

log = logging.getLogger(__name__)
BY_DESCRIPTOR = os.utime in os.supports_fd and os.chmod in os.supports_fd
BESIDE = BoundedSemaphore(4)
"""Files of this process that are synced beside what follows: each takes a thread, and a disk gains nothing by more."""


class Kept(NamedTuple):
    """The attributes to set on the file; None: keep those of the local file that it replaces, if there is one."""

    mode: int | None = None
    mtime_s: int | None = None


NOTHING_KEPT = Kept()


class Sink(Protocol):
    """path: the destination as bytes; empty if there is nothing to resume. part: the name until it is complete.
    folder: where both are; empty for an open file. readable: what was written can be read back.

    Every method may raise DiskFull, PermissionDenied, NotFound, PermanentError and LocalStateError.
    """

    name: str
    path: bytes
    part: bytes
    folder: bytes
    readable: bool

    def size(self) -> int: ...

    def check_space(self, size: int, offset: int) -> None: ...

    def open(self, offset: int, *, private: bool = False) -> None: ...

    def read(self, span: Span) -> bytes: ...

    def write(self, offset: int, data: memoryview) -> None: ...

    def sync(self) -> None: ...

    def sync_beside(self, end: int, most_ahead: int) -> int:
        """Sync what was written so far, up to `end`, beside what follows -> the end of what such a sync has covered by
        now; 0 while it is under way. It is waited for once `most_ahead` bytes have followed, or if too many others are
        under way."""

    def sha256(self) -> Iterator[str | None]: ...

    def publish(self, kept: Kept) -> None: ...

    def sync_name(self) -> None: ...

    def discard(self) -> None: ...

    def close(self) -> None: ...


class FileSink:
    """A local file: fsync, atomic rename, fsync of the folder. Raises: see Sink."""

    readable = True

    def __init__(self, path: bytes, part: bytes) -> None:
        self.path = path
        self.part = part
        self.folder = os.path.dirname(path)
        self.name = os.fsdecode(path)
        self._fd = -1
        self._beside: tuple[int, Thread] | None = None
        self._lost: OSError | None = None

    def size(self) -> int:
        try:
            return os.stat(self.part, follow_symlinks=False).st_size
        except FileNotFoundError:
            return 0
        except OSError as error:
            raise local_error(error, self.name) from error

    def check_space(self, size: int, offset: int) -> None:
        """Raises: PermanentError if the destination is not a regular file; DiskFull if the file system reports too
        little space for a file of `size` bytes.

        The part's bytes up to `offset` are kept; the space of the rest becomes free.
        """
        self._mode_there()
        try:
            room = shutil.disk_usage(self.folder)
        except OSError:
            return  # opening the part will report the error
        if not room.total:  # a file system that does not count blocks
            return
        free_bytes = room.free + max(0, self.size() - offset)
        if size - offset > free_bytes:
            needed, free = human_bytes(size - offset), human_bytes(free_bytes)
            raise DiskFull(f"not enough space for {self.name}: needs {needed}, {free} free; free some space there")

    def open(self, offset: int, *, private: bool = False) -> None:
        """Open the part and truncate it to `offset` bytes; a symlink at its place is not followed.

        private: only the owner may read it until it is published with its own mode, or that of the file it replaces.
        """
        flags = open_flags("O_RDWR", "O_CREAT", "O_NOFOLLOW", "O_BINARY")
        self.close()
        with self._translated():
            self._fd = os.open(self.part, flags, 0o600 if private or os.path.lexists(self.path) else 0o666)
            os.ftruncate(self._fd, offset)

    def read(self, span: Span) -> bytes:
        """The bytes of a span of the part; fewer if the part ends earlier."""
        with self._translated():
            return _read_at(self._fd, span)

    def write(self, offset: int, data: memoryview) -> None:
        with self._translated():
            while data:
                count = _write_at(self._fd, data, offset)
                data, offset = data[count:], offset + count

    def sync(self) -> None:
        self._end_beside()
        self._fsync()
        self._check_lost()

    def sync_beside(self, end: int, most_ahead: int) -> int:
        if self._beside is None:
            self._check_lost()
            self._begin_beside(end)
        if self._beside is None:
            self.sync()
            return end
        covered, thread = self._beside
        if thread.is_alive() and end - covered < most_ahead:
            return 0
        self._end_beside()
        self._check_lost()
        return covered

    def _begin_beside(self, end: int) -> None:
        """If there is a thread for it."""
        if not BESIDE.acquire(blocking=False):
            return
        thread = Thread(target=self._fsync_beside, name="sync", daemon=True)
        try:
            thread.start()
        except RuntimeError:  # the system, or the limit of a service, gives no more threads
            BESIDE.release()
        else:
            self._beside = end, thread

    def _fsync_beside(self) -> None:
        try:
            self._fsync()
        finally:
            BESIDE.release()

    def _end_beside(self) -> None:
        if self._beside is not None:
            self._beside[1].join()
            self._beside = None

    def _fsync(self) -> None:
        try:
            os.fsync(self._fd)
        except OSError as error:
            self._lost = error

    def _check_lost(self) -> None:
        """Raise what a sync has failed with, then and ever after: the system reports lost bytes a single time."""
        if self._lost is not None:
            raise local_error(self._lost, self.name) from self._lost

    def sha256(self) -> Iterator[str | None]:
        """Hash in steps: yields None after each block, and finally the hex digest."""
        digest, at = hashlib.sha256(), 0
        while block := self.read(Span(at, at + HASH_BLOCK)):
            digest.update(block)
            at += len(block)
            yield None
        yield digest.hexdigest()

    def publish(self, kept: Kept = NOTHING_KEPT) -> None:
        """Set the attributes, sync the file, rename it. The name survives a power cut once `sync_name` has returned."""
        self._take_over(kept if kept.mode is not None else kept._replace(mode=self._mode_there()))
        self.sync()
        self.close()
        with self._translated():
            os.replace(self.part, self.path)

    def sync_name(self) -> None:
        """Sync the folder, for all files that were published in it."""
        with self._translated():
            sync_folder(self.folder)

    def _mode_there(self) -> int | None:
        """The mode of the file to be replaced: a private file stays private. Raises: PermanentError if not regular."""
        try:
            status = os.stat(self.path)
        except OSError:
            return None
        if stat.S_ISDIR(status.st_mode):
            raise PermanentError(f"{self.name} is a folder; give the name of a file in it")
        if not stat.S_ISREG(status.st_mode):
            raise PermanentError(f"{self.name} is not a regular file, so it is not replaced")
        return stat.S_IMODE(status.st_mode)

    def discard(self) -> None:
        self.close()
        with self._translated(), contextlib.suppress(FileNotFoundError):  # nothing was fetched yet
            os.unlink(self.part)

    def close(self) -> None:
        self._end_beside()
        self._lost = None
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _take_over(self, kept: Kept) -> None:
        """Best effort: FAT has no modes. Never set-user-id: the server must not grant local rights."""
        target = self._fd if BY_DESCRIPTOR else self.part
        try:
            if kept.mode is not None:
                os.chmod(target, kept.mode & 0o777)
            if kept.mtime_s is not None:
                os.utime(target, (kept.mtime_s, kept.mtime_s))
        except OSError as error:
            log.warning("not kept path=%s mode=%s mtime_s=%s error=%s", self.name, kept.mode, kept.mtime_s, error)

    def _translated(self) -> contextlib.AbstractContextManager[None]:
        return _translated(self.name)


class StreamSink:
    """The caller's open, writable, seekable binary file; never resumed. Must be readable to verify its content."""

    path = b""
    part = b""
    folder = b""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._start = file.tell()
        self._length = 0
        self.readable = file.readable()
        self.name = str(getattr(file, "name", "stream"))

    def size(self) -> int:
        return 0

    def check_space(self, size: int, offset: int) -> None:
        """The free space behind an open file is unknown."""

    def open(self, offset: int, *, private: bool = False) -> None:
        """Nothing to do: the caller has opened it."""

    def read(self, span: Span) -> bytes:
        data = b""
        with _translated(self.name):
            self._file.seek(self._start + span.start)
            while more := self._file.read(span.length - len(data)):
                data += more
        return data

    def write(self, offset: int, data: memoryview) -> None:
        with _translated(self.name):
            self._file.seek(self._start + offset)
            while data:
                count = self._file.write(data)  # a raw file may take less than it is given
                if not count:
                    raise LocalStateError(f"{self.name} takes no more bytes")
                data, offset = data[count:], offset + count
        self._length = max(self._length, offset)

    def sync(self) -> None:
        with _translated(self.name):
            self._file.flush()

    def sync_beside(self, end: int, most_ahead: int) -> int:
        """An open file is never gone on with, so nothing of it has to be on the disk early."""
        return 0

    def sha256(self) -> Iterator[str | None]:
        digest = hashlib.sha256()
        for start in range(0, self._length, HASH_BLOCK):  # the caller's file may have more data after it
            digest.update(self.read(Span(start, min(start + HASH_BLOCK, self._length))))
            yield None
        yield digest.hexdigest()

    def publish(self, kept: Kept = NOTHING_KEPT) -> None:
        self.sync()

    def sync_name(self) -> None:
        """An open file has its name already."""

    def discard(self) -> None:
        with _translated(self.name):
            self._file.truncate(self._start)

    def close(self) -> None:
        """The caller's file stays open."""


@contextlib.contextmanager
def _translated(name: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise local_error(error, name) from error


def _read_at(fd: int, span: Span) -> bytes:
    data = b""
    while len(data) < span.length:
        length, offset = span.length - len(data), span.start + len(data)
        if hasattr(os, "pread"):
            more = os.pread(fd, length, offset)
        else:
            os.lseek(fd, offset, os.SEEK_SET)
            more = os.read(fd, length)
        if not more:
            break
        data += more
    return data


def _write_at(fd: int, data: memoryview, offset: int) -> int:
    if hasattr(os, "pwrite"):
        return os.pwrite(fd, data, offset)
    os.lseek(fd, offset, os.SEEK_SET)
    return os.write(fd, data)


def sync_folder(folder: bytes | str) -> None:
    """Make the names in a folder durable. Where a folder cannot be opened (Windows), the file system does so itself."""
    if os.name == "nt":
        return
    fd = os.open(folder or b".", os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
