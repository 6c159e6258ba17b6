"""`iot-spooler run`, `status` and `deliveries`: how each ends, and what it prints for people and for programs."""

from __future__ import annotations

import argparse
import gc
import io
import json
import logging
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from unit.test_status_screen import CONTENT

from iot.spooler.agent.draining import End
from iot.spooler.cli import agent_of, commands, main, output
from iot.spooler.process import service
from iot.spooler.queue import deliveries
from iot.spooler.state.lock import AlreadyRunning
from iot.spooler.status.screen import table


def options(**given: Any) -> argparse.Namespace:
    return argparse.Namespace(**{"config": Path("/c.toml"), "json": False, "watch": False, **given})


@pytest.fixture
def collector() -> Iterator[None]:
    before = gc.get_threshold()
    yield
    gc.set_threshold(*before)
    gc.unfreeze()


@pytest.mark.parametrize(
    ("drain", "end", "code"),
    [
        (True, End.DRAINED, 0),
        (True, End.REMAINS, 75),
        (True, End.STOPPED, 75),
        (False, End.STOPPED, 0),
        (True, AlreadyRunning("/s", 7), 75),
    ],
)
@pytest.mark.usefixtures("collector")
def test_a_run_ends_well_unless_something_remains(
    drain: bool, end: Any, code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[Any] = []

    def run(*given: Any, **how: Any) -> End:
        asked.append((*given, how, gc.isenabled()))
        if isinstance(end, Exception):
            raise end
        return end  # type: ignore[no-any-return]

    levels: list[str] = []
    monkeypatch.setattr(service, "run", run)
    monkeypatch.setattr(commands, "log_to_stderr", levels.append)
    assert commands.run(options(drain=drain)) == code
    assert asked == [(Path("/c.toml"), os.environ, {"drain": drain}, True)]
    assert levels == ["INFO"]
    assert capsys.readouterr().err == (f"iot-spooler: {end}\n" if isinstance(end, Exception) else "")


@pytest.mark.parametrize(
    ("content", "running", "code", "words"),
    [
        (None, True, 1, "no status yet"),
        (None, False, 1, "no agent is running, and none has left a status"),
        (CONTENT, True, 0, ""),
        (CONTENT, False, 1, ""),
        ({**CONTENT, "ended": True}, False, 0, ""),
    ],
)
def test_status_ends_well_where_an_agent_runs_or_has_ended_in_order(
    content: Any,
    running: bool,
    code: int,
    words: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(commands, "told", lambda options: (content and dict(content), running))
    monkeypatch.setattr(time, "time", lambda: 1000.0)
    assert commands.status(options()) == code
    told = capsys.readouterr()
    assert told.err == (f"{words}\n" if words else "")
    assert told.out == ("" if words else table(content, running=running, wall=1000.0) + "\n")


def test_a_program_gets_the_status_one_line_for_each_value_and_whether_the_agent_runs(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(commands, "told", lambda options: ({"pid": 1}, True))
    assert commands.status(options(json=True)) == 0
    assert capsys.readouterr().out == '{\n "pid": 1,\n "running": true\n}\n'
    monkeypatch.setattr(commands, "told", lambda options: (None, True))
    assert commands.status(options(json=True)) == 1
    assert json.loads(capsys.readouterr().out) == {"error": "no status yet", "exit": 1}


class Screen(io.StringIO):
    def __init__(self, *, terminal: bool) -> None:
        super().__init__()
        self.terminal, self.flushed = terminal, 0

    def isatty(self) -> bool:
        return self.terminal

    def flush(self) -> None:
        self.flushed += 1


@pytest.mark.parametrize(
    ("terminal", "as_json", "cleared"), [(True, False, True), (True, True, False), (False, False, False)]
)
def test_a_watched_status_comes_again_every_second_until_ctrl_c(
    terminal: bool, as_json: bool, cleared: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    screen, slept = Screen(terminal=terminal), list[tuple[float, int]]()

    def sleep(seconds: float) -> None:
        slept.append((seconds, screen.flushed))
        if len(slept) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(sys, "stdout", screen)
    monkeypatch.setattr(time, "sleep", sleep)
    answers = [({"pid": 1, **CONTENT}, True), ({"pid": 1, **CONTENT}, False)]
    monkeypatch.setattr(commands, "told", lambda options: answers.pop(0))
    assert commands.status(options(watch=True, json=as_json)) == 1
    told = screen.getvalue()
    assert told.count(commands.CLEAR) == (2 if cleared else 0)
    assert told.startswith(commands.CLEAR) is cleared
    assert slept == [(commands.WATCH_S, 1), (commands.WATCH_S, 2)]
    if as_json:
        assert [json.loads(line)["running"] for line in told.splitlines()] == [True, False]


def test_a_watch_that_is_ended_before_its_first_look_has_failed_at_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def told(_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(commands, "told", told)
    assert commands.status(options(watch=True)) == 0


def test_deliveries_are_read_with_the_agents_rights_and_as_many_as_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    done: list[Any] = []
    config = tmp_path / "c.toml"
    config.write_text(
        f'state_dir = "{tmp_path}/state"\n[server]\nhost = "h"\nuser = "u"\n[[outbox]]\npath = "/box"\n'
        'destination = "/up"\n'
    )
    monkeypatch.setattr(commands, "act_as_owner", done.append)
    monkeypatch.setattr(deliveries, "last_deliveries", lambda *given: done.append(given) or [])
    assert commands.deliveries(options(config=config, last=7)) == 0
    assert done == [tmp_path / "state", (tmp_path / "state", 7)]
    assert capsys.readouterr().out == "nothing was delivered yet\n"
    assert commands.deliveries(options(config=config, last=7, json=True)) == 0
    assert capsys.readouterr().out == "[]\n"


# -- what is said


def test_a_long_line_goes_on_indented_on_a_terminal_and_stays_whole_for_a_program() -> None:
    exact, longer = "a" * 80, "in-between " * 7 + "and-so-on"
    for terminal, expected in (
        (True, [exact, "in-between " * 6 + "in-between", "    and-so-on"]),
        (False, [exact, longer]),
    ):
        out = Screen(terminal=terminal)
        output.say(f"{exact}\n{longer}", out)
        assert out.getvalue().splitlines() == expected


def test_nothing_that_is_said_acts_on_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    output.say("a\x1b[2Jb\n\nc")
    told = capsys.readouterr()
    assert "\x1b" not in told.err
    assert [line[:1] for line in told.err.splitlines()] == ["a", "", "c"]
    assert told.out == ""


def test_why_a_command_ends_is_said_to_people_and_printed_for_programs(capsys: pytest.CaptureFixture[str]) -> None:
    for given in (argparse.Namespace(), options()):
        assert output.failed(given, "no", 5) == 5
        assert capsys.readouterr() == ("", "no\n")
    assert output.failed(options(json=True), "no", 5) == 5
    assert capsys.readouterr() == ('{"error": "no", "exit": 5}\n', "")


def test_the_log_goes_to_standard_error_and_that_of_paramiko_to_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[dict[str, Any]] = []
    monkeypatch.setattr(logging, "basicConfig", lambda **how: given.append(how))
    monkeypatch.setattr(sys, "stderr", os.fdopen(os.dup(2), "w"))
    level = logging.getLogger("paramiko").level
    try:
        output.log_to_stderr("INFO")
        assert logging.getLogger("paramiko").level == logging.CRITICAL
    finally:
        logging.getLogger("paramiko").setLevel(level)
        sys.stderr.close()
    (handler,) = given[0]["handlers"]
    assert given[0]["level"] == "INFO"
    assert handler.formatter is not None
    assert handler.formatter._fmt != "%(message)s"


def test_a_reader_who_has_read_enough_ends_a_command_well(monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(_: object) -> int:
        raise BrokenPipeError

    copied: list[tuple[str, int]] = []
    monkeypatch.setattr(os, "dup2", lambda file, to: copied.append((os.readlink(f"/proc/self/fd/{file}"), to)))
    opened = os.open
    files: list[int] = []
    monkeypatch.setattr(os, "open", lambda *given: files.append(opened(*given)) or files[-1])
    monkeypatch.setattr(sys, "stdout", type("Out", (), {"fileno": lambda self: 99})())
    monkeypatch.setitem(main.COMMANDS, "status", gone)
    assert main.main(["status"]) == 0
    for file in files:
        os.close(file)
    assert copied == [(os.devnull, 99)]


# -- whose agent it is


@pytest.mark.parametrize(("flush", "words"), [(True, "no agent is running on this state directory"), (False, "")])
def test_only_a_flush_says_that_nobody_is_there_to_be_woken(
    flush: bool, words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings: Any = argparse.Namespace(state_dir=tmp_path)
    assert not agent_of.poke(settings, flush=flush)
    assert words in capsys.readouterr().err
    assert words or not capsys.readouterr().err
