"""A peer that breaks SSH: what it can make us hold is bounded, and whatever it sends comes out as an error of ours."""

from __future__ import annotations

import contextlib
import random
import socket
import struct
import subprocess
import sys
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import paramiko
import pytest
from servers.hostile import Hostile, connected, raw_peer

from iot.sftp.client import (
    AuthenticationError,
    Incompatible,
    LinkLost,
    LoginRefused,
    ServerBusy,
    SFTPError,
    TransientError,
)
from iot.sftp.client.protocol import packets
from iot.sftp.client.protocol.outgoing import Outgoing

MIB = 1024 * 1024
FLOOD = bytes(range(1, 256)).replace(b"\n", b"") * 4128
VERSION = b"SSH-2.0-hostile\r\n"
HELD_BYTES = 8 * MIB


@contextlib.contextmanager
def little_memory(most: int = HELD_BYTES) -> Iterator[None]:
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        tracemalloc.reset_peak()
        yield
        held = tracemalloc.get_traced_memory()[1] - before
    finally:
        tracemalloc.stop()
    assert held < most, f"{held / MIB:.1f} MiB were held"


def flood(sock: socket.socket, megabytes: int = 64) -> None:
    for _ in range(megabytes):
        sock.sendall(FLOOD)


def forged_length(size: int) -> Callable[[socket.socket], None]:
    def talk(sock: socket.socket) -> None:
        sock.sendall(VERSION + struct.pack(">IB", size, 4))
        flood(sock)

    return talk


def endless_line(sock: socket.socket) -> None:
    flood(sock)


def endless_lines(sock: socket.socket) -> None:
    for _ in range(64):
        sock.sendall(b"a line that is no version\r\n" * 40000)


def trickle(sock: socket.socket) -> None:
    for _ in range(200):
        sock.sendall(b"x")
        time.sleep(0.1)


BEGINNINGS = {
    "a forged packet length": forged_length(0x7FFFFFF4),
    "a packet length of 100 MiB": forged_length(100 * MIB - 4),
    "a packet length without a packet": forged_length(4),
    "an endless banner line": endless_line,
    "endless lines before the version": endless_lines,
    "a banner byte by byte": trickle,
}


@pytest.mark.parametrize("beginning", BEGINNINGS)
def test_a_peer_cannot_make_us_hold_much_before_its_key_is_checked(beginning: str) -> None:
    with raw_peer(BEGINNINGS[beginning]) as port, little_memory():
        began = time.monotonic()
        with pytest.raises(TransientError):
            connected(port, link_deadline_s=2)
        assert time.monotonic() - began < 10


def extensions() -> bytes:
    """EXT_INFO that announces four thousand million extensions, and brings one."""
    return struct.pack(">BI", 7, 0xFFFFFFFF) + struct.pack(">I", 1) + b"x" + struct.pack(">I", 0)


@pytest.mark.parametrize("instead_of", [6, 7])
def test_a_forged_number_of_extensions_is_refused_at_once_with_the_reason(instead_of: int) -> None:
    """In place of SERVICE_ACCEPT or of the honest EXT_INFO: the login may be waiting, or just about to be sent."""

    def mutate(number: int, message: bytes) -> bytes:
        return extensions() if message[0] == instead_of else message

    for _ in range(20):
        with Hostile(mutate) as server:
            began = time.monotonic()
            with pytest.raises(SFTPError, match="extensions"):
                connected(server.port, host_key=server.host_key)
            assert time.monotonic() - began < 10


def test_a_forged_number_of_prompts_is_refused_at_once() -> None:
    def mutate(number: int, message: bytes) -> bytes:
        if message[0] == 51:  # USERAUTH_FAILURE: ask in its place
            return struct.pack(">BIIII", 60, 0, 0, 0, 0xFFFFFFFF)
        return message

    with Hostile(mutate) as server, little_memory():
        began = time.monotonic()
        with pytest.raises(SFTPError, match="sent 4294967295 prompts"):
            connected(server.port, host_key=server.host_key, prompts=lambda text, echo: "x")
        assert time.monotonic() - began < 10


def test_a_compressed_packet_cannot_grow_out_of_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    def mutate(number: int, message: bytes) -> bytes:
        return b"\x02" + struct.pack(">I", 4 * MIB) + bytes(4 * MIB) if message[0] == 6 else message

    monkeypatch.setattr(paramiko.Transport, "_preferred_compression", ("zlib",))  # what the server offers
    with Hostile(mutate) as server, pytest.raises(SFTPError, match="compressed packet"):
        connected(server.port, host_key=server.host_key, compression=True, link_deadline_s=20)


def test_a_server_that_minds_no_window_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("iot.sftp.client.ssh.channel.RECEIVE_WINDOW_BYTES", MIB)

    def pour(channel: paramiko.Channel) -> None:
        channel.out_window_size = 1 << 40
        with contextlib.suppress(Exception):
            for _ in range(2048):
                channel.sendall(bytes(32 * 1024))

    with Hostile(at_subsystem=pour) as server:
        connection = connected(server.port, host_key=server.host_key, link_deadline_s=20)
        transport = connection._transport
        assert transport is not None
        with contextlib.closing(connection):
            channel = connection.open_sftp_channel(in_order=True)
            end = time.monotonic() + 60
            while transport.is_active():
                assert time.monotonic() < end, "it is still listened to"
                time.sleep(0.05)
            assert "its window" in str(transport.saved_exception)
            with pytest.raises(LinkLost):
                channel.check_alive(None)


@pytest.mark.parametrize("encoding", ["latin-1", "utf-8"])
def test_a_disconnect_message_in_any_encoding_is_a_lost_link_with_its_reason(encoding: str) -> None:
    text = "zu viele Zugriffe für heute \x1b[2J".encode(encoding)

    def part(transport: paramiko.Transport) -> None:
        transport._send_message(paramiko.Message(_disconnect(12, text)))
        transport.close()

    with Hostile(at_login=part) as server:
        with pytest.raises(LinkLost, match="zu viele Zugriffe") as caught:
            connected(server.port, host_key=server.host_key)
        assert "\x1b" not in str(caught.value)


@pytest.mark.parametrize(
    ("said", "means"),
    [
        (b"Exceeded MaxStartups", "too many others are logging in"),
        (b"Not allowed at this time", "too many others are logging in, or failed logins"),
    ],
)
def test_a_server_that_lets_nobody_in_for_now_is_busy_and_not_a_lost_link(said: bytes, means: str) -> None:
    """sshd drops a connection with one line in place of its version; OpenSSH 9.8 changed the line."""
    with raw_peer(lambda sock: sock.sendall(said + b"\r\n")) as port, pytest.raises(ServerBusy, match=means):
        connected(port)


def test_a_login_that_the_server_ends_for_too_many_failures_is_refused_and_not_a_lost_link() -> None:
    def part(transport: paramiko.Transport) -> None:
        transport._send_message(paramiko.Message(_disconnect(2, b"Too many authentication failures")))
        transport.close()

    with Hostile(at_login=part) as server, pytest.raises(LoginRefused, match="Too many"):
        connected(server.port, host_key=server.host_key)


def _disconnect(code: int, text: bytes) -> bytes:
    return struct.pack(">BII", 1, code, len(text)) + text + struct.pack(">I", 0)


def test_no_common_algorithm_is_incompatible_and_names_both_lists() -> None:
    with raw_peer(_kexinit_with_cipher(b"rot13@example.com")) as port, pytest.raises(Incompatible) as caught:
        connected(port)
    assert isinstance(caught.value, AuthenticationError)  # held, never tried again and again
    assert "rot13@example.com" in str(caught.value)
    assert "aes128-ctr" in str(caught.value)
    assert "no common cipher" in str(caught.value)


def _kexinit_with_cipher(cipher: bytes) -> Callable[[socket.socket], None]:
    """A server that knows all the rest."""
    lists = [
        b"curve25519-sha256@libssh.org,ecdh-sha2-nistp256,diffie-hellman-group14-sha256",
        b"ssh-ed25519",
        cipher,
        cipher,
        b"hmac-sha2-256",
        b"hmac-sha2-256",
        b"none",
        b"none",
        b"",
        b"",
    ]
    body = b"\x14" + bytes(16) + b"".join(struct.pack(">I", len(names)) + names for names in lists) + bytes(5)
    padding = 8 - (len(body) + 5) % 8 + 8
    packet = struct.pack(">IB", len(body) + padding + 1, padding) + body + bytes(padding)

    def talk(sock: socket.socket) -> None:
        sock.sendall(VERSION + packet)
        while sock.recv(4096):
            pass

    return talk


# -- any byte may be wrong

CASES = 240
WORKERS = 6


def mutated(seed: int) -> Callable[[int, bytes], bytes | None]:
    """One message of the key exchange, the login or the opening of a channel, drawn by its seed, is changed."""
    draw = random.Random(seed)
    victim = seed % 12

    def mutate(number: int, message: bytes) -> bytes | None:
        if number != victim:
            return message
        kind = draw.randrange(6)
        at = draw.randrange(len(message))
        if kind == 0:
            return message[:at] or b"\xff"
        if kind == 1:
            return bytes([draw.randrange(256)]) + message[1:]
        if kind == 2:
            return message[:at] + draw.randbytes(4) + message[at + 4 :]
        if kind == 3:
            return message[:1] + draw.randbytes(draw.randrange(200))
        if kind == 4:
            return message[:at] + b"\xff\xff\xff\xff" + message[at:]
        return message[:at] + bytes([message[at] ^ (1 << draw.randrange(8))]) + message[at + 1 :]

    return mutate


def outcome(seed: int) -> tuple[str, str, float]:
    """What a connection and its first packets come to -> the error's name and text, and the seconds it took."""
    began = time.monotonic()
    with Hostile(mutated(seed)) as server:
        try:
            connection = connected(server.port, link_deadline_s=3, host_key=server.host_key)
            with contextlib.closing(connection):
                channel = connection.open_sftp_channel(in_order=True)
                channel.send(Outgoing(*packets.stat(b"/").encode(1)), 0.1)
                channel.receive(1000, 0.1)
                channel.check_alive(None)
        except SFTPError as error:
            return type(error).__name__, str(error), time.monotonic() - began
    return "", "", time.monotonic() - began


def test_any_byte_of_the_login_may_be_wrong_and_only_our_errors_come_out(monkeypatch: pytest.MonkeyPatch) -> None:
    uncaught: list[Any] = []
    monkeypatch.setattr(threading, "excepthook", uncaught.append)
    with ThreadPoolExecutor(WORKERS) as pool:
        outcomes = list(pool.map(outcome, range(CASES)))
    assert uncaught == []
    assert all(told.isprintable() for _, told, _ in outcomes)
    names = {name for name, _, _ in outcomes}
    assert {"LinkLost", "ProtocolError"} <= names, names  # the changes are felt
    assert max(seconds for _, _, seconds in outcomes) < 30


PROGRAM = """
import sys
from iot.sftp.client import IoTSFTPClient, SFTPError
try:
    IoTSFTPClient("127.0.0.1", int(sys.argv[1]), "user", "s3cret", host_key=sys.argv[2], attempts=2, backoff_s=0,
                  link_deadline_s=3).connect()
except SFTPError as error:
    print(type(error).__name__)
"""


@pytest.mark.parametrize("seed", [1, 14, 27])
def test_a_program_without_logging_sees_nothing_on_stderr(seed: int) -> None:
    with Hostile(mutated(seed)) as server:
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM, str(server.port), server.host_key],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    assert done.stderr == ""
    assert done.returncode == 0
