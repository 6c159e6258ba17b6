"""The steps of dropping a file: what is withdrawn, recorded and listed, in which order."""

from __future__ import annotations

import json
import os
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from iot.spooler.budget import tombstones
from iot.spooler.budget.budget import Budget
from iot.spooler.budget.tombstones import FRESH, TombstoneLists, Tombstones
from iot.spooler.queue.policy import Event
from iot.spooler.queue.queue import QUEUE_SCHEMA, NewEntry, Queue
from iot.transfer import Fingerprint, Journal


def budget_of(done: list[Any]) -> Any:
    """A budget whose parts only say what they were told."""

    def evict(db: None, entries: list[Any], event: Event, why: str) -> list[Any]:
        done.append(event)
        return entries

    queue = SimpleNamespace(evict=evict)
    stones = SimpleNamespace(add=lambda *_: done.append("listed"))
    owed = SimpleNamespace(drop=lambda _: done.append("leave"), leave=lambda *_: done.append("leave"))
    journal = SimpleNamespace(write=lambda work: work(None))
    clocks = SimpleNamespace(wall=lambda: 0.0, monotonic=lambda: 0.0)

    def withdraw(entries: list[Any]) -> None:
        done.append([entry.id for entry in entries])

    parts: list[Any] = [[], None, stones, queue, owed, journal, clocks, withdraw]
    return Budget(*parts, drain=False)


def test_what_was_attempted_is_withdrawn_first_and_leaves_when_it_is_recorded() -> None:
    done: list[Any] = []
    entries = [SimpleNamespace(id=each, attempts=each, fingerprint=SimpleNamespace(size=1)) for each in (0, 2)]
    shelf = SimpleNamespace(dropped=Counter(), list_at=float("inf"), tell=lambda *_: None)
    budget_of(done)._drop(shelf, entries, "why", 0.0)
    assert done == [[2], "listed", Event.EVICTED, "leave"]
    assert shelf.dropped == {"files": 2, "bytes": 2}
    done.clear()
    budget_of(done)._quarantine(entries, "why")
    assert done == [[2], Event.EXPIRED, "leave"]


def test_a_file_is_listed_only_once_it_has_left() -> None:
    journal = Journal(None, QUEUE_SCHEMA)
    queue, stones = Queue(journal), Tombstones(journal)
    queue.add([NewEntry(1, name, Fingerprint(1, 2, 3, 4), False, 5, 0, 100.0) for name in (b"a", b"b")])
    rows = queue.page(1, 0, 9)
    journal.write(lambda db: stones.add(db, rows, "why", 1.0))
    assert (stones.left(1, 9), stones.count(1)) == ([], 2)
    queue.drop(rows[:1], Event.VANISHED)
    assert [row["id"] for row in stones.left(1, 9)] == [rows[0].id]
    for _ in range(2):
        stones.only_count(1, stones.left(1, 9))
    assert stones.more(1) == (1, 1)
    queue.drop(rows[1:], Event.VANISHED)
    stones.only_count(1, stones.left(1, 9))
    assert (stones.more(1), stones.left(1, 9)) == ((2, 2), [])
    stones.listed(1, [])
    assert stones.more(1) == (0, 0)
    journal.close()


def test_a_list_is_whole_and_on_the_disk_before_its_rows_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journal = Journal(None, QUEUE_SCHEMA)
    queue, stones = Queue(journal), Tombstones(journal)
    queue.add([NewEntry(1, name, Fingerprint(1, 2, 3, 4), False, 5, 0, 100.0) for name in (b"a", b"b")])
    rows = queue.page(1, 0, 9)
    journal.write(lambda db: stones.add(db, rows, "why", 1.0))
    queue.drop(rows, Event.VANISHED)
    stones.only_count(1, stones.left(1, 1))
    steps: list[str] = []
    real_rename, real_listed = os.rename, stones.listed

    def fsync(file: int) -> None:
        steps.append(f"fsync {os.path.basename(os.readlink(f'/proc/self/fd/{file}'))}")

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "rename", lambda *names, **where: (steps.append("rename"), real_rename(*names, **where)))
    monkeypatch.setattr(stones, "listed", lambda *given: (steps.append("rows"), real_listed(*given)))
    lists = TombstoneLists(tmp_path / "dropped", "box", 1, stones)
    assert lists.write(0.0)
    assert steps[-4:] == [f"fsync {FRESH}", "rename", "fsync dropped", "rows"]
    [path] = (tmp_path / "dropped").iterdir()
    told = [json.loads(line) for line in path.read_text().splitlines()]
    assert (told[0], told[1]["path"], len(told)) == ({"more_files": 1, "more_bytes": 1}, "b", 2)
    assert (stones.more(1), stones.count(1)) == ((0, 0), 0)  # told once


def test_where_as_many_lists_wait_as_may_no_further_one_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tombstones, "LISTS_MAX", 1)
    monkeypatch.setattr(tombstones, "LIST_ROWS", 1)
    journal = Journal(None, QUEUE_SCHEMA)
    queue, stones = Queue(journal), Tombstones(journal)
    queue.add([NewEntry(1, name, Fingerprint(1, 2, 3, 4), False, 5, 0, 100.0) for name in (b"a", b"b")])
    rows = queue.page(1, 0, 9)
    journal.write(lambda db: stones.add(db, rows, "why", 1.0))
    queue.drop(rows, Event.VANISHED)
    lists = TombstoneLists(tmp_path / "dropped", "box", 1, stones)
    assert [lists.write(0.0), lists.write(0.0)] == [True, False]
    assert (len(list((tmp_path / "dropped").iterdir())), stones.count(1)) == (1, 1)
    journal.close()
