"""The local file to send: opened once, fingerprinted, read by offset."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import io
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO

from iot.transfer.errors import (
    ConfigurationError,
    DiskFull,
    LocalStateError,
    NameRefused,
    NotFound,
    PermanentError,
    PermissionDenied,
    SourceChanged,
    SourceUnreadable,
)
from iot.transfer.model import LOCAL_KINDS, Fingerprint, LocalSource, Span
from iot.transfer.openflags import open_flags

HASH_BLOCK = 1024 * 1024


class Source:
    """A regular file, or an open seekable binary file, to send.

    name: for messages. path: as bytes; empty for a stream without a path.
    fingerprint: taken when the file was opened.

    Raises: NotFound, PermissionDenied, NameRefused, SourceUnreadable, DiskFull, PermanentError (not a regular file),
        ConfigurationError (neither a path nor a file).
    """

    def __init__(self, source: LocalSource) -> None:
        self._owned = isinstance(source, (str, bytes, os.PathLike))
        if isinstance(source, (str, bytes, os.PathLike)):
            self.path = os.fsencode(os.path.abspath(source))
            self.name = os.fsdecode(source)
            self._file: Any = _open(self.name)
        elif hasattr(source, "read"):
            self._file = source
            _flush(source)
            given = getattr(source, "name", "")
            self.path = os.fsencode(os.path.abspath(given)) if isinstance(given, (str, bytes)) and given else b""
            self.name = os.fsdecode(self.path) or "stream"
        else:
            raise ConfigurationError(
                f"source: must be {LOCAL_KINDS} or an open binary file (got {type(source).__name__})"
            )
        self._fd = _descriptor(self._file)
        self.identified = self._fd is not None
        try:
            self.fingerprint = self._look()
        except BaseException:
            self.close()
            raise

    def read(self, span: Span) -> bytes:
        """The bytes of a span. Raises: SourceChanged if the file became shorter; SourceUnreadable."""
        try:
            if self._fd is not None and hasattr(os, "pread"):
                data = os.pread(self._fd, span.length, span.start)
            else:
                self._file.seek(span.start)
                data = self._file.read(span.length)
        except OSError as error:
            raise SourceUnreadable(f"cannot read {self.name}: {error.strerror or error}") from error
        if len(data) != span.length:
            raise SourceChanged(f"{self.name} became shorter during the upload")
        return bytes(data)

    def check_unchanged(self) -> None:
        """Raises: SourceChanged if the file changed since it was opened; PermanentError if it has more data than
        its size says; SourceUnreadable."""
        if self._look() != self.fingerprint:
            raise SourceChanged(f"{self.name} changed during the upload; nothing was published")
        if self._fd is not None and hasattr(os, "pread") and self._goes_on(self._fd):
            size = self.fingerprint.size
            raise PermanentError(f"{self.name} has more data than its reported size of {size} bytes; copy it first")

    def _goes_on(self, descriptor: int) -> bool:
        """A generated file (in /proc) reports a size of 0 but has content."""
        try:
            return bool(os.pread(descriptor, 1, self.fingerprint.size))
        except OSError as error:
            raise SourceUnreadable(f"cannot read {self.name}: {error.strerror or error}") from error

    def sha256(self, size: int | None = None) -> Iterator[str | None]:
        """Hash the file, or so many of its first bytes, in steps: yields None after each block, and finally the hex
        digest."""
        digest = hashlib.sha256()
        size = self.fingerprint.size if size is None else size
        for start in range(0, size, HASH_BLOCK):
            digest.update(self.read(Span(start, min(start + HASH_BLOCK, size))))
            yield None
        yield digest.hexdigest()

    def close(self) -> None:
        if self._owned:
            self._file.close()

    def _look(self) -> Fingerprint:
        if self._fd is not None:
            status = os.fstat(self._fd)
            if not stat.S_ISREG(status.st_mode):
                raise PermanentError(f"{self.name} is not a regular file")
            return Fingerprint.of(status)
        self._file.seek(0, io.SEEK_END)
        return Fingerprint(self._file.tell(), 0)

    @property
    def mode(self) -> int | None:
        return stat.S_IMODE(os.fstat(self._fd).st_mode) if self._fd is not None else None


@dataclass(frozen=True, slots=True)
class Beginning:
    """The first `size` bytes of a source."""

    source: Source
    size: int

    def sha256(self) -> Iterator[str | None]:
        return self.source.sha256(self.size)


def _open(name: str) -> BinaryIO:
    """Open without blocking on a fifo that has no writer."""
    try:
        descriptor = os.open(name, open_flags("O_RDONLY", "O_BINARY", "O_NONBLOCK"))
    except ValueError as error:
        raise NameRefused(f"{name!r} is not a valid path: {error}") from error
    except OSError as error:
        told = local_error(error, name)
        raise (SourceUnreadable(str(told)) if type(told) is LocalStateError else told) from error
    try:
        return open(descriptor, "rb", buffering=0)
    except OSError as error:  # a folder
        os.close(descriptor)
        raise local_error(error, name) from error


def _flush(file: Any) -> None:
    """What was written to the file may still be in its buffer, where neither fstat nor pread sees it."""
    if not hasattr(file, "flush"):
        return
    try:
        file.flush()
    except OSError as error:
        raise local_error(error, str(getattr(file, "name", "stream"))) from error


def _descriptor(file: Any) -> int | None:
    with contextlib.suppress(OSError, AttributeError):  # a stream in memory has no descriptor
        return int(file.fileno())
    return None


def local_error(error: OSError, name: str) -> PermanentError | LocalStateError:
    """Translate an error of the local file system."""
    text = f"{name}: {error.strerror or error}"
    if error.errno in (errno.ENOENT, errno.ENOTDIR):
        return NotFound(text)
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS, errno.ELOOP):
        return PermissionDenied(text)
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return DiskFull(f"{text}: free some space on this disk")
    if error.errno in (errno.EISDIR, errno.ENXIO, errno.ENAMETOOLONG, errno.EINVAL):
        return PermanentError(text)
    return LocalStateError(text)
