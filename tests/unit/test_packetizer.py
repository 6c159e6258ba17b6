"""SSH's binary packets: one that was tampered with is never read, and no length that a server announces is believed."""

from __future__ import annotations

import zlib
from typing import Any

import paramiko
import pytest
from conditions import missing
from paramiko.packet import Packetizer as PlainPacketizer

from iot.sftp.client.ssh import packetizer as module
from iot.sftp.client.ssh.packetizer import (
    CHACHA20_INFO,
    MAX_GREETING_BYTES,
    MAX_PACKET_BYTES,
    TAG_BYTES,
    BoundedDecompressor,
    ChaCha20,
    Packetizer,
    offers_chacha20,
)

KEY = bytes(range(64))
PACKET = b"\x04" + b"payload" * 3 + bytes(4)


@pytest.fixture(autouse=True)
def chacha20() -> None:
    if not offers_chacha20():
        missing("this cryptography library has no ChaCha20")


def cipher(sequence: int, key: bytes = KEY) -> ChaCha20:
    found = ChaCha20(key)
    found.sequence = lambda: sequence
    return found


def sealed(sequence: int = 5) -> bytes:
    """As it goes over the wire: the encrypted length, the encrypted packet, the tag."""
    length = len(PACKET).to_bytes(4, "big")
    writer = cipher(sequence)
    return writer.seal_length(length + writer.encrypt(b"", PACKET, length))


def opened(data: bytes, sequence: int = 5, key: bytes = KEY) -> bytes:
    reader = cipher(sequence, key)
    beginning = reader.open_length(data[:8])
    return reader.decrypt(b"", beginning[4:] + data[8:], b"")


def test_a_packet_comes_out_as_it_went_in_and_nothing_of_it_is_in_the_clear():
    data = sealed()
    assert len(data) == 4 + len(PACKET) + TAG_BYTES
    assert b"payload" not in data
    assert data[:4] != len(PACKET).to_bytes(4, "big")
    assert opened(data) == PACKET
    assert sealed(6) != data


def test_a_packet_with_any_bit_turned_is_refused():
    data = sealed()
    for at in range(len(data)):
        for bit in (1, 128):
            turned = bytearray(data)
            turned[at] ^= bit
            with pytest.raises(paramiko.SSHException, match="Mismatched MAC"):
                opened(bytes(turned))


def test_a_packet_in_another_place_of_the_stream_or_of_another_key_is_refused():
    assert opened(sealed(), key=KEY[:-1] + b"?") == PACKET  # the length has a key of its own
    for sequence, key in ((4, KEY), (6, KEY), (5, b"?" + KEY[1:])):
        with pytest.raises(paramiko.SSHException, match="Mismatched MAC"):
            opened(sealed(), sequence, key)


def test_the_stream_is_that_of_the_published_test_vectors():
    """draft-agl-tls-chacha20poly1305, all zero: the first block and the second."""
    found = [module._chacha20(bytes(32), bytes(8), bytes(8), **block).hex() for block in ({}, {"block": 1})]
    assert found == ["76b8e0ada0f13d90", "9f07e7be5551387a"]


def test_it_is_offered_to_paramiko_as_what_it_is():
    assert {"class": ChaCha20, "block-size": 8, "iv-size": 12, "key-size": 64, "is_aead": True} == CHACHA20_INFO


def test_a_library_without_it_offers_it_not(monkeypatch):
    def refused(*_: object, **__: object) -> bytes:
        raise module.UnsupportedAlgorithm("FIPS")

    monkeypatch.setattr(module, "_chacha20", refused)
    assert offers_chacha20() is False


# -- lengths


class Plain:
    """What paramiko's packetizer gives and takes."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.given, self.written, self.read = b"", b"", []
        monkeypatch.setattr(
            PlainPacketizer, "read_all", lambda _, n, check=False: self.read.append((n, check)) or self.given
        )
        monkeypatch.setattr(PlainPacketizer, "write_all", lambda _, out: setattr(self, "written", out))
        monkeypatch.setattr(PlainPacketizer, "_read_timeout", lambda *_: self.given)
        for way in ("set_inbound_cipher", "set_outbound_cipher"):
            monkeypatch.setattr(PlainPacketizer, way, lambda *_, **__: None)


@pytest.fixture
def plain(monkeypatch: pytest.MonkeyPatch) -> Plain:
    return Plain(monkeypatch)


@pytest.mark.parametrize(
    ("length", "fine"), [(0, True), (MAX_PACKET_BYTES, True), (MAX_PACKET_BYTES + 1, False), (-1, False)]
)
def test_an_impossible_length_is_refused_before_anything_is_read(plain, length, fine):
    found = Packetizer(None)
    if fine:
        plain.given = b"data"
        assert found.read_all(length, True) == b"data"
        assert plain.read == [(length, True)]
        return
    with pytest.raises(paramiko.SSHException, match=f"announces a packet of {length} more bytes"):
        found.read_all(length)
    assert plain.read == []


def test_lengths_are_opened_and_sealed_only_with_our_cipher_and_at_the_start_of_a_packet(plain):
    found: Any = Packetizer(None)
    plain.given = sealed(0)[:8]
    found.set_inbound_cipher(cipher(99))
    assert found.read_all(8) == plain.given
    assert found.read_all(8, True)[:4] == len(PACKET).to_bytes(4, "big")
    found.set_inbound_cipher(object())
    assert found.read_all(8, True) == plain.given
    found.write_all(b"in the clear")
    assert plain.written == b"in the clear"
    writer, length = cipher(99), len(PACKET).to_bytes(4, "big")
    found.set_outbound_cipher(writer)
    found.write_all(length + writer.encrypt(b"", PACKET, length))
    assert plain.written == sealed(0)
    found.set_outbound_cipher(object())
    found.write_all(b"in the clear")
    assert plain.written == b"in the clear"


def test_a_greeting_has_an_end_in_bytes_and_in_time(plain, monkeypatch):
    now = [100.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    found = Packetizer(None)
    plain.given = b"x" * (MAX_GREETING_BYTES // 2)
    for _ in range(2):
        assert found._read_timeout(1.0) == plain.given
    plain.given = b"x"
    with pytest.raises(paramiko.SSHException, match=f"no version in the first {MAX_GREETING_BYTES} bytes"):
        found._read_timeout(1.0)
    found = Packetizer(None)
    found.greeting_deadline_s = 10.0
    now[0] += 10.0
    found._read_timeout(1.0)
    now[0] += 0.1
    with pytest.raises(paramiko.SSHException, match="no version in 10 s"):
        found._read_timeout(1.0)


# -- compression


@pytest.mark.parametrize(
    ("size", "fine"), [(MAX_PACKET_BYTES - 1, True), (MAX_PACKET_BYTES, False), (10 * MAX_PACKET_BYTES, False)]
)
def test_a_packet_that_expands_beyond_the_limit_is_refused(size, fine):
    deflate, inflate = zlib.compressobj(), BoundedDecompressor()
    first = deflate.compress(b"first") + deflate.flush(zlib.Z_SYNC_FLUSH)
    assert inflate(first) == b"first"
    data = deflate.compress(bytes(size)) + deflate.flush(zlib.Z_SYNC_FLUSH)
    if fine:
        assert inflate(data) == bytes(size)
        return
    with pytest.raises(paramiko.SSHException, match="expands beyond"):
        inflate(data)
