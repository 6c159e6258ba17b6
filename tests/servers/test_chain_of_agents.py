"""One file to two servers: two agents, of which one forwards what it has delivered into the outbox of the other."""

from __future__ import annotations

import os
import random
import signal
import time
from pathlib import Path

import pytest
from servers.device import Device
from servers.openssh import OpenSSH
from servers.test_agent_to_folder import arrived, configured, start

FILES = {f"f{number}": os.urandom(3000 + number) for number in range(200)} | {"large": os.urandom(8 << 20)}


@pytest.fixture
def second(tmp_path: Path) -> Path:
    """The configuration of an agent for a folder, with outbox `box` and destination `usb/up`."""
    return configured(tmp_path)


@pytest.fixture
def first(sshd: OpenSSH, tmp_path: Path, second: Path) -> Device:
    outbox = f'settle_s = 0\nafter_upload = "forward"\nforward_to = "{tmp_path}/box"'
    return Device(tmp_path / "device", sshd, outbox=outbox)


def test_what_one_agent_has_delivered_the_next_delivers_elsewhere(
    sshd: OpenSSH, tmp_path: Path, first: Device, second: Path
) -> None:
    for name, content in FILES.items():
        first.put(name, content)
    first.drain()
    assert {name: sshd.content(f"up/{name}") for name in FILES} == FILES
    assert sorted(os.listdir(tmp_path / "box")) == sorted(FILES)
    following = start(second)
    log = following.communicate(timeout=120)[1]
    assert following.returncode == 0, log[-2000:]
    assert {name: (tmp_path / "usb/up" / name).read_bytes() for name in FILES} == FILES
    assert (os.listdir(first.box), os.listdir(tmp_path / "box")) == ([], [])


def test_agents_of_a_chain_that_are_killed_at_random_moments_deliver_all_to_both(
    sshd: OpenSSH, tmp_path: Path, first: Device, second: Path
) -> None:
    for name, content in FILES.items():
        first.put(name, content)
    moments = random.Random(7)
    for _ in range(4):
        agents = first.start("--drain"), start(second, "run")
        time.sleep(0.4 + moments.random() / 2)
        for agent in agents:
            agent.send_signal(signal.SIGKILL)
            agent.communicate()
    first.drain()
    following = start(second)
    log = following.communicate(timeout=120)[1]
    assert following.returncode == 0, log[-2000:]
    assert {name: sshd.content(f"up/{name}") for name in FILES} == FILES
    assert sorted(arrived(tmp_path)) == sorted(FILES)
    assert {name: (tmp_path / "usb/up" / name).read_bytes() for name in FILES} == FILES
