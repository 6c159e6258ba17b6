"""A process that fetches many files is killed at every step of its work: what has a name is whole, the rest goes on."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from faults.many_downloads import STEPS

from iot.sftp.client import EmbeddedServer

LARGE = 4 * 1024 * 1024
HOUR_S = 3600
SIZES = {"large": LARGE, "empty": 0, **{f"small{number}": 1000 + number for number in range(12)}}
MOMENTS = [
    (step, nth, side)
    for step, all_nth in {
        "open": (1, 7),
        "bytes": (1, 9, 25),
        "fsync": (1, 5, 12, 14),
        "beside": (1, 2),
        "rename": (1, 4, 11, 14),
        "folder": (1, 2),
        "commit": (1, 2, 3),
    }.items()
    for nth in all_nth
    for side in ("before", "after")
]


@pytest.fixture(scope="module")
def far(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[EmbeddedServer, dict[str, bytes]]]:
    folder = tmp_path_factory.mktemp("far")
    contents = {name: os.urandom(size) for name, size in SIZES.items()}
    for name, content in contents.items():
        (folder / name).write_bytes(content)
        os.utime(folder / name, (time.time() - HOUR_S,) * 2)
    with EmbeddedServer(folder) as server:
        yield server, contents


def run(server: EmbeddedServer, tmp_path: Path, step: str, nth: int, side: str) -> subprocess.CompletedProcess[str]:
    login = {
        "sftp_host": server.host,
        "sftp_port": server.port,
        "sftp_user": server.user,
        "sftp_pass": server.password,
        "host_key": server.host_key,
    }
    command = [sys.executable, "-m", "faults.many_downloads", step, str(nth), side, json.dumps(login), "/"]
    places = [str(tmp_path / name) for name in ("here", "state")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.run([*command, *places], env=environment, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize(("step", "nth", "side"), MOMENTS)
def test_a_process_killed_at_every_step_of_many_downloads_goes_on_and_leaves_nothing(
    far: tuple[EmbeddedServer, dict[str, bytes]], tmp_path: Path, step: str, nth: int, side: str
) -> None:
    assert step in STEPS
    server, contents = far
    here = tmp_path / "here"
    here.mkdir()
    first = run(server, tmp_path, step, nth, side)
    assert first.returncode == -signal.SIGKILL, first
    for path in here.iterdir():
        assert path.suffix == ".part" or path.read_bytes() == contents[path.name]  # never half
    second = run(server, tmp_path, "none", 0, "before")
    assert second.returncode == 0, second
    assert {path.name: path.read_bytes() for path in here.iterdir()} == contents
