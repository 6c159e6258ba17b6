"""What the agent does with a command that has come over its socket, and what it answers."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from iot.spooler.agent.agent import Agent, Wake
from iot.spooler.config.inboxes import InboxSettings
from iot.spooler.config.outboxes import OutboxSettings
from iot.spooler.control.control import Control, Watch
from iot.spooler.control.states import ServerState
from iot.spooler.gates.orders import Command, Order
from iot.spooler.naming import shown
from iot.spooler.outbox.intake import Intake

if TYPE_CHECKING:
    from iot.spooler.inbox.inbox import Inbox

__all__ = ["Commands", "Refused", "asked", "commands", "obey"]

log = logging.getLogger(__name__)

NAMES_MAX = 1000
Box: TypeAlias = "Intake | Inbox"


class Refused(Exception):
    """Nothing is done; the words say why."""


class Commands:
    """The socket, and the agent that obeys."""

    def __init__(self, control: Control) -> None:
        self._control = control
        self.drop_late = control.drop_late

    def obeyed(self, agent: Agent) -> Wake | None:
        """Do what has been asked since the last call, and answer -> what the loop has to do for all outboxes."""
        wake = None
        for request in self._control.requests():
            answer = obey(agent, request.content, request.uid)
            request.answer(answer)
            if answer.get("command") == Command.FLUSH.value:
                wake = _flush(agent, request.content) or wake
        return wake


def _flush(agent: Agent, content: Mapping[str, Any]) -> Wake | None:
    """All at once is the loop's work, which reads a mended configuration first."""
    _, boxes = asked(agent, content)
    if not content.get("outboxes"):
        return Wake.FLUSH
    agent.wake(Wake.FLUSH, {box.number for box in boxes})
    return None


@contextlib.contextmanager
def commands(path: Path, group: str | None, watch: Watch, clock: Callable[[], float]) -> Iterator[Commands | None]:
    """Take commands for the length of a with-block; None where there is no place for a socket."""
    try:
        control = Control(path, group, watch, clock)
    except OSError as error:
        log.warning("no commands are taken path=%s error=%s", shown(str(path)), shown(str(error)))
        yield None
        return
    try:
        yield Commands(control)
    finally:
        control.close()


def obey(agent: Agent, content: Mapping[str, Any], uid: int) -> dict[str, Any]:
    """Do what is asked, for all named outboxes and inboxes or for none -> the answer. uid: who asks."""
    try:
        command, boxes = asked(agent, content)
        before = {box.number: agent.orders.order(box.number) for box in boxes}
        held = agent.server.last_error if agent.server.state is ServerState.HELD else None
        _do(agent, command, boxes)
    except Refused as refused:
        return {"error": str(refused)}
    outboxes = [box for box in boxes if isinstance(box, Intake)]
    inboxes = [box for box in boxes if not isinstance(box, Intake)]
    log.info("command %s outboxes=%s inboxes=%s uid=%d", command.value, _labels(outboxes), _labels(inboxes), uid)
    return {
        "command": command.value,
        "held": shown(held) if held else None,
        "outboxes": [_answer(agent, box, before[box.number]) for box in outboxes],
        "inboxes": [_answer(agent, box, before[box.number]) for box in inboxes],
    }


def _labels(boxes: Sequence[Box]) -> str:
    return shown(",".join(box.settings.label for box in boxes))


def asked(agent: Agent, content: Mapping[str, Any]) -> tuple[Command, list[Box]]:
    """The command, and its outboxes and inboxes. Raises: Refused."""
    words = [command.value for command in Command]
    if content.get("command") not in words:
        raise Refused(f"no such command; one of {', '.join(words)}")
    names = content.get("outboxes", [])
    if not isinstance(names, list) or len(names) > NAMES_MAX or not all(isinstance(name, str) for name in names):
        raise Refused(f"outboxes: a list of at most {NAMES_MAX} names")
    return Command(content["command"]), _named(agent, names)


def _named(agent: Agent, names: Sequence[str]) -> list[Box]:
    """By their name or path; all without one. An outbox and an inbox may have the same."""
    boxes: list[Box] = [*agent.intakes, *agent.pull.inboxes]
    if not names:
        return boxes
    problems = [_problem(agent, name) for name in names if not any(_is_called(each.settings, name) for each in boxes)]
    if problems:
        raise Refused("; ".join(problems) + f"; {_known(agent)}")
    return [box for box in boxes if any(_is_called(box.settings, name) for name in names)]


def _problem(agent: Agent, name: str) -> str:
    """Why nothing that is called so takes a command."""
    for kind, all_settings in (("outbox", agent.settings.outbox), ("inbox", agent.settings.inbox)):
        if any(_is_called(settings, name) for settings in all_settings):
            return f"{kind} {shown(name)} is disabled in the configuration (enabled = false)"
    return f"there is no outbox or inbox {shown(name)}" if agent.pull.inboxes else f"there is no outbox {shown(name)}"


def _known(agent: Agent) -> str:
    words = f"the outboxes are: {', '.join(shown(intake.settings.label) for intake in agent.intakes)}"
    inboxes = ", ".join(shown(inbox.label) for inbox in agent.pull.inboxes)
    return words + (f"; the inboxes are: {inboxes}" if inboxes else "")


def _is_called(settings: OutboxSettings | InboxSettings, name: str) -> bool:
    return name in (settings.label, str(settings.path))


def _do(agent: Agent, command: Command, boxes: Sequence[Box]) -> None:
    if command is Command.FLUSH:
        return  # by the loop, as one that came by a signal
    try:
        agent.order(command, boxes)
    except OSError as error:
        reason = f"nothing is changed: the order cannot be recorded: {error.strerror}"
        log.warning("command %s failed reason=%s", command.value, shown(reason))
        raise Refused(reason) from None


def _answer(agent: Agent, box: Box, before: Order) -> dict[str, Any]:
    """reason: why it is not sent, or fetched, now, whatever the command."""
    order = agent.orders.order(box.number)
    return {
        "name": shown(box.settings.label),
        "was": before.value,
        "order": order.value,
        "reason": None if order is not Order.STARTED else agent.gates.suspended(box.number) or None,
    }
