"""The example for asyncio: the event loop goes on while files are sent, and a cancelled task cancels its upload."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, TypeVar

import pytest
from servers.openssh import OpenSSH

from iot.sftp.client import IoTSFTPClient, LinkLost, TransferResult

EXAMPLE = Path(__file__).parents[2] / "deploy/examples/upload_asyncio.py"
RATE_BPS = 8e6
SIZE = 2 * 1024 * 1024
T = TypeVar("T")


@pytest.fixture(scope="module")
def example() -> Any:
    spec = importlib.util.spec_from_file_location("upload_asyncio", EXAMPLE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "source"
    path.write_bytes(os.urandom(SIZE))
    return path


async def beside(work: Coroutine[Any, Any, T]) -> tuple[T, float]:
    """What it returned, and the longest time in seconds for which the event loop stood still meanwhile."""
    pauses = [0.0]
    task = asyncio.create_task(work)
    while not task.done():
        began = time.monotonic()
        await asyncio.sleep(0.01)
        pauses.append(time.monotonic() - began)
    return await task, max(pauses)


def through(link: Any, sshd: OpenSSH, tmp_path: Path, **options: Any) -> IoTSFTPClient:
    login = sshd.login() | {"sftp_port": link.port, "known_hosts": None, "host_key": sshd.host_key}
    return IoTSFTPClient(**login, state_dir=tmp_path / "state", checkpoint_bytes=64 * 1024, **options)


def test_the_event_loop_goes_on_while_files_are_sent(
    example: Any, sshd: OpenSSH, source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    second = tmp_path / "second"
    second.write_bytes(b"2")
    with sshd.link(rate_bps=RATE_BPS) as link, through(link, sshd, tmp_path) as client:
        work = example.upload_all(client, [source, second], sshd.path(), limit_s=60)
        left, pause_s = asyncio.run(beside(work))
    assert left == []
    assert sshd.content("source") == source.read_bytes()
    assert sshd.content("second") == b"2"
    assert pause_s < 0.5
    assert f"{source}: {SIZE} bytes, resumed at 0" in capsys.readouterr().out


def test_a_cancelled_task_cancels_its_upload_at_once_and_the_next_one_resumes(
    example: Any, sshd: OpenSSH, source: Path, tmp_path: Path
) -> None:
    async def cancelled(client: IoTSFTPClient) -> float:
        task = asyncio.create_task(example.in_thread(client, lambda: client.upload(source, sshd.path("source"))))
        while link.up_bytes < SIZE // 4:
            await asyncio.sleep(0.01)
        began = time.monotonic()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return time.monotonic() - began

    with sshd.link(rate_bps=RATE_BPS) as link, through(link, sshd, tmp_path) as client:
        assert asyncio.run(cancelled(client)) < 2
        assert sshd.content("source") is None
        result: TransferResult = asyncio.run(
            example.in_thread(client, lambda: client.upload(source, sshd.path("source")))
        )
    assert result.resumed_at > 0
    assert sshd.content("source") == source.read_bytes()


def test_a_file_that_takes_too_long_is_left_and_the_next_one_is_sent(
    example: Any, sshd: OpenSSH, source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    second = tmp_path / "second"
    second.write_bytes(b"2")
    with sshd.link(rate_bps=RATE_BPS) as link, through(link, sshd, tmp_path) as client:
        client.connect()
        left = asyncio.run(example.upload_all(client, [source, second], sshd.path(), limit_s=0.8))
    assert left == [source]
    assert sshd.content("second") == b"2"
    assert "too slow" in capsys.readouterr().out


PROGRAM = """
import asyncio, json, runpy, sys
from pathlib import Path
from iot.sftp.client import IoTSFTPClient
example, login, source, folder = sys.argv[1:]
upload_all = runpy.run_path(example)["upload_all"]
with IoTSFTPClient(**json.loads(login)) as client:
    asyncio.run(upload_all(client, [Path(source)], folder, limit_s=60))
"""


def test_ctrl_c_ends_the_program_at_once_and_the_next_run_resumes(sshd: OpenSSH, source: Path, tmp_path: Path) -> None:
    with sshd.link(rate_bps=RATE_BPS) as link:
        login = sshd.login() | {"sftp_port": link.port, "host_key": sshd.host_key, "state_dir": tmp_path / "state"}
        given = json.dumps(login | {"known_hosts": None, "checkpoint_bytes": 64 * 1024}, default=str)
        command = [sys.executable, "-c", PROGRAM, str(EXAMPLE), given, str(source), sshd.path()]
        first = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        while link.up_bytes < SIZE // 4:
            assert first.poll() is None, first.communicate()
            time.sleep(0.01)
        began = time.monotonic()
        first.send_signal(signal.SIGINT)
        _, told = first.communicate(timeout=30)
        assert time.monotonic() - began < 3
        assert told.strip().endswith("KeyboardInterrupt")
        assert "never retrieved" not in told
        again = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert re.fullmatch(rf"{re.escape(str(source))}: {SIZE} bytes, resumed at [1-9]\d*\n", again.stdout)
    assert sshd.content("source") == source.read_bytes()


def test_an_error_of_the_call_is_that_of_the_task(example: Any, source: Path, tmp_path: Path) -> None:
    client = IoTSFTPClient("127.0.0.1", 1, "nobody", "x", attempts=1, state_dir=tmp_path / "state")
    with client, pytest.raises(LinkLost):
        asyncio.run(example.in_thread(client, lambda: client.upload(source, "x")))
