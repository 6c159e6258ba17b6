"""The servers of a process: what the next agent gets, what survives, what a drain does, and what is told."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from unit.test_fallback import AFTER_S, BACK_S, CAP_S, CHECK_S, DOWN, HOLD_S, REFUSED

from iot.spooler.config.settings import Settings
from iot.spooler.process.servers import FILE, LEAVE_S, Servers
from iot.spooler.queue.policy import Admission, Allowed, Backoff
from iot.spooler.server.availability import Availability
from iot.transfer import Wire


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


class Asked:
    """Stands for a probe."""

    def __init__(self, server: Any, *_: Any) -> None:
        self.server, self.error, self.wait_s, self.wire = server, None, 0.0, Wire(100, 10)
        self.is_over = self.is_cancelled = False

    def start(self) -> None: ...

    def cancel(self) -> None:
        self.is_cancelled = True


class Lab:
    def __init__(self, tmp_path: Path, **more: Any) -> None:
        given: dict[str, Any] = {
            "state_dir": str(tmp_path),
            "server": {"host": "a"},
            "fallback": {"host": "b"},
            "outbox": [{"path": "/out", "destination": "up"}],
            **more,
        }
        self.settings = Settings.model_validate(given)
        self.clock, self.probes, self.carried, self.cancels = Clock(), list[Asked](), list[Wire](), 0
        self.admission = Admission.ALL
        link = Availability(Backoff(1.0, 60.0), Backoff(HOLD_S, HOLD_S), lambda: 0.0)
        gates = SimpleNamespace(allowed_up_to=lambda _: {1: Allowed(self.admission)})
        self.agent: Any = SimpleNamespace(
            server=link, gates=gates, quota=SimpleNamespace(carried_also=self.carried.append)
        )

    def servers(self, *, drain: bool = False) -> Servers:
        return Servers(self.settings, lambda: 0.0, self.clock, lambda: None, drain=drain, probe=self._probe)

    def _probe(self, *given: Any) -> Any:
        self.probes.append(Asked(*given))
        return self.probes[-1]

    def look(self, servers: Servers) -> bool:
        return servers.look(self.agent, self._cancel)

    def _cancel(self) -> None:
        self.cancels += 1

    def leave(self, servers: Servers) -> None:
        """The server in use goes down, and the other one answers."""
        self.agent.server.lost(DOWN, self.clock.now)
        self.clock.now += 2 * AFTER_S
        self.look(servers)
        self.probes[-1].is_over = True
        self.look(servers)
        assert servers.is_leaving


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    return Lab(tmp_path)


def test_the_next_agent_has_the_other_server_in_its_place(lab: Lab, caplog: pytest.LogCaptureFixture) -> None:
    servers = lab.servers()
    assert servers.in_use == lab.settings
    lab.leave(servers)
    assert [probe.server.address for probe in lab.probes] == ["b:22"]
    assert lab.carried == [Wire(100, 10)]
    assert lab.cancels == 1  # what tries the dead server is not waited for
    servers.switch(lab.agent.server)
    assert (servers.in_use.server.address, servers.in_use.uses_fallback, servers.is_leaving) == ("b:22", True, False)
    assert (servers.in_use.outbox, lab.settings.uses_fallback) == (lab.settings.outbox, False)
    assert servers.hold_file != Lab(lab.settings.state_dir).servers(drain=True).hold_file
    assert 'server changed to=b:22 from=a:22 reason="LinkLost: no answer"' in caplog.text


def test_what_is_in_flight_on_a_good_server_ends_there_unless_it_takes_very_long(lab: Lab) -> None:
    servers = lab.servers()
    lab.leave(servers)
    servers.switch(lab.agent.server)
    lab.agent.server = Availability(Backoff(1.0, 60.0), Backoff(1.0, 60.0), lambda: 0.0)
    lab.agent.server.progressed()
    lab.cancels = 0
    for _ in range(2):
        lab.clock.now += CHECK_S + BACK_S
        lab.look(servers)
        lab.probes[-1].is_over = True
        lab.look(servers)
    assert servers.is_leaving
    assert lab.cancels == 0
    lab.clock.now += LEAVE_S
    lab.look(servers)
    assert lab.cancels == 1


def test_which_server_is_used_survives_the_process_but_not_another_fallback(lab: Lab, tmp_path: Path) -> None:
    servers = lab.servers()
    lab.leave(servers)
    servers.switch(lab.agent.server)
    assert json.loads((tmp_path / FILE).read_text()) == {"account": lab.settings.fallback.account}
    assert (tmp_path / FILE).stat().st_mode & 0o777 == 0o600
    assert lab.servers().is_second
    assert not lab.servers(drain=True).is_second
    assert not Lab(tmp_path, fallback={"host": "c"}).servers().is_second
    servers.switch(lab.agent.server)
    assert not (tmp_path / FILE).exists()
    for broken in ("", "[]", "{}", "\xff", '{"account": 1}'):
        (tmp_path / FILE).write_text(broken)
        assert not lab.servers().is_second


def test_the_wish_of_the_other_server_to_be_left_alone_is_respected(lab: Lab) -> None:
    servers = lab.servers()
    lab.agent.server.lost(DOWN, lab.clock.now)
    lab.clock.now += 2 * AFTER_S
    lab.look(servers)
    lab.probes[-1].is_over, lab.probes[-1].wait_s = True, 5000.0
    lab.look(servers)
    assert not servers.is_leaving
    assert servers.next_s(lab.agent) == 5000


def test_a_closed_schedule_asks_nobody(lab: Lab) -> None:
    servers = lab.servers()
    lab.admission = Admission.NONE
    lab.agent.server.lost(DOWN, lab.clock.now)
    lab.clock.now += 2 * AFTER_S
    lab.look(servers)
    assert (lab.probes, servers.next_s(lab.agent)) == ([], float("inf"))


def test_a_drain_goes_on_with_the_second_server_once_the_attempts_at_the_first_are_used_up(lab: Lab) -> None:
    servers, link = lab.servers(drain=True), lab.agent.server
    for _ in range(lab.settings.retry.drain_attempts):
        assert not servers.drains_on(link)
        link.lost(DOWN, lab.clock.now)
    assert servers.drains_on(link)
    servers.switch(link)
    assert servers.is_second
    assert not servers.drains_on(link)
    assert not (lab.settings.state_dir / FILE).exists()


def test_a_drain_at_a_held_server_ends_unless_it_is_asked_for(tmp_path: Path) -> None:
    for when_held in (False, True):
        lab = Lab(tmp_path, fallback_when_held=when_held)
        lab.agent.server.lost(REFUSED, lab.clock.now)
        assert lab.servers(drain=True).drains_on(lab.agent.server) is when_held


def test_each_news_of_the_other_server_is_told_once_and_shown(lab: Lab, caplog: pytest.LogCaptureFixture) -> None:
    servers = lab.servers()
    lab.agent.server.lost(DOWN, lab.clock.now)
    lab.clock.now += 2 * AFTER_S
    for _ in range(5):
        lab.look(servers)
        assert not lab.look(servers)
        lab.probes[-1].is_over, lab.probes[-1].error = True, DOWN
        assert lab.look(servers)
        lab.clock.now += CAP_S
    warnings = [record for record in caplog.records if record.levelname == "WARNING"]
    assert [record.getMessage() for record in warnings] == [
        'other server down server=b:22 error="LinkLost: no answer" next_s=60'
    ]
    figures = servers.figures(2e9)
    assert figures is not None
    assert (figures["server"], figures["table"], figures["error"]) == ("b:22", "fallback", '"no answer"')
    assert Lab(Path("/nowhere"), fallback=None).servers().figures(2e9) is None


def test_a_question_that_nobody_waits_for_is_cancelled(lab: Lab) -> None:
    servers = lab.servers()
    lab.agent.server.lost(DOWN, lab.clock.now)
    lab.clock.now += 2 * AFTER_S
    lab.look(servers)
    servers.close()
    assert lab.probes[-1].is_cancelled
