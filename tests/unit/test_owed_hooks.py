"""Files whose hook has not ended stay until it has, and which private names belong to files on their way out."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from unit.owed_rig import Rig, entry

from iot.spooler.leaving import leaving as names_module
from iot.spooler.leaving import owed as module
from iot.spooler.leaving.leaving import unclaimed
from iot.spooler.leaving.removal import private_names
from iot.spooler.queue.policy import State
from iot.spooler.queue.queue import Entry


class Hooked(Rig):
    """hooked: the numbers of entries whose hook has not ended. all_rows: by number."""

    def __init__(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        super().__init__(tmp_path, monkeypatch)
        self.hooked: set[int] = set()
        self.all_rows: dict[int, Entry] = {}
        self.pages: list[list[int]] = []
        self.owed._waited_for = lambda entries: self.hooked & {each.id for each in entries}
        self.owed._queue.entries = self._entries  # type: ignore[method-assign]

    def _entries(self, ids: Any) -> list[Entry]:
        self.pages.append(list(ids))
        return [self.all_rows[number] for number in ids if number in self.all_rows]

    def taken(self) -> list[tuple[list[int], str]]:
        taken, self.asked = [each[:2] for each in self.asked if each[0]], []
        return taken


@pytest.fixture
def rig(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Hooked:
    return Hooked(tmp_path, monkeypatch)


def test_what_has_a_hook_that_runs_stays_and_is_not_counted_or_told_yet(rig, caplog):
    rig.hooked = {1, 3}
    rig.owed.leave([entry(1), entry(2)], [entry(3), entry(4)], {3: "no", 4: "no"})
    assert rig.taken() == [([2], "delivered"), ([4], "given up")]
    assert (rig.census.files, caplog.text.count("quarantined path=")) == (1, 1)
    rig.rows = {State.DELIVERED: [entry(1)], State.QUARANTINED: [entry(3)]}
    rig.owed.resume()
    assert rig.taken() == []
    rig.hooked = {3}
    rig.owed.resume()
    assert rig.taken() == [([1], "delivered")]


def test_once_the_hook_has_ended_it_leaves_as_what_it_is(rig, caplog, monkeypatch):
    monkeypatch.setattr(module, "PAGE", 2)
    rig.all_rows = {
        1: entry(1),
        2: entry(2, state=State.QUARANTINED, error="too long"),
        3: entry(3, state=State.READY),
        4: entry(4, outbox=9),
        5: entry(5, outbox=2),
    }
    rig.leave(1)  # already
    rig.taken()
    rig.owed.released([1, 2, 3, 4, 5, 6])
    assert rig.pages == [[1, 2], [3, 4], [5, 6]]
    assert rig.taken() == [([2], "given up"), ([5], "delivered")]
    assert 'quarantined path=f2 attempts=2 reason="too long" outbox=box1' in caplog.messages
    assert rig.census.files == 1
    rig.owed.released([])
    assert (len(rig.pages), rig.taken()) == (3, [])


def test_what_is_dropped_or_has_gone_on_leaves_by_its_own_way(rig):
    rig.owed.drop([entry(1), entry(2, outbox=2)])
    assert sorted(rig.taken()) == [([1], "dropped"), ([2], "dropped")]
    rig.owed._leaving.forwards = (SimpleNamespace(moved=2), SimpleNamespace(moved=3))  # type: ignore[misc]
    assert rig.owed.forwarded == 5


# -- which private names are claimed


@pytest.mark.parametrize("page", [1, 2, 256])
def test_a_private_name_is_claimed_by_the_row_that_is_to_leave_from_there(monkeypatch, page):
    monkeypatch.setattr(names_module, "PAGE", page)
    rows = {
        1: entry(1, path=b"sub/a"),
        2: entry(2, path=b"b", state=State.QUARANTINED),
        3: entry(3, path=b"c", state=State.DROPPED),
        4: entry(4, path=b"d", state=State.READY),
        5: entry(5, path=b"e", outbox=2),
    }
    asked: list[list[int]] = []

    def entries(ids: list[int]) -> list[Entry]:
        asked.append(ids)
        return [rows[number] for number in ids if number in rows]

    (long, short), (other, _) = private_names(1, b"a"), private_names(1, b"b")
    mine = [b"sub/" + long, b"sub/" + short, private_names(2, b"b")[0], private_names(3, b"c")[1]]
    nobodys = [long, b"sub/" + other, private_names(4, b"d")[0], private_names(5, b"e")[0], private_names(6, b"f")[0]]
    nobodys.append(b"sub/.iot-sent.old")
    queue: Any = SimpleNamespace(entries=entries)
    assert unclaimed(queue, 1, [*mine, *nobodys]) == nobodys
    assert max(map(len, asked)) <= page
    assert unclaimed(queue, 1, []) == []
