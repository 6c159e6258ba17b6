"""An agent whose window ends while it sends, against a real server: suspended, kept, and resumed in the next window."""

from __future__ import annotations

import contextlib
import logging
import os
import time
from collections.abc import Callable, Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest
from faults.proxy import BadLink
from servers.openssh import OpenSSH

from iot.sftp.client import IoTSFTPClient, Journal
from iot.spooler.agent.agent import Agent
from iot.spooler.config.settings import Settings
from iot.spooler.outbox.intake import Clocks
from iot.spooler.queue.queue import QUEUE_SCHEMA

SIZE = 6 * 1024 * 1024
LINK_DEADLINE_S = 2.0
GIVE_UP_S = 60.0


def at(text: str) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=timezone.utc).timestamp()


class Life:
    """Real time, but a wall clock that the test sets; steps: each waits for a condition, and then does something."""

    def __init__(self) -> None:
        self.wall = at("2026-11-27 12:00")
        self.steps: list[tuple[Callable[[Agent], bool], Callable[[], None]]] = []
        self.give_up_at = time.monotonic() + GIVE_UP_S

    def stopping(self) -> bool:
        assert time.monotonic() < self.give_up_at, f"{len(self.steps)} steps are left"
        return not self.steps

    def alive(self) -> None: ...

    def pause(self, seconds: float) -> None:
        time.sleep(min(max(seconds, 0.0), 0.02))

    def watch(self, descriptor: int, act: Callable[[], None]) -> Callable[[], None]:
        return lambda: None

    def woken(self) -> None: ...

    def report(self, agent: Agent, *, changed: bool, final: bool = False) -> None:
        if self.steps and self.steps[0][0](agent):
            self.steps.pop(0)[1]()

    def set_wall(self, text: str) -> Callable[[], None]:
        return lambda: setattr(self, "wall", at(text))


class Device:
    def __init__(self, folder: Path, server: OpenSSH, link: BadLink) -> None:
        self.box = folder / "box"
        self.box.mkdir()
        self.life = Life()
        self._folder = folder
        self._server = server
        self._link = link

    def run(self) -> None:
        outbox: dict[str, Any] = {"path": str(self.box), "destination": self._server.path("up"), "settle_s": 0}
        outbox["schedule"] = ["11:00-13:00"]
        top = {"state_dir": str(self._folder / "state"), "server": {"host": "h"}, "time_zone": "UTC"}
        settings = Settings.model_validate({**top, "outbox": [outbox], "small_file_bytes": 0})
        login = {**self._server.login(), "sftp_port": self._link.port, "host_key": self._server.host_key}
        login |= {"known_hosts": None, "link_deadline_s": LINK_DEADLINE_S, "attempts": 1}
        with contextlib.closing(Journal(settings.state_dir, QUEUE_SCHEMA)) as journal:
            remote = IoTSFTPClient(**login, journal=journal)
            clocks = Clocks(time.monotonic, lambda: self.life.wall)
            agent = Agent(settings, journal, remote, self.life, clocks, lambda: 0.0)  # type: ignore[arg-type]
            try:
                agent.run()
            finally:
                remote.close()


@pytest.fixture
def link(sshd: OpenSSH) -> Iterator[BadLink]:
    link = sshd.link(rate_bps=20e6)
    yield link
    link.close()


@pytest.fixture
def device(tmp_path: Path, sshd: OpenSSH, link: BadLink) -> Device:
    return Device(tmp_path, sshd, link)


def begun(agent: Agent) -> bool:
    return any(flight.done_bytes > SIZE // 6 for flight in agent.dispatcher.in_flight.values())


def idle(agent: Agent) -> bool:
    return not agent.dispatcher.in_flight


def test_the_end_of_a_window_suspends_an_upload_and_the_next_one_resumes_it(
    sshd: OpenSSH, device: Device, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    content = os.urandom(SIZE)
    (device.box / "big").write_bytes(content)
    parts: list[int] = []

    def next_window() -> None:
        (part,) = (sshd.root / "up").iterdir()
        parts.append(part.stat().st_size)
        device.life.wall = at("2026-11-28 11:00")

    device.life.steps = [
        (begun, device.life.set_wall("2026-11-27 13:00")),
        (idle, next_window),
        (lambda _: not (device.box / "big").exists(), lambda: None),
    ]
    device.run()
    assert sshd.content("up/big") == content
    assert SIZE // 6 <= parts[0] < SIZE
    (delivered,) = [line.args for line in caplog.records if line.message.startswith("delivered path=big")]
    assert delivered[4] >= SIZE // 6  # resumed_at
    assert caplog.text.count("connected host=") == 1
    assert caplog.text.count("outbox suspended") == 1


def test_on_a_silent_link_the_end_of_a_window_ends_an_upload_within_the_deadline_of_the_link(
    sshd: OpenSSH, device: Device, link: BadLink
) -> None:
    (device.box / "big").write_bytes(bytes(SIZE))
    ended: list[float] = []

    def silence() -> None:
        link.silence()
        device.life.wall = at("2026-11-27 13:00")
        ended.append(time.monotonic())

    device.life.steps = [(begun, silence), (idle, lambda: ended.append(time.monotonic()))]
    device.run()
    began, over = ended
    assert over - began < 2 * LINK_DEADLINE_S
    assert (device.box / "big").exists()
    assert "up/big" not in sshd.names()
