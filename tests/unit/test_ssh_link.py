"""The socket under SSH: it takes all at once, counts what goes and comes, and never waits for a peer that is silent."""

from __future__ import annotations

import errno
import select
import socket
import struct
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from iot.sftp.client.ssh import link as module
from iot.sftp.client.ssh.link import HEADERS, HELD_BYTES, POLL_S, Link
from iot.transfer.rate import FULL_PACKETS, Wire
from iot.transfer.stop import StopFlag

MIB = 1 << 20


@pytest.fixture
def pair() -> Iterator[tuple[Link, socket.socket, StopFlag]]:
    """A link over a pair of sockets that take little, its other end, and what cancels it."""
    here, there = socket.socketpair()
    for each in (here, there):
        each.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    stop = StopFlag()
    link = Link(here, stop)
    yield link, there, stop
    link.close()
    there.close()


def waits(link: Any) -> list[float]:
    """From now on nothing comes, and how long that was waited for is noted."""
    found: list[float] = []
    link._readable = lambda seconds: found.append(seconds) or False
    return found


def read(there: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        data += there.recv(size - len(data))
    return data


# -- sending


def test_all_is_taken_at_once_and_what_the_system_does_not_take_is_held_in_its_order(pair) -> None:
    link, there, _ = pair
    assert link.ready(0)
    assert link.send(b"a" * MIB) == MIB
    assert link.send(b"b" * 10) == 10
    held = len(link._held)
    assert link.sent_bytes == MIB + 10 - held > 0
    assert not link.ready(0)
    received = b""
    there.setblocking(False)
    while len(received) < MIB + 10:
        if select.select([there], [], [], 0)[0]:
            received += there.recv(MIB)
        link.ready(0)
    assert received == b"a" * MIB + b"b" * 10
    assert link.ready(0)
    assert (link._held, link.sent_bytes) == (b"", MIB + 10)


@pytest.mark.parametrize(("held", "fine"), [(HELD_BYTES, True), (HELD_BYTES + 1, False)])
def test_of_a_peer_that_does_not_read_only_so_much_is_held(pair, held: int, fine: bool) -> None:
    link, _, _ = pair
    link._held = bytes(held)
    if fine:
        assert link.send(b"x") == 1
        assert len(link._held) == held + 1
        return
    with pytest.raises(ConnectionAbortedError, match="the server does not read"):
        link.send(b"x")


def test_ready_waits_as_long_as_it_is_told_and_only_where_something_is_held(pair) -> None:
    link, _, _ = pair
    waited: list[float] = []
    link._writable = lambda seconds: waited.append(seconds) or False
    assert link.ready(3.0)
    link._held = b"x"
    assert not link.ready(3.0)
    assert waited == [3.0]


# -- receiving


def test_what_came_together_is_handed_out_in_pieces_without_asking_again(pair) -> None:
    link, there, _ = pair
    there.sendall(b"0123456789")
    assert [link.recv(4), link.recv(4), link.recv(4)] == [b"0123", b"4567", b"89"]
    assert link._received_bytes == 10
    there.shutdown(socket.SHUT_WR)
    assert link.recv(4) == b""


def test_the_time_of_the_last_byte_is_known_and_silence_does_not_change_it(pair, monkeypatch) -> None:
    link, there, _ = pair
    monkeypatch.setattr(module.time, "monotonic", lambda: 77.0)
    there.sendall(b"x")
    link.recv(1)
    assert link.last_received == 77.0
    monkeypatch.setattr(module.time, "monotonic", lambda: 99.0)
    waits(link)
    with pytest.raises(TimeoutError):
        link.recv(1)
    there.shutdown(socket.SHUT_WR)
    link.recv(1)
    assert link.last_received == 77.0


def test_silence_is_waited_for_a_moment_longer_when_the_login_is_over_and_never_while_something_is_held(pair) -> None:
    link, _, _ = pair
    waited = waits(link)
    steps: tuple[Any, ...] = (lambda: None, lambda: link.login_over(5.0), lambda: setattr(link, "_held", bytes(MIB)))
    for step in steps:
        step()
        with pytest.raises(TimeoutError):
            link.recv(1)
    assert waited == [POLL_S, 5.0, POLL_S]
    assert 0 < len(link._held) < MIB, "what is held goes on its way meanwhile"
    link._held = b""


def test_a_cancel_ends_a_wait_during_the_login_and_none_behind_it(pair) -> None:
    link, there, stop = pair
    waits(link)
    stop.set()
    with pytest.raises(OSError, match="cancelled during login") as told:
        link.recv(1)
    assert told.value.errno == errno.ECANCELED
    there.sendall(b"x")
    assert link.recv(1) == b"x"
    link.login_over(5.0)
    with pytest.raises(TimeoutError):
        link.recv(1)


def test_a_wake_up_without_a_byte_is_silence(pair) -> None:
    link, _, _ = pair
    link._readable = lambda _: True
    with pytest.raises(TimeoutError):
        link.recv(1)


@pytest.mark.parametrize(("logs_in", "tcp", "asked"), [(True, True, 1), (False, True, 0), (True, False, 0)])
def test_only_during_the_login_over_tcp_is_received_data_acknowledged_at_once(
    pair, monkeypatch: pytest.MonkeyPatch, logs_in: bool, tcp: bool, asked: int
) -> None:
    link, there, _ = pair
    acknowledged: list[Any] = []
    monkeypatch.setattr(module, "_acknowledge", acknowledged.append)
    assert link._is_tcp is False
    link.logs_in, link._is_tcp = logs_in, tcp
    there.sendall(b"x")
    link.recv(1)
    assert len(acknowledged) == asked


# -- what the system tells


class Told:
    """A TCP socket of which the system tells this (tcp(7), TCP_INFO)."""

    family = socket.AF_INET

    def __init__(self, family: int = socket.AF_INET, told: bytes | None = None) -> None:
        self.family, self.told, self.asked = family, told, []  # type: ignore[assignment, var-annotated]

    def getsockopt(self, level: int, name: int, size: int) -> bytes:
        self.asked.append((level, name, size))
        if self.told is None:
            raise OSError("not here")
        return self.told[:size]


INFO = bytearray(300)
struct.pack_into("=I", INFO, 68, 25_000)
struct.pack_into("=Q", INFO, 128, 1000)
struct.pack_into("=II", INFO, 136, 7, 5)
struct.pack_into("=Q", INFO, 200, 3000)


def over(link: Any, sock: Any) -> Any:
    link._sock.close()
    link._sock, link._is_tcp = sock, True
    sock.fileno, sock.shutdown, sock.close = (lambda: 5), (lambda _: None), (lambda: None)
    return link


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6])
def test_the_wire_carries_headers_and_retransmissions_too(pair, family: int) -> None:
    header = HEADERS[family]
    assert HEADERS == {socket.AF_INET: 52, socket.AF_INET6: 72}
    link = over(pair[0], Told(family, bytes(INFO)))
    assert link.wire == Wire(3000 + 7 * header, 1000 + 5 * header)
    assert link.round_trip_s == 0.025


@pytest.mark.parametrize("told", [None, b"short"])
def test_where_the_system_does_not_tell_the_wire_is_estimated(pair, told: bytes | None) -> None:
    link = over(pair[0], Told(told=told))
    link.sent_bytes, link._received_bytes = 1000, 2000
    assert link.wire == Wire(int(1000 * FULL_PACKETS), int(2000 * FULL_PACKETS))
    assert link.round_trip_s is None


def test_a_system_without_such_news_is_not_asked(pair, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(socket, "TCP_INFO")
    sock = Told(told=bytes(INFO))
    link = over(pair[0], sock)
    assert (link.round_trip_s, link.wire, sock.asked) == (None, Wire(0, 0), [])


def test_what_is_no_tcp_is_not_asked_for_its_packets(pair) -> None:
    sock = Told(told=bytes(INFO))
    link = over(pair[0], sock)
    link._is_tcp, link.sent_bytes = False, 1000
    assert link.wire == Wire(int(1000 * FULL_PACKETS), 0)


def test_over_loopback_the_system_tells(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        link = Link(socket.create_connection(listener.getsockname()), StopFlag())
        there, _ = listener.accept()
    link.send(b"x" * 1000)
    read(there, 1000)
    there.sendall(b"y" * 500)
    select.select([link], [], [], 5)
    assert link.recv(500)
    assert link.wire.sent > 1000
    assert link.wire.received > 500
    assert link.round_trip_s is not None
    assert link.getpeername() == there.getsockname()
    there.close()
    link.close()


# -- the end


def test_what_the_wire_has_carried_is_known_when_it_is_over_and_the_other_end_sees_the_end(pair) -> None:
    link, there, _ = pair
    link.send(b"x" * 100)
    assert (link.over, link._closed) == (False, False)
    assert link.fileno() == link._sock.fileno() >= 0
    link.close()
    link.sent_bytes = 10**9
    link.close()
    assert link.wire == Wire(int(100 * FULL_PACKETS), 0)
    assert (link.over, link._closed) == (True, True)
    assert read(there, 100) + there.recv(1) == b"x" * 100


def test_close_wakes_who_waits_in_another_thread(pair, monkeypatch: pytest.MonkeyPatch) -> None:
    link, _, _ = pair
    did: list[Any] = []
    real = link._sock

    class Sock:
        def __getattr__(self, name: str) -> Any:
            return getattr(real, name)

        def shutdown(self, how: int) -> None:
            did.append(how)
            raise OSError("not connected")

        def close(self) -> None:
            did.append("closed")
            real.close()

    link._sock = Sock()
    link.close()
    assert did == [socket.SHUT_RDWR, "closed"]


def test_what_was_received_is_acknowledged_at_once_where_the_system_can(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[int, int, int]] = []
    sock: Any = SimpleNamespace(setsockopt=lambda *option: asked.append(option))
    module._acknowledge(sock)
    assert asked == [(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)]
    monkeypatch.delattr(socket, "TCP_QUICKACK")
    module._acknowledge(sock)
    assert len(asked) == 1
