"""A refused login holds the server: who ends the hold, and what a bad configuration must not end."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from quarantined import quarantined
from unit.agent_rig import Rig

from iot.spooler.config.changes import Changes
from iot.spooler.outbox.intake import Clocks
from iot.spooler.process import service
from iot.spooler.queue.policy import Backoff
from iot.spooler.server.availability import Availability, ServerState
from iot.transfer import AccessRefused, LinkLost, LoginRefused


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def held() -> Availability:
    server = Availability(Backoff(1.0, 60.0), Backoff(900.0, 3600.0), lambda: 0.0)
    server.lost(LoginRefused("no"), 0.0)
    assert server.state is ServerState.HELD
    assert server.ready_at == 900.0
    return server


def test_who_asks_for_it_gets_one_try_at_once_and_the_next_hold_is_longer() -> None:
    server = held()
    assert server.wake() is True
    assert server.state is ServerState.DISCONNECTED
    assert server.ready_at < 0.0
    assert server.last_error == "LoginRefused: no"
    assert server.wake() is False
    server.lost(LoginRefused("no"), 10.0)
    assert server.ready_at == 10.0 + 1800.0


def test_a_backoff_is_over_too_and_is_no_hold() -> None:
    server = Availability(Backoff(1.0, 60.0), Backoff(900.0, 3600.0), lambda: 0.0)
    server.lost(LinkLost("gone"), 0.0)
    assert server.ready_at > 0.0
    assert server.wake() is False
    assert server.ready_at < 0.0


def test_an_agent_that_follows_another_waits_as_that_one_would_have() -> None:
    first, second = held(), Availability(Backoff(1.0, 60.0), Backoff(900.0, 3600.0), lambda: 0.0)
    second.take_over(first)
    assert (second.state, second.ready_at, second.last_error) == (ServerState.HELD, 900.0, "LoginRefused: no")
    second.lost(LoginRefused("no"), 900.0)
    assert second.ready_at == 900.0 + 1800.0


def test_an_agent_that_follows_one_that_was_connected_has_still_to_connect() -> None:
    first, second = (Availability(Backoff(1.0, 60.0), Backoff(900.0, 3600.0), lambda: 0.0) for _ in range(2))
    first.progressed()
    second.take_over(first)
    assert second.state is ServerState.DISCONNECTED


def touched(file: Path) -> None:
    os.utime(file, ns=(1, 1))


def rewritten(file: Path) -> None:
    file.write_text("other")


def renamed_over(file: Path) -> None:
    fresh = file.with_name("fresh")
    fresh.write_text("one")
    fresh.rename(file)


def gone(file: Path) -> None:
    file.unlink()


def readable_now(file: Path) -> None:
    file.chmod(0o640)


@pytest.mark.parametrize("change", [touched, rewritten, renamed_over, gone, readable_now])
def test_a_change_is_seen_once(tmp_path: Path, change: Callable[[Path], None]) -> None:
    clock = Clock()
    file = tmp_path / "key"
    file.write_text("one")
    changes = Changes([tmp_path / "other", file], clock)
    assert changes.next() is None
    change(file)
    clock.now += Changes.every_s
    assert changes.next() == file
    clock.now += Changes.every_s
    assert changes.next() is None


def test_a_file_that_comes_is_a_change(tmp_path: Path) -> None:
    changes = Changes([tmp_path / "known_hosts"], Clock())
    (tmp_path / "known_hosts").touch()
    assert changes.next() == tmp_path / "known_hosts"


def test_it_looks_at_most_four_times_a_minute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    changes = Changes([tmp_path / "key"], clock)
    looks: list[object] = []
    monkeypatch.setattr(os, "stat", lambda path: looks.append(path) or os.lstat("/"))
    for _ in range(600):  # one minute
        clock.now += 0.1
        changes.next()
    assert 4 <= len(looks) <= 5


def test_a_file_that_is_rewritten_all_the_time_does_not_lead_to_a_login_each_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each reload makes a new agent, which knows of no earlier hold: here it is refused as soon as it is made."""
    clock = Clock()
    monkeypatch.setattr(service, "CLOCKS", Clocks(clock, clock))
    file = tmp_path / "known_hosts"
    ours = service.Service(None, {})
    retry = SimpleNamespace(auth_hold_s=900.0)
    agent: Any = SimpleNamespace(server=held(), settings=SimpleNamespace(retry=retry))
    logins = 0
    for second in range(3600):
        clock.now += 1.0
        file.write_text(str(second))
        ours._watch_hold(agent)
        if ours._reload_asked:
            ours._reload_asked = False
            ours._changes = Changes([file], clock)
            logins += 1
        elif second == 0:
            ours._changes = Changes([file], clock)
    assert 6 <= logins <= 10
    agent.server.progressed()
    ours._watch_hold(agent)
    assert ours._mended == 0


def test_a_refusal_of_the_destination_as_a_whole_holds_the_server_and_is_no_strike_of_a_file(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A folder that is mounted read-only says so at the first file: the others are not tried."""
    caplog.set_level("DEBUG", "iot.spooler.agent.agent")
    rig: Any = Rig(tmp_path)
    for number in range(50):
        rig.put(f"f{number}")
    rig.remote.slots = 1
    tried: list[str] = []
    rig.remote.before = lambda job: tried.append(job.dest)
    rig.remote.refuse = {f"/up/f{number}": AccessRefused("mounted read-only") for number in range(50)}
    rig.retry = {"max_attempts": 1}
    rig.loop.stop_at = rig.loop.now + 900 + 60
    rig.run(drain=False)
    assert len(tried) == 2  # one now, and one after the hold
    assert len(rig.left()) == 50
    assert quarantined(rig.quarantine) == []
    lines = [record.getMessage() for record in caplog.records]
    assert sum(line.startswith("link held error=") for line in lines) == 2
    assert lines.count('nothing is sent reason="the server is held"') == 2
