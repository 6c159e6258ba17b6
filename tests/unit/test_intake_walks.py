"""What an intake does with what is too much, with rows of files that went, and with a source that fails."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from unit.intake_rig import OLD, Rig, row

from iot.spooler.outbox.cadence import BUSY_SHARE, SOON_S
from iot.spooler.outbox.intake import Clocks
from iot.spooler.outbox.mounts import FileSystem
from iot.spooler.outbox.place import SourceFailed
from iot.spooler.outbox.taking import TIGHT_BATCH
from iot.spooler.queue.policy import Event, State
from iot.spooler.queue.queue import Known
from iot.transfer import DiskFull


@pytest.fixture
def rig(monkeypatch: pytest.MonkeyPatch) -> Rig:
    return Rig(monkeypatch)


# -- what does not fit


def test_a_disk_that_is_full_takes_a_few_and_the_rest_is_found_again(rig, caplog):
    rig.queue.room = TIGHT_BATCH
    names = [b"%03d" % number for number in range(TIGHT_BATCH + 5)]
    assert rig.walk(*names) == names[:TIGHT_BATCH]
    assert rig.intake.next_step() == rig.now + 2.0  # the rest is found by the next walk
    assert "disk full: queueing a few files at a time" in caplog.text
    rig.queue.room = 0
    with pytest.raises(DiskFull):
        rig.walk(b"f")


def test_what_is_too_much_to_watch_is_found_by_the_next_walk(monkeypatch):
    rig = Rig(monkeypatch, settle_s=5)
    monkeypatch.setattr("iot.spooler.outbox.readiness.WATCHED_MAX", 1)
    young = OLD._replace(mtime_ns=int((2e9 + 1000.0) * 1e9))
    rig.walk(b"a", b"b", version=young)
    assert rig.intake.next_step() == rig.now + 2.0
    assert not rig.intake.readiness.overflowed


def test_what_did_not_fit_has_its_folders_listed_again_and_everything_walked_soon(rig):
    rig.intake.cadence._scan_s = 900.0
    rig.queue.room = TIGHT_BATCH
    doubted = []
    rig.box.doubt = doubted.append
    names = [b"in/%03d" % number for number in range(TIGHT_BATCH)]
    assert rig.walk(*names, b"out/a", b"out/b") == names
    assert doubted == [b"out"]
    assert rig.intake.cadence._whole_at == rig.now + SOON_S


def test_what_did_not_fit_is_looked_up_by_the_next_walk_however_many_rows_there_are(rig):
    rig.queue.room, rig.queue.total = TIGHT_BATCH, 10**6
    names = [b"%03d" % number for number in range(TIGHT_BATCH + 1)]
    rig.walk(*names)
    rig.queue.room = 10**6
    rig.queue.rows = {name: Known(1, State.READY, OLD) for name in names[:-1]}
    assert rig.walk(*names) == names[-1:]


def test_folders_with_too_much_to_watch_are_listed_again(monkeypatch):
    rig = Rig(monkeypatch, settle_s=5)
    monkeypatch.setattr("iot.spooler.outbox.readiness.WATCHED_MAX", 1)
    doubted = []
    rig.box.doubt = doubted.append
    young = OLD._replace(mtime_ns=int((2e9 + 1000.0) * 1e9))
    rig.walk(b"in/a", b"out/b", version=young)
    assert sorted(doubted) == [b"in", b"out"]


# -- rows of files that went


def test_rows_whose_files_went_are_dropped_and_those_that_were_tried_are_withdrawn(rig):
    rig.queue.pages = [
        row(1, State.READY), row(2, State.WAITING, 1), row(3, State.KEPT, 1), row(4, State.SENDING),
        row(5, State.DELIVERED), row(6, State.READY), row(7, State.READY),
    ]  # fmt: skip
    rig.box.looks = {b"%d" % number: None for number in range(1, 6)} | {b"7": SourceFailed("not known")}
    rig.queue.total = 7
    rig.walk(b"f")
    assert [each.id for each in rig.intake.take_withdrawn()] == [2]
    assert rig.queue.dropped == [([1, 3], Event.VANISHED)]


def test_rows_are_gone_through_only_where_more_are_known_than_were_seen(rig):
    rig.queue.rows[b"f"] = Known(1, State.KEPT, OLD)
    rig.queue.pages = [row(9, State.READY)]
    rig.box.looks = {b"9": None}
    rig.queue.total = 2  # f, and g that is queued by this walk
    rig.walk(b"f", b"g")
    assert rig.queue.dropped == []
    rig.queue.total = 3
    rig.walk(b"f", b"g")
    assert rig.queue.dropped == [([9], Event.VANISHED)]


# -- the same again


def test_what_the_walk_before_has_found_and_the_queue_knew_is_not_looked_up_again(rig):
    asked = []
    real = rig.queue.known
    rig.queue.known = lambda number, paths: asked.append(list(paths)) or real(number, paths)
    rig.queue.rows = {b"f": Known(1, State.READY, OLD), b"g": Known(2, State.READY, OLD)}
    rig.queue.total = 2
    for _ in range(3):
        assert rig.walk(b"f", b"g") == []
    assert asked == [[b"f", b"g"]]
    newer = OLD._replace(mtime_ns=OLD.mtime_ns + 1)
    assert rig.walk(b"f", b"g", g=newer) == [b"g"]
    assert rig.walk(b"f", b"g") == []
    assert len(asked) == 3


@pytest.mark.parametrize("lost", ["a row is not there any more", "a damaged row was dropped"])
def test_where_rows_have_gone_everything_is_looked_up(rig, lost):
    rig.queue.rows = {b"f": Known(1, State.READY, OLD), b"g": Known(2, State.READY, OLD)}
    rig.queue.total = 2
    rig.walk(b"f", b"g")
    del rig.queue.rows[b"g"]
    rig.queue.lost_rows = lost.startswith("a damaged")
    rig.queue.total = 1
    if not rig.queue.lost_rows:
        rig.walk(b"f", b"g")  # it is seen by their number, and the next walk is soon
        assert rig.intake.cadence.next_s <= rig.now + 10.0
    assert rig.walk(b"f", b"g") == [b"g"]


# -- a source that fails


def test_a_source_that_fails_is_counted_and_walked_as_a_whole_when_it_is_back(rig, caplog):
    caplog.set_level("DEBUG")
    for times in (1, 2):
        rig.box.batches = [SourceFailed("outbox /box: no")]
        rig.intake.wake()
        rig.intake.step(busy=False)
        assert rig.intake.failed == "outbox /box: no"
        assert not rig.intake.walking
        assert rig.intake.next_step() == rig.now + 2.0
        assert rig.intake.failures == times
        assert f'source cannot be read outbox=box reason="outbox /box: no" times={times}' in caplog.text
    assert {record.levelname for record in caplog.records} == {"DEBUG"}
    rig.box.batches = [[]]
    rig.now += 2.0
    rig.intake.cadence._whole_at = float("inf")  # a quick walk would be due
    rig.intake.step(busy=False)
    assert rig.box.walks[-1] is True
    rig.intake.step(busy=False)
    assert rig.intake.failed is None
    assert rig.intake.failures == 0
    assert rig.intake.passes == 1


def test_a_folder_that_could_not_be_read_makes_the_source_failed_though_the_walk_ends(rig):
    rig.box.unread = {b"sub": "folder sub: Permission denied"}
    rig.walk(b"f")
    assert rig.intake.failed == "folder sub: Permission denied"
    assert rig.intake.passes == 1
    rig.box.unread = {}
    rig.walk(b"f")
    assert rig.intake.failed is None


def test_a_walk_that_is_given_up_is_closed(rig):
    rig.box.batches = [[], []]
    rig.intake.step(busy=False)
    assert rig.intake.walking
    rig.intake.close()
    assert (rig.intake.walking, rig.box.closed) == (False, 1)
    rig.intake.close()


def test_a_walk_takes_its_time_and_more_of_it_while_transfers_are_under_way(rig, monkeypatch):
    rig.box.batches = [[], [], []]
    rig.intake.step(busy=False)
    clock = iter([1000.0, 1000.5, 1000.5, 1000.5, 1000.5])
    rig.intake._clocks = Clocks(lambda: next(clock), lambda: 2e9)
    rig.intake.step(busy=True)
    assert rig.intake.next_step() == 1000.0 + 0.5 * BUSY_SHARE
    assert BUSY_SHARE > 1.0


def test_where_a_file_of_an_entry_lies_is_bytes_as_they_are(rig):
    assert rig.intake.source(SimpleNamespace(path=b"sub/\xff")) == "/box/sub/\udcff"


def test_a_file_has_rested_where_it_was_watched_for_so_long_or_its_times_say_so(monkeypatch):
    rig = Rig(monkeypatch, hold_s=60)
    rig.intake.readiness.clocks(0.0, 2e9)
    old, young = OLD, OLD._replace(mtime_ns=int((2e9 + 990.0) * 1e9))
    asked = rig.intake.departure(rested=False)
    assert (asked.rested(old), asked.rested(young), asked.system) == (True, False, FileSystem())
    assert rig.intake.departure(rested=True).rested(young)
