"""What an intake makes of names that are reported, of folders that come and go, and of being stopped: in memory."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from unit.intake_rig import OLD, Rig, row

from iot.spooler.outbox import noticed
from iot.spooler.outbox.cadence import CHECK_S, SOON_S, Walk
from iot.spooler.outbox.lease import Answer, Completeness, Writer
from iot.spooler.outbox.place import SourceFailed
from iot.spooler.outbox.taking import TIGHT_BATCH
from iot.spooler.queue.policy import Event, State
from iot.spooler.queue.queue import Known
from iot.transfer import DiskFull

NEVER = float("inf")


@pytest.fixture
def rig(monkeypatch: pytest.MonkeyPatch) -> Rig:
    """It was walked once, and the next walk is far away."""
    return rested(Rig(monkeypatch))


def rested(rig: Rig) -> Rig:
    rig.walk()
    rig.box.batches = []
    rig.intake.cadence._quick_at = rig.intake.cadence._whole_at = NEVER
    rig.box.walks.clear()
    rig.queue.added.clear()
    return rig


def names(rig: Rig) -> list[bytes]:
    return [entry.path for entry in rig.queue.added]


# -- names


def test_a_name_that_is_reported_is_queued_without_a_walk_and_that_is_news(rig: Rig) -> None:
    rig.intake._noticed.file(b"f", closed=True)
    assert rig.intake.step(busy=False) is True
    assert (names(rig), rig.box.walks) == ([b"f"], [])
    assert rig.intake.step(busy=False) is False


@pytest.mark.parametrize(
    ("ready", "closed", "size", "at_once"),
    [
        ("closed", True, 10, True),
        ("closed", False, 10, False),
        ("closed", True, 0, False),
        ("settled", True, 10, False),
    ],
)
def test_a_file_whose_writer_is_done_need_not_settle_unless_it_is_empty_or_others_say_when(
    monkeypatch: pytest.MonkeyPatch, ready: str, closed: bool, size: int, at_once: bool
) -> None:
    rig = rested(Rig(monkeypatch, settle_s=5, ready=ready))
    rig.box.looks[b"f"] = OLD._replace(size=size, mtime_ns=int((2e9 + rig.now) * 1e9))
    rig.intake._noticed.file(b"f", closed=closed)
    rig.intake.step(busy=False)
    assert names(rig) == ([b"f"] if at_once else [])


def test_a_name_that_went_is_watched_no_more_and_its_row_goes_unless_it_is_back(rig: Rig) -> None:
    rig.intake.readiness.opened(b"gone", OLD, rig.now)
    rig.queue.rows = {b"gone": Known(9, State.READY, OLD), b"back": Known(8, State.READY, OLD)}
    rig.queue.entries = lambda ids: [row(number, State.READY) for number in ids]
    rig.box.looks[b"gone"] = None
    for name in (b"gone", b"back"):
        rig.intake._noticed.gone(name)
    assert rig.intake.step(busy=False) is True
    assert rig.intake.readiness.paths() == []
    assert rig.queue.dropped == [([9], Event.VANISHED)]


def test_a_file_that_took_the_place_of_one_that_went_is_queued(rig: Rig) -> None:
    rig.intake._noticed.gone(b"f")
    rig.intake.step(busy=False)
    assert names(rig) == [b"f"]


def test_a_file_that_is_put_off_is_looked_at_later_with_what_is_known_of_it(rig: Rig) -> None:
    rig.box.again = {b"f": True}
    assert rig.intake.next_step() == rig.now
    rig.intake.step(busy=False)
    assert (rig.box.again, rig.box.doubted, names(rig)) == ({}, False, [])
    assert rig.intake._noticed._later == {b"f": (rig.now + noticed.AGAIN_S, True)}
    assert rig.intake.cadence.next_s == NEVER


def test_a_file_for_which_there_is_no_room_to_put_it_off_is_found_by_a_walk(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(noticed, "MOST", 1)
    rig.box.again = {b"a": False, b"b": False}
    rig.intake.step(busy=False)
    assert rig.intake.cadence.next_s == rig.now + 2.0
    assert rig.box.doubted is False


def test_what_is_doubtful_is_walked_soon_and_has_a_step_at_once(rig: Rig) -> None:
    rig.box.doubted = True
    assert rig.intake.next_step() == rig.now
    rig.intake.step(busy=False)
    assert rig.intake.cadence.next_s == rig.now + 2.0
    assert rig.intake.next_step() == rig.now + 2.0


# -- folders


def test_a_folder_that_is_reported_is_entered_once(rig: Rig) -> None:
    rig.intake._noticed.folders[b"new"] = None
    rig.intake.cadence.step_at = NEVER
    for _ in range(3):
        rig.intake.step(busy=False)
    assert (rig.box.entered, rig.box.walks, rig.intake.walking) == ([b"new"], [], False)
    assert rig.intake.passes == 1


def test_a_whole_walk_comes_by_all_new_folders_and_a_quick_one_does_not(rig: Rig) -> None:
    for at, left in (("_quick_at", {b"new": None}), ("_whole_at", {})):
        rig.intake._noticed.folders[b"new"] = None
        setattr(rig.intake.cadence, at, rig.now)
        rig.intake._start(rig.now)
        next(rig.intake._walk, None)
        rig.intake.close()
        assert rig.intake._noticed.folders == left
    assert rig.box.walks == [False, True]


def test_rows_in_a_folder_that_is_gone_go_when_no_transfer_is_under_way(rig: Rig) -> None:
    path = SimpleNamespace(id=7, state=State.READY, attempts=0, path=b"old/f")
    rig.queue.pages = [path]
    rig.box.looks = {b"old/f": None}
    rig.intake._noticed.lost_folders[b"old"] = None
    rig.intake.step(busy=True)
    assert (rig.box.left, rig.queue.dropped) == ([b"old"], [])
    rig.intake.step(busy=False)
    assert (rig.box.left, rig.queue.dropped) == ([b"old"], [([7], Event.VANISHED)])
    rig.intake.step(busy=False)
    assert len(rig.queue.dropped) == 1


# -- the outbox itself


def test_an_outbox_that_is_another_folder_is_walked_as_a_whole_at_the_next_look_at_it(rig: Rig) -> None:
    rig.box.home = False
    rig.intake.step(busy=False)
    assert rig.box.walks == []  # it was looked at a moment ago
    rig.now += CHECK_S
    assert rig.intake.next_step() == rig.now
    rig.intake.step(busy=False)
    assert rig.box.walks == [True]


def test_where_events_were_lost_everything_is_walked_and_what_was_reported_before_is_forgotten(rig: Rig) -> None:
    rig.intake._noticed.everything = True
    rig.intake._noticed.file(b"f", closed=True)
    assert rig.intake.step(busy=False) is False
    assert (names(rig), rig.box.walks) == ([], [True])


def test_events_that_are_lost_during_a_walk_lead_to_another(rig: Rig) -> None:
    rig.box.batches = [[], []]
    rig.intake.wake()
    rig.intake.step(busy=False)
    rig.intake._noticed.everything = True
    for _ in range(3):
        rig.intake.step(busy=False)
    assert rig.intake.cadence.next_s == float("-inf")


# -- stopped, and started again


def test_an_outbox_that_is_stopped_is_as_if_it_had_never_failed_and_is_walked_when_it_starts(rig: Rig) -> None:
    rig.box.batches = [SourceFailed("outbox /box: no")]
    rig.intake.wake()
    rig.intake.step(busy=False)
    assert (rig.intake.failed, rig.intake.failures, rig.intake.missing) == ("outbox /box: no", 1, True)
    rig.intake.stop()
    assert (rig.intake.failed, rig.intake.failures, rig.intake.missing) == (None, 0, False)
    assert rig.intake.stopped
    rig.intake.start()
    assert not rig.intake.stopped
    assert rig.intake.cadence.next_s == float("-inf")


def test_one_that_was_not_stopped_is_not_walked_by_a_start(rig: Rig) -> None:
    rig.intake.start()
    assert rig.intake.cadence.next_s == NEVER


def test_a_walk_that_is_under_way_ends_with_a_stop(rig: Rig) -> None:
    rig.box.batches = [[], []]
    rig.intake.wake()
    rig.intake.step(busy=False)
    rig.intake.stop()
    assert (rig.intake.walking, rig.box.closed) == (False, 2)


def test_a_source_that_fails_but_can_be_opened_is_not_missing_and_a_walk_ends_that(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    rig.box.batches = [SourceFailed("outbox /box: Input/output error")]
    rig.intake.wake()
    with monkeypatch.context() as patches:
        patches.setattr(rig.box, "open", lambda: 77)
        patches.setattr("iot.spooler.outbox.intake.os.close", lambda number: None)
        assert rig.intake.step(busy=False) is False
    assert not rig.intake.missing
    rig.intake.missing = True
    rig.walk()
    assert not rig.intake.missing


# -- what a walk ends with


@pytest.mark.parametrize(("kind", "passes"), [(Walk.WHOLE, 2), (Walk.QUICK, 1), (Walk.NEW, 1)])
def test_only_a_whole_walk_is_a_pass(rig: Rig, kind: Walk, passes: int) -> None:
    rig.intake._versions.check_all = True
    rig.intake._walk, rig.intake._kind = iter(()), kind
    rig.intake.step(busy=False)
    assert (rig.intake.passes, rig.intake._versions.check_all) == (passes, kind is not Walk.WHOLE)


def test_what_cannot_be_read_is_tried_again_soon(rig: Rig) -> None:
    rig.box.unread = {b"sub": "no"}
    rig.intake.cadence._scan_s = 900.0
    rig.walk()
    assert rig.intake.cadence.next_s == rig.now + SOON_S


def test_beside_transfers_rows_are_not_gone_through(rig: Rig) -> None:
    rig.queue.pages, rig.queue.total = [row(9, State.READY)], 1
    rig.box.looks = {b"9": None}
    rig.intake.wake()
    for _ in range(2):
        rig.intake.step(busy=True)
    assert rig.queue.dropped == []
    rig.walk()
    assert rig.queue.dropped == [([9], Event.VANISHED)]


@pytest.mark.parametrize(
    ("completeness", "silent", "told"),
    [(None, "", False), (Completeness(known=True), "", True), (Completeness(known=False), "", False),
     (Completeness(known=True), "no watches left", False)],
)  # fmt: skip
def test_only_where_the_kernel_tells_of_everything_walks_are_rare(
    rig: Rig, completeness: Any, silent: str, told: bool
) -> None:
    rig.box.completeness = completeness
    rig.box.watches._refused = silent
    rig.walk()
    assert rig.intake.cadence.told is told


def test_a_file_that_nobody_has_queued_for_want_of_room_has_everything_walked_soon(rig: Rig) -> None:
    rig.queue.room = 0
    rig.intake._noticed.file(b"f", closed=True)
    with pytest.raises(DiskFull):
        rig.intake.step(busy=False)
    assert rig.intake.cadence._whole_at == rig.now + 2.0


def test_when_only_a_few_of_what_was_noticed_find_room_everything_is_walked_soon(rig: Rig) -> None:
    rig.queue.room = TIGHT_BATCH
    for number in range(TIGHT_BATCH + 1):
        rig.intake._noticed.file(b"%03d" % number, closed=True)
    rig.intake.step(busy=False)
    assert rig.intake.cadence._whole_at == rig.now + 2.0


def test_what_was_walked_quickly_is_looked_up_each_time(rig: Rig) -> None:
    asked: list[Any] = []
    rig.queue.rows = {b"f": Known(1, State.READY, OLD)}
    rig.intake._taking.take = lambda batch, closed=(): asked.append(batch) or 1
    rig.intake._taking.take_walked = lambda batch: pytest.fail("no whole walk")
    rig.intake._walk, rig.intake._kind = iter([["f"]]), Walk.QUICK
    rig.intake.step(busy=False)
    assert ["f"] in asked


def test_a_watched_file_that_its_writer_has_closed_is_taken_without_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    rig = rested(Rig(monkeypatch, settle_s=5))
    fresh = OLD._replace(mtime_ns=int((2e9 + rig.now) * 1e9))
    for path, soon in ((b"closed", True), (b"open", False)):
        rig.intake.readiness.opened(path, fresh, rig.now, soon=soon)
        rig.box.looks[path], rig.box.answers[path] = fresh, Answer(Writer.NONE, fresh)
    rig.now += 1.0
    rig.intake.step(busy=False)
    assert names(rig) == [b"closed"]
