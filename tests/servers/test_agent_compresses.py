"""An agent that sends its files compressed: whole, resumed over the compressed bytes, whatever is killed or lost."""

from __future__ import annotations

import gzip
import os
import random
import re
import shutil
import signal
import time
from pathlib import Path

import pytest
from servers.device import Device
from servers.openssh import OpenSSH

MIB = 1 << 20


def text(size: int, seed: int = 1) -> bytes:
    """Half of it can be saved."""
    return random.Random(seed).randbytes(size // 2).hex().encode()


@pytest.fixture
def device(sshd: OpenSSH, tmp_path: Path) -> Device:
    settings = 'compress_max_bytes = "64 MiB"\nrates = ["00:00-24:00 200 Mbit/s"]'  # else what kills it may be too late
    return Device(tmp_path / "device", sshd, outbox='settle_s = 0\ncompress = "gzip"', settings=settings)


def wait_for_part(sshd: OpenSSH, least: int) -> None:
    end = time.monotonic() + 60
    while time.monotonic() < end:
        for path in (sshd.root / "up").glob("*.part"):
            if path.stat().st_size >= least:
                return
        time.sleep(0.01)
    raise AssertionError("no part")


def resumed_at(log: str) -> int:
    return int(re.findall(r"resumed_at=(\d+)", log)[-1])


def test_files_arrive_compressed_and_are_recorded_as_they_were_sent(sshd: OpenSSH, device: Device) -> None:
    content = text(3 * MIB)
    device.put("a.csv", content)
    device.put("b.jpg", content[:1000])
    log = device.drain()
    packed = sshd.content("up/a.csv.gz")
    assert packed is not None
    assert gzip.decompress(packed) == content
    assert sshd.content("up/b.jpg") == content[:1000]
    assert f"bytes={len(packed)} sent={len(packed)}" in log
    assert os.listdir(device.state / "compressed") == []
    assert os.listdir(device.box) == []


@pytest.mark.parametrize("lost", [False, True])
def test_an_interrupted_upload_is_resumed_over_the_compressed_bytes(
    sshd: OpenSSH, device: Device, tmp_path: Path, lost: bool
) -> None:
    """lost: also the compressed file, which is made anew, and compared with what is there."""
    content = text(48 * MIB)
    device.put("a.csv", content)
    agent = device.start()
    wait_for_part(sshd, 6 * MIB)
    agent.send_signal(signal.SIGKILL)
    agent.wait()
    assert [path.suffix for path in (sshd.root / "up").iterdir()] == [".part"]
    if lost:
        shutil.rmtree(device.state / "compressed")
    log = device.drain()
    assert resumed_at(log) >= 4 * MIB
    assert gzip.decompress(sshd.content("up/a.csv.gz") or b"") == content
    assert sshd.names() == ["up/a.csv.gz"]
    assert os.listdir(device.state / "compressed") == []


def test_an_agent_that_is_killed_at_random_moments_delivers_all_compressed_and_leaves_nothing(
    sshd: OpenSSH, device: Device
) -> None:
    contents = {f"f{number}.csv": text(20_000 + number, number) for number in range(150)}
    contents["large.csv"] = text(24 * MIB)
    for name, content in contents.items():
        device.put(name, content)
    moments = random.Random(5)
    for _ in range(6):
        agent = device.start()
        time.sleep(0.4 + moments.random())
        agent.send_signal(signal.SIGKILL)
        agent.wait()
    device.drain()
    arrived = {name: gzip.decompress(sshd.content(f"up/{name}.gz") or b"") for name in contents}
    assert arrived == contents
    assert sorted(sshd.names()) == sorted(f"up/{name}.gz" for name in contents)
    assert os.listdir(device.state / "compressed") == []
    assert os.listdir(device.box) == []
