"""One agent after another in one process: what the next one takes over, what ends the series, what a reload changes."""

from __future__ import annotations

import logging
import signal
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from unit.test_service_loop import Lab

from iot.spooler.agent.draining import End
from iot.spooler.config.load import BadConfiguration
from iot.spooler.process import service
from iot.spooler.server.availability import ServerState


class Servers:
    """What was done to it, in order."""

    def __init__(self, settings: Any, done: list[Any]) -> None:
        self.in_use, self.is_leaving, self.hold_file, self.figures = settings, False, "hold.json", object()
        self.goes_on, self.done = False, done

    def drains_on(self, server: object) -> bool:
        return self.goes_on

    def switch(self, server: object) -> None:
        self.is_leaving = self.goes_on = False
        self.done.append(("switch", server))

    def close(self) -> None:
        self.done.append(("close", self.in_use))


class Series(Lab):
    """agents: what happens while each runs, and its end."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        super().__init__(monkeypatch)
        self.done: list[Any] = []
        self.agents: list[Callable[[Servers], End]] = []
        self.servers: list[Servers] = []
        monkeypatch.setattr(self.ours, "_servers_of", self._servers_of)
        monkeypatch.setattr(self.ours, "_one_agent", self._one_agent)
        self.ours._status = SimpleNamespace(latest=None, keep=self.done.append)  # type: ignore[assignment]
        self.ours._contact = SimpleNamespace(end=lambda: self.done.append("contact ended"))  # type: ignore[assignment]
        self.ours._server = "the link"  # type: ignore[assignment]

    def _servers_of(self, settings: Any) -> Any:
        self.servers.append(Servers(settings, self.done))
        return self.servers[-1]

    def _one_agent(self, settings: Any, journal: object) -> End:
        self.done.append(("agent", settings))
        return self.agents.pop(0)(self.servers[-1])

    def run(self, *agents: Callable[[Servers], End]) -> End:
        self.agents = list(agents)
        location: Any = SimpleNamespace(journal="journal", move=lambda: self.done.append("move"))
        end = self.ours.run(SimpleNamespace(state_dir=Path("/s")), location)  # type: ignore[arg-type]
        assert self.agents == []
        return end

    def steps(self) -> list[str]:
        return [step if isinstance(step, str) else step[0] for step in self.done if not isinstance(step, Path)]


@pytest.fixture
def series(monkeypatch: pytest.MonkeyPatch) -> Series:
    return Series(monkeypatch)


@pytest.fixture
def lab(monkeypatch: pytest.MonkeyPatch) -> Lab:
    return Lab(monkeypatch)


def test_the_end_of_a_drain_is_told_and_nobody_is_asked_any_more(series: Series) -> None:
    assert series.run(lambda servers: End.DRAINED) is End.DRAINED
    assert series.steps() == ["agent", "move", "close", "contact ended"]
    assert series.done[-1] == Path("/s/status.json")
    assert series.told == ["STOPPING=1"]


def test_a_stop_ends_the_series_and_a_disk_with_room_again_only_the_agent(series: Series) -> None:
    def stopped(servers: Servers) -> End:
        signal.raise_signal(signal.SIGTERM)
        return End.STOPPED

    assert series.run(lambda servers: End.STOPPED, stopped) is End.STOPPED
    assert series.steps() == ["agent", "move", "agent", "move", "close", "contact ended"]
    assert len(series.servers) == 1
    assert series.ours._server == "the link"


def test_what_was_never_made_is_not_ended(series: Series) -> None:
    series.ours._status = series.ours._contact = None
    assert series.run(lambda servers: End.REMAINS) is End.REMAINS
    assert series.steps() == ["agent", "move", "close"]


def test_a_reload_has_the_next_agent_begin_with_the_new_settings_and_a_fresh_server(series: Series) -> None:
    fresh: Any = SimpleNamespace(state_dir=Path("/t"))

    def reloaded(servers: Servers) -> End:
        series.ours._fresh = fresh
        return End.STOPPED

    def drained(servers: Servers) -> End:
        assert (series.ours._fresh, series.ours._server) == (None, None)
        return End.DRAINED

    old = SimpleNamespace(state_dir=Path("/s"))
    series.run(reloaded, drained)
    assert series.done == [
        ("agent", old), "move", ("close", old), ("agent", fresh), "move", ("close", fresh), "contact ended",
        Path("/t/status.json"),
    ]  # fmt: skip


def leaves(servers: Servers) -> End:
    servers.is_leaving = True
    return End.STOPPED


@pytest.mark.parametrize("drain", [False, True])
def test_the_other_server_is_used_by_the_next_agent_of_which_nothing_is_known_yet(series: Series, drain: bool) -> None:
    series.ours._drain = drain

    def drained(servers: Servers) -> End:
        assert series.ours._server is None
        assert series.ours._may_be_held is drain
        return End.DRAINED

    series.run(leaves, drained)
    assert series.done[2] == ("switch", "the link")
    assert series.steps() == ["agent", "move", "switch", "agent", "move", "close", "contact ended"]


def test_a_drain_that_could_not_send_goes_on_with_the_other_server_if_there_is_one(series: Series) -> None:
    def remains(servers: Servers) -> End:
        servers.goes_on = True
        return End.REMAINS

    assert series.run(remains, lambda servers: End.REMAINS) is End.REMAINS
    assert series.steps().count("switch") == 1


def test_a_drain_that_is_done_needs_no_other_server(series: Series) -> None:
    def drained(servers: Servers) -> End:
        servers.goes_on = True
        return End.DRAINED

    series.run(drained)
    assert "switch" not in series.steps()


def stop(series: Series) -> None:
    series.ours._terminate = True


def reload(series: Series) -> None:
    series.ours._fresh = SimpleNamespace(state_dir=Path("/t"))  # type: ignore[assignment]


def forget(series: Series) -> None:
    series.ours._server = None
    series.ours._terminate = True


@pytest.mark.parametrize("meanwhile", [stop, reload, forget])
def test_whoever_stops_or_reloads_changes_no_server(series: Series, meanwhile: Callable[[Series], None]) -> None:
    def both(servers: Servers) -> End:
        meanwhile(series)
        return leaves(servers)

    series.run(*[both, lambda servers: End.DRAINED][: 2 if meanwhile is reload else 1])
    assert "switch" not in series.steps()


@pytest.mark.parametrize(("latest", "left"), [({"backlog": {"files": 3}}, "3"), (None, "unknown")])
def test_the_log_tells_what_is_left_as_far_as_that_is_known(
    series: Series, latest: Any, left: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    series.ours._status.latest = latest  # type: ignore[union-attr]
    series.now += 5
    series.run(lambda servers: End.DRAINED)
    assert f"stopped reason=drained delivered=0 bytes=0 left={left} s=5" in caplog.text


# -- a reload


def reading(monkeypatch: pytest.MonkeyPatch, answer: Any) -> None:
    def load(*_: object) -> Any:
        if isinstance(answer, Exception):
            raise answer
        return answer

    monkeypatch.setattr(service, "load", load)


def test_a_good_configuration_ends_the_agent_at_once(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    fresh = SimpleNamespace(state_dir=Path("/s"), log_level="debug")
    reading(monkeypatch, fresh)
    cancelled: list[int] = []
    lab.ours._remote = SimpleNamespace(cancel=lambda: cancelled.append(1))  # type: ignore[assignment]
    lab.ours._settings = SimpleNamespace(state_dir=Path("/s"))  # type: ignore[assignment]
    level = logging.getLogger().level
    try:
        with lab.ours.handled(signal.SIGHUP):
            signal.raise_signal(signal.SIGHUP)
        assert lab.woken == ["poke"]
        lab.ours.alive()
        assert logging.getLogger().level == logging.DEBUG
    finally:
        logging.getLogger().setLevel(level)
    assert (lab.ours._fresh, lab.ours._ready, cancelled) == (fresh, True, [1])
    assert lab.told == ["RELOADING=1\nMONOTONIC_USEC=5000999"]
    lab.ours._reload_asked = True
    lab.ours.alive()
    assert len(lab.told) == 1  # the next agent looks again


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (BadConfiguration(["a = 1: wrong", "b: missing"]), "a = 1: wrong"),
        (SimpleNamespace(state_dir=Path("/other")), "needs a restart"),
    ],
)
def test_a_refused_configuration_changes_nothing(
    lab: Lab, monkeypatch: pytest.MonkeyPatch, answer: Any, words: str, caplog: pytest.LogCaptureFixture
) -> None:
    reading(monkeypatch, answer)
    lab.ours._settings = SimpleNamespace(state_dir=Path("/s"))  # type: ignore[assignment]
    lab.ours._remote = SimpleNamespace(cancel=lambda: pytest.fail("cancelled"))  # type: ignore[assignment]
    lab.ours._reload_asked = True
    for _ in range(2):
        lab.ours.alive()
    assert (lab.ours._fresh, lab.ours._ready, lab.ours.stopping()) == (None, False, False)
    assert lab.told == ["RELOADING=1\nMONOTONIC_USEC=5000999", "READY=1"]
    assert words in caplog.text


def test_handlers_of_signals_are_put_back(lab: Lab) -> None:
    numbers = (signal.SIGTERM, signal.SIGINT, *service.EARLY)
    before = [signal.getsignal(number) for number in numbers]
    with lab.ours.handled(*numbers):
        assert not set(before) & {signal.getsignal(number) for number in numbers}
        signal.raise_signal(signal.SIGINT)
    assert [signal.getsignal(number) for number in numbers] == before
    assert lab.ours.stopping()


# -- a server that is held


class Holding:
    """A held server, and files of its login that somebody changes each time that they are looked at."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        retry = SimpleNamespace(auth_hold_s=100.0)
        self.server = SimpleNamespace(state=ServerState.HELD, last_error="no")
        self.agent: Any = SimpleNamespace(server=self.server, settings=SimpleNamespace(retry=retry))
        lab.ours._changes = SimpleNamespace(next=lambda: Path("/key"))  # type: ignore[assignment]

    def reloads(self, seconds: int) -> list[int]:
        """In which seconds the configuration is read again."""
        found = []
        for second in range(seconds):
            self.lab.ours._watch_hold(self.agent)
            if self.lab.ours._reload_asked:
                found.append(second)
            self.lab.ours._reload_asked = False
            self.lab.now += 1.0
        return found


def test_a_file_that_is_rewritten_all_the_time_leads_to_ever_fewer_logins(lab: Lab) -> None:
    holding, every_s = Holding(lab), service.Changes.every_s
    expected = [0.0]
    for number in range(9):
        expected.append(expected[-1] + max(min(every_s * 2**number, 100.0), every_s))
    assert holding.reloads(int(expected[-1])) == [int(second) for second in expected[:-1]]
    assert lab.ours._held
    holding.server.state = ServerState.CONNECTED
    assert holding.reloads(200) == []
    assert not lab.ours._held
    holding.server.state = ServerState.HELD
    assert holding.reloads(int(every_s) + 1) == [0, int(every_s)]


def test_however_short_a_hold_is_a_change_is_not_looked_for_more_often_than_usual(lab: Lab) -> None:
    holding = Holding(lab)
    holding.agent.settings.retry.auth_hold_s = 0.1
    assert holding.reloads(10) == [second for second in range(10) if second % int(service.Changes.every_s) == 0]


def test_a_hold_is_recorded_and_that_it_cannot_be_is_said_once(lab: Lab, caplog: pytest.LogCaptureFixture) -> None:
    holding = Holding(lab)
    followed: list[Any] = []

    def follow(server: object, now: float) -> None:
        followed.append((server, now))
        if len(followed) == 2:
            raise OSError(28, "No space left")

    lab.ours._hold = SimpleNamespace(follow=follow)  # type: ignore[assignment]
    holding.reloads(4)
    assert followed == [(holding.server, 1000.0), (holding.server, 1001.0)]
    assert caplog.text.count("cannot record the hold") == 1


@pytest.mark.parametrize(("left_s", "told"), [(5.0, 1), (None, 0)])
def test_a_hold_of_an_earlier_process_is_told(
    lab: Lab, left_s: float | None, told: int, caplog: pytest.LogCaptureFixture
) -> None:
    hold: Any = SimpleNamespace(restore=lambda server, now: left_s)
    lab.ours._take_over_hold(hold, Holding(lab).agent)
    assert caplog.text.count("link held since an earlier run error=no next_s=5") == told


# -- what may be missing


def test_before_all_parts_are_there_a_pause_and_a_report_are_possible(lab: Lab) -> None:
    lab.ours._servers = SimpleNamespace(next_s=lambda agent: 1.0)  # type: ignore[assignment]
    assert lab.pause(50.0) == 50.0
    lab.ours._agent, lab.ours._servers = lab.agent, None
    assert lab.pause(50.0) == 50.0
    lab.ours._watch_hold = lambda agent: None  # type: ignore[method-assign]
    lab.ours._servers = SimpleNamespace(look=lambda *_: pytest.fail("looked"))  # type: ignore[assignment]
    lab.ours.report(lab.agent, changed=True)
    lab.ours._servers, lab.ours._remote = None, SimpleNamespace(cancel=None)  # type: ignore[assignment]
    lab.ours.report(lab.agent, changed=True)
    assert lab.told == []


def test_a_command_is_not_obeyed_without_an_agent_nor_by_one_that_is_about_to_end(lab: Lab) -> None:
    lab.ours.control = SimpleNamespace(obeyed=lambda agent: pytest.fail("obeyed"))  # type: ignore[assignment]
    assert lab.ours.woken() is None
    lab.ours._agent, lab.ours._fresh = lab.agent, SimpleNamespace()  # type: ignore[assignment]
    assert lab.ours.woken() is None


def test_the_last_contact_follows_what_is_delivered(lab: Lab) -> None:
    lab.ours._watch_hold = lambda agent: None  # type: ignore[method-assign]
    followed: list[Any] = []
    lab.ours._contact = SimpleNamespace(follow=lambda *given: followed.append(given))  # type: ignore[assignment]
    lab.ours._totals.files, lab.ours._totals.bytes = 2, 30
    agent: Any = SimpleNamespace(intakes=[], server=SimpleNamespace(state="connected"))
    lab.ours.report(agent, changed=False)
    assert followed == [("connected", 32, 1000.0)]
