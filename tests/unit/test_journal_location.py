"""Where the agent's journal is: how often a full disk is looked at again, and what is closed when it moves."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from iot.spooler.config.settings import Settings
from iot.spooler.state import journal_location
from iot.spooler.state.journal_location import LOOK_EVERY_S, JournalLocation
from iot.transfer import DiskFull, JournalUnavailable


class Disk:
    """error: of the next journals on it. journals: all that were opened."""

    def __init__(self) -> None:
        self.error: Exception | None = DiskFull("full")
        self.journals: list[Any] = []
        self.asked = 0
        self.now = 100.0

    def journal(self, state_dir: Path | None, *_: object) -> Any:
        if state_dir is not None:
            self.asked += 1
            if self.error is not None:
                raise self.error
        self.journals.append(_Journal(state_dir))
        return self.journals[-1]


class _Journal:
    def __init__(self, state_dir: Path | None) -> None:
        self.state_dir, self.closed = state_dir, 0

    def close(self) -> None:
        self.closed += 1


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    disk = Disk()
    monkeypatch.setattr(journal_location, "Journal", disk.journal)
    return disk


def settings(base: Path, *outboxes: dict[str, Any]) -> Settings:
    for folder in ("state", "box"):
        (base / folder).mkdir(exist_ok=True)
    boxes = [{"path": str(base / "box"), "destination": "/up", **outbox} for outbox in outboxes or ({},)]
    return Settings.model_validate(
        {"state_dir": str(base / "state"), "server": {"host": "h"}, "outbox": boxes},
    )


@pytest.mark.parametrize("error", [DiskFull("full"), JournalUnavailable("broken")])
def test_a_full_disk_is_looked_at_every_few_seconds_and_then_no_more(tmp_path, disk, error):
    location = JournalLocation(settings(tmp_path), lambda: disk.now)
    assert location.journal.state_dir is None
    disk.error = error
    for later_s, asked in ((LOOK_EVERY_S - 1, 1), (1, 2), (LOOK_EVERY_S - 1, 2), (1, 3)):
        disk.now += later_s
        assert not location.has_room_again()
        assert disk.asked == asked
    location.move()
    assert location.journal is disk.journals[0]
    disk.error = None
    disk.now += LOOK_EVERY_S
    for _ in range(2):
        assert location.has_room_again()
        disk.now += LOOK_EVERY_S
    assert disk.asked == 4


def test_when_it_moves_the_one_in_memory_is_closed_and_nobody_looks_again(tmp_path, disk):
    location = JournalLocation(settings(tmp_path), lambda: disk.now)
    disk.error = None
    disk.now += LOOK_EVERY_S
    assert location.has_room_again()
    location.move()
    memory, on_disk = disk.journals
    assert (memory.closed, on_disk.closed, location.journal) == (1, 0, on_disk)
    disk.now += LOOK_EVERY_S
    assert not location.has_room_again()
    assert disk.asked == 2
    location.close()
    assert (memory.closed, on_disk.closed) == (1, 1)


def test_at_the_end_neither_of_two_stays_open(tmp_path, disk):
    location = JournalLocation(settings(tmp_path), lambda: disk.now)
    disk.error = None
    disk.now += LOOK_EVERY_S
    assert location.has_room_again()
    location.close()
    assert [journal.closed for journal in disk.journals] == [1, 1]


def test_a_journal_on_the_disk_is_all_that_is_needed(tmp_path, disk):
    disk.error = None
    location = JournalLocation(settings(tmp_path), lambda: disk.now)
    disk.now += 1e9
    assert not location.has_room_again()
    assert (disk.asked, location.journal.state_dir) == (1, tmp_path / "state")


@pytest.mark.parametrize(
    ("outboxes", "makes_room"),
    [
        (({},), True),
        (({"enabled": False},), False),
        (({"after_upload": "keep"},), False),
        (({"after_upload": "keep"}, {}), True),
    ],
)
def test_only_what_is_deleted_after_delivery_makes_room(tmp_path, disk, outboxes, makes_room):
    (tmp_path / "box2").mkdir()
    boxes = [{"path": str(tmp_path / f"box{'2' * number}"), **box} for number, box in enumerate(outboxes)]
    given = settings(tmp_path, *boxes)
    if makes_room:
        assert JournalLocation(given, lambda: disk.now).journal.state_dir is None
    else:
        with pytest.raises(DiskFull):
            JournalLocation(given, lambda: disk.now)


def test_an_outbox_on_another_disk_or_one_that_cannot_be_looked_at_makes_no_room(tmp_path, disk, monkeypatch):
    given, real = settings(tmp_path), os.stat

    def elsewhere(path: Any, **how: Any) -> os.stat_result:
        status = real(path, **how)
        return os.stat_result((*status[:2], status.st_dev + 1, *status[3:])) if str(path).endswith("box") else status

    monkeypatch.setattr(os, "stat", elsewhere)
    with pytest.raises(DiskFull):
        JournalLocation(given, lambda: disk.now)
    monkeypatch.undo()
    monkeypatch.setattr(journal_location, "Journal", disk.journal)
    (tmp_path / "box").rmdir()
    with pytest.raises(DiskFull):
        JournalLocation(given, lambda: disk.now)
