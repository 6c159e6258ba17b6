"""From server to server: one agent fetches into the folder that is the outbox of another."""

from __future__ import annotations

import random
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from servers.base import Server
from servers.test_agent_pulls import Device, fill, login, sha256
from servers.zoo import start

SENDS = 'settle_s = 0\nready = "closed"\n'


class Onward(Device):
    """The second agent: its outbox is the inbox of the first."""

    def __init__(self, base: Path, first: Device, server: Server) -> None:
        base.mkdir()
        self.here, self.box, self.log = base / "here", first.here, base / "agent.log"
        self.config = base / "spooler.toml"
        self.config.write_text(
            f'state_dir = "{base}/state"\nscan_s = 0.2\n{login(server, base)}'
            f'[[outbox]]\npath = "{self.box}"\ndestination = "{server.path("up")}"\ncollision = "unique"\n{SENDS}'
        )


def delivered(server: Server) -> dict[str, str]:
    up = server.root / "up"
    return {str(path.relative_to(up)): sha256(path) for path in up.rglob("*") if path.is_file()}


@pytest.mark.parametrize("to", ["openssh", "pyftpdlib"])
def test_agents_that_are_killed_at_random_moments_bring_all_from_one_server_to_the_other(to: str, tmp_path: Path):
    """Nothing half, nothing of the folder in which files arrive, and nothing stays behind."""
    moments = random.Random(to)
    with start("openssh", tmp_path / "one") as one, start(to, tmp_path / "two") as two:
        hashes = fill(one.root / "cfg", {"fw.bin": 12 << 20, **{f"d{n % 3}/f{n}": 10_000 for n in range(30)}})
        first = Device(tmp_path, one, 'recursive = true\nafter_download = "delete"\nreplace = false\npoll_s = 1\n')
        second = Onward(tmp_path / "second", first, two)
        for _ in range(3):
            agents = first.start(), second.start()
            time.sleep(0.5 + moments.random())
            for agent in agents:
                agent.send_signal(signal.SIGKILL)
                agent.wait()
        first.drain()
        second.drain()
        found = delivered(two)
        assert set(found.values()) == set(hashes.values())
        assert {name: found[name] for name in hashes} == hashes
        assert not [path for path in (one.root / "cfg").rglob("*") if path.is_file()]
        assert first.published() == {}


def test_a_newer_version_waits_until_the_older_one_has_gone_on_and_is_judged_once(tmp_path: Path) -> None:
    judged = tmp_path / "judged"
    with start("openssh", tmp_path / "one") as one, start("openssh", tmp_path / "two") as two:
        inbox = f'after_download = "delete"\nreplace = false\nbefore_publish = ["sh", "-c", "echo >> {judged}"]\n'
        first = Device(tmp_path, one, inbox)
        second = Onward(tmp_path / "second", first, two)
        [old] = fill(one.root / "cfg", {"data.csv": 1000}).values()
        first.drain()
        [new] = fill(one.root / "cfg", {"data.csv": 1001}).values()
        process = first.start()
        try:
            wait_for(lambda: "has not been taken out yet" in first.told())
            assert first.published() == {"data.csv": old}
            assert (one.root / "cfg/data.csv").exists()
            second.drain()
            wait_for(lambda: first.published() == {"data.csv": new})
        finally:
            process.terminate()
            process.wait()
        second.drain()
        assert sorted(delivered(two).values()) == sorted([old, new])
        assert judged.read_text() == "\n\n"


def wait_for(is_so: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not is_so():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.05)
