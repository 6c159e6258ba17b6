"""What an intake queues and with what it is queued, and who may still write to it."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from unit.intake_rig import OLD, Rig

from iot.spooler.config.outboxes import Order
from iot.spooler.outbox.lease import Answer, Completeness, Writer
from iot.spooler.outbox.mounts import FAT, FileSystem
from iot.spooler.outbox.place import SourceFailed
from iot.spooler.outbox.versions import URGENT
from iot.spooler.queue.policy import State
from iot.spooler.queue.queue import Known
from iot.transfer import Fingerprint


@pytest.fixture
def rig(monkeypatch: pytest.MonkeyPatch) -> Rig:
    return Rig(monkeypatch)


# -- what is queued


def test_an_entry_says_all_that_is_known_of_its_file(monkeypatch):
    rig = Rig(monkeypatch, urgent=["*.alarm"], priority=6)
    assert rig.walk(b"a", b"x.alarm", b"big", big=OLD._replace(size=101)) == [b"a", b"x.alarm", b"big"]
    plain, urgent, large = rig.queue.added
    assert (plain.outbox, plain.fingerprint, plain.large, plain.priority) == (3, OLD, False, 6)
    assert plain.first_seen == 2e9 + 1000.0
    assert (plain.check_final, plain.sent_before) == (False, None)
    assert urgent.priority == URGENT
    assert large.large


@pytest.mark.parametrize(
    ("order", "rank"),
    [("oldest", 10**9), ("newest", -(10**9)), ("size", 10), ("name", b"f")],
)
def test_the_order_of_an_outbox_is_the_rank_of_its_files(monkeypatch, order, rank):
    rig = Rig(monkeypatch, order=order)
    rig.walk(b"f")
    assert rig.queue.added[0].rank == rank


def test_any_time_that_a_file_can_have_is_a_rank_of_64_bits_also_negated():
    far = Fingerprint(1, -(2**63) * 10**9)
    assert (Order.OLDEST.rank(b"f", far), Order.NEWEST.rank(b"f", far)) == (1 - 2**63, 2**63 - 1)


@pytest.mark.parametrize("state", [State.READY, State.SENDING, State.WAITING, State.DELIVERED, State.KEPT])
def test_a_version_that_is_known_is_not_queued_again(rig, state):
    rig.queue.rows[b"f"] = Known(1, state, OLD)
    assert rig.walk(b"f") == []
    changed = OLD._replace(size=11)
    assert rig.walk(b"f", version=changed) == ([] if state is State.SENDING else [b"f"])


def test_where_inodes_do_not_last_a_remount_sends_no_kept_file_again(rig):
    rig.box.system = FileSystem(inodes=False)
    rig.queue.rows[b"f"] = Known(1, State.KEPT, OLD)
    assert rig.walk(b"f", version=OLD._replace(inode=8)) == []
    assert rig.walk(b"f", version=OLD._replace(inode=8, ctime_ns=9)) == [b"f"]
    rig.box.system = FAT
    assert rig.walk(b"f", version=OLD._replace(inode=8, ctime_ns=9)) == []
    assert rig.walk(b"f", version=OLD._replace(size=11, inode=8)) == [b"f"]
    rig.queue.rows[b"f"] = Known(1, State.READY, OLD)
    assert rig.walk(b"f", version=OLD._replace(inode=8)) == [b"f"]


@pytest.mark.parametrize("name", [b"../x", b"a/../b", b"a\nb" * 2000])
def test_a_name_that_is_refused_is_told_and_holds_up_no_other(rig, caplog, name):
    found = rig.walk(name, b"good")
    assert b"good" in found
    if b".." in name:
        assert found == [b"good"]
        assert "refused path=" in caplog.text


# -- whether it may stand on the server already


def test_after_a_lost_journal_the_first_walk_has_every_file_compared(monkeypatch):
    rig = Rig(monkeypatch, journal_lost=True)
    rig.walk(b"f")
    assert rig.queue.added[0].check_final
    rig.walk(b"g")
    assert not rig.queue.added[0].check_final
    rig.queue.lost_rows = True
    rig.walk(b"h")
    assert rig.queue.added[0].check_final
    rig.queue.rows[b"i"] = Known(1, State.DELIVERED, OLD)
    rig.walk(b"i", version=OLD._replace(size=11))
    assert not rig.queue.added[0].check_final  # its row is not lost


@pytest.mark.parametrize(
    ("after_upload", "fresh", "first"), [("keep", True, True), ("keep", False, False), ("delete", True, False)]
)
def test_a_new_outbox_whose_files_stay_is_compared_at_first(monkeypatch, after_upload, fresh, first):
    assert Rig(monkeypatch, after_upload=after_upload, fresh=fresh).intake.check_first is first


@pytest.mark.parametrize(
    ("row", "version", "touched"),
    [
        (Known(1, State.KEPT, OLD), OLD._replace(ctime_ns=6), True),
        (Known(1, State.DELIVERED, OLD), OLD._replace(inode=8), True),
        (Known(1, State.WAITING, OLD), OLD._replace(inode=8), False),
        (Known(1, State.WAITING, OLD, check_final=True), OLD._replace(inode=8), True),
        (Known(1, State.WAITING, OLD, check_final=True), OLD._replace(mtime_ns=11), False),
        (Known(1, State.KEPT, OLD), OLD._replace(size=11), False),
        (Known(1, State.KEPT, OLD), OLD._replace(mtime_ns=11), False),
    ],
)
@pytest.mark.parametrize("sent", ["ab", None])
def test_a_delivered_file_that_was_only_touched_is_compared_with_what_was_sent(rig, row, version, touched, sent):
    rig.queue.rows[b"f"], rig.queue.sent[row] = row, sent
    assert rig.walk(b"f", version=version) == [b"f"]
    (entry,) = rig.queue.added
    assert (entry.check_final, entry.sent_before) == (touched, sent if touched else None)


# -- who writes to it


def test_only_what_nobody_writes_to_is_queued_in_the_version_that_was_asked_for(rig):
    newer = OLD._replace(size=11)
    rig.box.answers = {
        b"unknown": None,
        b"gone": Answer(Writer.UNKNOWN, None),
        b"open": Answer(Writer.SOME, OLD),
        b"newer": Answer(Writer.NONE, newer),
        b"guessed": Answer(Writer.UNKNOWN, OLD),
    }
    assert rig.walk(*rig.box.answers) == [b"newer", b"guessed"]
    assert rig.queue.added[0].fingerprint == newer
    assert rig.box.forgotten == [b"unknown"]
    assert rig.intake.readiness.open_files == 1


def test_a_version_that_is_newer_than_the_walk_found_has_to_be_quiet_itself(monkeypatch):
    rig = Rig(monkeypatch, settle_s=5)
    rig.box.answers = {b"f": Answer(Writer.NONE, OLD._replace(mtime_ns=int((2e9 + 1000.0) * 1e9)))}
    assert rig.walk(b"f") == []
    assert len(rig.intake.readiness) == 1


def test_a_delivered_file_that_goes_on_growing_is_waited_for_longer_where_nobody_can_know(monkeypatch):
    fresh = OLD._replace(size=11, mtime_ns=int((2e9 + 1000.0 - 10) * 1e9))
    for completeness, state, inode, held in (
        (Completeness(known=False, reason=""), State.DELIVERED, 7, True),
        (None, State.DELIVERED, 7, True),
        (Completeness(known=True, reason=""), State.DELIVERED, 7, False),
        (Completeness(known=False, reason=""), State.KEPT, 7, False),
        (Completeness(known=False, reason=""), State.DELIVERED, 8, False),  # another file
    ):
        rig = Rig(monkeypatch, hold_s=60)
        rig.box.completeness = completeness
        rig.queue.rows[b"f"] = Known(1, state, OLD)
        assert rig.walk(b"f", version=fresh._replace(inode=inode)) == ([] if held else [b"f"])


@pytest.mark.parametrize(
    ("completeness", "after_upload", "touched"),
    [(None, "delete", True), (Completeness(known=False, reason=""), "delete", True),
     (Completeness(known=True, reason=""), "delete", False), (Completeness(known=True, reason=""), "keep", True)],
)  # fmt: skip
def test_where_files_stay_for_a_while_they_may_be_touched(monkeypatch, completeness, after_upload, touched):
    rig = Rig(monkeypatch, after_upload=after_upload)
    rig.box.completeness = completeness
    assert rig.intake.may_be_touched is touched


def test_watched_files_are_looked_at_by_themselves(monkeypatch):
    rig = Rig(monkeypatch, settle_s=5)
    young = OLD._replace(mtime_ns=int((2e9 + 1000.0) * 1e9))
    assert rig.walk(b"unknown", b"stays", b"gone", version=young) == []
    rig.box.batches = []
    rig.box.looks = {b"stays": young, b"gone": None, b"unknown": SourceFailed("no")}
    rig.now += 5.0
    rig.intake.cadence._quick_at = rig.intake.cadence._whole_at = float("inf")
    rig.intake.step(busy=False)
    assert [entry.path for entry in rig.queue.added] == [b"stays"]
    assert len(rig.intake.readiness) == 1  # that which is not known


def test_what_has_no_hash_yet_is_withdrawn_once_and_found_again(monkeypatch):
    rig = Rig(monkeypatch, destination="/up/{hash8}")
    lacking = SimpleNamespace(id=1, state=State.READY, unanswered=False, hash8=None)
    rig.queue.pages = [lacking, SimpleNamespace(id=2, state=State.READY, unanswered=False, hash8="0123abcd")]
    for withdrawn in ([lacking], []):
        rig.intake.step(busy=False)
        assert rig.intake.take_withdrawn() == withdrawn


def test_what_could_not_be_read_for_its_hash_is_watched_no_more_and_looked_at_again(monkeypatch):
    rig = Rig(monkeypatch, destination="/up/{hash8}")
    rig.intake.readiness.opened(b"f", OLD, rig.now)
    monkeypatch.setattr(rig.intake._taking._hashing, "step", lambda: ([], [b"f"]))
    rig.intake._taking.hash()
    assert (rig.intake.readiness.paths(), rig.box.forgotten, rig.queue.added) == ([], [b"f"], [])
