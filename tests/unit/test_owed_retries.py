"""What is owed to the outboxes: to the moment when it is tried again, counted again, and when rows go."""

from __future__ import annotations

import errno
import os
import threading
from pathlib import Path

import pytest
from unit.owed_rig import Rig, entry

from iot.spooler.leaving import owed as module
from iot.spooler.leaving.owed import OWED_RETRY_S, RECOUNT_S, TIDY_S
from iot.spooler.outbox.departure import Why
from iot.spooler.queue.policy import State


@pytest.fixture
def rig(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Rig:
    rig = Rig(tmp_path, monkeypatch)
    for _ in range(5):
        rig.owed.tend()  # the first round, and the first count
    rig.asked.clear()
    return rig


def asked(rig: Rig) -> list[list[int]]:
    found, rig.asked = [keys for keys, _, _ in rig.asked if keys], []
    return found


@pytest.mark.parametrize("how", ["the outbox is not there", "the file cannot be taken"])
def test_what_could_not_leave_is_tried_again_when_its_time_has_come_and_not_before(rig, how):
    rig.unreadable = how == "the outbox is not there"
    rig.leave(1, answer=errno.EPERM)
    rig.rows[State.DELIVERED] = [entry(1)]
    rig.unreadable = False
    asked(rig)
    rig.now += OWED_RETRY_S - 1
    rig.owed.tend()
    assert asked(rig) == []
    rig.now += 1
    rig.owed.tend()
    assert asked(rig) == [[1]]


def test_the_last_error_is_that_of_the_first_file_that_could_not_leave(rig):
    rig.answers = {1: errno.EPERM, 2: errno.ENOSPC}
    rig.owed.leave([entry(1), entry(2)], [], {})
    assert rig.owed.last_error == "box1: cannot take files out of the outbox: [Errno 1] Operation not permitted"
    assert rig.owed.held[1] == {1: "Operation not permitted", 2: "No space left on device"}


def test_after_one_that_could_leave_the_waits_begin_anew(rig):
    rig.rows[State.DELIVERED] = [entry(1)]
    rig.answers[1] = errno.EPERM
    for _ in range(3):
        rig.owed.resume()  # three waits, each longer
    rig.answers[1] = "done"
    rig.owed.resume()
    rig.rows[State.DELIVERED] = []
    rig.owed.resume()
    rig.leave(2, answer=errno.EPERM)
    rig.rows[State.DELIVERED] = [entry(2)]
    asked(rig)
    rig.now += OWED_RETRY_S
    rig.owed.tend()
    assert asked(rig) == [[2]]


def test_one_that_is_held_and_one_that_has_left_meanwhile_do_not_make_the_waits_longer(rig):
    """Something moves: the other may follow soon."""
    rig.answers = {1: errno.EPERM, 2: errno.EPERM}
    rig.owed.leave([entry(1), entry(2)], [], {})
    rig.rows[State.DELIVERED] = [entry(1), entry(2)]
    rig.answers[2] = "done"
    rig.owed.resume()
    rig.rows[State.DELIVERED] = [entry(1)]
    asked(rig)
    rig.now += OWED_RETRY_S
    rig.owed.tend()
    assert asked(rig) == [[1]]


def test_rows_of_files_that_are_unlinked_meanwhile_go_with_a_transaction_that_is_made_anyway(rig, monkeypatch):
    monkeypatch.setattr(module, "FORGET_FILES", 1)
    rig.leave(1, answer="unlink")
    for thread in threading.enumerate():
        if thread.name == "unlinker":
            thread.join(10)
    assert [each.id for each in rig.owed.forget_many("db")] == [1]
    assert rig.forgotten == [1]


def test_what_the_unlinker_could_not_do_is_held_at_the_next_look(rig, monkeypatch):
    def refused(*_: object, **__: object) -> None:
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(os, "unlink", refused)
    rig.leave(1, answer="unlink")
    for thread in threading.enumerate():
        if thread.name == "unlinker":
            thread.join(10)
    rig.owed.tend()
    assert rig.owed.held[1] == {1: os.strerror(errno.EPERM)}


def test_several_archives_share_the_time_for_tidying(rig):
    rig.owed._leaving.archives = (rig.archive, rig.archive)
    rig.budgets.clear()
    rig.owed.tend()
    assert rig.budgets == [TIDY_S / 2] * 2


def test_only_what_is_given_up_has_the_quarantine_counted_again(rig):
    rig.leave(1)
    rig.owed.tend()
    assert rig.census.begun == 1
    rig.owed.leave([], [entry(2)], {})
    rig.owed.tend()
    assert rig.census.begun == 2


@pytest.mark.parametrize(("files", "failed"), [(1, None), (0, "unreadable")])
def test_a_quarantine_that_holds_something_or_cannot_be_read_is_counted_again_a_minute_later(rig, files, failed):
    rig.census.files, rig.census.failed = files, failed
    rig.owed.tend()
    rig.now += RECOUNT_S - 1
    rig.owed.tend()
    assert rig.census.begun == 1
    rig.now += 1
    rig.owed.tend()
    assert rig.census.begun == 2


def test_who_asks_has_the_quarantine_counted_at_once(rig):
    rig.owed.wake()
    rig.owed.tend()
    assert rig.census.begun == 2


def test_a_file_that_is_open_and_then_only_rests_is_told_as_open_until_it_leaves(rig):
    rig.leave(1, answer=Why.OPEN)
    rig.leave(1, answer=Why.RESTING)
    assert rig.owed.held[1] == {1: "open for writing"}
    assert len(rig.owed.waiting) == 1


def test_without_a_note_the_recorded_error_is_the_reason(rig, caplog):
    rig.owed.leave([], [entry(1, error="refused"), entry(2)], {})
    assert "quarantined path=f1 attempts=2 reason=refused outbox=box1" in caplog.messages
    assert any(line.startswith("quarantined path=f2 attempts=2 reason=") for line in caplog.messages)
