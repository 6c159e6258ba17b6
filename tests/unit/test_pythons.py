"""tests/pythons: which Pythons of a machine `sh tests/run` tests with, beside its own."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "pythons"


class Machine:
    """Folders with programs that answer as a Python of some version does."""

    def __init__(self, base: Path) -> None:
        self.base = base
        self.python("bin/python3", "3.11")

    def python(self, path: str, answer: str, code: int = 0) -> str:
        program = self.base / path
        program.parent.mkdir(parents=True, exist_ok=True)
        program.write_text(f"#!/bin/sh\necho '{answer}'\nexit {code}\n")
        program.chmod(0o755)
        return str(program)

    def listed(self, *folders: str) -> list[str]:
        path = ":".join([*(f"{self.base}/{folder}" for folder in ("bin", *folders)), "/usr/bin", "/bin"])
        environment = {"PATH": path, "HOME": f"{self.base}/home"}
        done = subprocess.run(
            ["sh", str(SCRIPT)], env=environment, capture_output=True, text=True, timeout=60, check=True
        )
        assert done.stderr == ""
        return [line for line in done.stdout.splitlines() if str(self.base) in line]


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def test_every_version_is_listed_once_and_not_the_own(machine: Machine) -> None:
    first = machine.python("bin/python3.12", "3.12")
    machine.python("other/python3.12", "3.12")
    machine.python("other/python3.11", "3.11")
    second = machine.python("other/python3.13", "3.13")
    assert machine.listed("other") == [f"3.12 {first}", f"3.13 {second}"]


def test_what_does_not_answer_as_a_supported_python_is_left_out(machine: Machine) -> None:
    machine.python("bin/python3.12", "", 127)
    machine.python("bin/python3.9", "")
    machine.python("bin/python3.13-config", "3.13")
    (machine.base / "bin/python3.14").write_text("no program")
    assert machine.listed() == []


def test_pyenv_and_uv_keep_theirs_elsewhere(machine: Machine) -> None:
    first = machine.python("home/.pyenv/versions/3.10.13/bin/python3", "3.10")
    machine.python("home/.pyenv/versions/2.7.18/bin/python3", "2.7")
    second = machine.python("home/.local/share/uv/python/cpython-3.14.0-linux/bin/python3", "3.14")
    assert machine.listed() == [f"3.10 {first}", f"3.14 {second}"]
