"""A program beside the agent: how it is started, listened to and ended, with real processes that take no time."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable
from typing import Any

import pytest

from iot.spooler import commands
from iot.spooler.commands import TAIL_BYTES, Command, Ended, environment, executable, plain_environment


def ended(command: Command, now: float = 0.0) -> Ended:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        found = command.poll(now)
        if found is not None:
            return found
        time.sleep(0.002)
    raise AssertionError("it does not end")


def test_a_program_gets_our_environment_without_what_is_ours_alone() -> None:
    ours = {
        "PATH": "/bin",
        "SFTP_X": "",
        "IOT_SPOOLER_X": "",
        "CREDENTIALS_DIRECTORY": "",
        "NOTIFY_SOCKET": "",
        "X": "",
    }
    assert environment(ours | {"WATCHDOG_USEC": ""}) == {"PATH": "/bin", "X": ""}
    assert plain_environment(ours | {"TZ": "UTC"}) == {"PATH": "/bin", "TZ": "UTC"}


def test_only_what_can_be_run_is_a_command() -> None:
    assert executable(()) == ()
    assert executable(("sh", "-c", "x")) == ("sh", "-c", "x")
    with pytest.raises(ValueError, match=r"^'/no/such' is not an executable program$"):
        executable(("/no/such",))
    with pytest.raises(ValueError, match="must not contain a NUL"):
        executable(("sh", "a\0"))


def test_the_last_line_that_was_written_is_kept_where_somebody_listens() -> None:
    words = ["sh", "-c", "echo first; echo '  last ' >&2; echo; printf '\\377 '"]
    assert ended(Command(words, {}, 1.0, heard=True)) == Ended(0, "\ufffd")
    assert ended(Command(["sh", "-c", "echo first; echo '  last ' >&2; echo"], {}, 1.0, heard=True)) == Ended(0, "last")
    assert ended(Command(["sh", "-c", "echo first; exit 3"], {}, 1.0)) == Ended(3, "")


def test_of_very_much_only_the_end_is_kept() -> None:
    done = ended(Command(["sh", "-c", "head -c 200000 /dev/zero | tr '\\0' x; printf end"], {}, 1.0, heard=True))
    assert done.said == "x" * (TAIL_BYTES - 3) + "end"


def test_it_has_nothing_to_read_a_session_of_its_own_and_what_it_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[dict[str, Any]] = []
    real = subprocess.Popen

    def popen(words: Any, **how: Any) -> Any:
        given.append(how)
        return real(words, **how)

    monkeypatch.setattr(commands.subprocess, "Popen", popen)
    assert ended(Command(["/bin/sh", "-c", "read x; test $? = 1 && test $A = b"], {"A": "b"}, 1.0)) == Ended(0)
    assert (given[0]["start_new_session"], given[0]["env"]) == (True, {"A": "b"})
    assert given[0]["stdout"] == given[0]["stderr"] == subprocess.DEVNULL


def test_it_is_killed_at_its_time_limit_and_not_before() -> None:
    command = Command(["sleep", "1000"], {}, 10.0)
    assert command.poll(9.9) is None
    assert command.poll(10.0) == Ended(None)
    command.kill()  # it has ended


@pytest.mark.parametrize("heard", [True, False])
def test_once_it_has_ended_nothing_of_it_is_open(heard: bool) -> None:
    before = set(os.listdir("/proc/self/fd"))
    command = Command(["true"], {}, 1.0, heard=heard)
    ended(command)
    assert set(os.listdir("/proc/self/fd")) == before


class Hanging:
    """A process that does not die at once."""

    pid, stdout = 2**22 + 1, None

    def __init__(self) -> None:
        self.waited: list[float] = []

    def poll(self) -> None:
        return None

    def wait(self, seconds: float) -> None:
        self.waited.append(seconds)
        raise subprocess.TimeoutExpired("x", seconds)


def test_a_killed_program_that_hangs_in_the_kernel_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    hanging = Hanging()
    killed: list[tuple[int, int]] = []

    def killpg(pid: int, number: int) -> None:
        killed.append((pid, number))
        raise ProcessLookupError

    make: Callable[..., Any] = lambda *_, **how: hanging  # noqa: E731
    monkeypatch.setattr(commands.subprocess, "Popen", make)
    monkeypatch.setattr(os, "killpg", killpg)
    assert Command(["x"], {}, 1.0).poll(1.0) == Ended(None)
    assert (killed, hanging.waited) == ([(hanging.pid, 9)], [commands.DEAD_S])
