"""What a marker claims, and when its batch is recorded, sent and over: rows on a real journal, by our own clock."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from unit.queue_rows import entry

from iot.spooler.batches.markers import LOOK_S, MarkedOutbox, Markers
from iot.spooler.outbox.place import SourceFailed
from iot.spooler.queue.policy import State
from iot.spooler.queue.queue import QUEUE_SCHEMA, Queue
from iot.transfer import Journal

GRACE_S = 5.0


class Intake:
    """passes: whole walks that have ended. watched: files that are not complete yet. gone: what is not there."""

    def __init__(self, label: str) -> None:
        self.settings = SimpleNamespace(label=label)
        self.passes, self.failed, self.asked = 3, None, 0
        self.watched: list[bytes] = []
        self.gone: dict[bytes, bool] = {}
        self.readiness = SimpleNamespace(paths=lambda: list(self.watched))
        self.outbox = SimpleNamespace(look=self._look)

    def wake(self) -> int:
        self.asked += 1
        return self.passes + 1

    def _look(self, path: bytes) -> object | None:
        if path not in self.gone:
            return object()
        if not self.gone[path]:
            raise SourceFailed("not known")
        return None


class Before:
    """The hook before a batch. allowed: whether it has succeeded."""

    def __init__(self) -> None:
        self.news, self.allowed, self.left, self.why = 0, True, False, None
        self.forgotten: list[int] = []
        self.batches: list[tuple[int, int, bytes]] = []

    def allows(self, outbox: int, key: int, batch: Any) -> bool:
        self.batches.append(tuple(batch()))
        return self.allowed

    def forget(self, key: int) -> None:
        self.forgotten.append(key)

    def is_left(self, key: int) -> bool:
        return self.left

    def is_running(self, outbox: int) -> bool:
        return not self.allowed

    def reason(self, outbox: int) -> str | None:
        return self.why


class Lab:
    """Outboxes 1 and 2, with markers *.done."""

    def __init__(self, *, everything: bool = False, outboxes: tuple[int, ...] = (1, 2)) -> None:
        self.journal = Journal(None, QUEUE_SCHEMA)
        self.queue = Queue(self.journal)
        self.now = 100.0
        self.intakes = {number: Intake(f"box{number}") for number in outboxes}
        self.before = Before()
        self.told: list[tuple[str, int]] = []
        after = SimpleNamespace(
            released=lambda db, outbox, key, batch: self.told.append(("released", key)),
            dropped=lambda db, key: self.told.append(("dropped", key)),
            delivered_with_marker=lambda db, outcomes: self.told.append(("delivered", len(outcomes))),
        )
        marked = {
            number: MarkedOutbox(intake, lambda path: path.endswith(b".done"), GRACE_S)  # type: ignore[arg-type]
            for number, intake in self.intakes.items()
        }
        hooks: Any = SimpleNamespace(before=self.before, after=after)
        self.markers = Markers(marked, self.queue, self.journal, hooks, everything=everything)

    def put(self, *names: str, outbox: int = 1, size: int = 10) -> list[int]:
        """-> the numbers of their rows"""
        self.queue.add([entry(name.encode(), size, outbox=outbox) for name in names])
        rows = {row.path.decode(): row.id for row in self.queue.page(outbox, 0, 999)}
        return [rows[name] for name in names]

    def look(self, seconds: float = 0.0, *, flushed: tuple[int, ...] = ()) -> bool:
        self.now += seconds
        return self.markers.look(self.now, dict.fromkeys(flushed))

    def walk(self, *outboxes: int) -> None:
        """A whole walk ends."""
        for number in outboxes or (1, 2):
            self.intakes[number].passes += 1

    def collected(self) -> bool:
        """The grace is over, and the folder was looked at -> whether files may be sent."""
        self.look()
        self.look(GRACE_S)
        self.walk()
        return self.look(LOOK_S)

    def sent(self, *ids: int) -> None:
        """Delivered, and out of the outbox."""
        outcomes: Any = [(SimpleNamespace(id=number, outbox=1), None) for number in ids]
        self.journal.write(lambda db: self.markers.delivered(db, outcomes))
        self.away(*ids)

    def away(self, *ids: int) -> None:
        rows = [(number,) for number in ids]
        for table in ("entry", "file"):
            self.journal.write(lambda db, table=table: db.executemany(f"DELETE FROM {table} WHERE id = ?", rows))

    def may_go(self) -> list[int]:
        return sorted(row["id"] for row in self.journal.read("SELECT id FROM batch_file"))


@pytest.fixture
def lab() -> Iterator[Lab]:
    lab = Lab()
    yield lab
    lab.journal.close()


def test_a_batch_is_recorded_after_the_grace_and_a_whole_walk(lab: Lab) -> None:
    [first, marker] = lab.put("a/1", "a/x.done")
    assert not lab.look()
    assert not lab.look(GRACE_S - 0.1)
    assert lab.intakes[1].asked == 0
    [late] = lab.put("a/2", size=7)
    assert not lab.look(0.1)
    assert (lab.intakes[1].asked, lab.may_go()) == (1, [])
    assert not lab.look(LOOK_S)
    assert lab.intakes[1].asked == 1  # once
    lab.walk()
    assert lab.look(LOOK_S)
    assert lab.may_go() == [first, late]
    assert (lab.before.batches, lab.before.forgotten) == ([(2, 17, b"a/x.done")], [marker])
    assert lab.told == [("released", marker)]
    assert not lab.look(LOOK_S)


def test_an_outbox_out_of_reach_is_not_waited_for(lab: Lab) -> None:
    lab.put("a/1", "a/x.done")
    lab.look()
    lab.intakes[1].failed = "gone"
    assert lab.look(GRACE_S)


def test_files_that_are_being_watched_when_it_is_complete_belong_to_it(lab: Lab) -> None:
    [marker] = lab.put("a/x.done")
    lab.intakes[1].watched = [b"a/slow", b"b/other"]
    assert not lab.collected()
    [slow, later] = lab.put("a/slow", "a/later")
    lab.intakes[1].watched = [b"a/latest"]
    assert lab.look(LOOK_S)
    assert lab.may_go() == [slow]
    assert later not in lab.may_go()
    assert lab.told == [("released", marker)]


@pytest.mark.parametrize(
    ("others", "mine"),
    [
        (["b/1", "ab/1", "1"], []),
        (["a/1", "a/sub/2"], ["a/1", "a/sub/2"]),
        (["a/sub/2", "a/sub/x.done"], []),  # that one has a marker of its own
        (["a/sub/2", "a/subway/3", "a/sub/x.done"], ["a/subway/3"]),
    ],
)
def test_it_claims_what_lies_in_its_folder_and_below(lab: Lab, others: list[str], mine: list[str]) -> None:
    rows = dict(zip(others, lab.put(*others), strict=True))
    lab.look()
    lab.put("a/x.done")
    lab.look()
    lab.before.allowed = False
    lab.collected()
    assert (len(mine), 10 * len(mine), b"a/x.done") in lab.before.batches
    lab.before.allowed = True
    lab.look(LOOK_S)
    listed = {row for row in lab.may_go() if row in {rows[name] for name in others if not name.startswith("a/sub/")}}
    assert listed == {rows[name] for name in mine if not name.startswith("a/sub/")}


def test_a_marker_goes_when_its_files_have_gone_in_whichever_outbox(lab: Lab) -> None:
    for outbox in (1, 2):
        [first, marker] = lab.put("a/1", "a/x.done", outbox=outbox)
        assert lab.collected()
        assert not lab.look(LOOK_S)
        lab.sent(first)
        assert lab.look()
        assert lab.may_go() == [marker]
        assert not lab.look(LOOK_S)
        lab.sent(marker)
        lab.look(LOOK_S)
        assert (lab.may_go(), lab.markers._files.batches(outbox)) == ([], {})


def test_a_marker_waits_for_the_batches_below_it(lab: Lab) -> None:
    [inner, below, above] = lab.put("a/sub/1", "a/sub/x.done", "a/x.done")
    assert lab.collected()
    lab.look(LOOK_S)
    assert lab.may_go() == [inner]
    lab.sent(inner)
    assert lab.look()
    assert lab.may_go() == [below]
    lab.sent(below)
    assert lab.look()
    assert lab.may_go() == [above]


def test_two_markers_of_a_folder_wait_and_say_so_until_one_is_taken_away(lab: Lab) -> None:
    [first, one, other] = lab.put("a/1", "a/x.done", "a/y.done")
    assert not lab.collected()
    assert "files claimed by two markers, a/x.done and a/y.done" in (lab.markers.reason(1) or "")
    assert not lab.markers.is_going_on()  # it may take for ever
    lab.away(other)
    assert not lab.look(LOOK_S)
    assert not lab.look(LOOK_S)
    lab.walk()
    assert lab.look(LOOK_S)
    assert (lab.may_go(), lab.before.forgotten) == ([first], [other, one])


def test_a_marker_that_is_taken_away_claims_nothing_any_more(lab: Lab) -> None:
    [first, marker] = lab.put("a/1", "a/x.done")
    assert lab.collected()
    lab.away(marker)
    lab.look(LOOK_S)
    assert (lab.may_go(), lab.told[-1]) == ([], ("dropped", marker))
    [second] = lab.put("a/y.done")
    assert lab.collected()
    assert (lab.may_go(), lab.told[-1]) == ([first], ("released", second))


def test_a_new_version_of_a_marker_takes_its_place(lab: Lab) -> None:
    [first, old] = lab.put("a/1", "a/x.done")
    lab.look()
    [new] = lab.put("a/x.done", size=11)
    assert lab.collected()
    assert (lab.may_go(), lab.told) == ([first], [("released", new)])
    assert old in lab.before.forgotten


def test_a_file_with_a_new_version_stays_in_its_batch_and_one_that_is_gone_leaves_it(lab: Lab) -> None:
    [changed, gone, unknown, _] = lab.put("a/1", "a/2", "a/3", "a/x.done")
    assert lab.collected()
    [newer] = lab.put("a/1", size=11)
    lab.away(gone, unknown)
    lab.intakes[1].gone = {b"a/2": True, b"a/3": False}
    assert newer != changed
    assert lab.look(LOOK_S)
    assert lab.may_go() == [unknown, newer]
    assert not lab.look(LOOK_S)
    lab.intakes[1].gone[b"a/3"] = True
    assert not lab.look(LOOK_S)
    assert lab.may_go() == [newer]


def test_one_in_quarantine_is_waited_for_and_told(lab: Lab) -> None:
    [first, _] = lab.put("a/1", "a/x.done")
    assert lab.collected()
    lab.journal.write(lambda db: lab.markers.given_up(db, [first]))
    lab.away(first)
    lab.intakes[1].gone = {b"a/1": True}
    assert not lab.look(LOOK_S)
    assert (lab.may_go(), lab.markers.reason(1)) == ([first], "a marker waits for a/1, which is in quarantine")
    [back] = lab.put("a/1")
    assert lab.look(LOOK_S)
    assert (lab.may_go(), lab.markers._files.missing(1)) == ([back], None)


def test_one_that_was_delivered_in_another_version_is_not_waited_for(lab: Lab) -> None:
    [first, marker] = lab.put("a/1", "a/x.done")
    assert lab.collected()
    [newer] = lab.put("a/1", size=11)
    lab.journal.write(lambda db: db.execute("UPDATE entry SET state = ? WHERE id = ?", (State.DELIVERED.value, newer)))
    assert first not in (newer, marker)
    assert lab.look(LOOK_S)
    assert lab.may_go() == [marker]


def test_who_flushes_an_outbox_gets_what_no_marker_claims_too(lab: Lab) -> None:
    [inside, outside, other, _] = lab.put("a/1", "b/1", "1", "a/x.done")
    foreign = lab.put("b/1", outbox=2)
    assert lab.look(flushed=(1,))
    assert lab.may_go() == [outside, other]
    lab.walk()
    assert lab.look(LOOK_S, flushed=(1,))  # no grace
    assert lab.may_go() == [inside, outside, other]
    assert lab.look(LOOK_S, flushed=(2,))
    assert set(foreign) < set(lab.may_go())


def test_a_drain_waits_for_no_marker_and_for_nothing_that_is_not_complete() -> None:
    lab = Lab(everything=True)
    [inside, outside, _] = lab.put("a/1", "b/1", "a/x.done")
    lab.intakes[1].watched = [b"a/slow"]
    assert lab.look()
    lab.walk()
    assert lab.look(LOOK_S)
    assert lab.may_go() == [inside, outside]
    lab.journal.close()


def test_it_looks_again_every_second_while_a_batch_goes_on_and_else_when_there_is_news(lab: Lab) -> None:
    assert lab.markers.next_s(lab.now) == 0.0
    lab.look()
    assert lab.markers.next_s(lab.now) == float("inf")
    [first, marker] = lab.put("a/1", "a/x.done")
    lab.look()
    assert lab.markers.next_s(lab.now) == LOOK_S
    assert lab.markers.next_s(lab.now + 9) == 0.0
    assert lab.collected()
    assert lab.markers.next_s(lab.now) == LOOK_S  # its files may be taken away
    lab.sent(first, marker)
    assert lab.markers.next_s(lab.now) == 0.0
    lab.look()
    assert lab.markers.next_s(lab.now) == float("inf")


def test_a_batch_goes_as_soon_as_its_hook_has_succeeded(lab: Lab) -> None:
    [first, _] = lab.put("a/1", "a/x.done")
    lab.before.allowed = False
    assert not lab.collected()
    lab.before.allowed = True
    assert not lab.look()  # nobody has told
    lab.before.news += 1
    assert lab.look()
    assert lab.may_go() == [first]


def test_nothing_goes_on_while_a_hook_has_left_a_batch_to_the_next_run(lab: Lab) -> None:
    assert not lab.markers.is_going_on()
    lab.put("a/x.done")
    lab.look()
    assert lab.markers.is_going_on()
    lab.before.left = True
    assert not lab.markers.is_going_on()
    lab.before.left = False
    assert lab.collected()
    assert not lab.markers.is_going_on()  # its marker may go, which waits for nothing here


@pytest.mark.parametrize("asks", [True, False])
def test_why_files_wait(lab: Lab, asks: bool) -> None:
    assert (lab.markers.reason(3), lab.markers.reason(1)) == (None, None)
    lab.put("a/1", "b/2")
    assert lab.markers.reason(1) == "2 files without a marker"
    lab.put("a/x.done")
    lab.look()
    assert lab.markers.reason(1) == "3 files of a batch, being collected"
    lab.before.why = "a hook" if asks else None
    assert (lab.markers.reason(1) == "a hook") is asks
    lab.before.allowed = not asks
    assert lab.markers.asks(1) is asks


def test_what_is_being_collected_at_the_end_is_named(lab: Lab, caplog: pytest.LogCaptureFixture) -> None:
    lab.put("a/x.done")
    lab.put("b/y.done", outbox=2)
    lab.look()
    lab.markers.tell_kept()
    assert [line.partition(" outbox=")[2] for line in caplog.messages] == [
        "box1 marker=a/x.done", "box2 marker=b/y.done"
    ]  # fmt: skip


def test_without_such_outboxes_there_is_nothing_to_look_at() -> None:
    lab = Lab(outboxes=())
    assert not lab.look()
    assert (lab.markers.next_s(lab.now), lab.markers.has(1)) == (float("inf"), False)
    lab.journal.write(lambda db: lab.markers.delivered(db, []))
    lab.journal.write(lambda db: lab.markers.given_up(db, [1]))
    assert lab.told == []
    lab.journal.close()
