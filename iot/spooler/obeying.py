"""What the agent does with a command that has come over its socket, and what it answers."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from iot.spooler.agent import Agent, Wake
from iot.spooler.control import Control, Watch
from iot.spooler.naming import shown
from iot.spooler.orders import Command, Order
from iot.spooler.outbox.intake import Intake
from iot.spooler.states import ServerState

__all__ = ["Commands", "Refused", "asked", "commands", "obey"]

log = logging.getLogger(__name__)

NAMES_MAX = 1000


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
    _, intakes = asked(agent, content)
    if not content.get("outboxes"):
        return Wake.FLUSH
    agent.wake(Wake.FLUSH, {intake.number for intake in intakes})
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
    """Do what is asked, for all named outboxes or for none -> the answer. uid: who asks."""
    try:
        command, intakes = asked(agent, content)
        before = {intake.number: agent.orders.order(intake.number) for intake in intakes}
        held = agent.server.last_error if agent.server.state is ServerState.HELD else None
        _do(agent, command, intakes)
    except Refused as refused:
        return {"error": str(refused)}
    names = ",".join(intake.settings.label for intake in intakes)
    log.info("command %s outboxes=%s uid=%d", command.value, shown(names), uid)
    return {
        "command": command.value,
        "held": shown(held) if held else None,
        "outboxes": [_answer(agent, intake, before[intake.number]) for intake in intakes],
    }


def asked(agent: Agent, content: Mapping[str, Any]) -> tuple[Command, list[Intake]]:
    """The command and its outboxes. Raises: Refused."""
    words = [command.value for command in Command]
    if content.get("command") not in words:
        raise Refused(f"no such command; one of {', '.join(words)}")
    names = content.get("outboxes", [])
    if not isinstance(names, list) or len(names) > NAMES_MAX or not all(isinstance(name, str) for name in names):
        raise Refused(f"outboxes: a list of at most {NAMES_MAX} names")
    return Command(content["command"]), _named(agent, names)


def _named(agent: Agent, names: Sequence[str]) -> list[Intake]:
    """By their name or path; all without one."""
    if not names:
        return list(agent.intakes)
    disabled = [outbox for outbox in agent.settings.outbox if not outbox.enabled]
    problems = []
    for name in names:
        if any(name in (outbox.label, str(outbox.path)) for outbox in disabled):
            problems.append(f"outbox {shown(name)} is disabled in the configuration (enabled = false)")
        elif not any(_is_called(intake, name) for intake in agent.intakes):
            problems.append(f"there is no outbox {shown(name)}")
    if problems:
        known = ", ".join(shown(intake.settings.label) for intake in agent.intakes)
        raise Refused("; ".join(problems) + f"; the outboxes are: {known}")
    return [intake for intake in agent.intakes if any(_is_called(intake, name) for name in names)]


def _is_called(intake: Intake, name: str) -> bool:
    return name in (intake.settings.label, str(intake.settings.path))


def _do(agent: Agent, command: Command, intakes: Sequence[Intake]) -> None:
    if command is Command.FLUSH:
        return  # by the loop, as one that came by a signal
    try:
        agent.order(command, intakes)
    except OSError as error:
        reason = f"nothing is changed: the order cannot be recorded: {error.strerror}"
        log.warning("command %s failed reason=%s", command.value, shown(reason))
        raise Refused(reason) from None


def _answer(agent: Agent, intake: Intake, before: Order) -> dict[str, Any]:
    """reason: why it is not sent now, whatever the command."""
    order = agent.orders.order(intake.number)
    return {
        "name": shown(intake.settings.label),
        "was": before.value,
        "order": order.value,
        "reason": None if order is not Order.STARTED else agent.gates.suspended(intake.number) or None,
    }
