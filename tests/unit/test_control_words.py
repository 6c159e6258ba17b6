"""`iot-spooler start|stop|suspend|resume|flush`: whom they ask, what they make of each answer, and of none."""

from __future__ import annotations

import argparse
import json
import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from iot.spooler.cli import agent_of, control
from iot.spooler.state import held, lock, running


class Agent:
    """Answers one request at its socket with these bytes; `heard` is what it was asked."""

    def __init__(self, base: Path) -> None:
        self.path = base / ("deep" * 40) / "control.sock"  # longer than the name of a socket may be
        self.path.parent.mkdir()
        self.heard = b""
        self._listener = socket.socket(socket.AF_UNIX)
        here = os.open(".", os.O_RDONLY)
        os.chdir(self.path.parent)
        self._listener.bind(self.path.name)
        os.fchdir(here)
        os.close(here)
        self._listener.listen(1)
        self._thread: threading.Thread | None = None
        self._over = threading.Event()

    def answers(self, *pieces: bytes, stays: bool = False) -> None:
        """stays: it does not close the connection then."""
        if not stays:
            self._over.set()
        self._thread = threading.Thread(target=self._serve, args=(pieces,))
        self._thread.start()

    def _serve(self, pieces: tuple[bytes, ...]) -> None:
        client, _ = self._listener.accept()
        with client:
            self.heard = client.recv(65536)
            for piece in pieces:
                client.sendall(piece)
            self._over.wait()

    def close(self) -> None:
        self._over.set()
        if self._thread is not None:
            self._thread.join()
        self._listener.close()


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[Agent]:
    agent = Agent(tmp_path)
    yield agent
    agent.close()


def options(command: str, *names: str, **more: Any) -> argparse.Namespace:
    given = {"config": Path("/c.toml"), "command": command, "outbox": list(names), "json": False}
    return argparse.Namespace(**{**given, **more})


def answer(command: str, *boxes: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"command": command, "outboxes": list(boxes), **more}


def box(name: str, was: str, order: str, reason: str | None = None) -> dict[str, Any]:
    return {"name": name, "was": was, "order": order, "reason": reason}


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What was asked at which socket; what is put in front is answered, an exception is raised."""
    asked: list[Any] = []

    def ask(path: Path, request: Any) -> dict[str, Any]:
        given = asked.pop(0)
        asked.append((path, request))
        if isinstance(given, Exception):
            raise given
        return json.loads(json.dumps(given))  # type: ignore[no-any-return]

    monkeypatch.setattr(control, "_ask", ask)
    monkeypatch.setattr(control, "_socket", lambda options: Path("/run/control.sock"))
    monkeypatch.setattr(Path, "exists", lambda path: True)
    return asked


def test_a_request_is_one_line_and_its_answer_may_come_in_pieces(agent: Agent) -> None:
    agent.answers(b'{"comm', b'and": "stop"}\n', stays=True)
    assert control._ask(agent.path, {"command": "stop", "outboxes": ["a"]}) == {"command": "stop"}
    agent.close()
    assert agent.heard == b'{"command": "stop", "outboxes": ["a"]}\n'


@pytest.mark.parametrize("said", [[], [b"{"], [b"no json\n"]])
def test_an_agent_that_closes_the_connection_has_not_answered(agent: Agent, said: list[bytes]) -> None:
    agent.answers(*said)
    with pytest.raises(ConnectionError, match="it has closed the connection without an answer"):
        control._ask(agent.path, {})


def test_an_answer_that_is_no_object_says_nothing(agent: Agent) -> None:
    agent.answers(b"[1]\n")
    assert control._ask(agent.path, {}) == {}


def test_an_answer_without_end_is_not_read_for_ever(agent: Agent, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control, "ANSWER_MAX", 10)
    monkeypatch.setattr(control, "ANSWER_S", 1)
    agent.answers(b'{"a": 1}  ', stays=True)
    assert control._ask(agent.path, {}) == {"a": 1}


def test_an_agent_that_says_nothing_is_not_waited_for_without_end(
    agent: Agent, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(control, "ANSWER_S", 0)
    with pytest.raises(TimeoutError):
        control._ask(agent.path, {})


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (TimeoutError(), "the agent has not answered within 15 s"),
        (PermissionError(), "/run/control.sock: not permitted; see control.group in the configuration"),
        (OSError(2, "No such file"), "/run/control.sock: the agent takes no commands: No such file"),
        (ConnectionError("closed"), "/run/control.sock: the agent takes no commands: closed"),
        ({"error": "no such outbox"}, "no such outbox"),
    ],
)
def test_why_an_agent_has_not_done_it_is_told(
    asked: list[Any], error: Any, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    asked.append(error)
    assert control.command(options("stop", "a")) == 1
    assert asked == [(Path("/run/control.sock"), {"command": "stop", "outboxes": ["a"]})]
    assert capsys.readouterr() == ("", f"{words}\n")


@pytest.mark.parametrize(
    ("command", "told", "words"),
    [
        ("stop", box("a", "started", "stopped"), "stopped"),
        ("stop", box("a", "stopped", "stopped"), "stopped already"),
        ("start", box("a", "stopped", "started", "no quota"), "started, but held back: no quota"),
        ("suspend", box("a", "started", "suspended"), "suspended"),
        ("suspend", box("a", "stopped", "stopped"), "stays stopped; `iot-spooler start` ends that"),
        ("resume", box("a", "suspended", "started"), "started"),
        ("resume", box("a", "stopped", "stopped"), "stays stopped; `iot-spooler start` ends that"),
        ("flush", box("a", "started", "started"), "looked at and sent now, whatever the schedule says"),
        ("flush", box("a", "suspended", "suspended"), "stays suspended; `iot-spooler resume` ends that"),
    ],
)
def test_what_has_become_of_each_outbox_is_told(
    asked: list[Any], command: str, told: dict[str, Any], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    asked.append(answer(command, told))
    run = control.flush if command == "flush" else control.command
    assert run(options(command, "a")) == (1 if "stays" in words else 0)
    assert capsys.readouterr().out == f"a: {words}\n"


def test_without_a_name_it_is_no_failure_that_some_stay_as_they_are(asked: list[Any]) -> None:
    stays = answer("resume", box("a", "stopped", "stopped"))
    asked.append(stays)
    assert control.command(options("resume")) == 0


def test_a_flushed_inbox_is_fetched_from_and_counts_for_the_exit_code(
    asked: list[Any], capsys: pytest.CaptureFixture[str]
) -> None:
    asked.append(answer("flush", inboxes=[box("in", "started", "started")]))
    assert control.flush(options("flush", "in")) == 0
    assert capsys.readouterr().out == "in: looked at and fetched now, whatever the schedule says\n"
    asked[:] = [answer("stop", box("a", "started", "stopped"), inboxes=[box("in", "started", "started")])]
    assert control.command(options("stop", "a", "in")) == 1


def test_a_flush_at_a_held_server_says_what_it_was_held_for(
    asked: list[Any], capsys: pytest.CaptureFixture[str]
) -> None:
    asked.append(answer("flush", held="LoginRefused: no"))
    assert control.flush(options("flush")) == 0
    assert capsys.readouterr() == (
        "the hold is released: one try now; iot-spooler status tells what came of it\n",
        "the server was held: LoginRefused: no\n",
    )
    asked[:] = [answer("stop", held="LoginRefused: no")]
    assert control.command(options("stop")) == 0
    assert capsys.readouterr() == ("", "")


def test_a_program_gets_the_answer_as_it_is(asked: list[Any], capsys: pytest.CaptureFixture[str]) -> None:
    given = answer("stop", box("a", "started", "stopped"))
    asked.append(given)
    assert control.command(options("stop", json=True)) == 0
    assert json.loads(capsys.readouterr().out) == given


# -- whom


class Device:
    """live: the note of the agent that runs. holds: who holds the state directory."""

    def __init__(self, base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.base, self.config, self.state = base, base / "c.toml", base / "state"
        self.state.mkdir()
        self.config.write_text(
            f'state_dir = "{self.state}"\n[server]\nhost = "h"\nuser = "u"\n[[outbox]]\npath = "{base}/box"\n'
            'destination = "/up"\n'
        )
        self.live: running.Running | None = None
        self.holds: int | None = None
        self.sent: list[tuple[int, int]] = []
        monkeypatch.setenv("RUNTIME_DIRECTORY", str(base / "run"))
        monkeypatch.delenv("IOT_SPOOLER_STATE_DIR", raising=False)
        monkeypatch.setattr(running, "find", self._find)
        monkeypatch.setattr(lock, "holder", lambda state: self.holds if state == self.state else None)
        monkeypatch.setattr(os, "kill", lambda *given: self.sent.append(given))

    def _find(self, config: Path | None, environment: Any, **how: Any) -> running.Running | None:
        return None if how.get("dead") else self.live

    def note(self, state: Path) -> None:
        self.live = running.Running(7, str(self.config), str(state), str(self.base / "there" / "status.json"))

    def options(self, *names: str, **more: Any) -> argparse.Namespace:
        return options("flush", *names, **{"config": self.config, **more})


@pytest.fixture
def device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Device:
    return Device(tmp_path, monkeypatch)


def test_an_agent_takes_commands_beside_its_status(device: Device) -> None:
    assert control._socket(device.options()) is None
    device.holds = 7
    assert control._socket(device.options()) == device.base / "run" / "control.sock"
    device.note(device.state)
    assert control._socket(device.options()) == device.base / "there" / "control.sock"


def test_who_names_a_state_directory_means_no_other_agent(device: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    device.note(device.base / "other")
    settings, live = agent_of.settings_in_use(device.options())
    assert (settings.state_dir, live) == (device.base / "other", device.live)
    monkeypatch.setenv("IOT_SPOOLER_STATE_DIR", str(device.state))
    settings, live = agent_of.settings_in_use(device.options())
    assert (settings.state_dir, live) == (device.state, None)
    assert control._socket(device.options()) is None
    device.holds = 7
    assert control._socket(device.options()) == device.base / "run" / "control.sock"


def test_a_flush_releases_the_hold_that_an_agent_has_left(
    device: Device, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    released: list[Path] = []
    monkeypatch.setattr(held, "release", lambda state: released.append(state) or True)
    assert control.flush(device.options()) == 0
    assert capsys.readouterr().out == (
        "no agent is running; the hold of an earlier one is released: the next tries at once\n"
    )
    assert released == [device.state]
    device.holds = 7  # it runs, and takes no commands
    assert control.flush(device.options()) == 0
    assert capsys.readouterr().out == "the agent looks and sends now, whatever the schedule says\n"
    assert len(device.sent) == len(released) == 1


def test_a_hold_that_cannot_be_released_is_told(
    device: Device, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refused(_: Path) -> bool:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(held, "release", refused)
    assert control.flush(device.options()) == 1
    told = capsys.readouterr().err
    assert told.splitlines()[0] == f"cannot release the hold in {device.state}: Permission denied"


def test_by_a_signal_only_all_outboxes_can_be_flushed(device: Device, capsys: pytest.CaptureFixture[str]) -> None:
    device.holds = 7
    assert control.flush(device.options("box")) == 1
    assert capsys.readouterr().err == "the agent takes no commands, so only all outboxes can be flushed\n"
    assert device.sent == []


def test_without_an_agent_there_is_nobody_to_command(device: Device, capsys: pytest.CaptureFixture[str]) -> None:
    assert control.command(device.options()) == 1
    assert capsys.readouterr().err == "no agent is running\n"


# -- what it has told


def tell(path: Path, **content: Any) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(content))


def test_of_an_agent_that_runs_its_own_status_is_read(device: Device) -> None:
    device.note(device.state)
    assert agent_of.told(device.options()) == (None, True)
    tell(device.base / "there" / "status.json", pid=7)
    assert agent_of.told(device.options()) == ({"pid": 7}, True)


def test_of_an_agent_that_is_announced_nowhere_the_newest_status_of_its_process_counts(device: Device) -> None:
    assert agent_of.told(device.options()) == (None, False)
    tell(device.base / "run" / "status.json", pid=7, updated_at=5)
    tell(device.state / "status.json", pid=8, updated_at=6)
    assert agent_of.told(device.options()) == ({"pid": 8, "updated_at": 6}, False)
    device.holds = 7
    assert agent_of.told(device.options()) == ({"pid": 7, "updated_at": 5}, True)
    device.holds = 9
    assert agent_of.told(device.options()) == (None, True)


def test_a_status_that_does_not_say_when_it_was_written_is_the_oldest(device: Device) -> None:
    tell(device.base / "run" / "status.json", pid=7)
    tell(device.state / "status.json", pid=8, updated_at=0.5)
    assert agent_of.told(device.options()) == ({"pid": 8, "updated_at": 0.5}, False)


def test_without_a_file_the_settings_are_those_of_the_environment(
    device: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = SimpleNamespace(state_dir=device.state)
    monkeypatch.setattr("iot.spooler.config.load.load", lambda config, environment: given)
    device.note(device.base / "other")
    tell(device.state / "status.json", pid=8)
    assert agent_of.told(device.options(config=None)) == ({"pid": 8}, False)
