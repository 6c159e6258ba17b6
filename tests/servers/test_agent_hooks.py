"""Hooks of the whole agent, as processes: killed between a delivery and its hook, and against a real server."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

COMMAND = [sys.executable, "-m", "iot.spooler"]


class Device:
    """An agent whose server is a folder."""

    def __init__(self, base: Path) -> None:
        self.base = base
        self.box = base / "box"
        self.notes = base / "notes"
        self.notes.touch()
        self.outbox = ""
        for name in ("box", "remote"):
            (base / name).mkdir()

    def hook(self, name: str, script: str) -> str:
        """A line of [outbox.hooks] with a program of its own."""
        program = self.base / name
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(0o755)
        return f'{name} = ["{program}"]\n'

    def drain(self, hooks: str) -> subprocess.CompletedProcess[str]:
        config = self.base / "spooler.toml"
        config.write_text(
            f'state_dir = "{self.base}/state"\n[server]\nkind = "folder"\npath = "{self.base}/remote"\n'
            f"publish_grace_s = 0\n"
            f'[[outbox]]\npath = "{self.box}"\ndestination = "up"\nsettle_s = 0\n{self.outbox}[outbox.hooks]\n{hooks}'
        )
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        command = [*COMMAND, "run", "--drain", "--config", str(config)]
        return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)

    def noted(self) -> list[str]:
        return self.notes.read_text().splitlines()


@pytest.fixture
def device(tmp_path: Path) -> Device:
    return Device(tmp_path)


def test_an_agent_killed_while_after_success_runs_sends_once_and_tells_again(device: Device) -> None:
    for number in range(3):
        (device.box / f"f{number}").write_bytes(b"x")
    note = f'echo "$IOT_RESULT $IOT_PATH" >> {device.notes}'
    kills = f"{note}; test -e {device.base}/once || {{ touch {device.base}/once; kill -9 $PPID; }}"
    hooks = device.hook("after_success", kills) + "at_once = 1\n"
    assert device.drain(hooks).returncode == -9
    first = device.noted()
    assert len(first) == 1
    before = {path.name: path.stat().st_ino for path in (device.base / "remote/up").iterdir()}
    assert device.drain(hooks).returncode == 0
    assert sorted(set(device.noted())) == [f"delivered {device.box}/f{number}" for number in range(3)]
    assert device.noted().count(first[0]) == 2
    after = {path.name: path.stat().st_ino for path in (device.base / "remote/up").iterdir()}
    assert before.items() <= after.items()  # what was there was not sent again
    assert list(device.box.iterdir()) == []


def test_an_agent_killed_while_before_runs_has_sent_nothing_and_asks_again(device: Device) -> None:
    (device.box / "f").write_bytes(b"x")
    kills = f"echo ran >> {device.notes}; test -e {device.base}/once || {{ touch {device.base}/once; kill -9 $PPID; }}"
    hooks = device.hook("before", kills)
    assert device.drain(hooks).returncode == -9
    assert not (device.base / "remote/up").exists()
    assert device.drain(hooks).returncode == 0
    assert device.noted() == ["ran", "ran"]
    assert (device.base / "remote/up/f").exists()


def test_an_agent_killed_while_after_batch_runs_sends_once_and_tells_again(device: Device) -> None:
    (device.box / "a").mkdir()
    for name in ("1", "2", "all.done"):
        (device.box / "a" / name).write_bytes(b"x")
    note = f'echo "$IOT_RESULT $IOT_PATH $IOT_FILES $IOT_BYTES" >> {device.notes}'
    kills = f"{note}; test -e {device.base}/once || {{ touch {device.base}/once; kill -9 $PPID; }}"
    device.outbox = 'batch_marker = "*.done"\nbatch_grace_s = 0\n'
    before = device.hook("before_batch", f"test ! -e {device.base}/remote/up/a/1 && echo before >> {device.notes}")
    hooks = before + device.hook("after_batch", kills)
    assert device.drain(hooks).returncode == -9
    told = f"delivered {device.box}/a/all.done 2 2"
    assert device.noted() == ["before", told]
    inodes = {path.name: path.stat().st_ino for path in (device.base / "remote/up/a").iterdir()}
    assert device.drain(hooks).returncode == 0
    assert device.noted() == ["before", told, told]
    assert {path.name: path.stat().st_ino for path in (device.base / "remote/up/a").iterdir()} == inodes
    assert not [path for path in device.box.rglob("*") if path.is_file()]
    assert device.drain(hooks).returncode == 0
    assert device.noted() == ["before", told, told]
