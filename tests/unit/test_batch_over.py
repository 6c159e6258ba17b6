"""When the hook after a batch is due, and what it is told: rows on a real journal, by a clock of our own."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from unit.queue_rows import entry

from iot.spooler.batches.marked_files import MarkedFiles, Row
from iot.spooler.hooks.batches import LOOK_S, AfterBatch, Batch
from iot.spooler.hooks.due import DueCall
from iot.spooler.queue.queue import QUEUE_SCHEMA, Queue
from iot.transfer import Journal


class Lab:
    """Outbox 1 has the hook. waits: rows that wait to be sent, or are being sent."""

    def __init__(self) -> None:
        self.journal = Journal(None, QUEUE_SCHEMA)
        self.now = 100.0
        self.due: list[DueCall] = []
        self.waits: set[int] = set()
        self.asked: list[tuple[int, int, int]] = []
        self.queue: Any = SimpleNamespace(made_ready=1, waits_between=self._waits_between)
        Queue(self.journal).add([entry(b"%d" % number) for number in range(1, 10)])
        self.files = MarkedFiles(self.journal)
        self.over = self.begun()

    def _waits_between(self, outbox: int, above: int, up_to: int) -> bool:
        self.asked.append((outbox, above, up_to))
        return any(above < number <= up_to for number in self.waits)

    def begun(self, *outboxes: int) -> AfterBatch:
        """By the next process."""
        after: Any = SimpleNamespace(batch_over=lambda db, call: self.due.append(call))
        self.over = AfterBatch(outboxes or (1,), self.queue, self.journal, after, lambda: self.now)
        return self.over

    def released(self, key: int, files: int = 2, *, above: int | None = 0, path: bytes = b"", outbox: int = 1) -> None:
        batch = Batch(files, 12, path)
        self.journal.write(lambda db: self.over.released(db, outbox, key, batch, above))

    def delivered(self, *ids: int, skipped: bool = False, marked: bool = False, outbox: int = 1) -> None:
        outcomes: Any = [
            (
                SimpleNamespace(id=number, outbox=outbox, destination=f"/up/{number}"),
                SimpleNamespace(skipped=skipped, published_as=""),
            )
            for number in ids
        ]
        call = self.over.delivered_with_marker if marked else self.over.delivered
        self.journal.write(lambda db: call(db, outcomes))

    def rows(self) -> list[tuple[int, int]]:
        """Key, and how many were delivered."""
        return [(row["key"], row["delivered"]) for row in self.journal.read("SELECT * FROM batch_sent ORDER BY key")]


@pytest.fixture
def lab() -> Iterator[Lab]:
    lab = Lab()
    yield lab
    lab.journal.close()


def told(call: DueCall) -> tuple[object, ...]:
    return call.entry, call.path, call.result, call.error, call.size, call.files


def test_a_batch_is_over_when_nothing_of_it_waits_any_more(lab: Lab) -> None:
    lab.waits = {1, 2, 3, 9}
    lab.released(3, 3)
    lab.over.look()
    assert lab.asked == [(1, 0, 3)]
    lab.delivered(1, 2, 3, 4)
    assert lab.rows() == [(3, 3)]  # the fourth belongs to the next one
    lab.waits = {9}
    lab.over.look()
    assert lab.due == []  # nobody has told
    lab.queue.made_ready += 1
    lab.over.look()
    assert [told(call) for call in lab.due] == [(0, b"", "delivered", "", 12, 3)]
    assert (lab.due[0].outbox, lab.due[0].hook, lab.rows()) == (1, "after_batch", [])
    lab.now += LOOK_S
    lab.over.look()
    assert (len(lab.due), lab.over.look_in_s()) == (1, float("inf"))


@pytest.mark.parametrize(
    ("delivered", "skipped", "result"),
    [([1, 2], False, ("delivered", "")), ([1, 2, 2], False, ("delivered", "")),
     ([1], False, ("incomplete", "1 of 2 files were delivered")),
     ([], False, ("incomplete", "0 of 2 files were delivered")),
     ([1, 2], True, ("incomplete", "0 of 2 files were delivered"))],
)  # fmt: skip
def test_it_is_told_whether_all_were_delivered(lab: Lab, delivered, skipped, result) -> None:
    lab.released(2)
    lab.delivered(*delivered, skipped=skipped)
    lab.delivered(1, 2, outbox=2)
    lab.over.look()
    assert [(call.result, call.error) for call in lab.due] == [result]


def test_what_nobody_tells_of_is_looked_at_from_time_to_time_and_only_while_a_batch_goes_on(lab: Lab) -> None:
    assert lab.over.look_in_s() == float("inf")
    lab.waits = {1}
    lab.released(1)
    assert lab.over.look_in_s() == 0.0
    lab.over.look()
    assert lab.over.look_in_s() == LOOK_S
    lab.waits = set()  # its producer has taken it away
    lab.now += LOOK_S - 1
    lab.over.look()
    assert (lab.due, lab.over.look_in_s()) == ([], 1.0)
    lab.now += 1
    assert lab.over.look_in_s() == 0.0
    lab.over.look()
    assert len(lab.due) == 1


def test_batches_of_others_and_empty_ones_are_none(lab: Lab) -> None:
    lab.released(1, outbox=2)
    lab.released(2, files=0)
    assert lab.rows() == []
    lab.released(3, files=0, path=b"all.done", above=None)
    assert lab.rows() == [(3, 0)]


def test_a_marker_ends_its_batch_when_it_is_delivered(lab: Lab) -> None:
    lab.released(3, path=b"a/x.done", above=None)
    lab.journal.write(lambda db: lab.files.close(db, 1, Row(3, b"a/x.done", 0), [Row(1, b"1", 5), Row(2, b"2", 7)]))
    lab.delivered(1, 4, marked=True)
    assert lab.rows() == [(3, 1)]
    lab.over.look()
    assert (lab.due, lab.asked, lab.over.look_in_s()) == ([], [], float("inf"))
    lab.delivered(2, 3, marked=True)
    assert [told(call) for call in lab.due] == [(3, b"a/x.done", "delivered", "", 12, 2)]
    assert (lab.due[0].destination, lab.rows()) == ("/up/3", [])


def test_a_marker_that_is_taken_away_has_no_end(lab: Lab) -> None:
    lab.released(3, path=b"a/x.done", above=None)
    lab.journal.write(lambda db: lab.over.dropped(db, 3))
    lab.delivered(3, marked=True)
    assert (lab.rows(), lab.due) == ([], [])


def test_after_a_restart_those_that_go_on_are_known_and_damaged_rows_and_those_of_others_are_gone(lab: Lab) -> None:
    lab.begun(1, 2)
    lab.released(1)
    lab.released(2, path=b"x.done", above=None)
    lab.released(3, outbox=2)
    lab.released(4, path=b"\0", above=None)
    lab.released(99, path=b"gone.done", above=None)  # its marker is no row of the queue
    lab.waits = {1}
    lab.begun(1)
    assert lab.rows() == [(1, 0), (2, 0)]
    lab.over.look()
    assert lab.asked == [(1, 0, 1)]
    lab.waits = set()
    lab.now += LOOK_S
    lab.over.look()
    assert [told(call)[:2] for call in lab.due] == [(0, b"")]
