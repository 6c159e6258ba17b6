"""The words of `iot-spooler`: version, default configuration, wrong usage."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from iot.spooler.cli import options
from iot.spooler.cli.main import main
from iot.spooler.cli.options import parser
from iot.transfer import __version__

COMMANDS = ["run", "check", "status", "deliveries", "retry", "flush"]


def usage_error(words: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit) as ended:
        main(words)
    assert ended.value.code == 64
    told = capsys.readouterr()
    assert told.out == ""
    assert len(told.err.splitlines()) == 2
    assert all(len(line) <= 160 for line in told.err.splitlines())
    return told.err


def test_the_version_is_said_and_costs_no_settings_no_database_and_no_ssh() -> None:
    run = (
        "from iot.spooler.cli.main import main\ntry: main(['--version'])\nexcept SystemExit as end: assert not end.code"
    )
    code = f"import sys\n{run}\nprint({{'pydantic', 'paramiko', 'sqlite3'}} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.splitlines() == [f"iot-spooler {__version__}", "set()"]


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["deliver"], "no such command: deliver; did you mean deliveries?"),
        (["status", "--jsn"], "no such option: --jsn"),
        (["run", "--conf", "x"], "no such option: --conf"),
        ([], "missing: COMMAND"),
        (["statsu"], "no such command: statsu; did you mean status?"),
        (["quarantine", "lst"], "no such command: lst; did you mean list?"),
        (["run", "now"], "too many words: 1"),
        (["deliveries", "--last", "many"], "invalid number value: 'many'"),
        (["run", "--config"], "--config"),
        (["demo", "--config", "x"], "no such option: --config"),
    ],
)
def test_wrong_usage_ends_with_64_and_two_lines(
    words: list[str], reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert reason in usage_error(words, capsys)


def test_what_is_no_option_is_not_repeated_with_its_value(capsys: pytest.CaptureFixture[str]) -> None:
    assert "hunter2" not in usage_error(["run", "--pasword=hunter2"], capsys)


@pytest.mark.parametrize("command", COMMANDS)
def test_without_config_the_file_of_the_service_is_read(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("IOT_SPOOLER_CONFIG", raising=False)
    assert parser().parse_args([command]).config == Path("/etc/iot-spooler/iot-spooler.toml")
    assert parser().parse_args([command, "--config", "a.toml"]).config == Path("a.toml")
    assert parser().parse_args(["--config", "a.toml", command]).config == Path("a.toml")
    monkeypatch.setenv("IOT_SPOOLER_CONFIG", "/b.toml")
    assert parser().parse_args([command]).config == Path("/b.toml")


def test_settings_of_the_environment_alone_need_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("IOT_SPOOLER_CONFIG", raising=False)
    monkeypatch.setattr(options, "CONFIG", tmp_path / "iot-spooler.toml")
    monkeypatch.setenv("IOT_SPOOLER_STATE_DIR", "/state")
    assert parser().parse_args(["run"]).config is None
    options.CONFIG.touch()
    assert parser().parse_args(["run"]).config == options.CONFIG


def test_a_file_that_is_not_there_is_named_with_what_to_do(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "--config", str(tmp_path / "none.toml")]) == 78
    assert capsys.readouterr().err == (
        f"{tmp_path}/none.toml: cannot be read: No such file or directory; name the right one: --config FILE\n"
    )
