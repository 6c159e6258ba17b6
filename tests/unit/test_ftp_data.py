"""A data connection of FTP that breaks or only drips, without a server."""

from __future__ import annotations

import socket
import ssl
from typing import Any

import pytest

from iot.ftp import data as module
from iot.ftp.data import BLOCK_BYTES, CLOSING_S, PROGRESS_BYTES, Data
from iot.transfer.errors import (
    LinkLost,
    Timeout,
    TransferError,
)


class Control:
    """A control connection whose last reply is this one."""

    def __init__(self, reply: str | TransferError) -> None:
        self.reply, self.lost, self.finished, self.forgotten = reply, [], [], []  # type: ignore[var-annotated]

    def finish(self, line: str, *, broken: bool = False) -> str:
        self.finished.append(broken)
        if isinstance(self.reply, TransferError):
            raise self.reply
        return self.reply

    def lose(self, error: TransferError) -> None:
        self.lost.append(error)

    def forget(self, sock: socket.socket) -> None:
        self.forgotten.append(sock)

    def check_usable(self) -> None: ...


class Broken:
    def __init__(self, error: OSError) -> None:
        self.error, self.closed = error, 0

    def gettimeout(self) -> float:
        return 5.0

    def send(self, data: memoryview) -> int:
        raise self.error

    def recv(self, size: int) -> bytes:
        raise self.error

    def close(self) -> None:
        self.closed += 1


@pytest.mark.parametrize("way", ["send", "receive"])
@pytest.mark.parametrize(
    ("error", "reply", "kind", "lost"),
    [
        (OSError("reset"), "552 Disk full", None, False),
        (OSError("reset"), "226 done", LinkLost, True),
        (OSError("reset"), "426 cut", LinkLost, True),
        (TimeoutError("silent"), "226 done", Timeout, True),
        (OSError("reset"), Timeout("no answer"), Timeout, False),
    ],
)
def test_why_a_data_connection_broke_is_what_the_server_says_or_a_lost_link(way, error, reply, kind, lost) -> None:
    control, sock = Control(reply), Broken(error)
    data = Data(control, sock, "STOR f")  # type: ignore[arg-type]
    with pytest.raises(TransferError) as told:
        data.send(b"x") if way == "send" else data.receive()
    assert type(told.value).__name__ == (kind.__name__ if kind else "NoSpaceOnServer")
    assert (len(control.lost), control.finished, sock.closed) == (lost, [True], 1)
    data.break_off()  # it is over already
    assert (control.finished, sock.closed) == ([True], 1)


@pytest.mark.parametrize(
    ("pieces", "waited_s", "given_up"),
    [
        ([1] * 3, 2.0, True),  # 6 s, and 3 bytes
        ([1] * 2, 2.0, False),
        ([PROGRESS_BYTES, 1, 1], 2.0, False),  # from then on it counts anew
        ([PROGRESS_BYTES, 1, 1, 1], 2.0, True),
        ([PROGRESS_BYTES, 1, 1], 2.5, False),
        ([PROGRESS_BYTES, PROGRESS_BYTES - 2, 1], 3.0, True),
        ([PROGRESS_BYTES, PROGRESS_BYTES - 1, 1], 3.0, False),
        ([PROGRESS_BYTES - 1, 1], 3.0, False),
        ([PROGRESS_BYTES - 2, 1], 3.0, True),
        ([0], 9.0, False),  # the end
    ],
)
def test_a_byte_now_and_then_is_no_progress(pieces: list[int], waited_s: float, given_up: bool) -> None:
    data = Data(Control("226"), Broken(OSError()), "RETR f")  # type: ignore[arg-type]
    steps = [lambda count=count: data._check_progress(count, waited_s) for count in pieces]
    for step in steps[:-1]:
        step()
    if given_up:
        with pytest.raises(TimeoutError, match="less than"):
            steps[-1]()
    else:
        steps[-1]()


class Sock(Broken):
    """One that works, a little at a time: what is sent, what it was told, and what comes."""

    def __init__(self, *comes: bytes) -> None:
        super().__init__(OSError())
        self.sent, self.comes, self.did = b"", list(comes), []  # type: ignore[var-annotated]

    def send(self, data: memoryview) -> int:
        self.sent += bytes(data[:3])
        return min(3, len(data))

    def recv(self, size: int) -> bytes:
        assert size == BLOCK_BYTES
        return self.comes.pop(0) if self.comes else b""

    def settimeout(self, seconds: float) -> None:
        self.did.append(seconds)

    def unwrap(self) -> None:
        self.did.append("unwrapped")


class Encrypted(Sock):
    """In the place of a socket with TLS."""


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """With what it was waited until everything was sent; TLS's list of errors was emptied: "forgotten"."""
    found: list[Any] = []
    monkeypatch.setattr(module, "wait_until_sent", lambda *given: found.append(given))
    monkeypatch.setattr(module, "forget_errors", lambda: found.append("forgotten"))
    return found


def test_all_of_a_block_is_sent_and_waited_for_before_the_last_reply(waits: list[Any]) -> None:
    control, sock = Control("226 done"), Sock()
    data = Data(control, sock, "STOR f")  # type: ignore[arg-type]
    data.send(b"0123456789")
    data.send(b"")
    assert sock.sent == b"0123456789"
    assert data.done() == "226 done"
    assert waits == [(sock, 5.0, control.check_usable)]
    assert (control.finished, control.forgotten, sock.closed, sock.did) == ([False], [sock], 1, [])


def test_what_was_only_read_is_not_waited_for(waits: list[Any]) -> None:
    control, sock = Control("226 done"), Sock(b"abc")
    data = Data(control, sock, "RETR f")  # type: ignore[arg-type]
    assert [data.receive(), data.receive()] == [b"abc", b""]
    assert data.done() == "226 done"
    assert waits == []
    data.break_off()  # it is over already
    assert (control.finished, sock.closed) == ([False], 1)


def test_a_wait_that_is_given_up_closes_the_connection_and_asks_for_no_reply(monkeypatch: pytest.MonkeyPatch) -> None:
    def cancelled(*_: Any) -> None:
        raise LinkLost("aborted")

    monkeypatch.setattr(module, "wait_until_sent", cancelled)
    control, sock = Control("226 done"), Sock()
    data = Data(control, sock, "STOR f")  # type: ignore[arg-type]
    data.send(b"x")
    with pytest.raises(LinkLost, match="aborted"):
        data.done()
    assert (control.finished, sock.closed) == ([], 1)


@pytest.mark.parametrize("fails", [False, True])
def test_tls_is_ended_in_time_before_the_connection_is_closed(
    waits: list[Any], monkeypatch: pytest.MonkeyPatch, fails: bool
) -> None:
    def refuse(_: Sock) -> None:
        raise ssl.SSLError("the server just closed")

    if fails:
        monkeypatch.setattr(Sock, "unwrap", refuse)
    monkeypatch.setattr(ssl, "SSLSocket", Encrypted)
    control, sock = Control("226 done"), Encrypted()
    assert Data(control, sock, "RETR f").done() == "226 done"
    assert sock.did == ([CLOSING_S] if fails else [CLOSING_S, "unwrapped"])
    assert (sock.closed, waits) == (1, ["forgotten"])


@pytest.mark.parametrize("reply", ["426 cut", Timeout("no answer")])
def test_a_transfer_that_is_broken_off_leaves_its_error_to_the_next_call(reply: str | TransferError) -> None:
    control, sock = Control(reply), Sock()
    data = Data(control, sock, "STOR f")  # type: ignore[arg-type]
    data.break_off()
    data.break_off()
    assert (control.finished, control.forgotten, sock.closed) == ([True], [sock], 1)


def test_a_broken_connection_is_told_with_its_command_and_what_was_answered() -> None:
    control = Control("226 done")
    with pytest.raises(LinkLost, match=r"^STOR f: the data connection broke: reset; 226 done$") as told:
        Data(control, Broken(OSError("reset")), "STOR f").send(b"x")  # type: ignore[arg-type]
    assert control.lost == [told.value]


def test_a_server_that_drips_is_given_up_with_how_little_came(monkeypatch: pytest.MonkeyPatch) -> None:
    now = iter([0.0, 3.0, 3.0, 5.0, 5.0, 8.5])
    monkeypatch.setattr(module.time, "monotonic", lambda: next(now))
    data = Data(Control("426 cut"), Sock(b"a", b"b", b"c"), "RETR f")  # type: ignore[arg-type]
    assert [data.receive(), data.receive()] == [b"a", b"b"]  # 5 s of 5 s
    with pytest.raises(Timeout, match=f"less than {PROGRESS_BYTES} bytes in 8 s"):
        data.receive()


def test_without_a_deadline_a_server_may_drip(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Sock, "gettimeout", lambda _: None)
    data = Data(Control("226 done"), Sock(), "RETR f")  # type: ignore[arg-type]
    data._check_progress(1, 1e9)
