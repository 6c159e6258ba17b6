"""The whole agent with a folder as its server: nothing but one line of its configuration differs."""

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

COMMAND = [sys.executable, "-m", "iot.spooler"]


def configured(tmp_path: Path, **server: object) -> Path:
    for folder in ("usb", "box"):
        (tmp_path / folder).mkdir(exist_ok=True)
    lines = [f"{key} = {value!r}".replace("True", "true") for key, value in server.items()]
    config = tmp_path / "spooler.toml"
    config.write_text(
        f'state_dir = "{tmp_path}/state"\n[server]\nkind = "folder"\npath = "{tmp_path}/usb"\n'
        + "\n".join(lines)
        + f'\n[[outbox]]\npath = "{tmp_path}/box"\ndestination = "/up"\nsettle_s = 0\n'
    )
    return config


def start(config: Path, *words: str) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [*COMMAND, *(words or ("run", "--drain")), "--config", str(config)]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def fill(box: Path, files: list[tuple[str, int]]) -> dict[str, str]:
    hashes = {}
    for name, size in files:
        content = os.urandom(size)
        (box / name).write_bytes(content)
        hashes[name] = hashlib.sha256(content).hexdigest()
    return hashes


def arrived(tmp_path: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in (tmp_path / "usb/up").iterdir()}


@pytest.mark.parametrize(
    "files", [[("large", 256 << 20)], [(f"f{number}", 10_240) for number in range(2000)]], ids=["large", "small"]
)
def test_an_agent_killed_at_random_moments_delivers_all_once_to_a_folder(tmp_path, files):
    config = configured(tmp_path)
    hashes = fill(tmp_path / "box", files)
    moments = random.Random(len(files))
    for _ in range(5):
        process = start(config)
        time.sleep(0.4 + moments.random() / 2)
        process.send_signal(signal.SIGKILL)
        process.communicate()
    process = start(config)
    log = process.communicate(timeout=120)[1]
    assert process.returncode == 0, log[-2000:]
    assert arrived(tmp_path) == hashes
    assert list((tmp_path / "box").iterdir()) == []


def test_a_disk_that_is_not_there_is_waited_for_and_no_file_is_blamed(tmp_path):
    config = configured(tmp_path, marker=".this-disk")
    hashes = fill(tmp_path / "box", [("one", 1000), ("two", 2000)])
    process = start(config, "run")
    try:
        time.sleep(3)
        assert not (tmp_path / "usb" / "up").exists()
        assert len(list((tmp_path / "box").iterdir())) == 2
        (tmp_path / "usb" / ".this-disk").touch()
        process.send_signal(signal.SIGUSR1)
        end = time.monotonic() + 30
        while list((tmp_path / "box").iterdir()) and time.monotonic() < end:
            time.sleep(0.1)
    finally:
        process.terminate()
        log = process.communicate(timeout=20)[1]
    assert arrived(tmp_path) == hashes, log[-2000:]
    assert "quarantine" not in log


def test_a_wrong_setting_of_a_folder_is_told_with_its_name(tmp_path):
    process = start(configured(tmp_path, host="example.org", connections=0), "check")
    told = "".join(process.communicate(timeout=30))
    assert process.returncode == 78
    assert "server.host" in told
    assert "server.connections" in told


def test_an_unknown_kind_is_told_with_those_that_there_are(tmp_path):
    config = configured(tmp_path)
    config.write_text(config.read_text().replace('kind = "folder"', 'kind = "fodler"'))
    process = start(config, "check")
    told = "".join(process.communicate(timeout=30))
    assert process.returncode == 78
    assert "server.kind" in told
    assert "folder" in told
    assert "sftp" in told


def test_retry_sends_no_older_version_over_what_was_delivered_since(tmp_path):
    config = configured(tmp_path)
    config.write_text(config.read_text() + "[retry]\nmax_attempts = 1\n")

    def ended(*words: str) -> tuple[int, str]:
        process = start(config, *words)
        told = "".join(process.communicate(timeout=60))
        return process.returncode, told

    target = tmp_path / "usb/up/f"
    target.mkdir(parents=True)  # in the way of the first version
    (tmp_path / "box/f").write_text("version 1")
    assert ended()[0] == 75
    assert list((tmp_path / "box").iterdir()) == []
    target.rmdir()
    (tmp_path / "box/f").write_text("version 2")
    ended()
    assert target.read_text() == "version 2"
    code, told = ended("retry")
    assert (code, "a newer version was delivered since" in told) == (1, True), told
    assert list((tmp_path / "box").iterdir()) == []
    target.unlink()  # also where the newer one was fetched meanwhile
    assert ended()[0] == 75
    assert not target.exists()
    assert [path.read_text() for path in (tmp_path / "state/quarantine").glob("*/f")] == ["version 1"]


@pytest.mark.needs("mounts")
def test_a_disk_that_is_mounted_read_only_holds_all_and_is_written_to_when_that_is_mended(tmp_path):
    """Each file would be tried again for ever, and the log would speak of a lost link."""
    config = configured(tmp_path)
    hashes = fill(tmp_path / "box", [(f"f{number}", 10) for number in range(20)])
    subprocess.run(["mount", "-t", "tmpfs", "-o", "ro", "none", str(tmp_path / "usb")], check=True)
    try:
        for _ in range(2):
            held = start(config)
            _, told = held.communicate(timeout=60)
            assert held.returncode == 75
            assert told.count("link held") == 1
            assert "AccessRefused" in told
            assert "usb is mounted read-only: mount it for writing" in told
        subprocess.run(["mount", "-o", "remount,rw", str(tmp_path / "usb")], check=True)
        drained = start(config)
        _, told = drained.communicate(timeout=60)
        assert drained.returncode == 0, told
        assert arrived(tmp_path) == hashes
    finally:
        subprocess.run(["umount", str(tmp_path / "usb")], check=True)
