"""What a reply can be instead of what it should be."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import NamedTuple

from iot.sftp.server.protocol import text

__all__ = ["BLOCK", "NO_TEXT", "WRONGS", "Wrong", "framed"]

BLOCK = 1024


class Wrong(NamedTuple):
    """change: the reply's packet (without its length) -> the bytes that go out instead, framed; late: they are held."""

    name: str
    change: Callable[[bytes], bytes]
    late: bool = False


def framed(packet: bytes) -> bytes:
    return text(packet)


def _with(kind: int, body: bytes) -> Callable[[bytes], bytes]:
    """Another type, or another content, with the right id."""
    return lambda packet: framed(bytes([kind]) + packet[1:5] + body)


def _status(code: int, message: bytes = b"as the test wants it") -> Callable[[bytes], bytes]:
    return _with(101, struct.pack(">I", code) + text(message) + text(b""))


def _renumbered(packet: bytes) -> bytes:
    return framed(packet[:1] + struct.pack(">I", struct.unpack(">I", packet[1:5])[0] + 1000) + packet[5:])


ATTRIBUTES = struct.pack(">IQ5I", 15, 9, 0, 0, 0o100644, 5, 5)
NAME = text(b"name") + text(b"long") + struct.pack(">I", 0)
NO_TEXT = b"\xff\xfe\xc3("
HUGE = struct.pack(">I", 0xFFFFFFFF)
CODES = (*range(9), 10, 11, 12, 14, 15, 20, 31, 0xFFFFFFFF)
WRONGS = (
    Wrong("missing", lambda _: b""),
    Wrong("late", framed, late=True),
    Wrong("twice", lambda packet: framed(packet) * 2),
    Wrong("of another request", _renumbered),
    Wrong("of no known type", lambda packet: framed(b"\xc7" + packet[1:])),
    Wrong("cut in half", lambda packet: framed(packet[: max(5, len(packet) // 2)])),
    Wrong("cut by one byte", lambda packet: framed(packet[:-1])),
    Wrong("without content", lambda packet: framed(packet[:5])),
    Wrong("without an id", lambda packet: framed(packet[:1])),
    Wrong("a packet of no bytes", lambda _: framed(b"")),
    Wrong("a packet of 2 GiB", lambda packet: struct.pack(">I", 0x7FFFFFFF) + packet),
    Wrong("with rubbish behind", lambda packet: framed(packet + b"rubbish")),
    *(Wrong(f"status {code}", _status(code)) for code in CODES),
    Wrong("a status that is no text", _status(4, NO_TEXT)),
    Wrong("a status without words", _with(101, struct.pack(">I", 4))),
    Wrong("a status with endless words", _with(101, struct.pack(">I", 4) + HUGE)),
    Wrong("a handle", _with(102, text(b"\0\0\0\x01"))),
    Wrong("an empty handle", _with(102, text(b""))),
    Wrong("a handle of 257 bytes", _with(102, text(bytes(257)))),
    Wrong("an endless handle", _with(102, HUGE)),
    Wrong("data", _with(103, text(b"data"))),
    Wrong("no data", _with(103, text(b""))),
    Wrong("more data than asked for", _with(103, text(bytes(BLOCK + 1)))),
    Wrong("endless data", _with(103, HUGE)),
    Wrong("names", _with(104, struct.pack(">I", 1) + NAME)),
    Wrong("no names", _with(104, struct.pack(">I", 0))),
    Wrong("a name that is no text", _with(104, struct.pack(">I", 1) + text(NO_TEXT) + text(NO_TEXT) + ATTRIBUTES)),
    Wrong("a name with a slash", _with(104, struct.pack(">I", 1) + text(b"../x") + text(b"") + ATTRIBUTES)),
    Wrong("endless names", _with(104, HUGE + NAME)),
    Wrong("attributes", _with(105, ATTRIBUTES)),
    Wrong("no attributes", _with(105, struct.pack(">I", 0))),
    Wrong("attributes of a folder", _with(105, struct.pack(">II", 4, 0o040755))),
    Wrong("a size below zero", _with(105, struct.pack(">Iq", 1, -1))),
    Wrong("a size of 8 EiB", _with(105, struct.pack(">IQ", 1, 2**63 - 1))),
    Wrong("a size of zero", _with(105, struct.pack(">IQ", 1, 0))),
    Wrong("endless attributes", _with(105, struct.pack(">I", 0x80000000) + HUGE)),
    Wrong("an extended reply", _with(201, bytes(88))),
    Wrong("an empty extended reply", _with(201, b"")),
    Wrong("an extended reply of ones", _with(201, b"\xff" * 88)),
    Wrong("another hash", _with(201, text(b"sha256") + bytes(32))),
    Wrong("a hash of another kind", _with(201, text(b"md5") + bytes(16))),
)
