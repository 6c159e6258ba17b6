"""`iot-spooler quarantine list|retry|drop`: what is asked, said and returned where not all goes well."""

from __future__ import annotations

import builtins
import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from unit.test_quarantine_commands import Device

from iot.spooler.cli import quarantine
from iot.spooler.leaving import release


class Terminal:
    """Somebody who answers with `answer`; a class of exceptions is raised."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, answer: str | type[BaseException]) -> None:
        self.asked: list[str] = []
        self._answer = answer
        monkeypatch.setattr(sys, "stdin", SimpleNamespace(isatty=lambda: True))
        monkeypatch.setattr(builtins, "input", self._input)

    def _input(self, words: str) -> str:
        self.asked.append(words)
        if isinstance(self._answer, str):
            return self._answer
        raise self._answer


@pytest.fixture
def done(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """How much is logged, whose rights are taken, and that the agent is woken, in this order."""
    done: list[Any] = []
    monkeypatch.setattr(quarantine, "log_to_stderr", done.append)
    monkeypatch.setattr(quarantine, "act_as_owner", done.append)
    monkeypatch.setattr(quarantine, "poke", lambda settings: done.append("poke"))
    return done


@pytest.fixture
def device(tmp_path: Path, done: list[Any]) -> Device:
    device = Device(tmp_path)
    device.give_up_two()
    return device


def say(monkeypatch: pytest.MonkeyPatch, name: str, *answer: Any) -> None:
    monkeypatch.setattr(release, name, lambda *_: answer)


@pytest.mark.parametrize("words", [("list",), ("retry",), ("drop", "--yes")])
def test_only_errors_are_logged_and_the_rights_are_the_agents(
    device: Device, done: list[Any], words: tuple[str, ...]
) -> None:
    assert device.run(*words) == 0
    assert done == ["ERROR", device.state] + ["poke"] * (words != ("list",))


def test_a_program_gets_all_that_is_known_of_each_file_one_line_for_each_value(
    device: Device, capsys: pytest.CaptureFixture[str]
) -> None:
    assert device.run("list", "--json") == 0
    told = capsys.readouterr().out
    assert told.startswith('[\n {\n  "id": ')
    assert set(json.loads(told)[0]) == set(release.Quarantined._fields)


def test_a_quarantine_that_cannot_be_read_is_not_called_empty(
    device: Device, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    say(monkeypatch, "listed", [], 1)
    assert device.run("list") == 1
    assert capsys.readouterr().out == ""
    assert device.run("drop", "--yes") == 1
    say(monkeypatch, "listed", [], 0)
    assert device.run("drop", "--yes") == 0


def test_what_could_be_read_of_a_quarantine_is_dropped_and_the_command_fails_for_the_rest(
    device: Device, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    found, _ = release.listed([device.state / "quarantine"])
    say(monkeypatch, "listed", found, 1)
    assert device.run("drop", "--yes") == 1
    assert capsys.readouterr().out == "dropped 2 files\n"
    assert device.paths() == []


def test_what_is_asked_about_is_what_goes_and_a_file_that_comes_meanwhile_stays(
    device: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    found, _ = release.listed([device.state / "quarantine"])
    say(monkeypatch, "listed", found[:1], 0)
    assert device.run("drop", "--yes") == 0
    assert device.paths() == ["sub/b\x1b.csv"]


def test_each_file_is_shown_before_it_is_asked_whether_to_drop_it(
    device: Device, done: list[Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    terminal = Terminal(monkeypatch, "")
    device.run("list")
    listed = capsys.readouterr().out
    assert device.run("drop") == 1
    assert capsys.readouterr().out == f"{listed}nothing was dropped\n"
    assert terminal.asked == ["drop 2 files, 1.0 KiB, for ever? They were never delivered. [y/N] "]
    assert len(device.paths()) == 2
    assert "poke" not in done


@pytest.mark.parametrize(
    ("answer", "dropped"),
    [("y", True), (" YES ", True), ("n", False), ("yeah", False), (EOFError, False), (KeyboardInterrupt, False)],
)
def test_only_a_clear_yes_drops(
    device: Device, monkeypatch: pytest.MonkeyPatch, answer: str | type[BaseException], dropped: bool
) -> None:
    Terminal(monkeypatch, answer)
    assert device.run("drop", "a.csv") == (0 if dropped else 1)
    assert ("a.csv" not in device.paths()) is dropped


def test_without_anybody_to_ask_nothing_is_dropped_and_it_is_wrong_usage(
    device: Device, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(isatty=lambda: False))
    assert device.run("drop") == 64
    told = capsys.readouterr()
    assert told.err == "iot-spooler: drop 2 files, 1.0 KiB: nobody to ask here; --yes does it\n"
    assert told.out == ""
    assert len(device.paths()) == 2


def test_files_that_stay_although_they_were_to_go_fail_the_command(
    device: Device, done: list[Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    say(monkeypatch, "drop", 1, 2)
    assert device.run("drop", "--yes") == 1
    assert capsys.readouterr().out == "dropped 1 file, 2 could not be (see above)\n"
    assert done[-1] == "poke"


def test_a_reason_goes_on_below_itself_and_no_word_of_it_is_cut_at_a_hyphen(
    device: Device, capsys: pytest.CaptureFixture[str]
) -> None:
    device.give_up("c", b"1", attempts=0, destination="/u p", reason="x" * 30 + " in-the-middle-of-the-line-end-of-it")
    assert device.run("list", "c") == 0
    assert capsys.readouterr().out.splitlines()[1:] == [
        f"    {device.box}/c",
        f'    0 attempts to "/u p": {"x" * 30}',
        "    in-the-middle-of-the-line-end-of-it",
    ]
