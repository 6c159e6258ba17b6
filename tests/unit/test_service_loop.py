"""What the process answers to the loop of an agent: when it pauses, what ends that, who wakes it, what is told."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from iot.spooler.agent.agent import Wake
from iot.spooler.outbox.intake import Clocks
from iot.spooler.outbox.scan import SourceFailed
from iot.spooler.process import service
from iot.spooler.process.service import Service
from iot.transfer import JournalUnavailable


class Lab:
    """A service with scripted parts around it. pauses: how long it has waited each time."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, **environment: str) -> None:
        self.now = 1000.0
        monkeypatch.setattr(service, "CLOCKS", Clocks(lambda: self.now, lambda: self.now))
        clock = SimpleNamespace(monotonic=lambda: self.now, clock_gettime_ns=lambda _: 5_000_999_999, CLOCK_MONOTONIC=1)
        monkeypatch.setattr(service, "time", clock)
        self.ours = Service(None, environment)
        self.told: list[str] = []
        self.pauses: list[float] = []
        self.woken: list[str] = []
        self.ours._notify = self.told.append
        self.ours._wakeups = SimpleNamespace(wait=self._wait, poke=lambda: self.woken.append("poke"))  # type: ignore[assignment]
        self.agent: Any = SimpleNamespace(intakes=[])

    def _wait(self, seconds: float) -> list[Any]:
        self.pauses.append(seconds)
        return [lambda: self.woken.append("act")]

    def pause(self, seconds: float) -> float:
        self.ours.pause(seconds)
        return self.pauses[-1]


@pytest.fixture
def lab(monkeypatch: pytest.MonkeyPatch) -> Lab:
    return Lab(monkeypatch)


def test_the_watchdog_is_fed_twice_in_its_time_and_only_where_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    lab = Lab(monkeypatch, WATCHDOG_USEC="8000000")
    fed = []
    for _ in range(10):
        lab.ours.alive()
        fed.append(len(lab.told))
        lab.now += 1.0
    assert set(lab.told) == {"WATCHDOG=1"}
    assert fed == [1, 1, 2, 2, 3, 3, 4, 4, 5, 5]
    assert lab.pause(60.0) == 2.0
    assert lab.pause(1.0) == 1.0
    without = Lab(monkeypatch)
    without.ours.alive()
    assert (without.told, without.pause(60.0)) == ([], 60.0)


def test_a_pause_is_as_long_as_the_first_who_waits_allows_and_an_hour_at_most(lab: Lab) -> None:
    assert lab.pause(1e9) == 3600.0
    lab.ours._held = True
    assert lab.pause(1e9) == lab.ours._changes.every_s
    lab.ours._agent = lab.agent
    lab.ours._servers = SimpleNamespace(next_s=lambda agent: 9.0)  # type: ignore[assignment]
    assert lab.pause(1e9) == 9.0
    lab.ours._nudges = SimpleNamespace(next_s=lambda: 8.0)  # type: ignore[assignment]
    assert lab.pause(1e9) == 8.0
    lab.ours._status = SimpleNamespace(due_s=lambda: 7.0)  # type: ignore[assignment]
    assert lab.pause(1e9) == 7.0
    lab.ours.control = SimpleNamespace(drop_late=lambda: 6.0)  # type: ignore[assignment]
    assert lab.pause(1e9) == 6.0
    assert lab.pause(5.0) == 5.0
    assert lab.woken == ["act"] * 7


@pytest.mark.parametrize(("number", "why"), [(signal.SIGUSR1, Wake.TRY), (signal.SIGUSR2, Wake.FLUSH)])
def test_a_signal_wakes_once_and_a_flush_is_not_forgotten_for_a_try(
    lab: Lab, number: signal.Signals, why: Wake
) -> None:
    woken: list[int] = []
    lab.ours._servers = SimpleNamespace(wake=lambda: woken.append(1))  # type: ignore[assignment]
    with lab.ours.handled(signal.SIGUSR1, signal.SIGUSR2):
        signal.raise_signal(number)
        signal.raise_signal(signal.SIGUSR1)
    assert lab.woken == ["poke", "poke"]
    assert [lab.ours.woken(), lab.ours.woken()] == [why, None]
    assert woken == [1]
    assert lab.pauses == [0.0, 0.0]


def test_a_command_and_a_nudge_wake_and_a_command_comes_first(lab: Lab) -> None:
    answers = [Wake.FLUSH, None, None]
    due = [True, False]
    lab.ours._agent = lab.agent
    lab.ours.control = SimpleNamespace(obeyed=lambda agent: answers.pop(0))  # type: ignore[assignment]
    lab.ours._nudges = SimpleNamespace(due=lambda: due.pop(0))  # type: ignore[assignment]
    assert [lab.ours.woken() for _ in range(3)] == [Wake.FLUSH, Wake.NUDGE, None]


@pytest.mark.parametrize("held", [True, False])
def test_who_wakes_a_held_agent_has_mended_the_login_and_that_is_read_first(
    lab: Lab, monkeypatch: pytest.MonkeyPatch, held: bool
) -> None:
    fresh: Any = SimpleNamespace(state_dir=Path("/s"), log_level="info")
    loads: list[Any] = []
    monkeypatch.setattr(service, "load", lambda *given: loads.append(given) or fresh)
    lab.ours._changes = SimpleNamespace(look_now=lambda: Path("/key"))  # type: ignore[assignment]
    lab.ours._held = held
    assert lab.ours.woken() is None
    assert loads == []
    lab.ours._wake = Wake.TRY
    assert lab.ours.woken() is (None if held else Wake.TRY)
    assert len(loads) == held
    assert lab.ours.stopping() is held
    assert lab.woken == ["act", "act"] + ["poke"] * held
    if held:  # the next agent tries
        assert lab.ours._wake is Wake.TRY
        assert [line.partition("\n")[0] for line in lab.told] == ["RELOADING=1"]


def test_what_has_an_agent_end(lab: Lab) -> None:
    assert not lab.ours.stopping()
    room, leaving = SimpleNamespace(has_room_again=lambda: False), SimpleNamespace(is_leaving=False)
    lab.ours._location, lab.ours._servers = room, leaving  # type: ignore[assignment]
    assert not lab.ours.stopping()
    leaving.is_leaving = True
    assert lab.ours.stopping()
    leaving.is_leaving, room.has_room_again = False, lambda: True
    assert lab.ours.stopping()
    room.has_room_again = lambda: False
    cancelled: list[int] = []
    lab.ours._remote = SimpleNamespace(cancel=lambda: cancelled.append(1))  # type: ignore[assignment]
    with lab.ours.handled(signal.SIGTERM):
        signal.raise_signal(signal.SIGTERM)
    assert lab.ours.stopping()
    assert (cancelled, lab.woken) == ([1], ["poke"])


class Outbox:
    def __init__(self, *, readable: bool) -> None:
        self.outbox = self
        self._readable = readable
        self.opened: list[int] = []

    def open(self) -> int:
        if not self._readable:
            raise SourceFailed("no")
        self.opened.append(os.open("/", os.O_RDONLY))
        return self.opened[-1]


def test_it_is_ready_once_one_outbox_can_be_read_and_says_so_once(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lab.ours, "_watch_hold", lambda agent: None)
    lab.agent.intakes = [Outbox(readable=False)]
    lab.ours.report(lab.agent, changed=True)
    assert lab.told == []
    good = Outbox(readable=True)
    lab.agent.intakes += [good, Outbox(readable=True)]
    lab.ours.report(lab.agent, changed=True)
    lab.ours.report(lab.agent, changed=True)
    assert lab.told == ["READY=1"]
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(good.opened[0])


def test_what_is_reported_is_written_and_told_and_a_full_disk_is_no_end(
    lab: Lab, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(lab.ours, "_watch_hold", lambda agent: None)
    monkeypatch.setattr(service, "summary", str)
    lab.ours._ready = True
    asked: list[tuple[bool, bool]] = []
    answers: list[bool | Exception] = [False, True, JournalUnavailable("full"), True]

    def report(agent: object, *, changed: bool, final: bool) -> bool:
        asked.append((changed, final))
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    lab.ours._status = SimpleNamespace(report=report, latest="all well")  # type: ignore[assignment]
    lab.ours.report(lab.agent, changed=False)
    assert lab.told == []
    lab.ours.report(lab.agent, changed=True)
    lab.ours.report(lab.agent, changed=True)
    assert lab.told == ["STATUS=all well"]
    assert "cannot write the status" in caplog.text
    looks = [True]
    lab.ours._servers = SimpleNamespace(look=lambda agent, cancel: looks.pop())  # type: ignore[assignment]
    lab.ours._remote = SimpleNamespace(cancel=None)  # type: ignore[assignment]
    lab.ours.report(lab.agent, changed=False, final=True)
    assert asked == [(False, False), (True, False), (True, False), (True, True)]
