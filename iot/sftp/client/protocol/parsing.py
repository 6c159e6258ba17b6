"""Parses the server's bytes into packets and replies. Pure.

Every length from the server is checked before use; an invalid one raises ProtocolError.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator

from iot.sftp.client.protocol.packets import (
    MAX_FILE_BYTES,
    MAX_PACKET_BYTES,
    U32,
    U64,
    VERSION,
    Attributes,
    Data,
    Extended,
    Handle,
    Kind,
    Name,
    Names,
    Reply,
    Status,
)
from iot.transfer.errors import ProtocolError

KIND_AND_ID = struct.Struct(">BI")


class Reader:
    """Reads fields from the front of a packet; every length is checked. Raises: ProtocolError."""

    __slots__ = ("_data", "_at")

    def __init__(self, data: memoryview) -> None:
        self._data = data
        self._at = 0

    def take(self, size: int) -> memoryview:
        at = self._pass(size)
        return self._data[at : self._at]

    def u32(self) -> int:
        value: int = U32.unpack_from(self._data, self._pass(4))[0]
        return value

    def kind_and_id(self) -> tuple[int, int]:
        kind, number = KIND_AND_ID.unpack_from(self._data, self._pass(5))
        return kind, number

    def u64(self) -> int:
        value: int = U64.unpack_from(self._data, self._pass(8))[0]
        return value

    def view(self) -> memoryview:
        return self.take(self.u32())

    def _pass(self, size: int) -> int:
        """Check that `size` bytes are left and skip them -> their offset"""
        at = self._at
        end = self._at = at + size
        if end > len(self._data):
            raise ProtocolError(f"server sent a packet that ends early: {len(self._data)} bytes, {end} needed")
        return at

    def string(self) -> bytes:
        return bytes(self.view())

    @property
    def left(self) -> int:
        return len(self._data) - self._at

    def rest(self) -> bytes:
        return bytes(self.take(self.left))


def parse_reply(packet: memoryview) -> tuple[int, Reply]:
    """A packet without its length -> (request id, reply). Raises: ProtocolError."""
    reader = Reader(packet)
    kind, request_id = reader.kind_and_id()
    parse = PARSERS.get(kind)
    if parse is None:
        raise ProtocolError(f"server sent a packet of unknown type {kind}")
    return request_id, parse(reader)


def parse_version(packet: memoryview) -> dict[bytes, bytes]:
    """The VERSION packet -> its extensions. Raises: ProtocolError."""
    reader = Reader(packet)
    [kind] = reader.take(1)
    if kind != Kind.VERSION:
        raise ProtocolError(f"server's first packet has type {kind}, not VERSION: is this an SFTP server?")
    version = reader.u32()
    if version < VERSION:
        raise ProtocolError(f"server speaks SFTP version {version}; version {VERSION} is needed")
    extensions = {}
    while reader.left:
        name = reader.string()
        extensions[name] = reader.string()
    return extensions


def parse_limits(body: bytes) -> tuple[int, int, int, int]:
    """-> largest packet, read and write in bytes, and open handles; 0 means not reported."""
    reader = Reader(memoryview(body))
    return reader.u64(), reader.u64(), reader.u64(), reader.u64()


def parse_free_space(body: bytes) -> tuple[int, int | None]:
    """A statvfs reply -> (bytes, inodes) free for an ordinary user; None where inodes are not counted (vfat, btrfs).

    Raises: ProtocolError, also for a file system of size 0: such a server does not know it.
    """
    values = struct.unpack(">11Q", Reader(memoryview(body)).take(88))
    if not values[1] * values[2]:
        raise ProtocolError("server reports a file system of 0 bytes")
    return values[1] * values[4], values[7] if values[5] else None


def parse_check_file(body: bytes) -> tuple[bytes, bytes]:
    """A check-file reply -> (algorithm, digest)."""
    reader = Reader(memoryview(body))
    return reader.string(), reader.rest()


def _attributes(reader: Reader) -> Attributes:
    flags = reader.u32()
    size = reader.u64() if flags & 1 else None
    if size is not None and size > MAX_FILE_BYTES:
        size = None  # no file is that large: the server means -1, "unknown"
    if flags & 2:
        reader.take(8)
    mode = reader.u32() if flags & 4 else None
    mtime_s = None
    if flags & 8:
        reader.take(4)
        mtime_s = reader.u32()
    if flags & 0x80000000:
        for _ in range(_bounded(reader.u32(), reader.left // 8)):
            reader.view()
            reader.view()
    return Attributes(size, mode, mtime_s)


def _status(reader: Reader) -> Status:
    code = reader.u32()
    message = reader.string().decode("utf-8", "replace") if reader.left else ""
    return Status(code, message)


def _names(reader: Reader) -> Names:
    entries = []
    for _ in range(_bounded(reader.u32(), reader.left // 12)):
        filename = reader.string()
        reader.view()
        entries.append(Name(filename, _attributes(reader)))
    return Names(tuple(entries))


def _handle(reader: Reader) -> Handle:
    value = reader.string()
    if len(value) > 256:
        raise ProtocolError(f"server sent a handle of {len(value)} bytes; the limit is 256")
    return Handle(value)


def _bounded(count: int, most: int) -> int:
    if count > most:
        raise ProtocolError(f"server announced {count} items in a packet that can hold {most}")
    return count


PARSERS: dict[int, Callable[[Reader], Reply]] = {
    Kind.STATUS: _status,
    Kind.HANDLE: _handle,
    Kind.DATA: lambda reader: Data(reader.view()),
    Kind.NAME: _names,
    Kind.ATTRS: _attributes,
    Kind.EXTENDED_REPLY: lambda reader: Extended(reader.rest()),
}


class Deframer:
    """Cuts the byte stream into packets; holds at most one packet and what arrived with it."""

    def __init__(self, limit: int = MAX_PACKET_BYTES) -> None:
        self._limit = limit
        self._chunks: list[bytes] = []
        self._held = 0
        self._needed = 4

    def feed(self, chunk: bytes) -> Iterator[memoryview]:
        """Feed received bytes; yield each complete packet without its length. Raises: ProtocolError."""
        self._chunks.append(chunk)
        self._held += len(chunk)
        if self._held < self._needed:
            return
        data = b"".join(self._chunks)  # a single chunk is not copied
        view = memoryview(data)
        at = 0
        while True:
            self._needed = 4
            if len(data) - at < 4:
                break
            size = int(U32.unpack_from(data, at)[0])
            if not 5 <= size <= self._limit:
                raise ProtocolError(f"server sent a packet of {size} bytes; allowed are 5 to {self._limit}")
            self._needed = 4 + size
            if len(data) - at < self._needed:
                break
            yield view[at + 4 : at + self._needed]
            at += self._needed
        rest = data[at:]
        self._chunks = [rest] if rest else []
        self._held = len(rest)
