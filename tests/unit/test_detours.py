"""Connections through a command or another host: bytes go both ways, an end goes on, and a failure is told in words."""

from __future__ import annotations

import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from iot.sftp.client.ssh import detour as module
from iot.sftp.client.ssh.detour import CommandLink, by_channel, by_command
from iot.transfer.errors import LinkLost
from iot.transfer.rate import Wire
from iot.transfer.stop import StopFlag

SOON_S = 20.0


def received(link: Any, size: int) -> bytes:
    """Up to the end where it is fewer."""
    data, until = b"", time.monotonic() + SOON_S
    while len(data) < size and time.monotonic() < until:
        try:
            piece = link.recv(size - len(data))
        except TimeoutError:
            continue
        if not piece:
            break
        data += piece
    return data


@pytest.fixture
def run() -> Iterator[Any]:
    """Makes a link through a command."""
    made: list[CommandLink] = []

    def make(command: str) -> CommandLink:
        made.append(by_command(command, StopFlag()))
        return made[-1]

    yield make
    for each in made:
        each.close()


# -- a command


def test_input_and_output_of_a_command_are_the_connection(run) -> None:
    link = run("cat")
    link.send(b"there and back")
    assert received(link, 14) == b"there and back"
    process = link._process
    link.close()
    assert process.poll() is not None, "it does not outlive its link"
    assert process.returncode in (0, -signal.SIGTERM), "it ends at the end of its input, or is ended"


def test_a_command_is_run_by_a_shell_in_a_session_of_its_own(run) -> None:
    link = run("sh -c 'cut -d\" \" -f6 /proc/$$/stat; echo $$'")
    session, process = received(link, 100).split()
    assert session == process == str(link._process.pid).encode()


@pytest.mark.parametrize(
    ("command", "told"),
    [
        ("sh -c 'echo first >&2; echo why not >&2; echo >&2; exit 3'", "ended with exit code 3: why not"),
        ("sh -c 'exit 0'", "ended with exit code 0"),
        ("sh -c 'kill -9 $$'", "was ended by SIGKILL"),
        ("sh -c 'kill -1 $$'", "was ended by SIGHUP"),
        ("sh -c 'printf \"no\\033 end\" >&2; exit 1'", r"ended with exit code 1: no\x1b end"),
    ],
)
def test_why_a_command_ended_is_told_with_its_last_line(run, command: str, told: str) -> None:
    assert run(command).failure() == f"the ProxyCommand 'sh ...' {told}"


def test_a_command_that_we_ended_or_that_runs_on_is_told_as_that(run, monkeypatch: pytest.MonkeyPatch) -> None:
    link = run("sleep 60")
    link.close()
    assert link.failure() == "the ProxyCommand 'sleep ...' runs, but no SSH server answers through it"
    monkeypatch.setattr(module, "ENDS_S", 0.05)
    assert run("sleep 60").failure().endswith("runs, but no SSH server answers through it")


def test_a_command_that_had_ended_before_it_was_closed_is_told_as_it_ended(run) -> None:
    link = run("sh -c 'kill -15 $$'")
    link._process.wait()
    link.close()
    link.close()
    assert link.failure().endswith("was ended by SIGTERM")


@pytest.mark.parametrize(
    ("told", "hung_up"),
    [
        (b"", True),
        (b"x", False),
        (ConnectionResetError(), True),
        (BlockingIOError(), False),
        (OSError(9, "closed already"), False),
    ],
)
def test_a_command_that_has_hung_up_is_waited_for_and_no_other(told: Any, hung_up: bool) -> None:
    class Sock:
        def recv(self, size: int, _: int) -> bytes:
            if isinstance(told, Exception):
                raise told
            return bytes(told[:size])

        def close(self) -> None: ...

        def shutdown(self, _: int) -> None: ...

    link: Any = CommandLink.__new__(CommandLink)
    process = Process(obeys=True)
    process.poll = lambda: None  # type: ignore[attr-defined]
    link._sock, link._process, link._stopped, link._end = Sock(), process, False, lambda: None
    link._last_wire = Wire()
    link.close()
    assert process.did == ([module.ENDS_S] if hung_up else [])


def test_of_a_line_without_end_only_its_beginning_is_kept(run) -> None:
    link = run(f"sh -c 'head -c {3 * module.LINE_BYTES} /dev/zero | tr \"\\\\0\" x >&2'")
    link.failure()
    assert link._complaint == b"x" * module.LINE_BYTES


@pytest.mark.parametrize(
    ("command", "shown"),
    [
        ("nc h 22", "'nc ...'"),
        ("nc", "'nc'"),
        ("SECRET=hunter2 nc h", "'nc ...'"),
        ("SECRET=hunter2", "''"),
        ("nc 'a", "'nc ...'"),
        ("'/with space/nc' x", "'/with space/nc ...'"),
    ],
)
def test_of_a_command_only_its_program_is_shown(command: str, shown: str) -> None:
    assert module._without_arguments(command) == shown


def test_a_command_that_cannot_be_run_leaves_nothing_open(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[socket.socket] = []

    def pair() -> tuple[socket.socket, socket.socket]:
        made.extend(real())
        return made[0], made[1]

    def refuse(*_: Any, **__: Any) -> Any:
        raise OSError(12, "Cannot allocate memory")

    real = socket.socketpair
    monkeypatch.setattr(module.socket, "socketpair", pair)
    monkeypatch.setattr(subprocess, "Popen", refuse)
    with pytest.raises(LinkLost, match=r"^cannot run the ProxyCommand: Cannot allocate memory$"):
        by_command("nc", StopFlag())
    assert [each.fileno() for each in made] == [-1, -1]


class Process:
    """One that does not end when it is asked to."""

    def __init__(self, *, obeys: bool) -> None:
        self.did: list[Any] = []
        self.obeys = obeys

    def terminate(self) -> None:
        self.did.append("terminate")

    def kill(self) -> None:
        self.did.append("kill")

    def wait(self, seconds: float | None = None) -> int:
        self.did.append(seconds)
        if seconds is not None and not self.obeys:
            raise subprocess.TimeoutExpired("x", seconds)
        return 0


@pytest.mark.parametrize(
    ("obeys", "did"),
    [(True, ["terminate", module.ENDS_S]), (False, ["terminate", module.ENDS_S, "kill", None])],
)
def test_a_command_is_asked_to_end_before_it_is_killed(obeys: bool, did: list[Any]) -> None:
    process: Any = Process(obeys=obeys)
    module._end(process)
    assert process.did == did


# -- another host


class Channel:
    """A channel of another connection, over a pair of sockets."""

    def __init__(self) -> None:
        self.here, self.there = socket.socketpair()
        self.closed = threading.Event()

    def sendall(self, data: bytes) -> None:
        self.here.sendall(data)

    def recv(self, size: int) -> bytes:
        return self.here.recv(size)

    def close(self) -> None:
        self.closed.set()
        self.here.shutdown(socket.SHUT_RDWR)


@pytest.fixture
def jump() -> Iterator[tuple[Any, Channel, list[str]]]:
    channel, ended = Channel(), []
    link = by_channel(channel, StopFlag(), lambda: ended.append("end"))
    yield link, channel, ended
    link.close()
    channel.closed.wait(SOON_S)
    channel.there.close()


def test_what_carries_bytes_holds_up_no_process_that_ends(jump, run) -> None:
    carriers = [thread for thread in threading.enumerate() if thread.name == "iot-sftp jump"]
    assert len(carriers) >= 2
    assert all(thread.daemon for thread in [*carriers, run("cat")._reader])


def test_bytes_go_both_ways_through_another_host(jump) -> None:
    link, channel, ended = jump
    link.send(b"to")
    assert channel.there.recv(100) == b"to"
    channel.there.sendall(b"from")
    assert received(link, 4) == b"from"
    assert not channel.closed.is_set()
    assert ended == []


def test_an_end_of_the_channel_is_the_end_of_the_link(jump) -> None:
    link, channel, _ = jump
    channel.there.sendall(b"last")
    channel.there.shutdown(socket.SHUT_WR)
    assert received(link, 5) == b"last"
    assert channel.closed.wait(SOON_S)


def test_an_end_of_the_link_ends_the_channel_and_what_is_behind_it(jump) -> None:
    link, channel, ended = jump
    link.close()
    assert channel.closed.wait(SOON_S)
    assert channel.there.recv(1) == b""
    assert ended == ["end"]
