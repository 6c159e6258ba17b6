"""When an outbox is looked at: what `wake` promises, whatever walk is under way."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from iot.sftp.client import Journal
from iot.spooler.config.settings import OutboxSettings
from iot.spooler.outbox.intake import Clocks, Intake
from iot.spooler.queue.queue import QUEUE_SCHEMA, Queue

FILES = 600


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        self.now += 0.01  # walks cost something: so the next one is far away
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def intake(tmp_path: Path, clock: Clock) -> Iterator[Intake]:
    box = tmp_path / "box"
    box.mkdir()
    for number in range(FILES):
        (box / f"{number:04}").write_bytes(b"")
    settings = OutboxSettings.model_validate({"path": str(box), "destination": "/up", "settle_s": 0})
    journal = Journal(tmp_path / "state", QUEUE_SCHEMA)
    clocks = Clocks(clock, lambda: clock.now + 2e9)
    intake = Intake(settings, Queue(journal), clocks, device_id="d", scan_s=2, small_file_bytes=1, journal_lost=False)
    yield intake
    intake.outbox.release()
    journal.close()


def step_until(intake: Intake, clock: Clock, *, walking: bool) -> None:
    end = clock.now + 60
    while intake.walking is not walking:
        intake.step(busy=False)
        clock.now = max(clock.now, min(intake.next_step(), clock.now + 1))
        assert clock.now < end


@pytest.mark.parametrize("under_way", ["nothing", "a whole walk", "a quick walk"])
def test_woken_it_looks_at_everything_at_once_whatever_is_under_way(
    intake: Intake, clock: Clock, tmp_path: Path, under_way: str
) -> None:
    if under_way != "a whole walk":
        step_until(intake, clock, walking=True)
        step_until(intake, clock, walking=False)
        assert intake.passes == 1
    if under_way == "a quick walk":
        (tmp_path / "box" / "another").write_bytes(b"")
    if under_way != "nothing":
        step_until(intake, clock, walking=True)
    passes = intake.wake()
    woken_at = clock.now
    while intake.passes < passes:
        intake.step(busy=False)
        clock.now = max(clock.now, min(intake.next_step(), clock.now + 1))
        assert clock.now < woken_at + 5
    assert passes == {"nothing": 2, "a whole walk": 2, "a quick walk": 2}[under_way]
    assert intake.next_step() > clock.now  # and then it rests
