"""`iot-spooler retry` and `flush`: what they do, say and end with, and with whose rights."""

from __future__ import annotations

import json
import os
import pwd
import signal
from pathlib import Path
from types import SimpleNamespace

import pytest

from iot.spooler.cli import main as entry
from iot.spooler.cli import quarantine
from iot.spooler.cli.agent_of import act_as_owner
from iot.spooler.cli.main import main
from iot.spooler.state import lock
from iot.transfer import ConfigurationError, LocalStateError

NUMBER = "0123456789abcdef"


@pytest.fixture
def signals(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """No agent runs, until a test says that one holds the state directory."""
    sent: list[tuple[int, int]] = []
    monkeypatch.setattr(lock, "holder", lambda _: None)
    monkeypatch.setattr(os, "kill", lambda pid, number: sent.append((pid, number)))
    monkeypatch.setattr(quarantine, "log_to_stderr", lambda _: None)  # it writes to the descriptor, past pytest
    return sent


@pytest.fixture
def config(tmp_path: Path, signals: list[tuple[int, int]]) -> list[str]:
    (tmp_path / "box").mkdir()
    (tmp_path / "state").mkdir(mode=0o700)
    file = tmp_path / "spooler.toml"
    file.write_text(
        f'state_dir = "{tmp_path}/state"\n[server]\nhost = "h"\nuser = "u"\n'
        f'[[outbox]]\npath = "{tmp_path}/box"\ndestination = "/up"\nquarantine = "{tmp_path}/quarantine"\n'
    )
    return ["--config", str(file)]


def given_up(tmp_path: Path, number: str, name: str = "f", **record: str) -> None:
    folder = tmp_path / "quarantine" / number
    folder.mkdir(parents=True, mode=0o700)
    folder.parent.chmod(0o700)
    (folder / name).write_text("content")
    record = {"outbox": f"{tmp_path}/box", "path": name, "destination": f"/up/{name}", **record}
    folder.with_suffix(".json").write_text(json.dumps(record))


def test_retry_says_how_many_went_back_and_wakes_the_agent(tmp_path, config, signals, monkeypatch, capsys):
    given_up(tmp_path, NUMBER)
    assert main(["retry", *config]) == 0
    assert capsys.readouterr().out == f"released 1 file from {tmp_path}/quarantine\n"
    assert (tmp_path / "box" / "f").read_text() == "content"
    assert signals == []
    monkeypatch.setattr(lock, "holder", lambda _: 4711)
    assert main(["retry", *config]) == 0
    assert capsys.readouterr().out == f"released 0 files from {tmp_path}/quarantine\n"
    assert signals == [(4711, signal.SIGUSR1)]


def test_what_cannot_go_back_is_told_and_the_command_fails(tmp_path, config, capsys, caplog):
    given_up(tmp_path, NUMBER)
    given_up(tmp_path, NUMBER[::-1], "g", outbox="/elsewhere")
    assert main(["retry", *config]) == 1
    told = capsys.readouterr().out
    assert told == f"released 1 file from {tmp_path}/quarantine, 1 could not be moved (see above)\n"
    assert "its outbox /elsewhere is not in this configuration" in caplog.text


def test_flush_wakes_the_agent_or_says_that_there_is_none(config, signals, monkeypatch, capsys):
    assert main(["flush", *config]) == 1
    assert "no agent is running on this state directory" in capsys.readouterr().err
    monkeypatch.setattr(lock, "holder", lambda _: 4711)
    assert main(["flush", *config]) == 0
    assert signals == [(4711, signal.SIGUSR2)]

    def refused(*_: int) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "kill", refused)
    assert main(["flush", *config]) == 1
    assert "cannot signal the agent (process 4711): Operation not permitted" in capsys.readouterr().err


# -- whose rights


class Rights:
    """What a process would become; it runs as `user`."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, user: int = 0) -> None:
        self.done: list[tuple[object, ...]] = []
        monkeypatch.setattr(os, "geteuid", lambda: user)
        for name in ("setgroups", "initgroups", "setresgid", "setresuid"):
            monkeypatch.setattr(os, name, lambda *given, name=name: self.done.append((name, *given)))
        monkeypatch.setenv("HOME", "/root")


def owned_by(monkeypatch: pytest.MonkeyPatch, user: int, group: int) -> None:
    monkeypatch.setattr(os, "stat", lambda _: SimpleNamespace(st_uid=user, st_gid=group))


def test_root_becomes_the_user_whose_agent_it_is_groups_first(tmp_path, monkeypatch):
    rights = Rights(monkeypatch)
    owned_by(monkeypatch, 990, 991)
    agent = SimpleNamespace(pw_name="agent", pw_gid=992, pw_dir="/var/lib/agent")
    monkeypatch.setattr(pwd, "getpwuid", lambda uid: {990: agent}[uid])
    act_as_owner(tmp_path)
    assert rights.done == [
        ("initgroups", "agent", 992),
        ("setresgid", 992, 992, 992),
        ("setresuid", 990, 990, 990),
    ]
    assert os.environ["HOME"] == "/var/lib/agent"


def test_a_user_without_a_name_has_no_groups_but_its_own(tmp_path, monkeypatch):
    rights = Rights(monkeypatch)
    owned_by(monkeypatch, 990, 991)

    def nobody(_: int) -> None:
        raise KeyError

    monkeypatch.setattr(pwd, "getpwuid", nobody)
    act_as_owner(tmp_path)
    assert rights.done == [("setgroups", []), ("setresgid", 991, 991, 991), ("setresuid", 990, 990, 990)]


@pytest.mark.parametrize(("runs_as", "owner"), [(0, 0), (1000, 1000), (1000, 990), (1000, 0)])
def test_nobody_else_changes_rights(tmp_path, monkeypatch, runs_as, owner):
    rights = Rights(monkeypatch, runs_as)
    owned_by(monkeypatch, owner, owner)
    act_as_owner(tmp_path)
    assert rights.done == []


def test_before_an_agent_has_run_there_is_nobody_to_become(tmp_path, monkeypatch):
    rights = Rights(monkeypatch)
    act_as_owner(tmp_path / "missing")
    assert rights.done == []


# -- how a command ends


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (ConfigurationError("key: wrong"), 78, "key: wrong\n"),
        (LocalStateError("disk \x1b[2J full"), 75, "iot-spooler: disk "),
        (ZeroDivisionError("oh \x1b[2J"), 70, "ZeroDivisionError"),
    ],
)
def test_the_exit_code_tells_the_kind_and_nothing_harms_a_terminal(config, monkeypatch, capsys, error, code, words):
    def fails(_: object) -> int:
        raise error

    monkeypatch.setitem(entry.COMMANDS, "flush", fails)
    assert main(["flush", *config]) == code
    told = capsys.readouterr().err
    assert words in told
    assert "\x1b" not in told


@pytest.mark.parametrize("answer", [0, 1])
def test_the_demo_is_its_own_command(monkeypatch, answer):
    from iot.spooler.demo import demo

    monkeypatch.setattr(demo, "main", lambda: answer)
    assert main(["demo"]) == answer


@pytest.mark.parametrize("number", ["0", "-1", "x"])
def test_how_many_deliveries_is_a_number_from_one(config, capsys, number):
    with pytest.raises(SystemExit) as ended:
        main(["deliveries", "--last", number, *config])
    assert ended.value.code == 64
    assert "invalid number value" in capsys.readouterr().err
