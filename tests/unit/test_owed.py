"""What is owed to the outboxes: who may leave when, what is held and told once, and when a row may be forgotten."""

from __future__ import annotations

import errno
import os
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from unit.owed_rig import HOLD_S, Rig, entry

from iot.spooler.leaving import owed as module
from iot.spooler.leaving.census import Census
from iot.spooler.leaving.owed import (
    FORGET_FILES,
    OPEN_RETRY_S,
    OWED_RETRY_MAX_S,
    OWED_RETRY_S,
    RECOUNT_S,
    TOUCHED_RETRY_S,
)
from iot.spooler.outbox.departure import Why
from iot.spooler.queue.policy import State


@pytest.fixture
def rig(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Rig:
    return Rig(tmp_path, monkeypatch)


# -- rows are forgotten after the files have gone


def test_what_is_being_unlinked_has_not_left_and_is_not_taken_again(rig, monkeypatch):
    may_go = threading.Event()
    monkeypatch.setattr(os, "fsync", lambda _: may_go.wait(10))
    rig.leave(1, answer="unlink")
    rig.rows[State.DELIVERED] = [entry(1)]
    rig.owed.wake()
    rig.owed.tend()
    rig.owed.tend()
    assert ([keys for keys, _, _ in rig.asked], rig.owed.forget_many("db")) == ([[1]], [])
    may_go.set()
    rig.owed.flush()
    assert rig.forgotten == [1]


def test_one_that_waits_and_is_taken_with_all_that_is_owed_is_not_taken_twice(rig, monkeypatch):
    """Its own time comes while it is being unlinked, since another file of the outbox had all of it tried again."""
    may_go = threading.Event()
    rig.leave(1, answer=Why.OPEN)
    rig.rows[State.DELIVERED] = [entry(1)]
    rig.answers[1] = "unlink"
    monkeypatch.setattr(os, "fsync", lambda _: may_go.wait(10))
    rig.owed.wake()
    rig.now += OPEN_RETRY_S
    rig.owed.tend()
    rig.owed.tend()
    assert [keys for keys, _, _ in rig.asked] == [[1], [1]]
    may_go.set()
    rig.owed.flush()
    assert rig.forgotten == [1]


def test_what_could_not_be_unlinked_is_held_and_tried_again(rig, monkeypatch):
    def refused(*_: object, **__: object) -> None:
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(os, "unlink", refused)
    rig.leave(1, answer="unlink")
    rig.owed.flush()
    assert (rig.forgotten, rig.owed.held[1]) == ([], {1: os.strerror(errno.EPERM)})
    monkeypatch.undo()
    monkeypatch.setattr(module, "take_away", rig._take_away)
    rig.rows[State.DELIVERED] = [entry(1)]
    rig.now += OWED_RETRY_MAX_S
    rig.owed.tend()
    rig.owed.flush()
    assert (rig.forgotten, rig.owed.held[1]) == ([1], {})


def test_a_row_is_forgotten_only_after_its_file_has_gone(rig):
    rig.leave(1)
    rig.leave(2, answer=errno.EPERM)
    rig.leave(3, answer=Why.OPEN)
    rig.owed.flush()
    assert rig.forgotten == [1]
    rig.owed.flush()
    assert rig.forgotten == [1]


def test_many_rows_go_with_a_transaction_that_is_under_way_and_few_wait(rig):
    rig.leave(*range(1, FORGET_FILES))
    assert rig.owed.forget_many("db") == []
    rig.leave(FORGET_FILES)
    gone = rig.owed.forget_many("db")
    assert len(gone) == FORGET_FILES
    assert len(rig.forgotten) == FORGET_FILES
    rig.owed.forgotten(gone)
    rig.owed.flush()
    assert len(rig.forgotten) == FORGET_FILES


# -- who may not leave yet


@pytest.mark.parametrize(
    ("why", "after_s", "rested"),
    [(Why.RESTING, HOLD_S, True), (Why.TOUCHED, TOUCHED_RETRY_S, False), (Why.OPEN, OPEN_RETRY_S, False)],
)
def test_one_that_stays_is_asked_for_again_after_its_time(rig, why, after_s, rested):
    rig.leave(1, answer=why)
    assert rig.looked_again == ([b"f1"] if why is Why.TOUCHED else [])
    rig.asked.clear()
    rig.answers.clear()
    rig.now += after_s - 0.1
    rig.owed._let_go_late(rig.now)
    assert [each for each in rig.asked if each[0]] == []
    rig.now += 0.1
    rig.owed._let_go_late(rig.now)
    assert [each for each in rig.asked if each[0]] == [([1], "delivered", rested)]
    rig.owed.flush()
    assert rig.forgotten == [1]
    assert len(rig.owed.waiting) == 0


def test_one_that_is_open_is_held_with_that_reason_told_once_and_let_go(rig, caplog):
    caplog.set_level("INFO")
    rig.leave(1, answer=Why.OPEN)
    assert rig.owed.held == {1: {1: "open for writing"}, 2: {}}
    rig.now += OPEN_RETRY_S
    rig.owed._let_go_late(rig.now)
    assert caplog.text.count("delivered and open for writing") == 1
    rig.answers.clear()
    rig.now += OPEN_RETRY_S
    rig.owed._let_go_late(rig.now)
    assert rig.owed.held == {1: {}, 2: {}}


def test_one_that_only_rests_is_not_held(rig):
    rig.leave(1, answer=Why.RESTING)
    assert rig.owed.held[1] == {}


@pytest.mark.parametrize("other", [True, False])
def test_one_that_was_touched_is_compared_unless_another_entry_has_its_place(rig, other):
    rig.leave(1, answer=Why.OPEN)
    rig.known[b"f1"] = SimpleNamespace(id=2 if other else 1)
    rig.leave(1, answer=Why.TOUCHED)
    assert rig.owed.held[1] == {}
    rig.owed.flush()
    assert rig.forgotten == ([1] if other else [])
    assert rig.looked_again == ([] if other else [b"f1"])
    assert len(rig.owed.waiting) == (0 if other else 1)


def test_the_log_says_why_and_from_where_a_file_is_in_quarantine(rig, caplog):
    rig.owed.leave([], [entry(1, attempts=4)], {1: "no rule matches"})
    assert 'quarantined path=f1 attempts=4 reason="no rule matches" outbox=box1' in caplog.messages


def test_the_note_of_one_that_was_given_up_goes_with_it_when_it_leaves_late(rig):
    rig.answers = {1: Why.OPEN}
    rig.owed.leave([], [entry(1, attempts=4)], {1: "refused"})
    assert rig.census.files == 1
    rig.answers.clear()
    rig.now += OPEN_RETRY_S
    rig.owed._let_go_late(rig.now)
    assert rig.asked[-1] == ([1], "given up", False)
    about = rig.items[0].about
    assert about == {
        "destination": "/up/f1", "attempts": 4, "reason": "refused", "at": "2023-11-14T22:13:20+00:00",
    }  # fmt: skip


def test_entries_of_several_outboxes_leave_each_its_own(rig):
    rig.owed.leave([entry(1), entry(2, outbox=2), entry(3)], [entry(4)], {4: "no"})
    assert sorted(rig.asked) == [([1, 3], "delivered", False), ([2], "delivered", False), ([4], "given up", False)]


# -- what cannot leave


def test_what_cannot_leave_is_held_with_its_reason_told_once_until_it_changes(rig, caplog):
    rig.leave(1, answer=errno.EPERM)
    rig.leave(1, answer=errno.EPERM)
    assert rig.owed.held[1] == {1: "Operation not permitted"}
    assert caplog.text.count("cannot take out path=f1") == 1
    rig.leave(1, answer=errno.ENOSPC)
    assert rig.owed.held[1] == {1: "No space left on device"}
    assert caplog.text.count("cannot take out path=f1") == 2
    assert rig.owed.last_error.startswith("box1: cannot take files out of the outbox: ")
    rig.leave(1)
    assert rig.owed.held[1] == {}


def test_an_outbox_out_of_reach_owes_all_of_it(rig):
    rig.unreadable = True
    rig.leave(1)
    assert rig.owed.last_error == "box1: cannot take files out of the outbox: outbox /box: no"
    rig.owed.flush()
    assert rig.forgotten == []
    rig.rows = {State.DELIVERED: [entry(1)]}
    rig.unreadable = False
    tend_until(rig, lambda: rig.forgotten or rig.owed.flush())
    assert rig.forgotten == [1]


def tend_until(rig: Rig, what: Any) -> None:
    for _ in range(2000):
        rig.owed.tend()
        if what():
            return
        rig.now += 1.0
    raise AssertionError("it never comes to it")


def test_the_next_try_comes_later_and_later_and_at_once_when_it_is_woken(rig):
    rig.rows = {State.DELIVERED: [entry(1)]}
    rig.answers = {1: errno.EPERM}
    rig.owed.resume()
    waits, asked_at = [], rig.now
    for _ in range(7):
        count = len(rig.asked)
        tend_until(rig, lambda count=count: len(rig.asked) > count)
        waits.append(rig.now - asked_at)
        asked_at = rig.now
    assert waits == pytest.approx([30, 30, 60, 120, 240, 480, 600], abs=3)
    assert (OWED_RETRY_S, OWED_RETRY_MAX_S) == (30, 600)
    count = len(rig.asked)
    rig.owed.wake()
    for _ in range(3):  # a round that is under way ends first
        rig.owed.tend()
    assert len(rig.asked) > count


def test_what_an_interrupted_run_owes_is_paid_page_by_page_and_nothing_twice(rig, monkeypatch):
    monkeypatch.setattr(module, "PAGE", 2)
    rig.rows = {
        State.DELIVERED: [entry(number) for number in range(1, 6)] + [entry(6, outbox=9)],
        State.QUARANTINED: [entry(7, error="why")],
        State.DROPPED: [entry(8, error="why")],
    }
    rig.leave(2)  # by this run already
    rig.asked.clear()
    rig.owed.resume()
    assert [each[:2] for each in rig.asked if each[0]] == [
        ([1], "delivered"), ([3, 4], "delivered"), ([5], "delivered"), ([7], "given up"),
        ([8], "dropped"),
    ]  # fmt: skip
    assert rig.items[0].about["reason"] == "why"
    assert sorted(rig.forgotten) == [1, 2, 3, 4, 5, 7, 8]


def test_a_held_entry_whose_row_has_gone_is_held_no_more(rig):
    rig.leave(1, answer=errno.EPERM)
    rig.owed.resume()
    assert rig.owed.held[1] == {}


# -- leftovers


def test_a_leftover_that_no_row_claims_is_put_back_and_looked_for_again(rig, monkeypatch):
    done = []
    monkeypatch.setattr(module, "unclaimed", lambda queue, number, paths: [path for path in paths if path != b"mine"])
    monkeypatch.setattr(module, "recover", lambda root, path: done.append(path))
    rig.intakes[0].outbox.leftovers = [b"mine", b"a", b"b"]
    rig.owed.tend()
    assert (done, rig.looked_again, rig.intakes[0].outbox.leftovers) == ([b"a", b"b"], [b"a", b"b"], [])
    rig.unreadable = True
    rig.intakes[0].outbox.leftovers = [b"c"]
    rig.owed.tend()
    assert rig.intakes[0].outbox.leftovers == []  # the next walk finds it again


def test_one_that_cannot_be_put_back_holds_up_no_other_and_is_told_once(rig, monkeypatch, caplog):
    refuses = {b"a"}

    def recover(_: int, path: bytes) -> None:
        if path in refuses:
            raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(module, "unclaimed", lambda queue, number, paths: list(paths))
    monkeypatch.setattr(module, "recover", recover)
    for _ in range(2):
        rig.intakes[0].outbox.leftovers = [b"a", b"b"]
        rig.owed.tend()
        assert caplog.text.count("cannot put back path=a") == 1
    assert rig.owed.stuck == {(1, b"a"): "Operation not permitted"}
    assert rig.looked_again == [b"b", b"b"]
    refuses.clear()
    rig.intakes[0].outbox.leftovers = [b"a"]
    rig.owed.tend()
    assert rig.owed.stuck == {}


# -- beside it


def test_archives_share_the_time_for_tidying(rig):
    rig.owed.tend()
    assert rig.budgets == [module.TIDY_S]


def test_the_quarantine_is_counted_at_the_start_and_again_only_while_something_lies_there(rig):
    rig.owed.tend()
    assert rig.census.begun == 1
    for _ in range(10):
        rig.owed.tend()
    rig.now += RECOUNT_S + 1
    for _ in range(5):
        rig.owed.tend()
    assert rig.census.begun == 1  # it was empty
    rig.owed.leave([], [entry(1)], {})
    for _ in range(5):
        rig.owed.tend()
    assert (rig.census.begun, rig.owed.quarantined) == (2, 1)
    rig.now += RECOUNT_S + 1
    for _ in range(5):
        rig.owed.tend()
    assert rig.census.begun == 3


def test_whether_the_quarantine_is_empty_is_looked_at_now(rig, tmp_path):
    rig.owed._leaving.census = Census([tmp_path / "quarantine"])
    assert rig.owed.is_quarantine_empty()
    file = tmp_path / "quarantine" / f"{1:016x}"
    file.mkdir(parents=True)
    assert not rig.owed.is_quarantine_empty()
    file.rmdir()
    assert rig.owed.is_quarantine_empty()
    file.parent.rmdir()
    file.parent.touch()  # it cannot be looked into
    assert not rig.owed.is_quarantine_empty()
