"""The whole agent with an FTP server: killed at random moments, everything arrives whole."""

from __future__ import annotations

import hashlib
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from servers.ftp_base import FTPServer
from servers.zoo import FTP

COMMAND = [sys.executable, "-m", "iot.spooler"]


def configured(tmp_path: Path, server: FTPServer) -> Path:
    (tmp_path / "box").mkdir()
    password = tmp_path / "password"
    password.touch(mode=0o600)
    password.write_text(f"{server.password}\n")
    config = tmp_path / "spooler.toml"
    config.write_text(
        f'state_dir = "{tmp_path}/state"\n[server]\nkind = "ftp"\nhost = "{server.host}"\nport = {server.port}\n'
        f'user = "{server.user}"\npassword_file = "{password}"\nca_file = "{server.certificate}"\n'
        f"publish_grace_s = 0.1\n"
        f'[[outbox]]\npath = "{tmp_path}/box"\ndestination = "{server.path("up")}"\nsettle_s = 0\n'
    )
    return config


def start(config: Path, *words: str) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = [*COMMAND, *(words or ("run", "--drain")), "--config", str(config)]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.mark.parametrize("kind", FTP)
def test_an_agent_killed_at_random_moments_delivers_all_over_ftp(kind, tmp_path):
    moments, hashes = random.Random(kind), {}
    with FTP[kind](tmp_path / "root") as server:
        config = configured(tmp_path, server)
        for number, size in enumerate([20 << 20, *[10_240] * 40]):
            content = os.urandom(size)
            (tmp_path / "box" / f"f{number}").write_bytes(content)
            hashes[f"f{number}"] = hashlib.sha256(content).hexdigest()
        for _ in range(4):
            process = start(config)
            time.sleep(0.4 + moments.random() / 2)
            process.send_signal(signal.SIGKILL)
            process.communicate()
        process = start(config)
        _, said = process.communicate(timeout=100)
        assert process.returncode == 0, said
        arrived = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in (server.root / "up").iterdir()}
        assert server.password not in said
    assert arrived == hashes
    assert not list((tmp_path / "box").iterdir())


def test_a_wrong_setting_of_an_ftp_server_is_named_without_its_password(tmp_path):
    (tmp_path / "box").mkdir()
    config = tmp_path / "spooler.toml"
    config.write_text(
        f'state_dir = "{tmp_path}/state"\n[server]\nkind = "ftp"\nhost = "h"\npassword = "hunter2-secret"\n'
        f'tls = "sometimes"\ncertificate = "ab"\n'
        f'[[outbox]]\npath = "{tmp_path}/box"\ndestination = "/up"\n'
    )
    process = start(config, "check")
    said = "".join(process.communicate(timeout=60))
    assert process.returncode == 78
    assert "server.tls" in said
    assert "server.certificate" in said
    assert "hunter2" not in said
