"""What the process does before its first agent runs, and what each agent is nudged by."""

from __future__ import annotations

import os
import resource
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from iot.spooler.config.settings import Settings
from iot.spooler.outbox.place import OutboxTaken, SourceFailed
from iot.spooler.process import nudges
from iot.spooler.process.starting import OPEN_FILES, allow_open_files, refuse_taken_outboxes, tell_start
from iot.spooler.server.availability import ServerState
from iot.spooler.state.lock import AlreadyRunning

UNLIMITED = resource.RLIM_INFINITY


@pytest.mark.parametrize(
    ("soft", "hard", "wanted"),
    [
        (1024, 4096, 4096),
        (1024, UNLIMITED, OPEN_FILES),
        (1024, 100_000, OPEN_FILES),
        (1024, 1024, None),
        (OPEN_FILES, 100_000, None),
        (OPEN_FILES - 1, 100_000, OPEN_FILES),
        (UNLIMITED, UNLIMITED, None),
    ],
)
def test_as_many_files_may_be_open_as_are_needed_if_that_is_more_than_there_may_be(
    soft: int, hard: int, wanted: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    limits: list[Any] = []
    monkeypatch.setattr(resource, "getrlimit", lambda what: (soft, hard))
    monkeypatch.setattr(resource, "setrlimit", lambda *given: limits.append(given))
    allow_open_files()
    assert limits == ([] if wanted is None else [(resource.RLIMIT_NOFILE, (wanted, hard))])


def test_an_outbox_of_another_agent_refuses_the_start_and_one_that_is_missing_does_not() -> None:
    opened: list[int] = []

    def good() -> int:
        opened.append(os.open("/", os.O_RDONLY))
        return opened[-1]

    def missing() -> int:
        raise SourceFailed("not there")

    def taken() -> int:
        raise OutboxTaken(Path("/box"), 4711)

    def agent(*ways: Any) -> Any:
        settings = SimpleNamespace(path=Path("/box"))
        return SimpleNamespace(
            intakes=[SimpleNamespace(outbox=SimpleNamespace(open=way), settings=settings) for way in ways]
        )

    refuse_taken_outboxes(agent(missing, good))
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(opened[0])
    with pytest.raises(AlreadyRunning, match=r"process 4711.*works on /box") as refused:
        refuse_taken_outboxes(agent(missing, taken))
    assert refused.value.pid == 4711


def settings(**more: Any) -> Settings:
    box = {"destination": "up"}
    boxes = [{**box, "path": "/one"}, {**box, "path": "/two"}, {**box, "path": "/off", "enabled": False}]
    return Settings.model_validate({"state_dir": "/s", "server": {"host": "a"}, "outbox": boxes, **more})


def test_the_start_is_told_with_its_servers_and_the_outboxes_that_are_used(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    tell_start(settings())
    assert 'server=a:22 outboxes="one, two" state_dir=/s pid=' in caplog.text
    tell_start(settings(fallback={"host": "b"}))
    assert 'server=a:22 fallback=b:22 outboxes="one, two" state_dir=/s' in caplog.text


@pytest.mark.parametrize(
    ("wake", "file", "listens"),
    [
        ({}, "RUN/wake", True),
        ({"file": "/own"}, "/own", True),
        ({"on_address": False}, "RUN/wake", False),
    ],
)
def test_an_agent_is_nudged_by_a_file_and_by_the_network_as_the_settings_say(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wake: dict[str, Any], file: str, listens: bool
) -> None:
    made: list[Any] = []
    monkeypatch.setattr(nudges, "Nudges", lambda *given, **how: made.append((given, how)))
    watch, server, clock = object(), object(), object()
    ours = settings(wake={**wake, "min_s": 7.0}, retry={"cap_s": 70.0})
    nudges.nudges_of(ours, {"RUNTIME_DIRECTORY": str(tmp_path)}, watch, server, clock)  # type: ignore[arg-type]
    path = Path(file.replace("RUN", str(tmp_path)))
    assert made == [((path, watch if listens else None, server), {"min_s": 7.0, "max_s": 70.0, "clock": clock})]


def test_the_file_is_looked_at_once_a_second_at_most_while_the_server_is_waited_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    looks: list[float] = []
    now = [1000.0]
    monkeypatch.setattr(nudges, "look", lambda file: looks.append(now[0]))
    server: Any = SimpleNamespace(state=ServerState.DISCONNECTED, waits=lambda now: True)
    ours = nudges.Nudges(Path("/wake"), None, server, min_s=5.0, max_s=60.0, clock=lambda: now[0])
    looks.clear()
    for _ in range(12):
        assert not ours.due()
        now[0] += 0.25
    assert looks == [1000.0, 1001.0, 1002.0]
    server.waits = lambda now: False
    now[0] += 60.0
    ours.due()
    assert len(looks) == 3
