"""Files that are collected and sent together, on a fake clock."""

from __future__ import annotations

import logging
from pathlib import Path
from types import SimpleNamespace

import pytest
from unit.test_windows import HOUR_S, Box

from iot.spooler.agent.agent import Wake
from iot.spooler.agent.draining import End
from iot.spooler.batches.batches import Batches
from iot.spooler.hooks.batches import AfterBatch, BatchHooks, BeforeBatch
from iot.transfer import DiskFull, Journal


@pytest.fixture
def box(tmp_path: Path) -> Box:
    box = Box(tmp_path, "2026-11-27 12:00")
    box.scan_s = 10.0
    box.outbox["batch_interval_s"] = 60
    return box


def no_hooks(queue, journal: Journal) -> BatchHooks:
    before = BeforeBatch({}, {}, {}, {}, lambda: 0.0, lambda: 0.0)
    return BatchHooks(before, AfterBatch((), queue, journal, None, lambda: 0.0))  # type: ignore[arg-type]


def come(box: Box, *seconds: float) -> None:
    for number, after_s in enumerate(seconds):
        box.loop.later(after_s, lambda name=f"f{number}": box.put(name))  # type: ignore[misc]


def sent_s(box: Box) -> dict[str, int]:
    """When each was sent, in seconds of the first hour."""
    return {
        name: sum(int(part) * by for part, by in zip(at[-5:].split(":"), (60, 1), strict=True)) for name, at in box.sent
    }


def test_files_go_together_once_nothing_new_has_come_for_the_interval(box, caplog):
    caplog.set_level(logging.INFO)
    come(box, 0, 50, 100, 400)
    box.run_for(0.25)
    sent = sent_s(box)
    assert sent["f0"] == sent["f1"] == sent["f2"]
    assert 160 <= sent["f0"] <= 171
    assert 460 <= sent["f3"] <= 471
    told = [line.message for line in caplog.records if line.message.startswith("batch ")]
    assert told == ["batch complete outbox=box files=3", "batch complete outbox=box files=1"]


def test_a_batch_that_is_collected_at_the_stop_is_kept_and_named(box, caplog):
    come(box, 0, 20)
    box.run_for(50 / HOUR_S)
    assert box.sent == []
    assert box.left() == ["f0", "f1"]
    assert "batch is kept, it was being collected outbox=box files=2" in caplog.text
    (outbox,) = box.loop.last["outboxes"]
    assert outbox["waits_because"] == "2 files of a batch, sent 60 s after the last"
    box.run_for(0.1)
    assert [name for name, _ in box.sent] == ["f0", "f1"]


def test_a_batch_that_was_begun_is_finished_after_a_restart_and_a_new_file_waits(box):
    come(box, 0, 10)
    box.remote.slots = 1
    box.remote.lose_after = [1]

    def before(job) -> None:
        box.sent.append((job.dest.rpartition("/")[2], box.loop.shows()))
        box.loop.stop = True

    box.remote.before = before
    box.run_for(0.1)
    assert [name for name, _ in box.sent] == ["f0"]
    box.loop.stop = False
    box.put("new")
    box.remote.before = lambda job: box.sent.append((job.dest.rpartition("/")[2], box.loop.shows()))
    box.run_for(30 / HOUR_S)
    assert [name for name, _ in box.sent] == ["f0", "f1"]
    box.run_for(0.1)
    assert [name for name, _ in box.sent] == ["f0", "f1", "new"]


def test_a_flush_ends_a_batch_at_once(box):
    come(box, 0)
    box.loop.later(20, lambda: setattr(box.loop, "asked", Wake.FLUSH))
    box.run_for(0.1)
    assert sent_s(box)["f0"] <= 22


def test_a_drain_collects_nothing(box):
    box.put("f")
    assert box.run() is End.DRAINED
    assert box.arrived() == ["f"]


def test_a_batch_waits_for_the_next_window_when_its_own_closes(box):
    box.outbox["schedule"] = ["12:00-12:01", "13:00-14:00"]
    come(box, 0, 30)
    box.run_for(1.5)
    assert [at for _, at in box.sent] == ["Fri 13:00:00"] * 2


def test_a_batch_that_cannot_be_recorded_is_not_released(tmp_path, monkeypatch):
    journal = Journal(None)
    queue = SimpleNamespace(made_ready=1, newest=lambda number: 5, waiting=lambda number, *_: (5, 50))
    batches = Batches({1: 60.0}, {1: "box"}, queue, journal, no_hooks(queue, journal))
    batches.look(0.0, {})

    def full(_: object) -> None:
        raise DiskFull("full")

    with monkeypatch.context() as patched:
        patched.setattr(journal, "write", full)
        with pytest.raises(DiskFull):
            batches.look(60.0, {})
    assert batches.up_to(1) == 0
    assert batches.look(61.0, {})
    assert batches.up_to(1) == 5
    journal.close()
