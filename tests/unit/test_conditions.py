"""Commands that decide whether files may be sent, and the examples in deploy/conditions."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from iot.spooler.commands import environment
from iot.spooler.gates.condition import CommandGate
from iot.spooler.queue.policy import Admission

EXAMPLES = Path(__file__).parents[2] / "deploy" / "conditions"
GIVE_UP_S = 20.0


def gate(*command: str, holds=bool, **ours: str) -> CommandGate:
    beyond = {1: Admission.NONE, 2: Admission.URGENT, 3: Admission.ALL}
    where = {**os.environ, **ours}
    return CommandGate(command, beyond, holds, "no", every_s=60, limit_s=10, environment=environment(where))


def run(command: CommandGate, now: float = 0.0) -> str:
    """Look until it has ended -> why files must wait."""
    end = time.monotonic() + GIVE_UP_S
    while command.look(0.0, now) < 1 and time.monotonic() < end:
        time.sleep(0.005)
    return command.of(1, flushed=False).reason


def gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    except OSError:
        return True


def test_only_exit_code_0_allows_sending():
    assert run(gate("true")) == ""
    assert run(gate("false")) == "no (exit code 1)"
    assert run(gate("sh", "-c", "kill -9 $$")) == "no (signal 9)"
    assert run(gate("no-such-program-at-all")) == "no: no-such-program-at-all cannot be run: No such file or directory"


def test_nothing_is_sent_before_the_first_answer_whatever_a_flush_says():
    command = gate("sleep", "60")
    assert command.look(0.0, 0.0) < 1
    assert command.of(1, flushed=True) == (Admission.NONE, "no: not known yet")
    assert command.of(2, flushed=True).admission is Admission.URGENT
    assert command.of(3, flushed=True).admission is Admission.ALL
    command.close()


def test_it_is_asked_again_after_its_time_and_not_before(tmp_path):
    command = gate("test", "-e", str(tmp_path / "flag"))
    assert run(command, 0.0) == "no (exit code 1)"
    (tmp_path / "flag").touch()
    assert command.look(0.0, 59.0) == pytest.approx(1.0)
    assert run(command, 59.0) == "no (exit code 1)"
    assert run(command, 60.0) == ""


def test_a_command_that_hangs_is_killed_with_its_children(tmp_path):
    note = tmp_path / "child"
    command = gate("sh", "-c", f"sleep 1000 & echo $! > {note}; wait")
    command.look(0.0, 0.0)
    end = time.monotonic() + GIVE_UP_S
    while not (note.exists() and note.read_text().strip()) and time.monotonic() < end:
        time.sleep(0.005)
    child = int(note.read_text())
    assert command.look(0.0, 9.9) < 1
    assert not gone(child)
    command.look(0.0, 10.0)
    assert command.of(1, flushed=False).reason == "no: sh did not end in 10 s"
    while not gone(child) and time.monotonic() < end:
        time.sleep(0.005)
    assert gone(child)


def test_what_a_command_leaves_behind_is_ended_with_it(tmp_path):
    note = tmp_path / "child"
    assert run(gate("sh", "-c", f"sleep 1000 & echo $! > {note}")) == ""
    end = time.monotonic() + GIVE_UP_S
    while not gone(int(note.read_text())) and time.monotonic() < end:
        time.sleep(0.005)
    assert gone(int(note.read_text()))


def test_at_the_end_what_still_runs_is_ended(tmp_path):
    number = tmp_path / "number"
    command = gate("sh", "-c", 'echo $$ >"$0.new" && mv "$0.new" "$0" && exec sleep 60', str(number))
    command.look(0.0, 0.0)
    end = time.monotonic() + GIVE_UP_S
    while not number.exists() and time.monotonic() < end:
        time.sleep(0.005)
    command.close()
    while not gone(int(number.read_text())) and time.monotonic() < end:
        time.sleep(0.005)
    assert gone(int(number.read_text()))
    command.close()  # nothing runs


def test_it_gets_no_shell_and_none_of_our_secrets(tmp_path):
    note = tmp_path / "seen"
    program = f"import os, sys; open({str(note)!r}, 'w').write(repr((sys.argv[1:], sorted(os.environ))))"
    secrets = {"IOT_SPOOLER_SERVER__PASSWORD": "x", "SFTP_PASSWORD": "x", "CREDENTIALS_DIRECTORY": "/run/x"}
    assert run(gate(sys.executable, "-c", program, "$HOME; true", **secrets)) == ""
    words, names = eval(note.read_text())
    assert words == ["$HOME; true"]
    assert not set(names) & set(secrets)
    assert "PATH" in names


def test_a_metered_link_is_one_that_is_not_known_to_be_none():
    def metered(code: int) -> bool:
        return code != 1

    assert run(gate("true", holds=metered)) == "no (exit code 0)"
    assert run(gate("false", holds=metered)) == ""
    assert run(gate("sh", "-c", "exit 2", holds=metered)) == "no (exit code 2)"


def example(name: str, *words: str, **given: str) -> int:
    return subprocess.run([EXAMPLES / name, *words], env={**os.environ, **given}, check=False).returncode


def test_example_of_a_battery(tmp_path):
    for name, figure in {"BAT0/capacity": "80", "BAT1/capacity": "29", "AC/online": "0"}.items():
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_text(figure)
    where = {"POWER_SUPPLIES": str(tmp_path)}
    assert example("on-mains-or-charged", "30", **where) == 1
    assert example("on-mains-or-charged", "29", **where) == 0
    (tmp_path / "AC/online").write_text("1")
    assert example("on-mains-or-charged", "30", **where) == 0
    assert example("on-mains-or-charged", "30", POWER_SUPPLIES=str(tmp_path / "none")) == 0


def test_example_of_a_temperature(tmp_path):
    for number, figure in enumerate(("40000", "75001")):
        (tmp_path / f"thermal_zone{number}").mkdir()
        (tmp_path / f"thermal_zone{number}/temp").write_text(figure)
    assert example("cool-enough", "75", THERMAL_ZONES=str(tmp_path)) == 1
    assert example("cool-enough", "76", THERMAL_ZONES=str(tmp_path)) == 0
    assert example("cool-enough", "75", THERMAL_ZONES=str(tmp_path / "none")) == 0


@pytest.mark.parametrize(("told", "code"), [("u 1", 0), ("u 3", 0), ("u 2", 1), ("u 4", 1), ("u 0", 2), (None, 2)])
def test_example_of_networkmanager(tmp_path, told, code):
    busctl = tmp_path / "busctl"
    busctl.write_text("#!/bin/sh\n" + ("exit 1\n" if told is None else f"echo {told}\n"))
    busctl.chmod(0o755)
    assert example("metered", PATH=f"{tmp_path}:{os.environ['PATH']}") == code


def test_a_command_that_a_signal_ends_has_not_allowed_anything():
    assert run(gate("sh", "-c", "kill -9 $$", holds=lambda code: code == 0)) == "no (signal 9)"
