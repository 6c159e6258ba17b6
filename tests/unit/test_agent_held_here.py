"""An agent whose own journal cannot be used begins nothing, says so once, and goes on when it can."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
from unit.agent_rig import Rig

from iot.sftp.client import DiskFull, Journal, JournalUnavailable
from iot.spooler.agent.dispatch import Dispatcher
from iot.spooler.agent.draining import End
from iot.spooler.queue.queue import Queue


@pytest.fixture
def rig(tmp_path: Path) -> Rig:
    return Rig(tmp_path)


@pytest.mark.parametrize("first", range(5))
def test_a_drain_outlives_a_journal_that_cannot_be_read_for_a_while(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, first: int
) -> None:
    """first: the number of the question that is not answered, like the next."""
    rig.put("f")
    real, numbers = Queue.any_ready, itertools.count()

    def any_ready(self: Queue, outboxes: list[int]) -> bool:
        if next(numbers) in (first, first + 1):
            raise JournalUnavailable("cannot be read")
        return real(self, outboxes)

    monkeypatch.setattr(Queue, "any_ready", any_ready)
    assert rig.run() is End.DRAINED
    assert (rig.arrived(), rig.left()) == (["f"], [])
    assert next(numbers) > first + 2
    held = {line for line in caplog.messages if line.startswith("held by this device")}
    assert held == {'held by this device error="JournalUnavailable: cannot be read"'}


def test_while_the_journal_cannot_be_written_no_further_file_is_begun(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(30):
        rig.put(f"f{number:02}")
    real_write, real_next, refusals, while_held = Journal.write, Dispatcher.next_job, [1], []

    def write(self: Journal, work):
        if rig.remote.deliveries and refusals[0]:
            refusals[0] -= 1
            raise DiskFull("full")
        return real_write(self, work)

    def next_job(self: Dispatcher):
        while_held.append(rig.agent.local.error is not None and rig.agent.local.is_on)
        return real_next(self)

    def take_time(_job) -> None:
        rig.loop.now += 2.0

    monkeypatch.setattr(Journal, "write", write)
    monkeypatch.setattr(Dispatcher, "next_job", next_job)
    rig.remote.before = take_time
    rig.loop.stop_at = rig.loop.now + 600
    rig.run(drain=False)
    assert refusals == [0]
    assert len(rig.arrived()) == 30
    assert not any(while_held)
