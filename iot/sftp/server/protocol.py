"""The server side of SFTP version 3: packets in, answers out, without sockets or threads; for the embedded server.

`RequestHandler` splits the stream into packets, calls the method for each request, and sends the answers of a batch
together. The methods are in files.py.

Source: draft-ietf-secsh-filexfer-02; the extensions are described in OpenSSH's PROTOCOL, section 4.
"""

from __future__ import annotations

import errno
import os
import struct
import threading
from collections.abc import Callable, Iterator, Mapping

from paramiko import Message

__all__ = ["ProtocolBroken", "Reply", "RequestHandler", "RequestRefused", "status", "text"]

OK, EOF, NO_SUCH_FILE, PERMISSION_DENIED, FAILURE, BAD_MESSAGE = range(6)
OP_UNSUPPORTED = 8
INIT, VERSION = 1, 2
STATUS, HANDLE, DATA, NAME, ATTRS, EXTENDED_REPLY = 101, 102, 103, 104, 105, 201

REQUESTS = {
    3: "on_open",
    4: "on_close",
    5: "on_read",
    6: "on_write",
    7: "on_lstat",
    8: "on_fstat",
    9: "on_setstat",
    10: "on_fsetstat",
    11: "on_opendir",
    12: "on_readdir",
    13: "on_remove",
    14: "on_mkdir",
    15: "on_rmdir",
    16: "on_realpath",
    17: "on_stat",
    18: "on_rename",
    19: "on_readlink",
    20: "on_symlink",
    200: "on_extended",
}
EXTENDED = {
    b"posix-rename@openssh.com": "on_posix_rename",
    b"fsync@openssh.com": "on_fsync",
    b"hardlink@openssh.com": "on_hardlink",
    b"limits@openssh.com": "on_limits",
    b"statvfs@openssh.com": "on_statvfs",
    b"fstatvfs@openssh.com": "on_fstatvfs",
}
CODES: Mapping[int | None, int] = {
    errno.ENOENT: NO_SUCH_FILE,
    errno.ENOTDIR: NO_SUCH_FILE,
    errno.ELOOP: PERMISSION_DENIED,
    errno.EPERM: PERMISSION_DENIED,
    errno.EACCES: PERMISSION_DENIED,
    errno.ENAMETOOLONG: BAD_MESSAGE,
    errno.EINVAL: BAD_MESSAGE,
}
MAX_DATA = 261_120
MAX_PACKET = 262_144
FLUSH_AT = 262_144

Reply = tuple[int, bytes]
"""The type of an answer and what follows its request id."""


class RequestRefused(Exception):
    """A request that is answered with a status other than OK."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code


class ProtocolBroken(Exception):
    """The client sent something that is not SFTP; the channel is closed."""


def text(value: bytes) -> bytes:
    return struct.pack(">I", len(value)) + value


def status(code: int, reason: str = "") -> Reply:
    reason = reason or ("Success" if code == OK else "Failure")
    return STATUS, struct.pack(">I", code) + text(os.fsencode(reason)) + text(b"")


class RequestHandler:
    """One client: every request is answered by the method named in REQUESTS or EXTENDED.

    send: puts bytes on the channel.
    """

    extensions: Mapping[bytes, bytes] = {}

    def __init__(self, send: Callable[[bytes], None]) -> None:
        self._send = send
        self._incoming = bytearray()
        self._outgoing = bytearray()
        self._lock = threading.Lock()

    def receive(self, data: bytes) -> None:
        """Feed received bytes and answer every complete request."""
        self._incoming += data
        for packet in self._packets():
            self.request(packet[0], Message(packet[1:]))
        self.flush()

    def _packets(self) -> Iterator[bytes]:
        at = 0
        while len(self._incoming) - at >= 4:
            (length,) = struct.unpack_from(">I", self._incoming, at)
            if not 0 < length <= MAX_PACKET:
                raise ProtocolBroken(f"a packet of {length} bytes")
            if len(self._incoming) - at < 4 + length:
                break
            yield bytes(self._incoming[at + 4 : at + 4 + length])
            at += 4 + length
        del self._incoming[:at]

    def request(self, kind: int, message: Message) -> None:
        if kind == INIT:
            pairs = b"".join(text(name) + text(data) for name, data in self.extensions.items())
            self.send_packet(struct.pack(">BI", VERSION, 3) + pairs)
        else:
            self.answer(message.get_int(), self.reply_to(kind, message))

    def reply_to(self, kind: int, message: Message) -> Reply:
        try:
            reply: Reply = getattr(self, REQUESTS.get(kind, "on_unknown"))(message)
        except RequestRefused as refusal:
            return status(refusal.code, str(refusal))
        except OSError as error:
            return status(CODES.get(error.errno, FAILURE), error.strerror or "")
        except OverflowError:
            return status(BAD_MESSAGE, "a number out of range")
        return reply

    def answer(self, request_id: int, reply: Reply) -> None:
        self.send_packet(struct.pack(">BI", reply[0], request_id) + reply[1])

    def send_packet(self, packet: bytes) -> None:
        with self._lock:
            self._outgoing += text(packet)
        if len(self._outgoing) >= FLUSH_AT:
            self.flush()

    def flush(self) -> None:
        with self._lock:
            data, self._outgoing = bytes(self._outgoing), bytearray()
            if data:
                self._send(data)

    def on_unknown(self, message: Message) -> Reply:
        raise RequestRefused(OP_UNSUPPORTED, "not offered")

    def on_extended(self, message: Message) -> Reply:
        name = message.get_binary()
        method = EXTENDED.get(name, "on_unknown") if name in self.extensions else "on_unknown"
        reply: Reply = getattr(self, method)(message)
        return reply
