"""A data connection of FTP that breaks or only drips, without a server."""

from __future__ import annotations

import socket

import pytest

from iot.ftp.data import PROGRESS_BYTES, Data
from iot.transfer.errors import (
    LinkLost,
    Timeout,
    TransferError,
)


class Control:
    """A control connection whose last reply is this one."""

    def __init__(self, reply: str | TransferError) -> None:
        self.reply, self.lost, self.finished = reply, [], []  # type: ignore[var-annotated]

    def finish(self, line: str, *, broken: bool = False) -> str:
        self.finished.append(broken)
        if isinstance(self.reply, TransferError):
            raise self.reply
        return self.reply

    def lose(self, error: TransferError) -> None:
        self.lost.append(error)

    def forget(self, sock: socket.socket) -> None: ...

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
