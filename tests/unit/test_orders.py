"""Orders outlive the process, are whole on the disk before anything is changed, and a damaged record is none."""

from __future__ import annotations

import json
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from iot.spooler.gates.gates import FREE, Held
from iot.spooler.gates.orders import FILE, FRESH, Command, Order, Orders, order_after
from iot.spooler.queue.policy import Admission

BOXES = {1: Path("/one"), 2: Path("/two")}
INBOXES = {-1: "/in of /cfg"}


def orders(state: Path) -> Orders:
    return Orders(state, BOXES, INBOXES)


def record(state: Path) -> Any:
    return json.loads((state / FILE).read_text())


def test_what_was_ordered_counts_for_the_next_process_and_what_was_undone_does_not(tmp_path: Path) -> None:
    ours = orders(tmp_path)
    assert ours.none_for() == [1, 2, -1]
    ours.take(Command.STOP, [1, -1])
    ours.take(Command.SUSPEND, [2])
    again = orders(tmp_path)
    assert [again.order(number) for number in (1, 2, -1)] == [Order.STOPPED, Order.SUSPENDED, Order.STOPPED]
    assert again.none_for() == []
    assert record(tmp_path) == {
        "outboxes": {"/one": "stopped", "/two": "suspended"},
        "inboxes": {"/in of /cfg": "stopped"},
    }
    assert (tmp_path / FILE).read_text() == json.dumps(record(tmp_path), indent=1) + "\n"
    again.take(Command.START, [1, 2, -1])
    assert record(tmp_path) == {"outboxes": {}, "inboxes": {}}
    assert orders(tmp_path).none_for() == [1, 2, -1]


def test_an_outbox_and_an_inbox_of_one_path_are_told_apart(tmp_path: Path) -> None:
    ours = Orders(tmp_path, {1: Path("/same")}, {-1: "/same"})
    ours.take(Command.STOP, [-1])
    assert (ours.order(1), ours.order(-1)) == (Order.STARTED, Order.STOPPED)
    assert Orders(tmp_path, {1: Path("/same")}).order(1) is Order.STARTED


def test_what_is_as_it_was_told_is_not_written_again(tmp_path: Path) -> None:
    ours = orders(tmp_path)
    ours.take(Command.START, [1])
    assert not (tmp_path / FILE).exists()
    ours.take(Command.STOP, [1])
    (tmp_path / FILE).unlink()
    ours.take(Command.RESUME, [1])  # which does not start what is stopped
    assert not (tmp_path / FILE).exists()


def test_an_order_that_cannot_be_recorded_has_changed_nothing(tmp_path: Path) -> None:
    ours = orders(tmp_path)
    (tmp_path / FRESH).mkdir()
    with pytest.raises(OSError, match=r"directory|permitted"):
        ours.take(Command.STOP, [1])
    assert ours.order(1) is Order.STARTED
    assert not (tmp_path / FILE).exists()


def test_the_record_is_whole_and_on_the_disk_before_it_gets_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / FRESH).write_text("of a process that was killed")
    steps: list[str] = []
    rename = os.rename

    def fsync(file: int) -> None:
        path = Path(os.readlink(f"/proc/self/fd/{file}"))
        steps.append(f"fsync {path.name} {path.read_text()[-2:]!r}" if path.is_file() else f"fsync {path.name}")

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "rename", lambda *names, **where: (steps.append("rename"), rename(*names, **where)))
    orders(tmp_path).take(Command.STOP, [1])
    assert steps == [f"fsync {FRESH} '}}\\n'", "rename", f"fsync {tmp_path.name}"]
    assert os.listdir(tmp_path) == [FILE]


@pytest.mark.parametrize(
    "content", ["{", "[]", "{}", '{"outboxes": []}', '{"outboxes": {"/one": "sotpped"}}', '{"outboxes": {"/one": 1}}']
)
def test_a_damaged_record_is_told_and_is_none(tmp_path: Path, content: str, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / FILE).write_text(content)
    assert orders(tmp_path).none_for() == [1, 2, -1]
    assert f"orders cannot be read, all is started path={tmp_path / FILE}" in caplog.text


def test_no_record_is_no_damage(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert orders(tmp_path).none_for() == [1, 2, -1]
    assert caplog.text == ""


class Box:
    def __init__(self, number: int, done: list[str], *, stopped: bool = False) -> None:
        self.number, self.stopped, self._done = number, stopped, done

    def start(self) -> None:
        self._done.append(f"start {self.number}")
        self.stopped = False

    def stop(self) -> None:
        self._done.append(f"stop {self.number}")
        self.stopped = True


def test_boxes_follow_their_orders_and_only_what_has_none_is_still_flushed(tmp_path: Path) -> None:
    done: list[str] = []
    gates: Any = SimpleNamespace(end_flush=lambda number: done.append(f"end of flush {number}"))
    ours = orders(tmp_path)
    boxes = [Box(1, done), Box(2, done), Box(-1, done)]
    ours.take(Command.STOP, [1])
    ours.take(Command.SUSPEND, [2])
    ours.follow(boxes, gates)
    assert done == ["end of flush 1", "stop 1", "end of flush 2", "start 2", "start -1"]
    done.clear()
    ours.follow(boxes[:1], gates)
    assert done == ["end of flush 1"]
    ours.take(Command.START, [1])
    done.clear()
    ours.follow(boxes[:1], gates)
    assert done == ["start 1"]


@pytest.mark.parametrize("flushed", [False, True])
def test_an_order_holds_back_also_what_is_flushed(tmp_path: Path, flushed: bool) -> None:
    ours = orders(tmp_path)
    assert ours.of(1, flushed=flushed) == FREE
    for command, words in ((Command.SUSPEND, "suspended by command"), (Command.STOP, "stopped by command")):
        ours.take(command, [1])
        assert ours.of(1, flushed=flushed) == Held(Admission.NONE, words)
    assert ours.look(0.0, 0.0) == float("inf")


def test_a_flush_is_no_order() -> None:
    with pytest.raises(ValueError, match="flush is no order"):
        order_after(Order.STARTED, Command.FLUSH)
