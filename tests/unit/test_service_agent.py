"""How the process makes an agent, what surrounds it while it runs, and in which order all of that begins and ends."""

from __future__ import annotations

import contextlib
import logging
import signal
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from unit.test_service_loop import Lab, Outbox

from iot.spooler.agent.draining import End
from iot.spooler.process import service
from iot.spooler.process.service import Service


class Parts(Lab):
    """Stands for all that surrounds an agent. done: what happens, in order. made: what each part was made with."""

    def __init__(
        self, monkeypatch: pytest.MonkeyPatch, run: Path, *, config: Path | None = None, drain: bool = False
    ) -> None:
        super().__init__(monkeypatch)
        self.done: list[str] = []
        self.made: dict[str, Any] = {}
        self.fails = False
        self.remote = SimpleNamespace(close=lambda: self.done.append("remote closed"))
        environment = {"RUNTIME_DIRECTORY": str(run)}
        self.ours = Service(config, environment, drain=drain, make_remote=self._make("remote", self.remote))
        self.ours._notify = self.told.append
        self.server = SimpleNamespace(take_over=lambda earlier: self.done.append(f"took over {earlier}"))
        nudges = SimpleNamespace(close=lambda: self.done.append("nudges closed"))
        contact = SimpleNamespace(take_turn=lambda server, now: self.done.append("waits its turn"))
        self.ours._servers = SimpleNamespace(figures="figures", hold_file="hold.json")  # type: ignore[assignment]
        for name, part in (
            ("Agent", self._agent()), ("Changes", "changes"), ("nudges_of", nudges), ("LastContact", contact),
            ("Held", "the hold"), ("StatusFile", "status"),
        ):  # fmt: skip
            monkeypatch.setattr(service, name, self._make(name, part))
        monkeypatch.setattr(service, "refuse_taken_outboxes", lambda agent: self.done.append("outboxes claimed"))
        monkeypatch.setattr(self.ours, "_take_over_hold", lambda hold, agent: self.done.append(f"{hold} taken over"))
        server: Any = SimpleNamespace(login_files=lambda: [Path("/key")])
        self.settings: Any = SimpleNamespace(state_dir=Path("/s"), server=server, device_id="gw")

    def _make(self, name: str, part: Any) -> Any:
        def make(*given: Any, **how: Any) -> Any:
            self.made[name] = (given, how)
            return part

        return make

    def _agent(self) -> Any:
        self.outbox = Outbox(readable=True)
        return SimpleNamespace(server=self.server, intakes=[self.outbox], run=self._run)

    def _run(self) -> End:
        self.done.append("runs")
        assert self.ours._remote is self.remote
        if self.fails:
            raise KeyboardInterrupt
        return End.STOPPED

    def one(self) -> End:
        return self.ours._one_agent(self.settings, "journal")  # type: ignore[arg-type]


@pytest.fixture
def parts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Parts:
    return Parts(monkeypatch, tmp_path)


FIRST = ["outboxes claimed", "the hold taken over", "waits its turn", "runs", "nudges closed", "remote closed"]


def test_the_first_agent_claims_its_outboxes_and_waits_as_the_last_process_would_have(parts: Parts) -> None:
    assert parts.one() is End.STOPPED
    assert parts.done == FIRST
    assert parts.made["remote"] == ((parts.settings, "journal"), {})
    given, how = parts.made["Agent"]
    assert given[:4] == (parts.settings, "journal", parts.remote, parts.ours)
    assert how == {"drain": False, "totals": parts.ours._totals, "anew": False}
    assert (parts.ours._remote, parts.ours._server) == (None, parts.server)


def test_the_next_one_goes_on_where_the_last_one_ended(parts: Parts) -> None:
    parts.one()
    parts.done.clear()
    parts.one()
    assert parts.done[:2] == [f"took over {parts.server}", "runs"]
    assert parts.made["Agent"][1]["anew"] is True
    assert parts.told == []  # it was never ready


def test_after_a_reload_it_is_ready_as_soon_as_an_outbox_can_be_read(parts: Parts) -> None:
    parts.ours._ready = True
    parts.one()
    assert parts.told == ["READY=1"]
    parts.outbox._readable = False
    parts.one()
    assert (parts.told, parts.ours._ready) == (["READY=1"], False)


def test_a_hold_that_the_other_server_may_have_is_taken_over_by_a_later_agent_too(parts: Parts) -> None:
    parts.one()
    parts.done.clear()
    parts.ours._may_be_held, parts.ours._server = True, None
    parts.one()
    assert parts.done[:2] == ["the hold taken over", "runs"]


def test_a_drain_waits_for_nobodys_turn(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    parts = Parts(monkeypatch, tmp_path, drain=True)
    parts.one()
    assert "waits its turn" not in parts.done
    assert parts.made["Agent"][1]["drain"] is True


def test_all_is_closed_whatever_ends_the_agent(parts: Parts) -> None:
    parts.fails = True
    with pytest.raises(KeyboardInterrupt):
        parts.one()
    assert parts.done[-2:] == ["nudges closed", "remote closed"]
    assert parts.ours._remote is None


def test_each_outbox_knows_of_the_power_cut_and_the_status_of_the_other_server(parts: Parts) -> None:
    parts.ours.power_cut = "a cut"  # type: ignore[assignment]
    parts.one()
    assert parts.outbox.cut == "a cut"  # type: ignore[attr-defined]
    agent: Any = parts.ours._agent
    assert agent.other_server == "figures"
    assert parts.made["Held"] == ((parts.settings, None), {"file": "hold.json"})


@pytest.mark.parametrize("config", [Path("/c.toml"), None])
def test_what_mends_a_hold_is_the_configuration_or_a_file_of_the_login(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, config: Path | None
) -> None:
    parts = Parts(monkeypatch, tmp_path, config=config)
    parts.one()
    assert parts.made["Changes"][0][0] == [path for path in (config, Path("/key")) if path is not None]


@pytest.mark.parametrize("in_memory", [True, False])
def test_the_status_lies_where_writing_it_costs_least(
    parts: Parts, monkeypatch: pytest.MonkeyPatch, in_memory: bool
) -> None:
    monkeypatch.setattr(service, "status_path", lambda *given: (Path("/run/status.json"), in_memory))
    parts.one()
    assert parts.made["StatusFile"] == ((Path("/run/status.json"), service.CLOCKS), {"in_memory": in_memory})


# -- the process


class Process:
    """Stands for all that `run` uses. done: what begins and ends, in order."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.done: list[Any] = []
        self.settings: Any = SimpleNamespace(
            log_level="error", state_dir=Path("/s"), control=SimpleNamespace(group="staff")
        )
        self.fails = False
        location = SimpleNamespace(close=lambda: self.done.append("journal closed"))
        patches: dict[str, Any] = {
            "load": lambda config, environment: self.settings,
            "allow_open_files": lambda: self.done.append("files allowed"),
            "exposed_secrets": lambda *_: ["/c.toml can be read by all"],
            "tell_start": lambda settings: self.done.append("start told"),
            "status_path": lambda *_: (Path("/run/status.json"), True),
            "control_path": lambda *_: Path("/run/control.sock"),
            "locked": lambda state: self._with(f"lock of {state}"),
            "running": lambda state: self._with("power cut"),
            "announced": lambda config, state, status, environment: self._with(f"note of {status}"),
            "commands": lambda path, group, watch, clock: self._with(f"commands of {group} at {path}"),
            "JournalLocation": lambda settings, clock: location,
        }
        for name, part in patches.items():
            monkeypatch.setattr(service, name, part)
        monkeypatch.setattr(Service, "run", lambda ours, settings, location: self._run(ours))

    @contextlib.contextmanager
    def _with(self, words: str) -> Iterator[str]:
        self.done.append(words)
        try:
            yield words
        finally:
            self.done.append(f"{words} ends")

    def _run(self, ours: Service) -> End:
        self.done.append((ours.control, ours.power_cut, logging.getLogger().level))
        self.handlers = [signal.getsignal(number) for number in service.EARLY]
        if self.fails:
            raise KeyboardInterrupt
        return End.DRAINED


@pytest.fixture
def process(monkeypatch: pytest.MonkeyPatch) -> Iterator[Process]:
    level = logging.getLogger().level
    yield Process(monkeypatch)
    logging.getLogger().setLevel(level)


WITHIN = ["lock of /s", "power cut", "note of /run/status.json", "commands of staff at /run/control.sock"]


def test_a_process_holds_its_lock_and_its_note_for_as_long_as_it_works(process: Process) -> None:
    before = [signal.getsignal(number) for number in service.EARLY]
    assert service.run(Path("/c.toml"), {}, drain=True) is End.DRAINED
    ends = [f"{words} ends" for words in reversed(WITHIN)]
    assert process.done == [
        "files allowed", "start told", *WITHIN, (WITHIN[-1], WITHIN[1], logging.ERROR), ends[0], "journal closed",
        *ends[1:],
    ]  # fmt: skip
    assert not set(process.handlers) & set(before)
    assert [signal.getsignal(number) for number in service.EARLY] == before


def test_secrets_that_others_can_read_are_told_at_the_start(process: Process, caplog: pytest.LogCaptureFixture) -> None:
    process.settings.log_level = "warning"
    service.run(None, {}, drain=True)
    assert 'secret exposed reason="/c.toml can be read by all"' in caplog.text


def test_the_journal_is_closed_whatever_ends_the_process(process: Process) -> None:
    process.fails = True
    with pytest.raises(KeyboardInterrupt):
        service.run(None, {}, drain=False)
    assert "journal closed" in process.done
    assert process.done[-1] == "lock of /s ends"
