"""What the agent does with a command that has come over its socket, and what it answers to whom."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from iot.spooler.agent.agent import Wake
from iot.spooler.control.states import ServerState
from iot.spooler.gates.orders import Command, Order
from iot.spooler.outbox.intake import Intake
from iot.spooler.process import obeying
from iot.spooler.process.obeying import NAMES_MAX, Commands, commands, obey


def settings(label: str) -> Any:
    return SimpleNamespace(label=label, path=Path("/p") / label)


def outbox(number: int, label: str) -> Intake:
    intake = Intake.__new__(Intake)
    intake.number, intake.settings = number, settings(label)
    return intake


class Boss:
    """An agent with two outboxes, an inbox, and one of each that is disabled. fails: it cannot record an order."""

    def __init__(self, *, inboxes: bool = True) -> None:
        self.given: dict[int, Order] = {}
        self.ordered: list[tuple[Command, list[int]]] = []
        self.woken: list[tuple[Wake, set[int]]] = []
        self.suspended: dict[int, str] = {}
        self.fails = False
        self.server = SimpleNamespace(state=ServerState.CONNECTED, last_error="once there was one")
        pulled = [SimpleNamespace(number=-1, label="in", settings=settings("in"))] if inboxes else []
        self.agent: Any = SimpleNamespace(
            intakes=[outbox(1, "one"), outbox(2, "two")],
            pull=SimpleNamespace(inboxes=pulled),
            settings=SimpleNamespace(
                outbox=[settings("one"), settings("two"), settings("off")],
                inbox=[settings("in"), settings("in off")] if inboxes else [],
            ),
            orders=SimpleNamespace(order=lambda number: self.given.get(number, Order.STARTED)),
            gates=SimpleNamespace(suspended=lambda number: self.suspended.get(number, "")),
            server=self.server,
            order=self._order,
            wake=lambda why, numbers: self.woken.append((why, numbers)),
        )

    def _order(self, command: Command, boxes: Any) -> None:
        if self.fails:
            raise OSError(28, "No space left on device")
        self.ordered.append((command, [box.number for box in boxes]))
        for box in boxes:
            self.given[box.number] = Order.STOPPED if command is Command.STOP else Order.STARTED

    def told(self, command: Any, *names: str) -> dict[str, Any]:
        return obey(self.agent, {"command": command, "outboxes": list(names)}, 0)

    def error(self, command: Any, *names: str) -> str:
        answer = self.told(command, *names)
        assert set(answer) == {"error"}
        assert self.ordered == []
        return str(answer["error"])


@pytest.fixture
def boss() -> Boss:
    return Boss()


def box(name: str, was: str, order: str, reason: str | None = None) -> dict[str, Any]:
    return {"name": name, "was": was, "order": order, "reason": reason}


def test_a_command_is_for_all_or_for_those_that_are_called_so_by_name_or_path(boss: Boss) -> None:
    assert boss.told("stop", "two", "/p/in") == {
        "command": "stop",
        "held": None,
        "outboxes": [box("two", "started", "stopped")],
        "inboxes": [box("in", "started", "stopped")],
    }
    boss.told("start")
    assert boss.ordered == [(Command.STOP, [2, -1]), (Command.START, [1, 2, -1])]
    assert obey(boss.agent, {"command": "stop"}, 0)["outboxes"][1] == box("two", "started", "stopped")


def test_what_is_started_tells_why_it_is_held_back_all_the_same(boss: Boss) -> None:
    boss.suspended = {1: "outside its window", 2: "outside its window"}
    boss.given = {1: Order.STOPPED}
    assert boss.told("start", "one")["outboxes"] == [box("one", "stopped", "started", "outside its window")]
    assert boss.told("stop", "two")["outboxes"] == [box("two", "started", "stopped")]


def test_a_hold_is_told_while_there_is_one(boss: Boss) -> None:
    assert boss.told("flush")["held"] is None
    boss.server.state = ServerState.HELD
    assert boss.told("flush")["held"] == '"once there was one"'
    boss.server.last_error = None
    assert boss.told("flush")["held"] is None


@pytest.mark.parametrize("names", ["one", [1], {"one": 1}, ["one"] * (NAMES_MAX + 1)])
def test_names_are_a_list_of_texts_that_is_not_too_long(boss: Boss, names: Any) -> None:
    assert obey(boss.agent, {"command": "stop", "outboxes": names}, 0) == {
        "error": f"outboxes: a list of at most {NAMES_MAX} names"
    }
    assert "error" not in obey(boss.agent, {"command": "stop", "outboxes": ["one"] * NAMES_MAX}, 0)


@pytest.mark.parametrize("command", ["stopp", None, ["stop"], "STOP"])
def test_a_command_is_one_of_those_that_there_are(boss: Boss, command: Any) -> None:
    assert boss.error(command) == "no such command; one of start, stop, suspend, resume, flush"


def test_one_name_that_is_none_has_nothing_done_and_all_that_are_none_are_told(boss: Boss) -> None:
    known = "the outboxes are: one, two; the inboxes are: in"
    assert boss.error("stop", "one", "on e") == f'there is no outbox or inbox "on e"; {known}'
    assert boss.error("stop", "off", "/p/in off", "x") == (
        "outbox off is disabled in the configuration (enabled = false);"
        ' inbox "/p/in off" is disabled in the configuration (enabled = false);'
        f" there is no outbox or inbox x; {known}"
    )
    assert Boss(inboxes=False).error("stop", "x") == "there is no outbox x; the outboxes are: one, two"


def test_an_order_that_cannot_be_recorded_is_refused(boss: Boss, caplog: pytest.LogCaptureFixture) -> None:
    boss.fails = True
    assert boss.error("stop") == "nothing is changed: the order cannot be recorded: No space left on device"
    assert "command stop failed" in caplog.text
    assert "error" not in boss.told("flush")  # which is none


class Request:
    def __init__(self, command: str, *names: str) -> None:
        self.content, self.uid = {"command": command, "outboxes": list(names)}, 0
        self.answered: list[Any] = []
        self.answer = self.answered.append


@pytest.mark.parametrize(
    ("requests", "wake", "woken"),
    [
        ([], None, []),
        ([Request("stop")], None, []),
        ([Request("flush")], Wake.FLUSH, []),
        ([Request("flush"), Request("stop"), Request("flush", "one")], Wake.FLUSH, [(Wake.FLUSH, {1})]),
        ([Request("flush", "one", "in")], None, [(Wake.FLUSH, {1, -1})]),
        ([Request("flush", "none")], None, []),
    ],
)
def test_a_flush_of_all_is_the_loops_and_each_request_is_answered(
    boss: Boss, requests: list[Request], wake: Wake | None, woken: list[Any]
) -> None:
    control: Any = SimpleNamespace(requests=lambda: requests, drop_late=lambda: 3.0)
    taken = Commands(control)
    assert taken.obeyed(boss.agent) is wake
    assert boss.woken == woken
    assert all(len(request.answered) == 1 for request in requests)
    assert taken.drop_late() == 3.0


def test_the_socket_is_closed_at_the_end_and_where_there_is_none_the_agent_does_without(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    closed: list[int] = []

    def control(path: Path, *_: object) -> Any:
        if path.name == "none":
            raise PermissionError(13, "Permission denied")
        return SimpleNamespace(drop_late=None, close=lambda: closed.append(1))

    monkeypatch.setattr(obeying, "Control", control)
    parts: Any = (None, lambda *_: None, lambda: 0.0)
    with commands(Path("/run/none"), *parts) as taken:
        assert taken is None
    assert "no commands are taken path=/run/none" in caplog.text
    with commands(Path("/run/good"), *parts) as taken:
        assert isinstance(taken, Commands)
        assert closed == []
    assert closed == [1]
