"""Calls to a server's address: one after the other in growing intervals, and the first that is answered counts."""

from __future__ import annotations

import contextlib
import itertools
import socket
from typing import Any

import pytest

from iot.sftp.client.ssh.link import CALLS_MAX, _Dialling, dial
from iot.transfer.stop import StopFlag


class Call:
    """A call to a host that never answers."""

    def __init__(self) -> None:
        self.real, self.other = socket.socketpair()
        self.closed = False
        self.real.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while True:
                self.real.send(bytes(65536))  # it can take no more, so it never becomes writable

    def setblocking(self, _: bool) -> None: ...

    def connect_ex(self, _: Any) -> int:
        return 0

    def fileno(self) -> int:
        return self.real.fileno()

    def close(self) -> None:
        self.closed = True
        self.real.close()
        self.other.close()


def dialling(redial_s: float | None, calls: list[Any]) -> _Dialling:
    def make() -> Any:
        calls.append(Call())
        return calls[-1]

    return _Dialling(make, ("host", 22), redial_s)


def test_a_host_that_does_not_answer_is_called_again_and_every_call_is_closed_at_the_end() -> None:
    calls: list[Any] = []
    with dialling(0.01, calls) as dialled, pytest.raises(TimeoutError):
        dialled.wait(0.3, StopFlag())
    assert len(calls) > 3
    assert all(call.closed for call in calls)


def test_without_a_second_call_there_is_one() -> None:
    calls: list[Any] = []
    with dialling(None, calls) as dialled, pytest.raises(TimeoutError):
        dialled.wait(0.1, StopFlag())
    assert len(calls) == 1


def test_the_pauses_between_calls_grow_and_their_number_has_an_end() -> None:
    calls: list[Any] = []
    pauses_s = []
    with dialling(1.0, calls) as dialled:
        for _ in range(CALLS_MAX):
            dialled._dial()
            pauses_s.append(dialled._next_pause_s())
    assert pauses_s[0] == 1.0
    assert all(later > earlier for earlier, later in itertools.pairwise(pauses_s))
    assert pauses_s[-2] < 10
    assert pauses_s[-1] == float("inf")


def test_a_connection_comes_from_the_address_that_is_asked_for() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        options: dict[str, Any] = {"connect_timeout_s": 10.0, "deadline_s": 10.0, "congestion": None}
        link = dial("127.0.0.1", listener.getsockname()[1], cancelled=StopFlag(), bind_address="127.0.0.2", **options)
        try:
            caller, address = listener.accept()
            caller.close()
        finally:
            link.close()
    assert address[0] == "127.0.0.2"
