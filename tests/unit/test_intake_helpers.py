"""What an intake does with markers, writers, files whose hash is still to be read, and both clocks: in memory."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from unit.intake_rig import OLD, Rig
from unit.test_intake_noticed import names, rested

from iot.spooler.outbox.lease import Answer, Writer
from iot.spooler.outbox.mounts import FileSystem
from iot.spooler.outbox.place import Found
from iot.spooler.queue.policy import State
from iot.spooler.queue.queue import Known

NEVER = float("inf")


@pytest.fixture
def marked(monkeypatch: pytest.MonkeyPatch) -> Rig:
    """Each file has its marker, and markers have none."""
    rig = rested(Rig(monkeypatch, ready="marker", ready_marker="{name}.done"))
    rig.box.looks = {b"f.done.done": None, b"lone.done": None}
    return rig


# -- markers


def test_a_marker_that_is_reported_leads_to_its_file(marked: Rig) -> None:
    marked.intake._noticed.file(b"f.done", closed=True)
    marked.intake.step(busy=False)
    assert names(marked) == [b"f"]


def test_a_marker_of_a_whole_folder_has_that_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    rig = rested(Rig(monkeypatch, ready="marker", ready_marker="{stem}.done"))
    rig.intake._noticed.file(b"sub/a.done", closed=True)
    rig.intake.step(busy=False)
    assert rig.box.entered == [b"sub"]


def test_files_that_wait_for_their_marker_are_counted_until_they_are_gone(marked: Rig) -> None:
    assert marked.intake.without_marker == 0
    marked.walk(b"lone", b"f")
    assert (marked.intake.without_marker, names(marked)) == (1, [b"f"])
    marked.intake._noticed.gone(b"lone")
    marked.box.looks[b"lone"] = None
    marked.intake.cadence._quick_at = marked.intake.cadence._whole_at = NEVER
    marked.queue.entries = lambda ids: []
    marked.intake.step(busy=False)
    assert marked.intake.without_marker == 0


def test_only_a_whole_walk_counts_those_that_wait_anew(marked: Rig) -> None:
    marked.walk(b"lone")
    marked.box.batches = [[]]
    marked.intake.cadence._whole_at, marked.intake.cadence._quick_at = NEVER, marked.now
    for _ in range(3):
        marked.intake.step(busy=False)
    assert marked.intake.without_marker == 1
    marked.walk()
    assert marked.intake.without_marker == 0


@pytest.mark.parametrize(
    ("state", "goes"), [(State.DELIVERED, True), (State.DROPPED, True), (State.QUARANTINED, False)]
)
def test_the_marker_of_a_file_that_has_left_goes_unless_the_file_may_come_back(
    marked: Rig, state: State, goes: bool
) -> None:
    dropped: list[bytes] = []
    marked.intake._markers.drop = dropped.append
    marked.intake.left(SimpleNamespace(path=b"f", state=state))
    assert dropped == [b"f"] * goes


def test_where_files_need_no_marker_none_waits_and_none_goes(monkeypatch: pytest.MonkeyPatch) -> None:
    rig = Rig(monkeypatch)
    rig.intake.left(SimpleNamespace(path=b"f", state=State.DELIVERED))
    assert rig.intake.without_marker == 0


# -- who writes to it


@pytest.mark.parametrize(("writer", "queued"), [(Writer.NONE, True), (Writer.UNKNOWN, False)])
def test_a_close_is_believed_only_where_the_kernel_knows_all_writers(
    monkeypatch: pytest.MonkeyPatch, writer: Writer, queued: bool
) -> None:
    rig = rested(Rig(monkeypatch, settle_s=5, ready="closed"))
    young = OLD._replace(mtime_ns=int((2e9 + rig.now) * 1e9))
    rig.box.looks[b"f"], rig.box.answers[b"f"] = young, Answer(writer, young)
    rig.intake._noticed.file(b"f", closed=True)
    rig.intake.step(busy=False)
    assert names(rig) == [b"f"] * queued
    assert rig.intake.readiness.paths() == [b"f"] * (not queued)


@pytest.mark.parametrize("closed", [True, False])
def test_a_version_that_comes_while_another_is_sent_is_looked_at_again_with_what_is_known_of_it(
    monkeypatch: pytest.MonkeyPatch, closed: bool
) -> None:
    rig = rested(Rig(monkeypatch, ready="closed"))
    told: list[tuple[bytes, bool]] = []
    rig.box.forget = lambda path, *, closed=False: told.append((path, closed))
    rig.queue.rows[b"f"] = Known(1, State.SENDING, OLD._replace(size=11))
    rig.intake.readiness.opened(b"f", OLD, rig.now)
    rig.intake._noticed.file(b"f", closed=closed)
    rig.intake.step(busy=False)
    assert told == [(b"f", closed)]
    assert (names(rig), rig.intake.readiness.paths()) == ([], [])


# -- hashes


class Taking:
    """Hashes until it is told that it is done."""

    def __init__(self, rig: Rig) -> None:
        self.hashing, self.hashed, self.taken = True, 0, []
        rig.intake._taking = self

    def hash(self) -> None:
        self.hashed += 1

    def take(self, batch: list[Any], closed: Any = ()) -> int:
        self.taken += batch
        return len(batch)

    def close(self) -> None:
        self.hashing = False


def test_a_walk_waits_until_what_it_has_found_is_hashed(monkeypatch: pytest.MonkeyPatch) -> None:
    rig = rested(Rig(monkeypatch))
    taking = Taking(rig)
    rig.box.batches = [[Found(b"f", OLD)]]
    rig.intake._walk, rig.intake._kind = rig.box.walk(whole=False), rig.intake._kind.QUICK
    rig.intake.cadence.step_at = rig.now
    rig.intake.step(busy=False)
    assert (taking.hashed, taking.taken, rig.intake.walking) == (1, [], True)
    rig.intake.cadence.step_at = rig.now + 1.0
    rig.intake.step(busy=False)
    assert (taking.hashed, rig.intake.next_step()) == (1, rig.now + 1.0)  # which is not due yet
    taking.hashing, rig.now = False, rig.now + 1.0
    rig.intake.step(busy=False)
    assert taking.taken == [Found(b"f", OLD)]


def test_as_long_as_a_file_is_hashed_the_outbox_is_walked(monkeypatch: pytest.MonkeyPatch) -> None:
    rig = rested(Rig(monkeypatch))
    assert not rig.intake.walking
    taking = Taking(rig)
    assert rig.intake.walking
    rig.intake.close()
    assert not taking.hashing
    assert not rig.intake.walking


# -- clocks, and what is said


def test_each_step_tells_the_time_by_which_a_file_has_rested(monkeypatch: pytest.MonkeyPatch) -> None:
    rig = rested(Rig(monkeypatch))
    later = rig.now + 60.0
    assert rig.intake.readiness.rested(OLD, later, 2e9 + later, 60.0)
    assert not rig.intake.readiness.rested(OLD, later - 0.1, 2e9 + later, 60.0)


def test_after_a_whole_walk_it_is_said_that_an_outbox_has_to_be_scanned_often(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "iot.spooler.outbox.watches")
    rig = Rig(monkeypatch)
    rig.box.system = FileSystem("nfs", shared=True)
    for _ in range(2):
        rig.walk()
    (line,) = caplog.messages
    assert line.startswith("outbox is scanned often outbox=box every_s=2 reason=")
