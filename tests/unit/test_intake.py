"""When an outbox is looked at, whatever walk is under way; and what the queue learns of a file seen before."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from iot.sftp.client import Journal
from iot.spooler.config.outboxes import OutboxSettings
from iot.spooler.outbox.intake import Clocks, Intake
from iot.spooler.outbox.mounts import FAT
from iot.spooler.queue.policy import Event
from iot.spooler.queue.queue import Entry, Queue, Success

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
def intake(tmp_path: Path, clock: Clock, journal: Journal) -> Iterator[Intake]:
    box = tmp_path / "box"
    box.mkdir()
    for number in range(FILES):
        (box / f"{number:04}").write_bytes(b"")
    settings = OutboxSettings.model_validate({"path": str(box), "destination": "/up", "settle_s": 0})
    clocks = Clocks(clock, lambda: clock.now + 2e9)
    intake = Intake(settings, Queue(journal), clocks, device_id="d", scan_s=2, small_file_bytes=1, journal_lost=False)
    yield intake
    intake.outbox.release()


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


@pytest.mark.parametrize("event", [Event.SENT, Event.SENT_TO_KEEP])
def test_what_was_delivered_before_is_to_be_compared_however_often_it_is_touched_until_then(
    intake: Intake, clock: Clock, journal: Journal, tmp_path: Path, event: Event
) -> None:
    """Also where no digest was recorded, because at its delivery nobody could have expected it to stay."""
    queue, path = Queue(journal), tmp_path / "box" / "0007"

    def newest() -> Entry:
        passes = intake.wake()
        while intake.passes < passes:
            intake.step(busy=False)
            clock.now = max(clock.now, min(intake.next_step(), clock.now + 1))
        return queue.entries([queue.known(intake.number, [b"0007"])[b"0007"].id])[0]

    begun = queue.begin([newest()])
    journal.write(lambda db: queue.deliver(db, [Success(entry, event, "size", 0.0) for entry in begun]))
    for number in range(3):
        path.chmod(0o600 + number)
        assert newest().check_final
    os.utime(path, ns=(0, 1))
    assert not newest().check_final  # it is another version


def test_digests_are_recorded_where_a_remount_changes_inodes_even_if_completeness_is_known(
    intake: Intake, clock: Clock
) -> None:
    """Or a file that waits there for its removal could only be compared with what its consumer may have taken."""
    step_until(intake, clock, walking=True)
    step_until(intake, clock, walking=False)
    assert intake.outbox.completeness is not None
    assert intake.outbox.completeness.known
    assert not intake.may_be_touched
    intake.outbox.system = FAT
    assert intake.may_be_touched
