"""SSH's binary packets (RFC 4253, section 6) by paramiko, with limits on what a server can make us store, and with
chacha20-poly1305@openssh.com (OpenSSH PROTOCOL.chacha20poly1305), which paramiko lacks.

Anybody on the path can send the banner and the first packets, long before the host key is checked: so every length is
checked before the data is read.
"""

from __future__ import annotations

import re
import struct
import time
import zlib
from collections.abc import Callable
from functools import partial
from typing import Any

import paramiko
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms
from cryptography.hazmat.primitives.poly1305 import Poly1305
from paramiko.packet import Packetizer as PlainPacketizer

__all__ = ["CHACHA20", "CHACHA20_INFO", "MAX_PACKET_BYTES", "BoundedDecompressor", "Packetizer", "offers_chacha20"]

MAX_PACKET_BYTES = 256 * 1024
"""As in OpenSSH; RFC 4253 requires at least 35,000."""
MAX_GREETING_BYTES = 64 * 1024
"""Limit for all lines up to the version line, which has at most 255 bytes (RFC 4253, section 4.2)."""
GREETING_SHOWN = 100
FTP_GREETING = re.compile("(?:120|220|421)[ -]")
CHACHA20 = "chacha20-poly1305@openssh.com"
TAG_BYTES = 16
LENGTH_BYTES = 4


class Packetizer(PlainPacketizer):  # type: ignore[misc]
    """paramiko's packetizer, with a limit on every length that the server announces.

    greeting_deadline_s: seconds for all lines up to the version line.
    """

    greeting_deadline_s = 60.0

    def __init__(self, socket: object) -> None:
        super().__init__(socket)
        self._greeting_bytes = 0
        self._greeting_began = time.monotonic()
        self._greeting = ""
        self._opens: ChaCha20 | None = None

    def read_all(self, n: int, check_rekey: bool = False) -> bytes:
        """Raises: SSHException for an impossible packet length."""
        if not 0 <= n <= MAX_PACKET_BYTES:
            raise paramiko.SSHException(
                f"the server announces a packet of {n} more bytes; the limit is {MAX_PACKET_BYTES}"
            )
        data: bytes = super().read_all(n, check_rekey)
        # paramiko waits for a new key only at the start of a packet, where the length must be decrypted
        return self._opens.open_length(data) if check_rekey and self._opens is not None else data

    def set_outbound_cipher(self, block_engine: Any, *arguments: Any, **keywords: Any) -> None:
        super().set_outbound_cipher(block_engine, *arguments, **keywords)
        self.write_all = super().write_all
        if isinstance(block_engine, ChaCha20):
            block_engine.sequence = lambda: int(self._Packetizer__sequence_number_out)
            self.write_all = partial(_write_sealed, super().write_all, block_engine)

    def set_inbound_cipher(self, block_engine: Any, *arguments: Any, **keywords: Any) -> None:
        super().set_inbound_cipher(block_engine, *arguments, **keywords)
        self._opens = block_engine if isinstance(block_engine, ChaCha20) else None
        if self._opens is not None:
            self._opens.sequence = lambda: int(self._Packetizer__sequence_number_in)

    def readline(self, timeout: float) -> str:
        """A line of the greeting. Raises: SSHException that shows its first line, if the version never comes."""
        try:
            line: str = super().readline(timeout)
        except (paramiko.SSHException, EOFError, OSError) as error:
            if not self._greeting:
                raise
            like_ftp = ", as an FTP server does" if FTP_GREETING.match(self._greeting) else ""
            raise paramiko.SSHException(f"{error}: it begins with {self._greeting!r}{like_ftp}") from error
        self._greeting = self._greeting or line[:GREETING_SHOWN]
        return line

    def _read_timeout(self, timeout: float) -> bytes:
        """paramiko's read of the lines before the packets. Raises: SSHException for too many, or a timeout."""
        data: bytes = super()._read_timeout(timeout)
        self._greeting_bytes += len(data)
        if self._greeting_bytes > MAX_GREETING_BYTES:
            raise paramiko.SSHException(f": no version in the first {MAX_GREETING_BYTES} bytes")
        if time.monotonic() - self._greeting_began > self.greeting_deadline_s:
            raise paramiko.SSHException(f": no version in {self.greeting_deadline_s:g} s")
        return data


class ChaCha20:
    """One direction of chacha20-poly1305@openssh.com, in the place of paramiko's AES-GCM.

    A packet is encrypted under its sequence number: its length with one key, the rest with another; the tag covers both
    ciphertexts. paramiko passes the length as the additional data, in the clear.

    sequence: the number of the current packet; set by the packetizer.
    """

    def __init__(self, key: bytes) -> None:
        self._key, self._length_key = key[:32], key[32:]
        self._sealed_length = b""
        self.sequence: Callable[[], int] = lambda: 0

    def encrypt(self, _: bytes, packet: bytes, length: bytes) -> bytes:
        """-> the encrypted packet and its tag; `seal_length` adds its length."""
        nonce = self._nonce()
        self._sealed_length = _chacha20(self._length_key, nonce, length)
        sealed = _chacha20(self._key, nonce, packet, block=1)
        return sealed + self._tag(nonce).finalize_over(self._sealed_length + sealed)

    def decrypt(self, _: bytes, packet: bytes, __: bytes) -> bytes:
        """Raises: SSHException if the tag does not match."""
        nonce, sealed, tag = self._nonce(), packet[:-TAG_BYTES], packet[-TAG_BYTES:]
        self._tag(nonce).verify_over(self._sealed_length + sealed, tag)
        return _chacha20(self._key, nonce, sealed, block=1)

    def seal_length(self, out: bytes) -> bytes:
        """A packet preceded by its length in the clear -> the same with the length encrypted."""
        return self._sealed_length + out[LENGTH_BYTES:]

    def open_length(self, beginning: bytes) -> bytes:
        """The first bytes of a packet -> the same with the length decrypted."""
        self._sealed_length = beginning[:LENGTH_BYTES]
        return _chacha20(self._length_key, self._nonce(), self._sealed_length) + beginning[LENGTH_BYTES:]

    def _nonce(self) -> bytes:
        return struct.pack(">Q", self.sequence())

    def _tag(self, nonce: bytes) -> _Tag:
        return _Tag(_chacha20(self._key, nonce, bytes(32)))


def _write_sealed(write: Callable[[bytes], None], cipher: ChaCha20, out: bytes) -> None:
    """In the place of paramiko's `write_all`, which knows only packets whose length is in the clear."""
    write(cipher.seal_length(out))


class _Tag:
    def __init__(self, key: bytes) -> None:
        self._poly1305 = Poly1305(key)

    def finalize_over(self, data: bytes) -> bytes:
        self._poly1305.update(data)
        return self._poly1305.finalize()

    def verify_over(self, data: bytes, tag: bytes) -> None:
        self._poly1305.update(data)
        try:
            self._poly1305.verify(tag)
        except InvalidSignature:
            raise paramiko.SSHException("Mismatched MAC") from None


def _chacha20(key: bytes, nonce: bytes, data: bytes, block: int = 0) -> bytes:
    """cryptography's nonce is the number of the first block (little endian) followed by the actual nonce."""
    return Cipher(algorithms.ChaCha20(key, struct.pack("<Q", block) + nonce), mode=None).encryptor().update(data)


CHACHA20_INFO = {"class": ChaCha20, "block-size": 8, "iv-size": 12, "key-size": 64, "is_aead": True}
"""Its entry for paramiko.Transport."""


def offers_chacha20() -> bool:
    """Whether this system's cryptography library supports it; a FIPS build does not."""
    try:
        ChaCha20(bytes(64)).encrypt(b"", b"", b"")
    except UnsupportedAlgorithm:
        return False
    return True


class BoundedDecompressor:
    """Decompresses one packet after the other; an oversized one ends the connection."""

    def __init__(self) -> None:
        self._zlib = zlib.decompressobj()

    def __call__(self, data: bytes) -> bytes:
        """Raises: SSHException for a packet that expands beyond the limit."""
        inflated = self._zlib.decompress(data, MAX_PACKET_BYTES)
        if len(inflated) >= MAX_PACKET_BYTES:
            raise paramiko.SSHException(f"a compressed packet of {len(data)} bytes expands beyond {MAX_PACKET_BYTES}")
        return inflated
