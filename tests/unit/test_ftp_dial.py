"""The TCP connections of FTP: a reply has one deadline, however it drips, and what was sent is waited for."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator
from typing import Any

import pytest

from iot.ftp import dial as module
from iot.ftp.dial import KEEPALIVE_S, POLL_S, QUEUED_BYTES, Replies, accept, dial, wait_until_sent
from iot.transfer.errors import LinkLost, Timeout


def nothing() -> None:
    pass


class Clock:
    """Goes on by itself when it is slept on, and by hand."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 100.0
        self.slept: list[float] = []
        monkeypatch.setattr(module.time, "monotonic", lambda: self.now)
        monkeypatch.setattr(module.time, "sleep", self.sleep)

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as found:
        yield found


def options_of(sock: socket.socket) -> tuple[int, int, int, int, int]:
    tcp = socket.IPPROTO_TCP
    return (
        sock.getsockopt(tcp, socket.TCP_NODELAY),
        sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE),
        sock.getsockopt(tcp, socket.TCP_KEEPIDLE),
        sock.getsockopt(tcp, socket.TCP_KEEPINTVL),
        sock.getsockopt(tcp, socket.TCP_NOTSENT_LOWAT),
    )


def test_a_connection_waits_for_bytes_is_kept_alive_and_queues_little(listener: socket.socket) -> None:
    with dial("127.0.0.1", listener.getsockname()[1], 5.0, nothing) as sock:
        assert sock.gettimeout() is None
        assert options_of(sock) == (1, 1, KEEPALIVE_S, KEEPALIVE_S, QUEUED_BYTES)
        accepted, address = accept(listener, 5.0, nothing)
        assert address == sock.getsockname()
        assert options_of(accepted) == (1, 1, KEEPALIVE_S, KEEPALIVE_S, QUEUED_BYTES)
        accepted.close()


def test_a_server_that_does_not_answer_is_named_with_the_reason(listener: socket.socket) -> None:
    port = listener.getsockname()[1]
    listener.close()
    with pytest.raises(
        LinkLost, match=rf"^cannot connect to 127\.0\.0\.1 port {port}: 127\.0\.0\.1: Connection refused"
    ):
        dial("127.0.0.1", port, 5.0, nothing)


def test_who_does_not_call_back_is_waited_for_as_long_as_was_said(
    listener: socket.socket, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    checked: list[float] = []

    def wait(*given: Any) -> tuple[list[Any], list[Any], list[Any]]:
        clock.now += given[3]
        return [], [], []

    monkeypatch.setattr(module.select, "select", wait)
    with pytest.raises(Timeout, match="is there a firewall"):
        accept(listener, 2 * module.SLICE_S, lambda: checked.append(clock.now))
    assert len(checked) == 2


# -- what was sent


class Left:
    """How much the other side has yet to acknowledge, look by look."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *counts: int) -> None:
        self.counts = list(counts)
        monkeypatch.setattr(module, "_unsent_bytes", self.next)

    def next(self, _: object) -> int:
        count = self.counts.pop(0) if len(self.counts) > 1 else self.counts[0]
        return int(f"{count}000")  # a number of its own, as the system's answers are


def wait(timeout_s: float | None) -> int:
    checked: list[int] = []
    wait_until_sent(None, timeout_s, lambda: checked.append(1))  # type: ignore[arg-type]
    return len(checked)


def test_nothing_that_is_left_is_not_waited_for(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    Left(monkeypatch, 0)
    assert wait(1.0) == 0
    assert clock.slept == []


def test_as_long_as_some_is_accepted_it_is_waited_for(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    Left(monkeypatch, 5, 4, 3, 2, 1, 0)
    assert wait(1.5 * POLL_S) == 5
    assert clock.slept == [POLL_S] * 5


@pytest.mark.parametrize(("polls", "looks"), [(1, 1), (3, 3), (2.5, 3)])
def test_when_none_is_accepted_for_long_enough_it_is_over(
    clock: Clock, monkeypatch: pytest.MonkeyPatch, polls: float, looks: int
) -> None:
    monkeypatch.setattr(module, "POLL_S", 1.0)
    Left(monkeypatch, 7)
    assert wait(polls) == looks


def test_without_a_deadline_it_is_waited_for_until_it_is_sent(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    Left(monkeypatch, *[3] * 50, 0)
    assert wait(None) == 50


def test_a_cancel_ends_the_wait(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    def cancelled() -> None:
        raise LinkLost("aborted")

    Left(monkeypatch, 7)
    with pytest.raises(LinkLost, match="aborted"):
        wait_until_sent(None, None, cancelled)  # type: ignore[arg-type]


def test_what_the_other_side_does_not_read_is_unsent_until_it_has_gone(listener: socket.socket) -> None:
    with socket.create_connection(listener.getsockname()) as sock:
        other, _ = listener.accept()
        assert module._unsent_bytes(sock) == 0
        sock.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while sock.send(bytes(1 << 20)):
                pass  # until nothing more goes in
        other.sendall(b"to be read")
        assert module._unsent_bytes(sock) > 1000
        other.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        other.close()  # with a reset
        assert module._unsent_bytes(sock) == 0


# -- replies


class Sock:
    """A socket on which a byte takes so long; its timeouts are noted."""

    def __init__(self, clock: Clock, byte_s: float, timeout_s: float | None) -> None:
        self.clock, self.byte_s, self.timeout_s, self.waits = clock, byte_s, timeout_s, []

    def gettimeout(self) -> float | None:
        return self.timeout_s

    def settimeout(self, seconds: float | None) -> None:
        self.timeout_s = seconds

    def recv_into(self, buffer: Any) -> int:
        self.waits.append(self.timeout_s)
        self.clock.now += self.byte_s
        buffer[0] = 7
        return 1


def test_a_reply_that_drips_is_waited_for_no_longer_than_one_that_comes_at_once(clock: Clock) -> None:
    sock: Any = Sock(clock, 4.0, 10.0)
    replies = Replies(sock)
    assert replies.readable()
    replies.expect()
    buffer = bytearray(1)
    assert [replies.readinto(buffer) for _ in range(3)] == [1, 1, 1]
    assert sock.waits == [10.0, 6.0, 2.0]
    assert sock.timeout_s == 10.0
    with pytest.raises(TimeoutError, match="not complete in time"):
        replies.readinto(buffer)
    sock.timeout_s = 2.0
    replies.expect()
    assert replies.readinto(buffer) == 1
    assert sock.waits[-1] == 2.0


def test_a_system_that_does_not_tell_what_is_unsent_has_sent_all(listener, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> bytes:
        raise OSError(25, "Inappropriate ioctl for device")

    monkeypatch.setattr("fcntl.ioctl", refuse)
    with socket.create_connection(listener.getsockname()) as sock:
        assert module._unsent_bytes(sock) == 0


def test_a_reply_may_come_in_the_last_moment(clock: Clock) -> None:
    sock: Any = Sock(clock, 9.5, 10.0)
    replies = Replies(sock)
    replies.expect()
    assert [replies.readinto(bytearray(1)), replies.readinto(bytearray(1))] == [1, 1]
    assert sock.waits == [10.0, 0.5]


def test_a_reply_that_is_just_over_its_time_is_over(clock: Clock) -> None:
    sock: Any = Sock(clock, 10.0, 10.0)
    replies = Replies(sock)
    replies.expect()
    assert replies.readinto(bytearray(1)) == 1
    with pytest.raises(TimeoutError):
        replies.readinto(bytearray(1))


@pytest.mark.parametrize("expected", [True, False])
def test_without_a_deadline_a_reply_may_take_any_time(clock: Clock, expected: bool) -> None:
    sock: Any = Sock(clock, 1e6, None)
    replies = Replies(sock)
    if expected:
        replies.expect()
    assert [replies.readinto(bytearray(1)) for _ in range(3)] == [1, 1, 1]
    assert sock.waits == [None] * 3


def test_before_a_reply_is_expected_the_sockets_own_timeout_is_kept(clock: Clock) -> None:
    sock: Any = Sock(clock, 1.0, 5.0)
    assert Replies(sock).readinto(bytearray(1)) == 1
    assert sock.timeout_s == 5.0


def test_a_socket_that_fails_has_its_timeout_back(clock: Clock) -> None:
    sock: Any = Sock(clock, 1.0, 5.0)

    def fail(_: Any) -> int:
        raise ConnectionResetError

    sock.recv_into = fail
    replies = Replies(sock)
    replies.expect()
    clock.now += 1.0
    with pytest.raises(ConnectionResetError):
        replies.readinto(bytearray(1))
    assert sock.timeout_s == 5.0
