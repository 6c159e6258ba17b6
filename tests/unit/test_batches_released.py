"""When a batch of quiet is over and what it holds: rows in memory, by a clock of our own."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from iot.spooler.batches.batches import Batches
from iot.spooler.hooks.batches import Batch
from iot.spooler.queue.policy import LATEST
from iot.transfer import Journal

QUIET_S = 60.0
SIZE = 10


class Before:
    """The hook before a batch. allowed: whether it has succeeded. asked: about which row as the last."""

    def __init__(self) -> None:
        self.allowed, self.left, self.why = True, False, None
        self.asked: list[tuple[int, int, Batch]] = []
        self.forgotten: list[int] = []

    def allows(self, outbox: int, key: int, batch: Any) -> bool:
        self.asked.append((outbox, key, batch()))
        return self.allowed

    def forget(self, key: int) -> None:
        self.forgotten.append(key)

    def is_left(self, key: int) -> bool:
        return self.left and key == self.asked[-1][1]

    def reason(self, outbox: int) -> str | None:
        return self.why


class Lab:
    """Outboxes 1 and 2 have batches, 3 has none."""

    def __init__(self) -> None:
        self.journal = Journal(None)
        self.rows: dict[int, list[int]] = {1: [], 2: [], 3: []}
        self.queue: Any = SimpleNamespace(made_ready=0, newest=self._newest, waiting=self._waiting)
        self.looked_for = 0
        self.before = Before()
        self.released: list[tuple[int, int, Batch, int]] = []
        self.batches = self.begun()

    def begun(self) -> Batches:
        """By the next process."""
        after = SimpleNamespace(
            released=lambda db, outbox, key, batch, above: self.released.append((outbox, key, batch, above)),
            look=lambda: None,
        )
        hooks: Any = SimpleNamespace(before=self.before, after=after)
        labels = {1: "box1", 2: "box2"}
        self.batches = Batches({1: QUIET_S, 2: 2 * QUIET_S}, labels, self.queue, self.journal, hooks)
        return self.batches

    def _newest(self, outbox: int) -> int:
        self.looked_for += 1
        return max(self.rows[outbox], default=0)

    def _waiting(self, outbox: int, above: int, up_to: int = LATEST) -> tuple[int, int]:
        files = [row for row in self.rows[outbox] if above < row <= up_to]
        return len(files), SIZE * len(files)

    def come(self, *rows: int, outbox: int = 1) -> None:
        self.rows[outbox] += rows
        self.queue.made_ready += 1

    def look(self, now: float, *flushed: int) -> bool:
        return self.batches.look(now, dict.fromkeys(flushed))


@pytest.fixture
def lab() -> Iterator[Lab]:
    lab = Lab()
    yield lab
    lab.journal.close()


def test_a_batch_goes_when_nothing_has_come_for_so_long_and_not_before(lab: Lab) -> None:
    assert not lab.look(0.0)
    assert lab.batches.next_s(0.0) == float("inf")
    lab.come(5)
    assert not lab.look(0.0)
    assert lab.batches.next_s(0.0) == QUIET_S
    lab.come(6)
    assert not lab.look(50.0)
    assert not lab.look(QUIET_S)
    assert (lab.batches.next_s(QUIET_S), lab.batches.up_to(1)) == (50.0, 0)
    assert not lab.look(109.9)
    assert lab.batches.next_s(200.0) == 0.0
    assert lab.look(110.0)
    assert lab.released == [(1, 6, Batch(2, 2 * SIZE), 0)]
    assert (lab.batches.up_to(1), lab.before.forgotten) == (6, [6])
    assert lab.batches.next_s(110.0) == float("inf")
    assert not lab.look(999.0)


def test_each_outbox_has_a_time_of_its_own_and_one_without_batches_waits_for_nothing(lab: Lab) -> None:
    lab.come(5)
    lab.come(7, outbox=2)
    lab.come(8, outbox=3)
    lab.look(0.0)
    assert lab.batches.up_to(3) == LATEST
    assert lab.look(QUIET_S)
    assert [key for _, key, _, _ in lab.released] == [5]
    assert lab.batches.next_s(QUIET_S) == QUIET_S
    assert lab.look(2 * QUIET_S)
    assert [(outbox, key) for outbox, key, _, _ in lab.released] == [(1, 5), (2, 7)]
    assert lab.batches.up_to(2) == 7


def test_who_flushes_an_outbox_ends_its_batch_and_no_other(lab: Lab) -> None:
    lab.come(5)
    lab.come(7, outbox=2)
    assert lab.look(1.0, 1)
    assert [key for _, key, _, _ in lab.released] == [5]
    assert not lab.look(2.0, 1)  # nothing new has come


def test_what_comes_while_the_hook_is_asked_belongs_to_the_next_batch(lab: Lab) -> None:
    lab.before.allowed = False
    lab.come(5)
    lab.look(0.0)
    assert not lab.look(QUIET_S)
    lab.come(6)
    assert not lab.look(70.0)
    assert not lab.look(130.0)
    assert {(key, batch) for _, key, batch in lab.before.asked} == {(5, Batch(1, SIZE))}
    assert lab.batches.next_s(130.0) == float("inf")  # the hook says when
    lab.before.allowed = True
    assert lab.look(131.0)
    assert lab.batches.up_to(1) == 5
    assert lab.batches.next_s(131.0) == 0.0
    assert lab.look(132.0)
    assert lab.released == [(1, 5, Batch(1, SIZE), 0), (1, 6, Batch(1, SIZE), 5)]


def test_after_a_restart_what_was_released_is_not_released_again(lab: Lab) -> None:
    lab.come(5)
    lab.look(0.0)
    assert lab.look(QUIET_S)
    lab.come(6)
    lab.journal.write(lambda db: db.execute("INSERT INTO released VALUES (2, 'many')"))  # by a bad disk
    batches = lab.begun()
    assert (batches.up_to(1), batches.up_to(2)) == (5, 0)
    lab.look(100.0)
    assert lab.look(100.0 + QUIET_S)
    assert [key for _, key, _, _ in lab.released] == [5, 6]
    lab.begun()
    lab.look(200.0)
    assert not lab.look(300.0)


def test_the_queue_is_asked_only_when_there_is_news(lab: Lab) -> None:
    lab.come(5)
    lab.look(0.0)
    asked = lab.looked_for
    lab.look(1.0)
    assert lab.looked_for == asked
    lab.come(6)
    lab.look(2.0)
    assert lab.looked_for > asked


def test_a_batch_goes_on_while_it_is_collected_or_its_hook_is_asked_in_this_run(lab: Lab) -> None:
    assert not lab.batches.is_going_on()
    lab.come(5)
    lab.look(0.0)
    assert lab.batches.is_going_on()
    lab.before.allowed = False
    lab.look(QUIET_S)
    assert lab.batches.is_going_on()
    lab.before.left = True
    assert not lab.batches.is_going_on()
    lab.before.allowed, lab.before.left = True, False
    lab.look(QUIET_S)
    assert not lab.batches.is_going_on()


def test_why_files_wait(lab: Lab) -> None:
    assert lab.batches.reason(1) is None
    lab.come(5, 6)
    assert lab.batches.reason(1) == "2 files of a batch, sent 60 s after the last"
    lab.before.why = "a batch is kept back"
    assert [lab.batches.reason(outbox) for outbox in (1, 3)] == ["a batch is kept back", None]


def test_what_is_being_collected_at_the_end_is_named(lab: Lab, caplog: pytest.LogCaptureFixture) -> None:
    lab.come(5, 6)
    lab.batches.tell_kept()
    assert caplog.messages == ["batch is kept, it was being collected outbox=box1 files=2"]
