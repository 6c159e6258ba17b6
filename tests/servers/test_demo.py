"""`iot-spooler demo`: ends with its table, tells a wrong byte, leaves nothing behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from iot.sftp.client import IoTSFTPClient
from iot.spooler.demo import demo
from iot.spooler.demo.link import Relay
from iot.spooler.demo.server import watched_server

COMMAND = [sys.executable, "-m", "iot.spooler", "demo"]


@pytest.mark.slow
def test_demo_ends_with_its_table_and_leaves_nothing(tmp_path: Path) -> None:
    done = subprocess.run(
        COMMAND, env={**os.environ, "TMPDIR": str(tmp_path)}, capture_output=True, text=True, timeout=240, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    for expected in (
        "201 files compared, none wrong",
        "bytes sent twice",
        "resumed at",
        "link is cut again",
        "SIGKILL",
    ):
        assert expected in done.stdout
    assert list(tmp_path.iterdir()) == []


def test_stopped_demo_leaves_no_folder_and_no_agent(tmp_path: Path) -> None:
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    with subprocess.Popen(COMMAND, env=environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if "of 201 files" in line and " 0.0 s" not in line:  # it is well under way
                break
        agents = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 128 + signal.SIGTERM
    assert len(agents) == 1
    assert not Path(f"/proc/{agents[0]}").exists()
    assert list(tmp_path.iterdir()) == []


def test_one_wrong_byte_is_told(tmp_path: Path) -> None:
    for name in ("outbox", "server/upload"):
        (tmp_path / name).mkdir(parents=True)
    server, writes = watched_server(tmp_path / "server")
    with Relay(1, rate=1e6) as relay:
        stage = demo.Stage(tmp_path, server, writes, relay)
        for name, content in (("same", b"1234"), ("wrong", b"1234"), ("missing", b"")):
            demo.drop(stage, name, content)
        (stage.remote / "same").write_bytes(b"1234")
        (stage.remote / "wrong").write_bytes(b"1235")
        (stage.remote / "wrong.0123abcd.part").write_bytes(b"")
        assert demo.differences(stage) == ["missing: missing", "wrong.0123abcd.part: left over", "wrong: differs"]


def test_relay_counts_and_server_sees_every_write(tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    content = os.urandom(3 * 1024 * 1024 + 1)
    (tmp_path / "source").write_bytes(content)
    server, writes = watched_server(root)
    with server, Relay(server.port, rate=1e9) as relay:
        options = {"host_key": server.host_key, "state_dir": tmp_path / "state"}
        with IoTSFTPClient(relay.host, relay.port, server.user, server.password, **options) as client:
            client.upload(str(tmp_path / "source"), "/there")
        assert writes.payload_bytes == len(content)
        assert len(content) < relay.up_bytes < len(content) * 1.02 + 20_000
        assert relay.connections == 1
    assert (root / "there").read_bytes() == content
    assert writes.resumed("there") == []


def test_temporary_folder_is_where_the_system_says(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with demo._stage() as stage:
        assert stage.folder.parent == tmp_path.resolve()
    assert list(tmp_path.iterdir()) == []
