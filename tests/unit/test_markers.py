"""Batches that a marker ends: an agent on a fake clock."""

from __future__ import annotations

import logging
import sqlite3
from pathlib import Path

import pytest
from quarantined import quarantined
from unit.test_batches import sent_s
from unit.test_windows import HOUR_S, Box

from iot.sftp.client import PermissionDenied
from iot.spooler.agent.agent import Wake
from iot.spooler.agent.draining import End
from iot.spooler.batches.marked_files import MarkedFiles, Row
from iot.spooler.config.load import BadConfiguration, load
from iot.spooler.leaving.release import release
from iot.spooler.queue.queue import QUEUE_SCHEMA
from iot.transfer import Journal


@pytest.fixture
def box(tmp_path: Path) -> Box:
    box = Box(tmp_path, "2026-11-27 12:00")
    box.scan_s = 10.0
    box.outbox |= {"batch_marker": "*.done", "batch_grace_s": 30}
    box.remote.before = lambda job: box.sent.append((str(Path(job.source).relative_to(box.box)), box.loop.shows()))  # type: ignore[attr-defined]
    return box


def names(box: Box) -> list[str]:
    return [name for name, _ in box.sent]


def later(box: Box, seconds: float, *files: str) -> None:
    for name in files:
        box.loop.later(seconds, lambda name=name: box.put(name))  # type: ignore[misc]


def waits_because(box: Box) -> str | None:
    (outbox,) = box.loop.last["outboxes"]
    return outbox["waits_because"]


def test_files_wait_for_their_marker_which_comes_last(box, caplog):
    caplog.set_level(logging.INFO)
    box.put("a/1")
    box.put("a/sub/2")
    later(box, 300, "a/all.done")
    box.run_for(200 / HOUR_S)
    assert names(box) == []
    assert waits_because(box) == "2 files without a marker"
    box.run_for(0.1)
    assert sorted(names(box)[:2]) == ["a/1", "a/sub/2"]
    assert names(box)[2:] == ["a/all.done"]
    assert box.left() == []
    assert "batch complete outbox=box marker=a/all.done files=2" in caplog.text


def test_what_comes_within_the_grace_belongs_to_the_batch_and_what_comes_later_does_not(box):
    box.put("a/1")
    later(box, 60, "a/all.done")
    later(box, 80, "a/2")
    later(box, 200, "a/3")
    box.run_for(0.1)
    assert sorted(names(box)[:2]) == ["a/1", "a/2"]
    assert names(box)[2:] == ["a/all.done"]
    assert all(90 <= second <= 125 for second in sent_s(box).values())
    assert box.left() == ["a/3"]


def test_other_folders_wait_for_markers_of_their_own(box):
    box.put("a/1")
    box.put("b/1")
    box.put("a/x.done")
    box.run_for(0.1)
    assert names(box) == ["a/1", "a/x.done"]
    assert box.left() == ["b/1"]


def test_a_marker_above_waits_for_the_batches_below_it(box):
    for name in ("1", "a/1", "a/x.done", "x.done"):
        box.put(name)
    box.remote.slots = 1
    box.run_for(0.1)
    assert sorted(names(box)) == ["1", "a/1", "a/x.done", "x.done"]
    assert names(box)[-1] == "x.done"
    assert names(box).index("a/1") < names(box).index("a/x.done")


def test_files_claimed_by_two_markers_wait_until_one_is_taken_away(box):
    for name in ("a/1", "a/x.done", "a/y.done"):
        box.put(name)
    box.run_for(0.2)
    assert names(box) == []
    assert waits_because(box) == "files claimed by two markers, a/x.done and a/y.done: take one away"
    (box.box / "a/y.done").unlink()
    box.run_for(0.2)
    assert names(box) == ["a/1", "a/x.done"]


def test_a_batch_that_is_collected_at_the_stop_is_kept_and_named(box, caplog):
    box.put("a/1")
    box.put("a/x.done")
    box.run_for(15 / HOUR_S)
    assert names(box) == []
    assert "batch is kept, it was being collected outbox=box marker=a/x.done" in caplog.text
    box.run_for(0.1)
    assert names(box) == ["a/1", "a/x.done"]


def test_a_batch_that_was_begun_is_finished_after_a_restart_without_what_came_meanwhile(box):
    for name in ("a/1", "a/2", "a/x.done"):
        box.put(name)
    box.remote.slots = 1

    def before(job) -> None:
        box.sent.append((str(Path(job.source).relative_to(box.box)), box.loop.shows()))
        box.loop.stop = len(box.sent) == 1
        box.remote.lose_after = [0] if box.loop.stop else []

    box.remote.before = before
    box.run_for(0.1)
    assert len(box.sent) == 1
    box.loop.stop = False
    box.put("a/3")
    box.run_for(0.1)
    assert sorted(names(box)[:2]) == ["a/1", "a/2"]
    assert names(box)[2:] == ["a/x.done"]
    assert box.left() == ["a/3"]


def test_a_file_in_quarantine_keeps_the_marker_back_until_it_was_delivered(box):
    for name in ("a/1", "a/bad", "a/x.done"):
        box.put(name)
    box.retry = {"max_attempts": 1}
    box.remote.refuse["/up/a/bad"] = PermissionDenied("no")
    box.run_for(0.2)
    assert box.left() == ["a/x.done"]
    assert [file.path for file in quarantined(box.quarantine)] == ["a/bad"]
    assert waits_because(box) == "a marker waits for a/bad, which is in quarantine"
    box.remote.refuse.clear()
    assert release([box.quarantine], [box.box]) == (1, 0)
    box.run_for(0.2)
    assert names(box)[-2:] == ["a/bad", "a/x.done"]
    assert box.left() == []


def test_a_file_that_its_producer_rewrites_or_takes_away_does_not_hold_the_marker(box):
    for name in ("a/1", "a/2", "a/3", "a/x.done"):
        box.put(name)
    box.remote.slots = 1
    changed = []

    def before(job) -> None:
        box.sent.append((str(Path(job.source).relative_to(box.box)), box.loop.shows()))
        if not changed:
            changed.extend(name for name in ("1", "2", "3") if not job.source.endswith(name))
            (box.box / "a" / changed[0]).write_bytes(b"another version")
            (box.box / "a" / changed[1]).unlink()

    box.remote.before = before
    box.run_for(0.2)
    assert box.arrived() == [*sorted({"a/1", "a/2", "a/3"} - {f"a/{changed[1]}"}), "a/x.done"]
    assert names(box)[-1] == "a/x.done"
    assert (box.base / "remote/up/a" / changed[0]).read_bytes() == b"another version"
    assert box.left() == []


def test_a_file_that_was_being_written_when_the_grace_ended_belongs_to_the_batch(box):
    box.outbox["settle_s"] = 5
    box.put("a/1")
    box.put("a/x.done")
    for second in range(2, 100, 2):
        box.loop.later(second, lambda second=second: box.put("a/slow", bytes(second)))  # type: ignore[misc]
    box.run_for(0.2)
    assert sorted(names(box)[:2]) == ["a/1", "a/slow"]
    assert names(box)[2:] == ["a/x.done"]


def test_a_flush_waits_for_no_marker(box):
    box.put("a/1")
    box.put("b/1")
    box.put("b/x.done")
    box.loop.later(12, lambda: setattr(box.loop, "asked", Wake.FLUSH))
    box.run_for(25 / HOUR_S)
    assert sorted(names(box)) == ["a/1", "b/1", "b/x.done"]
    assert names(box).index("b/1") < names(box).index("b/x.done")


def test_a_drain_sends_all_and_markers_after_their_files(box):
    for name in ("a/1", "a/2", "a/x.done", "b/1"):
        box.put(name)
    box.remote.slots = 1
    assert box.run() is End.DRAINED
    assert sorted(names(box)) == ["a/1", "a/2", "a/x.done", "b/1"]
    assert names(box).index("a/x.done") > max(names(box).index("a/1"), names(box).index("a/2"))


def test_a_drain_ends_while_a_file_of_a_batch_cannot_be_sent(box):
    for name in ("a/1", "a/bad", "a/x.done"):
        box.put(name)
    box.remote.refuse["/up/a/bad"] = PermissionDenied("no")
    assert box.run() is End.REMAINS
    assert "a/1" not in box.left()
    assert box.left() == ["a/bad", "a/x.done"]


def test_a_drain_ends_while_a_batch_waits_for_its_window(box):
    box.outbox["schedule"] = ["13:00-14:00"]
    box.put("a/1")
    box.put("a/x.done")
    assert box.run() is End.REMAINS
    assert box.left() == ["a/1", "a/x.done"]


def test_a_window_that_closes_suspends_the_batch_and_the_next_one_finishes_it(box):
    box.outbox["schedule"] = ["12:00-12:01", "13:00-14:00"]
    for name in ("a/1", "a/2", "a/x.done"):
        box.put(name)
    box.remote.slots = 1

    def before(job) -> None:
        box.sent.append((str(Path(job.source).relative_to(box.box)), box.loop.shows()))
        if len(box.sent) == 1:
            box.loop.now += 60
            box.agent._tick_while_busy()

    box.remote.before = before
    box.run_for(1.2)
    assert names(box)[-1] == "a/x.done"
    assert [at >= "Fri 13:00" for _, at in box.sent].count(False) == 1
    assert box.left() == []


def test_damaged_rows_of_batches_are_dropped_and_the_files_wait_again(box, caplog):
    for name in ("a/1", "a/x.done"):
        box.put(name)
    box.remote.cannot_connect = [PermissionDenied("no")] * 999
    box.run_for(60 / HOUR_S)
    db = sqlite3.connect(box.base / "state" / "journal.db")
    with db:
        db.execute("UPDATE batch_file SET path = 7")
        db.execute("UPDATE batch SET path = 7")
    db.close()
    box.remote.cannot_connect = []
    box.run_for(0.2)
    assert "damaged rows dropped table=batch" in caplog.text
    assert names(box) == ["a/1", "a/x.done"]


def test_an_idle_agent_does_not_look_at_batches(box):
    box.run_for(0.1)
    assert box.agent.markers.next_s(box.loop.now) == float("inf")


def test_a_marker_and_an_interval_exclude_each_other(box, tmp_path):
    config = tmp_path / "spooler.toml"
    config.write_text(
        f'state_dir = "{tmp_path}/state"\n[server]\nhost = "h"\n[[outbox]]\npath = "{box.box}"\ndestination = "/up"\n'
        'batch_marker = "*.done"\nbatch_interval_s = 60\n'
    )
    with pytest.raises(BadConfiguration) as caught:
        load(config, {})
    assert "outbox[0].batch_marker = '*.done' and outbox[0].batch_interval_s = 60.0" in str(caught.value)


def test_a_file_that_comes_back_under_another_number_is_missing_no_more():
    journal = Journal(None, QUEUE_SCHEMA)
    files = MarkedFiles(journal)
    journal.write(lambda db: files.close(db, 1, Row(9, b"x.done", 0), [Row(2, b"a", 3)]))
    journal.write(lambda db: files.given_up(db, [2]))
    assert files.missing(1) == b"a"
    files.renumber(2, 5)
    assert (files.of(9), files.missing(1)) == ([(5, b"a", 0)], None)
    journal.close()


def test_a_new_number_takes_the_place_of_one_that_was_listed_and_a_delivered_marker_ends_its_batch():
    journal = Journal(None, QUEUE_SCHEMA)
    files = MarkedFiles(journal)
    journal.write(lambda db: files.close(db, 1, Row(9, b"x.done", 0), [Row(2, b"a", 3), Row(5, b"a", 3)]))
    files.renumber(2, 5)
    assert files.of(9) == [(5, b"a", 0)]
    journal.write(lambda db: files.delivered(db, [5, 9]))
    assert (files.of(9), files.batches(1)) == ([], {})
    journal.close()
