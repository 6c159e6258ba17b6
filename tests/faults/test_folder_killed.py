"""A process that sends to a folder is killed at every step of its work: nothing is lost, half, mixed or left over."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from faults.folder_upload import STEPS

LARGE = 9 * 1024 * 1024
MOMENTS = [
    (step, nth, side)
    for step, most in {
        "begin": 2,
        "write": 4,
        "bytes": 6,
        "fsync": 6,
        "where": 2,
        "publish": 2,
        "rename": 2,
        "commit": 5,
    }.items()
    for nth in range(1, most + 1)
    for side in ("before", "after")
]


def run(tmp_path: Path, step: str, nth: int, side: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "faults.folder_upload", step, str(nth), side]
    places = [str(tmp_path / name) for name in ("in", "usb", "state")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.run([*command, *places], env=environment, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize(("step", "nth", "side"), MOMENTS)
def test_a_process_killed_at_every_step_goes_on_and_leaves_nothing(tmp_path, step, nth, side):
    assert step in STEPS
    for folder in ("in", "usb"):
        (tmp_path / folder).mkdir()
    contents = {"large": os.urandom(LARGE), "small": os.urandom(1000), "empty": b""}
    for name, content in contents.items():
        (tmp_path / "in" / name).write_bytes(content)
    first = run(tmp_path, step, nth, side)
    assert first.returncode == -signal.SIGKILL, first
    for name, content in contents.items():
        final = tmp_path / "usb" / "to" / name
        assert not final.exists() or final.read_bytes() == content  # never half
    second = run(tmp_path, "none", 0, "before")
    assert second.returncode == 0, second
    assert {path.name: path.read_bytes() for path in (tmp_path / "usb" / "to").iterdir()} == contents
