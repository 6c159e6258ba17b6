"""Entries that may not leave yet, and the count of the quarantine: in steps, by a clock of our own."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from iot.spooler.leaving import census as counting
from iot.spooler.leaving.census import Census
from iot.spooler.leaving.waiting import PAUSE_S, Late, Waiting
from iot.spooler.outbox.departure import Why


def late(number: int, due_s: float, why: Why = Why.RESTING) -> Late:
    return Late(due_s, SimpleNamespace(id=number), {}, "", why)


def numbers(found: list[Late]) -> list[int]:
    return [each.entry.id for each in found]


def test_each_is_asked_when_its_time_has_come_and_not_before():
    waiting = Waiting()
    assert waiting.next_s == float("inf")
    for number, due_s in ((1, 10.0), (2, 5.0), (3, 20.0)):
        waiting.add(late(number, due_s))
    assert (len(waiting), waiting.next_s) == (3, 5.0)
    assert waiting.ripe(4.9, 10) == []
    assert waiting.next_s == 5.0  # to ask too early puts nothing off
    assert numbers(waiting.ripe(5.0, 10)) == [2]
    assert (len(waiting), waiting.next_s) == (2, 10.0)
    assert numbers(waiting.ripe(30.0, 10)) == [1, 3]
    assert (len(waiting), waiting.next_s) == (0, float("inf"))


def test_one_that_waits_already_keeps_its_time():
    waiting = Waiting()
    waiting.add(late(1, 10.0))
    waiting.add(late(1, 99.0))
    assert waiting.next_s == 10.0
    assert numbers(waiting.ripe(10.0, 9)) == [1]


def test_the_looks_at_all_that_waits_are_not_without_pause():
    waiting = Waiting()
    for number in range(3):
        waiting.add(late(number, 10.0 + number / 100))
    assert numbers(waiting.ripe(10.0, 9)) == [0]
    assert waiting.next_s == 10.0 + PAUSE_S


def test_where_more_are_ripe_than_are_wanted_the_others_come_at_once():
    waiting = Waiting()
    for number in range(3):
        waiting.add(late(number, 1.0))
    assert numbers(waiting.ripe(10.0, 2)) == [0, 1]
    assert waiting.next_s == 1.0
    assert numbers(waiting.ripe(10.0, 2)) == [2]


def test_what_has_left_waits_no_more_and_they_are_counted_by_their_reason():
    waiting = Waiting()
    waiting.add(late(1, 1.0, Why.OPEN))
    waiting.add(late(2, 1.0, Why.RESTING))
    waiting.add(late(3, 1.0, Why.OPEN))
    assert (waiting.count(Why.OPEN), waiting.count(Why.RESTING), waiting.count(Why.TOUCHED)) == (2, 1, 0)
    waiting.discard(1)
    waiting.discard(1)
    assert numbers(waiting.ripe(1.0, 9)) == [2, 3]


# -- the count


@pytest.fixture
def folders(tmp_path: Path) -> list[Path]:
    """Two quarantines with 5 and 2 files, and between them one that nothing was put into yet."""
    found = [tmp_path / "a", tmp_path / "z", tmp_path / "missing"]
    for folder, count in ((found[0], 5), (found[1], 2)):
        folder.mkdir(mode=0o700)
        for number in range(count):
            (folder / f"{number:016x}").mkdir()
            (folder / f"{number:016x}.json").touch()
    return found


def test_the_count_goes_in_steps_and_counts_shared_folders_once(folders, monkeypatch):
    monkeypatch.setattr(counting, "COUNT_AT_ONCE", 4)
    census = Census([*folders, folders[0]])
    assert not census.step()
    census.begin()
    assert census.step()
    assert census.files == 0  # only a whole count counts
    census.begin()  # and one that is begun again counts nothing twice
    steps = 1
    while census.step():
        steps += 1
    assert (census.files, census.failed, steps) == (7, None, 5)
    assert not census.step()


def test_what_cannot_be_looked_into_is_no_empty_quarantine(folders, monkeypatch, caplog):
    census = Census(folders)
    census.begin()
    census.finish()
    assert census.files == 7

    def refused(_: object) -> int:
        raise PermissionError(13, "Permission denied")

    with monkeypatch.context() as patches:
        patches.setattr(counting, "open_trusted", refused)
        for _ in range(2):
            census.begin()
            assert not census.step()
            assert len(caplog.records) == 1
    assert (census.files, census.failed) == (7, "quarantine: [Errno 13] Permission denied")
    os.rmdir(folders[1] / f"{0:016x}")
    census.begin()
    census.finish()
    assert (census.files, census.failed) == (6, None)
