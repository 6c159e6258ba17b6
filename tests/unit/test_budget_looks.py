"""When a budget looks again, how much it drops at a time, and what it says of what it may not drop; on a fake clock."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from iot.spooler.budget import budget as module
from iot.spooler.budget import shelf as shelves
from iot.spooler.budget.budget import COST_SHARE, OVER_S, RETRY_S, Budget
from iot.spooler.budget.excess import NOTHING, Space, beyond_backlog
from iot.spooler.budget.shelf import Shelf
from iot.spooler.config.budget import BudgetSettings
from iot.spooler.outbox.versions import URGENT
from iot.spooler.queue.policy import State
from iot.spooler.queue.queue import Entry
from iot.transfer import Fingerprint

TTL_S = 3600.0


class Room:
    """An outbox with its budget, and all that surrounds them in memory. rows: what waits."""

    def __init__(self, count: int, **budget: Any) -> None:
        self.now = 1000.0
        self.look_takes_s = 0.0
        self.rows = {number: entry(number) for number in range(1, count + 1)}
        self.made_ready = 1
        self.dropped: list[int] = []
        self.done: list[str] = []
        self.writes = iter(())
        lists: Any = SimpleNamespace(write=lambda wall: next(self.writes), remain=lambda: True, is_due=lambda: True)
        sender: Any = SimpleNamespace(wake=lambda: self.done.append("sender woken"))
        settings = SimpleNamespace(
            budget=BudgetSettings(**budget), batch_marker=None, ignore_case=False, label="box", small_file_bytes=0
        )
        intake: Any = SimpleNamespace(number=1, settings=settings)
        self.shelf = Shelf(intake, lists, sender, self)  # type: ignore[arg-type]
        ages: Any = SimpleNamespace(
            look=lambda: 60.0, expired_up_to=lambda number: count, close=lambda: self.done.append("ages kept")
        )
        stones: Any = SimpleNamespace(add=lambda *_: None)
        owed: Any = SimpleNamespace(drop=self._leave, leave=lambda _, entries, why: self._leave(entries))
        journal: Any = SimpleNamespace(write=lambda work: work(None))
        clocks: Any = SimpleNamespace(wall=lambda: 0.0, monotonic=lambda: self.now)
        self.budget = Budget([self.shelf], ages, stones, self, owed, journal, clocks, lambda _: None, drain=False)  # type: ignore[arg-type]
        self.shelf.list_at = float("inf")

    # -- as the queue

    def backlog(self, outbox: int) -> tuple[int, int]:
        self.now += self.look_takes_s
        return len(self.rows), sum(row.fingerprint.size for row in self.rows.values())

    def idle(self, outbox: int, above: int, below: int, most: int, *, newest_first: bool) -> list[Entry]:
        found = [row for number, row in sorted(self.rows.items(), reverse=newest_first) if above < number < below]
        return found[:most]

    def evict(self, db: None, entries: list[Entry], *_: Any) -> list[Entry]:
        return entries

    def _leave(self, entries: list[Entry]) -> None:
        for each in entries:
            self.dropped.append(self.rows.pop(each.id).id)

    @property
    def over(self) -> object:
        return self.budget.figures(1)["over_budget"]


def entry(number: int) -> Entry:
    return Entry(
        number, 1, b"f%d" % number, State.READY, Fingerprint(10, 1, 2, number), False, 5, "/up", None, 1, 0, 1.0,
        False, None, 0, 0, 0, None,
    )  # fmt: skip


def test_as_many_as_are_allowed_are_not_too_many() -> None:
    assert beyond_backlog(BudgetSettings(max_files=3, max_bytes=30), 3, 30) == NOTHING
    assert beyond_backlog(BudgetSettings(max_files=3), 4, 30)[:2] == (1, 0)
    assert beyond_backlog(BudgetSettings(max_bytes=30), 4, 31).bytes == 1


def test_what_is_too_much_and_may_not_be_dropped_is_said_and_looked_at_again_after_a_while() -> None:
    room = Room(3, max_files=1, preserve=("*",))
    assert not room.budget.look()
    assert "max_files = 1" in str(room.over)
    assert room.budget.look_at() == room.now + OVER_S
    room.rows = {1: entry(1)}
    room.now += OVER_S
    room.budget.look()
    assert room.over is None
    assert room.budget.look_at() == float("inf")  # until something comes


def test_so_many_are_dropped_at_a_time_and_the_rest_at_once_afterwards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST", 2)
    room = Room(6, max_files=1)
    assert room.budget.look()
    assert (room.dropped, room.over) == ([1, 2], None)
    assert room.budget.look_at() == room.now
    assert room.budget.look()
    assert room.budget.look()
    assert (room.dropped, room.over) == ([1, 2, 3, 4, 5], None)


def test_only_who_has_looked_at_everything_says_that_nothing_may_be_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shelves, "PAGE", 2)
    monkeypatch.setattr(shelves, "PAGES", 1)
    room = Room(5, max_files=1, preserve=("f1", "f2", "f3", "f4"))
    room.budget.look()
    assert (room.dropped, room.over, room.budget.look_at()) == ([], None, room.now)
    for _ in range(3):
        room.budget.look()
    assert room.dropped == [5]
    assert "max_files = 1" in str(room.over)


def test_looking_at_a_long_backlog_takes_a_small_share_of_the_time() -> None:
    room = Room(1, max_files=5)
    room.look_takes_s = 0.2
    began = room.now
    room.budget.look()
    room.made_ready += 1
    assert room.budget.look_at() == pytest.approx(began + 0.2 * COST_SHARE)


def test_what_is_left_to_drop_takes_no_larger_share(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST", 2)
    room = Room(6, max_files=1)
    room.look_takes_s = 0.2
    began = room.now
    room.budget.look()
    assert len(room.dropped) == 2
    assert room.budget.look_at() == pytest.approx(began + 0.2 * COST_SHARE)


def test_of_what_is_too_old_a_page_is_dropped_and_the_next_one_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shelves, "PAGE", 2)
    room = Room(3, ttl_s=TTL_S)
    room.budget.look()
    assert (room.dropped, room.budget.look_at()) == ([1, 2], room.now)
    for _ in range(2):
        room.budget.look()
    assert (room.dropped, room.budget.look_at()) == ([1, 2, 3], room.now + 60.0)


@pytest.mark.parametrize(("written", "again_s", "woken"), [(True, 1.0, ["sender woken"]), (False, RETRY_S, [])])
def test_a_list_is_sent_at_once_and_one_that_cannot_be_written_is_tried_again(
    written: bool, again_s: float, woken: list[str]
) -> None:
    room = Room(0, max_files=5)
    room.budget._list_s = 0.0
    room.writes = iter([written])
    room.shelf.list_at = room.now
    room.budget.look()
    assert (room.done, room.shelf.list_at) == (woken, room.now + again_s)


def test_at_the_end_the_ages_are_kept() -> None:
    room = Room(0, ttl_s=TTL_S)
    room.budget.close()
    assert room.done == ["ages kept"]


# -- which files, and how much room


def test_others_are_all_looked_at_before_an_urgent_one_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shelves, "PAGE", 2)
    monkeypatch.setattr(shelves, "PAGES", 1)
    room = Room(4, max_files=3, preserve=("f2", "f3"), evict_urgent="oldest")
    room.rows[1] = entry(1)._replace(priority=URGENT)
    for _ in range(3):
        room.budget.look()
    assert room.dropped == [4]


def test_from_the_newest_on_a_look_goes_on_where_the_last_one_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shelves, "PAGE", 2)
    monkeypatch.setattr(shelves, "PAGES", 1)
    room = Room(6, max_files=5, preserve=("f5", "f6"), evict="newest")
    for _ in range(2):
        room.budget.look()
    assert room.dropped == [4]


def test_what_root_alone_may_fill_is_not_free(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    found = SimpleNamespace(
        f_bsize=1 << 20, f_frsize=512, f_blocks=100, f_bfree=50, f_bavail=40, f_files=30, f_ffree=20, f_favail=10
    )
    monkeypatch.setattr(os, "fstatvfs", lambda _: found)
    room = Room(0, min_free_percent=10)
    room.shelf.intake.outbox = SimpleNamespace(open=lambda: os.open(tmp_path, os.O_RDONLY))  # type: ignore[assignment]
    assert room.shelf.space() == Space(100 * 512, 40 * 512, 30, 10, 512)


def test_few_dropped_files_of_a_minute_are_named_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    room = Room(0, max_files=1)
    for number in range(2 * shelves.TOLD_MAX):
        room.shelf.tell([entry(number)], "too many", room.now)
    assert sum("dropped path=" in line for line in caplog.messages) == shelves.TOLD_MAX
    room.shelf.tell([entry(99)], "too many", room.now + shelves.TOLD_S)
    assert "f99" in caplog.messages[-1]


# -- what is said


def test_that_nothing_more_may_be_dropped_is_logged_when_it_is_new(caplog: pytest.LogCaptureFixture) -> None:
    room = Room(3, max_files=1, max_bytes=15, preserve=("*",))
    for _ in range(2):
        room.budget.look()
        assert caplog.text.count("over budget, and nothing more may be dropped outbox=box") == 1
        room.now += OVER_S
    room.rows = {1: entry(1)._replace(fingerprint=Fingerprint(16, 1, 2, 1))}
    room.budget.look()
    assert caplog.text.count("over budget") == 2
    assert room.over == "more than max_bytes = 15 B"


def test_what_was_dropped_is_counted_and_an_outbox_without_a_budget_drops_nothing() -> None:
    room = Room(3, max_files=1)
    room.budget.look()
    assert room.budget.figures(1) == {"dropped": 2, "dropped_bytes": 20, "over_budget": None}
    assert room.budget.figures(2) == {"dropped": 0, "dropped_bytes": 0, "over_budget": None}


@pytest.mark.parametrize(("free_bytes", "dropped"), [(100, []), (99, [1]), (90, [1]), (89, [1, 2]), (None, [])])
def test_as_much_is_dropped_as_the_disk_lacks_where_that_is_known(free_bytes: int | None, dropped: list[int]) -> None:
    room = Room(5, min_free_percent=10)
    room.shelf.space = lambda: None if free_bytes is None else Space(1000, free_bytes, 0, 0, 10)  # type: ignore[method-assign]
    assert room.budget.look() is bool(dropped)
    assert (room.dropped, room.budget.look_at()) == (dropped, room.now + module.LOOK_S)
    assert not room.budget.look()  # not before its time


def test_what_has_left_is_to_be_listed_while_lists_can_be_written() -> None:
    room = Room(1, max_files=1)
    assert not room.budget.is_to_be_listed()
    room.shelf.list_at = room.now + 5
    assert room.budget.is_to_be_listed()
    room.shelf.lists = None
    assert not room.budget.is_to_be_listed()


def test_what_an_earlier_process_has_dropped_is_listed_first_and_a_list_waits_for_more(tmp_path: Path) -> None:
    room = Room(3, max_files=1)
    room.shelf.list_at = float("inf")
    room.budget.look()
    assert room.shelf.list_at == room.now + module.LIST_S
    room.now += module.LIST_S
    room.writes = iter([True])
    room.budget.look()
    assert (room.done, room.shelf.list_at) == (["sender woken"], room.now + module.LIST_S)
    room.writes = iter([True])
    room.budget.close()  # whatever its time is
    assert room.done == ["sender woken", "sender woken", "ages kept"]


def test_what_an_earlier_process_has_queued_is_looked_at_though_nothing_has_come_since() -> None:
    room = Room(3, max_files=1)
    room.made_ready = 0
    assert room.budget.look()
    assert room.dropped == [1, 2]
