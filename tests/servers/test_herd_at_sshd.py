"""60 agents at one real sshd: what it drops is what the model of tests/herd says, and the agents' own waits suffice."""

from __future__ import annotations

import contextlib
import json
import random
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import fmean
from typing import NamedTuple

import pytest
from herd.fleet import device, naive
from herd.sshd import Door, Login, MaxStartups
from servers.bad_input import Site, until
from servers.openssh import OpenSSH

from iot.sftp.client import IoTSFTPClient
from iot.spooler.server.availability import Availability, ServerState
from iot.transfer import LinkLost, ServerBusy, TransferError

AGENTS = 60
LIMITS = MaxStartups()
ONE_WAY_S = 0.12
WINDOW_S = 30.0
LOOK_S = 0.02
REPLAYS = 300
AGREES = 0.15
"""Between the real share of dropped connections and the model's: three standard deviations of 90 tries."""


class Try(NamedTuple):
    at: float
    seconds: float
    error: TransferError | None


class Fleet:
    """Agents that each come back in a thread of their own. connect: one login of the agent of this number.

    logged_in_at: when sshd has let one in, by its log: from then on that login no longer counts as under way.
    """

    def __init__(self, agents: list[Availability], connect: Callable[[int], None], log: Path) -> None:
        self.agents = agents
        self.tries: list[Try] = []
        self.logged_in_at: list[float] = []
        self._connect = connect
        self._log = log

    def come_back(self) -> None:
        threads = [threading.Thread(target=self._run, args=pair) for pair in enumerate(self.agents)]
        earlier = self._logged_in()
        for thread in threads:
            thread.start()
        while any(thread.is_alive() for thread in threads):
            self._look(earlier)
            time.sleep(LOOK_S)
        self._look(earlier)
        self.tries.sort(key=lambda each: each.at)

    def _look(self, earlier: int) -> None:
        news = self._logged_in() - earlier - len(self.logged_in_at)
        self.logged_in_at += [time.monotonic()] * news

    def _logged_in(self) -> int:
        return self._log.read_bytes().count(b"Accepted publickey")

    def _run(self, number: int, agent: Availability) -> None:
        while agent.state is not ServerState.CONNECTED:
            time.sleep(max(agent.ready_at - time.monotonic(), 0.0))
            began = time.monotonic()
            error: TransferError | None = None
            try:
                self._connect(number)
            except TransferError as raised:
                error = raised
                agent.lost(error, time.monotonic())
            else:
                agent.progressed()
            self.tries.append(Try(began, time.monotonic() - began, error))

    @property
    def dropped(self) -> list[TransferError]:
        return [each.error for each in self.tries if each.error is not None]

    @property
    def dropped_share(self) -> float:
        return len(self.dropped) / len(self.tries)

    def modelled_share(self) -> float:
        """The mean of the model's share, for the same tries at the same times, whose logins take as long."""
        dice = random.Random(1)
        entered = [each for each in self.tries if each.error is None]
        assert len(self.logged_in_at) == len(entered)
        until_login_s = fmean(self.logged_in_at) - fmean(each.at for each in entered)
        part = until_login_s / fmean(each.seconds for each in entered)
        lasted = [part * each.seconds for each in entered]
        shares = []
        for _ in range(REPLAYS):
            door = Door(LIMITS, Login(), dice.random)
            seconds = [part * each.seconds if each.error is None else dice.choice(lasted) for each in self.tries]
            let_in = [door.connect_for(each.at, long) for each, long in zip(self.tries, seconds, strict=True)]
            shares.append(1 - fmean(let_in))
        return fmean(shares)


@pytest.fixture(scope="module")
def sshd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OpenSSH]:
    with OpenSSH(tmp_path_factory.mktemp("herd") / "root", more=[f"MaxStartups {LIMITS}"]) as server:
        yield server


@pytest.fixture
def connect(sshd: OpenSSH, tmp_path: Path) -> Iterator[Callable[[int], None]]:
    """Over a link with a round trip that makes a login last for a second or two, whatever the machine."""
    with sshd.link(delay_s=ONE_WAY_S) as link:
        login = {**sshd.login(), "sftp_port": link.port, "host_key": sshd.host_key}
        del login["known_hosts"]

        def connect_once(number: int) -> None:
            with IoTSFTPClient(**login, state_dir=tmp_path / str(number), attempts=1) as client:
                client.connect()

        yield connect_once


@pytest.mark.slow
def test_sshd_drops_as_many_as_the_model_when_all_come_at_once(sshd: OpenSSH, connect: Callable[[int], None]) -> None:
    """And none of those who are dropped takes that for a refused login."""
    fleet = Fleet([naive() for _ in range(AGENTS)], connect, sshd.log)
    fleet.come_back()
    assert fleet.dropped_share > 0.15
    assert abs(fleet.dropped_share - fleet.modelled_share()) < AGREES
    assert all(isinstance(error, (LinkLost, ServerBusy)) for error in fleet.dropped)
    assert any(isinstance(error, ServerBusy) for error in fleet.dropped)
    assert sum(agent.holds for agent in fleet.agents) == 0


@pytest.mark.slow
def test_sshd_drops_hardly_one_of_those_who_wait_for_their_turn(sshd: OpenSSH, connect: Callable[[int], None]) -> None:
    """A window of half a minute is for 60 what 20 min are for 2,400."""
    agents = [device(f"device-{number}", random.random, WINDOW_S) for number in range(AGENTS)]
    began = time.monotonic()
    for agent in agents:
        agent.power_up(began, 7200.0)
    fleet = Fleet(agents, connect, sshd.log)
    fleet.come_back()
    ended = max(each.at + each.seconds for each in fleet.tries)
    assert ended - began < WINDOW_S + 120
    assert len(fleet.dropped) <= 3
    assert abs(fleet.dropped_share - fleet.modelled_share()) < AGREES


@contextlib.contextmanager
def only_one_that_may_log_in(server: OpenSSH) -> Iterator[socket.socket]:
    """The look whether the server is up was a connection as well, and sshd forgets it a moment after its end."""
    while True:
        with socket.create_connection((server.host, server.port)) as another:
            if another.recv(4) == b"SSH-":
                yield another
                return


def test_an_agent_waits_for_a_server_that_is_too_busy_to_let_it_log_in_and_holds_nothing(tmp_path: Path) -> None:
    with OpenSSH(tmp_path / "root", more=["MaxStartups 1:100:1"]) as server:
        site = Site(server, tmp_path / "device")
        site.put("f")
        with only_one_that_may_log_in(server) as another, site.running():
            until(lambda: site.log.count("ServerBusy: 127.0.0.1: too many others are logging in") >= 3)
            assert (server.names(), "link held" in site.log, "failed path=" in site.log) == ([], False, False)
            another.close()
            until(lambda: "delivered path=f" in site.log)
        assert site.log.count(" attempt=") == 0


def test_after_a_power_cut_of_two_hours_an_agent_waits_for_its_turn_and_flush_does_not(
    sshd: OpenSSH, tmp_path: Path
) -> None:
    """The cut: the agent is killed, and its record is made that of an earlier boot."""
    site = Site(sshd, tmp_path / "device")
    record = site.state / "contact.json"
    site.put("before")
    with site.running() as agent:
        until(lambda: "delivered path=before" in site.log and record.exists())
        agent.kill()
    content = json.loads(record.read_text())
    assert content["is_ended"] is False
    boot, since_boot_s, wall_s, _ = content["moment"]
    cut = {"moment": [f"{boot}-earlier", since_boot_s, wall_s - 7200, True], "is_ended": False}
    record.write_text(json.dumps(cut))
    site.put("after")
    site.retry["herd_window_s"] = 86400.0
    with site.running():
        until(lambda: "after a power cut this device waits for its turn away_s=72" in site.log)
        assert "delivered path=after" not in site.log
        flush = [sys.executable, "-m", "iot.spooler", "flush", "--config", str(site.folder / "spooler.toml")]
        assert subprocess.run(flush, check=False, capture_output=True).returncode == 0
        until(lambda: "delivered path=after" in site.log)
    assert json.loads(record.read_text())["is_ended"] is True
