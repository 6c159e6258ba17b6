"""SFTP version 3 requests and replies as bytes (draft-ietf-secsh-filexfer-02, OpenSSH PROTOCOL). Pure.

Every length from the server is checked before use; an invalid one raises ProtocolError.
"""

from __future__ import annotations

import struct
from enum import IntEnum, IntFlag
from typing import NamedTuple, TypeAlias

from iot.transfer.errors import (
    AlreadyExists,
    LinkLost,
    NameRefused,
    NoSpaceOnServer,
    NotFound,
    PermissionDenied,
    ServerRefused,
    SFTPError,
    Unsupported,
)

VERSION = 3
MAX_PACKET_BYTES = 1024 * 1024
MAX_FILE_BYTES = (1 << 63) - 1
HEAD = struct.Struct(">IBI")
U32 = struct.Struct(">I")
U64 = struct.Struct(">Q")


class Kind(IntEnum):
    """Packet types (draft section 3)."""

    INIT = 1
    VERSION = 2
    OPEN = 3
    CLOSE = 4
    READ = 5
    WRITE = 6
    LSTAT = 7
    SETSTAT = 9
    FSETSTAT = 10
    OPENDIR = 11
    READDIR = 12
    REMOVE = 13
    MKDIR = 14
    RMDIR = 15
    REALPATH = 16
    STAT = 17
    RENAME = 18
    STATUS = 101
    HANDLE = 102
    DATA = 103
    NAME = 104
    ATTRS = 105
    EXTENDED = 200
    EXTENDED_REPLY = 201


class Flag(IntFlag):
    """Flags of OPEN (draft section 6.3). APPEND is left out on purpose: it makes servers ignore offsets."""

    READ = 1
    WRITE = 2
    CREATE = 8
    TRUNCATE = 16
    EXCLUSIVE = 32


class Code(IntEnum):
    """Status codes: 0-8 of version 3, and later ones that some servers send anyway."""

    OK = 0
    EOF = 1
    NO_SUCH_FILE = 2
    PERMISSION_DENIED = 3
    FAILURE = 4
    BAD_MESSAGE = 5
    NO_CONNECTION = 6
    CONNECTION_LOST = 7
    OP_UNSUPPORTED = 8
    NO_SUCH_PATH = 10
    FILE_ALREADY_EXISTS = 11
    WRITE_PROTECT = 12
    NO_SPACE_ON_FILESYSTEM = 14
    QUOTA_EXCEEDED = 15
    INVALID_FILENAME = 20


ERRORS: dict[int, type[SFTPError]] = {
    Code.NO_SUCH_FILE: NotFound,
    Code.NO_SUCH_PATH: NotFound,
    Code.PERMISSION_DENIED: PermissionDenied,
    Code.WRITE_PROTECT: PermissionDenied,
    Code.NO_CONNECTION: LinkLost,
    Code.CONNECTION_LOST: LinkLost,
    Code.OP_UNSUPPORTED: Unsupported,
    Code.FILE_ALREADY_EXISTS: AlreadyExists,
    Code.NO_SPACE_ON_FILESYSTEM: NoSpaceOnServer,
    Code.QUOTA_EXCEEDED: NoSpaceOnServer,
    Code.INVALID_FILENAME: NameRefused,
}


# -- requests


class Request(NamedTuple):
    """One request, without its id: the pipeline numbers it.

    cost: bytes it keeps in flight: the payload of a WRITE, the length requested by a READ, otherwise 0.
    """

    kind: int
    head: bytes
    payload: bytes | memoryview = b""
    cost: int = 0

    def encode(self, request_id: int) -> tuple[bytes | memoryview, ...]:
        """The packet in pieces, so that a payload is not copied."""
        size = 5 + len(self.head) + len(self.payload)
        front = HEAD.pack(size, self.kind, request_id) + self.head
        return (front, self.payload) if self.payload else (front,)


class Attributes(NamedTuple):
    """File attributes; None where not given (draft section 5)."""

    size: int | None = None
    mode: int | None = None
    mtime_s: int | None = None

    def encode(self) -> bytes:
        given = ((1, self.size), (4, self.mode), (8, self.mtime_s))
        parts = [U32.pack(sum(flag for flag, value in given if value is not None))]
        if self.size is not None:
            parts.append(U64.pack(self.size))
        if self.mode is not None:
            parts.append(U32.pack(self.mode))
        if self.mtime_s is not None:
            parts.append(struct.pack(">II", self.mtime_s, self.mtime_s))
        return b"".join(parts)


NO_ATTRIBUTES = Attributes()


def string(value: bytes) -> bytes:
    return U32.pack(len(value)) + value


def init() -> bytes:
    """The first packet; it has a version instead of an id."""
    return HEAD.pack(5, Kind.INIT, VERSION)


def open_file(path: bytes, flags: int, attributes: Attributes = NO_ATTRIBUTES) -> Request:
    return Request(Kind.OPEN, string(path) + U32.pack(flags) + attributes.encode())


def close(handle: bytes) -> Request:
    return Request(Kind.CLOSE, string(handle))


def read(handle: bytes, offset: int, length: int) -> Request:
    return Request(Kind.READ, string(handle) + struct.pack(">QI", offset, length), cost=length)


def write(handle: bytes, offset: int, data: bytes | memoryview) -> Request:
    head = string(handle) + struct.pack(">QI", offset, len(data))
    return Request(Kind.WRITE, head, data, cost=len(data))


def stat(path: bytes) -> Request:
    return Request(Kind.STAT, string(path))


def lstat(path: bytes) -> Request:
    return Request(Kind.LSTAT, string(path))


def fsetstat(handle: bytes, attributes: Attributes) -> Request:
    return Request(Kind.FSETSTAT, string(handle) + attributes.encode())


def setstat(path: bytes, attributes: Attributes) -> Request:
    return Request(Kind.SETSTAT, string(path) + attributes.encode())


def opendir(path: bytes) -> Request:
    return Request(Kind.OPENDIR, string(path))


def readdir(handle: bytes) -> Request:
    return Request(Kind.READDIR, string(handle))


def remove(path: bytes) -> Request:
    return Request(Kind.REMOVE, string(path))


def mkdir(path: bytes) -> Request:
    return Request(Kind.MKDIR, string(path) + NO_ATTRIBUTES.encode())


def rmdir(path: bytes) -> Request:
    return Request(Kind.RMDIR, string(path))


def realpath(path: bytes) -> Request:
    return Request(Kind.REALPATH, string(path))


def rename(old: bytes, new: bytes) -> Request:
    return Request(Kind.RENAME, string(old) + string(new))


def extended(name: bytes, body: bytes = b"") -> Request:
    return Request(Kind.EXTENDED, string(name) + body)


def posix_rename(old: bytes, new: bytes) -> Request:
    """Rename over an existing file, atomically (OpenSSH PROTOCOL 4.3)."""
    return extended(b"posix-rename@openssh.com", string(old) + string(new))


def hardlink(old: bytes, new: bytes) -> Request:
    """Another name for a file, which nothing may have yet (OpenSSH PROTOCOL 4.5)."""
    return extended(b"hardlink@openssh.com", string(old) + string(new))


def fsync(handle: bytes) -> Request:
    """Sync a file to the server's disk (OpenSSH PROTOCOL 4.6)."""
    return extended(b"fsync@openssh.com", string(handle))


def statvfs(path: bytes) -> Request:
    """Ask for free space (OpenSSH PROTOCOL 4.4)."""
    return extended(b"statvfs@openssh.com", string(path))


def limits() -> Request:
    """Ask for packet, read, write and handle limits (OpenSSH PROTOCOL 4.8)."""
    return extended(b"limits@openssh.com")


def check_file(handle: bytes, algorithm: bytes = b"sha256", *, length: int = 0) -> Request:
    """Ask for the hash of an open file (draft-ietf-secsh-filexfer-extensions-00, section 3).

    length: bytes from its start; 0: all.
    """
    return extended(b"check-file-handle", string(handle) + string(algorithm) + struct.pack(">QQI", 0, length, 0))


# -- replies


class Status(NamedTuple):
    """A status reply (draft section 7)."""

    code: int
    message: str

    @property
    def ok(self) -> bool:
        return self.code == Code.OK

    def error(self, doing: str) -> SFTPError:
        """This refusal as a typed error; `doing` says what was attempted, for the operator."""
        said = self.message or _code_name(self.code)
        text = said.lower()
        kind = ERRORS.get(self.code, ServerRefused)
        if kind is ServerRefused and ("no space" in text or "quota" in text or "disk full" in text):
            kind = NoSpaceOnServer
        elif kind is ServerRefused and "name too long" in text:
            kind = NameRefused
        return kind(f"{doing}: server says {said!r} (status {self.code})")


class Handle(NamedTuple):
    value: bytes


class Data(NamedTuple):
    value: memoryview


class Name(NamedTuple):
    filename: bytes
    attributes: Attributes


class Names(NamedTuple):
    entries: tuple[Name, ...]


class Extended(NamedTuple):
    value: bytes


Reply: TypeAlias = Status | Handle | Data | Names | Attributes | Extended


def _code_name(code: int) -> str:
    return Code(code).name if code in Code.__members__.values() else f"code {code}"
