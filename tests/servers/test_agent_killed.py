"""The whole agent against real servers: killed at random moments, over links that are cut."""

import hashlib
import os
import random
import signal
import subprocess
import sys
import time

import pytest

from iot.sftp.client import EmbeddedServer

COMMAND = [sys.executable, "-m", "iot.spooler"]


@pytest.fixture
def agent(tmp_path):
    (tmp_path / "remote").mkdir()
    (tmp_path / "box").mkdir()
    with EmbeddedServer(tmp_path / "remote") as server:
        config = tmp_path / "spooler.toml"
        config.write_text(
            f'state_dir = "{tmp_path}/state"\n[server]\nhost = "{server.host}"\nport = {server.port}\n'
            f'user = "{server.user}"\npassword = "{server.password}"\nhost_key = "{server.host_key}"\n'
            f'[[outbox]]\npath = "{tmp_path}/box"\ndestination = "/up"\nsettle_s = 0\n'
        )
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}

        def start():
            return subprocess.Popen(
                [*COMMAND, "run", "--drain", "--config", str(config)],
                env=environment,
                stderr=subprocess.PIPE,
                text=True,
            )

        start.server = server
        yield start


def fill(box, files):
    hashes = {}
    for name, size in files:
        content = os.urandom(size)
        (box / name).write_bytes(content)
        hashes[name] = hashlib.sha256(content).hexdigest()
    return hashes


def finish(agent, tmp_path, hashes):
    process = agent()
    log = process.communicate(timeout=120)[1]
    assert process.returncode == 0, log[-2000:]
    arrived = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in (tmp_path / "remote/up").iterdir()}
    assert arrived == hashes  # every file there once, identical, and no part left
    assert list((tmp_path / "box").iterdir()) == []


@pytest.mark.parametrize(
    "files", [[("large", 64 << 20)], [(f"f{i}", 10_240) for i in range(500)]], ids=["large", "small"]
)
def test_agent_killed_at_random_moments_delivers_all_once(agent, tmp_path, files):
    hashes = fill(tmp_path / "box", files)
    moments = random.Random(len(files))
    for _ in range(6):
        process = agent()
        time.sleep(0.5 + moments.random())
        process.send_signal(signal.SIGKILL)
        process.communicate()
    finish(agent, tmp_path, hashes)


def test_terminated_agent_ends_within_five_seconds_and_the_next_resumes(agent, tmp_path):
    hashes = fill(tmp_path / "box", [("large", 256 << 20)])
    process = agent()
    time.sleep(1.2)
    began = time.monotonic()
    process.terminate()
    process.communicate(timeout=10)
    assert time.monotonic() - began < 5
    finish(agent, tmp_path, hashes)
