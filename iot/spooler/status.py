"""How things stand, for people and programs: one small JSON file, replaced atomically, and the table made from it.

It lies in $RUNTIME_DIRECTORY (memory, not flash), else in the state directory, where it is written less often. While
nothing changes, nothing is written.
"""

from __future__ import annotations

import json
import os
from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from iot.spooler.agent import Agent
from iot.spooler.availability import TO_DO, ServerState
from iot.spooler.naming import shown
from iot.spooler.outbox.intake import Clocks, Intake
from iot.spooler.queue.policy import State
from iot.spooler.queue.queue import Total
from iot.transfer import human_bytes

__all__ = ["StatusFile", "read", "snapshot", "status_path", "table"]

FILE_NAME = "status.json"
RUNTIME_EVERY_S = 1.0
STATE_EVERY_S = 10.0
"""On flash each costs about 40 KiB with the file system's own."""
COST_SHARE = 50.0
RATE_S = 10.0
STALE_S = 2.0
BACKLOG = (State.READY, State.SENDING, State.WAITING)


def status_path(state_dir: Path, environment: Mapping[str, str]) -> Path:
    runtime = environment.get("RUNTIME_DIRECTORY", "").split(":")[0]
    return (Path(runtime) if runtime else state_dir) / FILE_NAME


def snapshot(agent: Agent, wall: float, now: float) -> dict[str, Any]:
    """All figures. wall, now: both clocks in seconds. Names are escaped: safe for terminals and JSON."""
    totals = agent.queue.totals()
    backlog = [total for total in totals if total.state in BACKLOG]
    oldest = min((total.oldest for total in backlog), default=None)
    return {
        "device_id": agent.settings.device_id,
        "pid": os.getpid(),
        "connection": _connection(agent, wall, now),
        "backlog": {
            "files": sum(total.files for total in backlog),
            "bytes": sum(total.bytes for total in backlog),
            "oldest_at": oldest,
        },
        "current": [
            {"path": shown(flight.entry.path), "bytes": flight.entry.fingerprint.size, "done_bytes": flight.done_bytes}
            for flight in list(agent.dispatcher.in_flight.values())[:16]
        ],
        "in_flight": len(agent.dispatcher.in_flight),
        "delivered": {"files": agent.totals.files, "bytes": agent.totals.bytes},
        "quarantined": agent.owed.quarantined,
        "last_error": _last_error(agent),
        "outboxes": [_outbox(agent, intake, totals) for intake in agent.intakes],
    }


def _connection(agent: Agent, wall: float, now: float) -> dict[str, Any]:
    link = agent.server
    waiting = link.ready_at > now
    return {
        "state": link.state.value,
        "server": agent.settings.server.address,
        "failures": link.failures,
        "next_attempt_at": round(wall + link.ready_at - now) if waiting else None,
        "error": shown(link.last_error) if link.last_error else None,
        "to_do": TO_DO if link.state is ServerState.HELD else None,
    }


def _last_error(agent: Agent) -> str | None:
    error = agent.local_error or agent.server.last_error or agent.owed.last_error or agent.outcomes.last_error
    return shown(error) if error else None


def _outbox(agent: Agent, intake: Intake, totals: list[Total]) -> dict[str, Any]:
    mine = {total.state: total for total in totals if total.outbox == intake.number}
    backlog = [mine[state] for state in BACKLOG if state in mine]
    return {
        "name": intake.settings.label,
        "path": shown(str(intake.settings.path)),
        "state": _state(agent, intake),
        "files": sum(total.files for total in backlog),
        "bytes": sum(total.bytes for total in backlog),
        "watched": len(intake.readiness),
        "open_for_writing": intake.readiness.open_files,
        "completeness": str(intake.outbox.completeness or "not known yet"),
        "waiting": mine[State.WAITING].files if State.WAITING in mine else 0,
        "kept": mine[State.KEPT].files if State.KEPT in mine else 0,
        "earlier_destination": sum(total.earlier for total in backlog),
        "held": len(agent.owed.held[intake.number]),
        "never_sent": dict(intake.outbox.refused.reasons),
        "shares_destination_with": _sharing(agent, intake.settings.label),
        "error": _outbox_error(agent, intake),
    }


def _sharing(agent: Agent, label: str) -> list[str]:
    """The outboxes whose files may replace this one's on the server."""
    return [
        shown(pair.other if pair.one == label else pair.one)
        for pair in agent.shared_destinations
        if label in (pair.one, pair.other)
    ]


def _outbox_error(agent: Agent, intake: Intake) -> str | None:
    """Why it cannot be read, or why files that are done with cannot leave it."""
    if intake.failed:
        return shown(intake.failed)
    reasons = set(agent.owed.held[intake.number].values())
    return "cannot take files out: " + "; ".join(sorted(map(shown, reasons))) if reasons else None


def _state(agent: Agent, intake: Intake) -> str:
    if intake.failed:
        return "source failed"
    if agent.local_error:
        return "failed"
    if agent.server.state is ServerState.HELD or intake.number in agent.outcomes.destination_failed:
        return "destination failed"
    return "started"


class StatusFile:
    """Writes the snapshot when something has changed, not too often."""

    def __init__(self, path: Path, clocks: Clocks, *, in_memory: bool) -> None:
        self._path = path
        self._clocks = clocks
        self._every_s = RUNTIME_EVERY_S if in_memory else STATE_EVERY_S
        self._next_at = float("-inf")
        self._due = False
        self._written: dict[str, Any] | None = None
        self._rates: deque[tuple[float, int]] = deque()
        self.latest: dict[str, Any] | None = None

    def report(self, agent: Agent, *, changed: bool, final: bool = False) -> bool:
        """Write the file if it is time; whether there is a new snapshot."""
        now = self._clocks.monotonic()
        self._due = self._due or changed or bool(self._rates)
        if not final and (not self._due or now < self._next_at):
            return False
        self._due = False
        self.write(agent)
        self._next_at = now + max(self._every_s, (self._clocks.monotonic() - now) * COST_SHARE)
        return True

    def write(self, agent: Agent) -> None:
        now, wall = self._clocks.monotonic(), self._clocks.wall()
        content = snapshot(agent, wall, now)
        content["rate_bytes_per_s"] = self._rate(now, agent.totals.bytes)
        self.latest = content
        if content != self._written:
            self._replace({**content, "updated_at": round(wall, 3)})
            self._written = content

    def _rate(self, now: float, sent_bytes: int) -> int:
        self._rates.append((now, sent_bytes))
        while now - self._rates[0][0] > RATE_S:
            self._rates.popleft()
        (start, before), (end, after) = self._rates[0], self._rates[-1]
        if after == before:
            self._rates.clear()
            return 0
        return int((after - before) / max(end - start, 0.001))

    def _replace(self, content: dict[str, Any]) -> None:
        fresh = self._path.with_name(self._path.name + ".new")
        try:
            fresh.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
            os.replace(fresh, self._path)
        except OSError:
            self._written = None  # a full disk or a missing folder must not stop deliveries; next time again


def read(path: Path) -> dict[str, Any] | None:
    """What the agent last wrote; None when there is nothing to read."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) else None


def table(content: Mapping[str, Any], *, running: bool, wall: float) -> str:
    """The same for people. wall: now, seconds."""
    connection, backlog = content["connection"], content["backlog"]
    age = "" if backlog["oldest_at"] is None else f", oldest {_span(wall - backlog['oldest_at'])}"
    lines = [
        f"agent       {'running, process ' + str(content['pid']) if running else 'not running'}"
        + _as_of(content, wall),
        f"connection  {connection['state']} {connection['server']}" + _next(connection, wall),
        *([f"to do       {connection['to_do']}"] if connection.get("to_do") else []),
        f"backlog     {backlog['files']} files, {human_bytes(backlog['bytes'])}{age}",
        f"rate        {human_bytes(content['rate_bytes_per_s'])}/s, {content['in_flight']} in flight",
        f"delivered   {content['delivered']['files']} files since start, {content['quarantined']} in quarantine",
        f"last error  {content['last_error'] or 'none'}",
    ]
    lines += [
        f"outbox      {outbox['name']}: {outbox['state']}, {outbox['files']} files, {human_bytes(outbox['bytes'])},"
        f" {outbox['watched']} not ready ({outbox['open_for_writing']} open for writing),"
        f" {outbox['waiting']} waiting, {outbox['kept']} kept, {outbox['held']} held,"
        f" completeness {outbox['completeness']}"
        + (f", {outbox['earlier_destination']} to an earlier destination" if outbox["earlier_destination"] else "")
        + _never_sent_words(outbox["never_sent"])
        + _sharing_words(outbox["shares_destination_with"])
        + _because(outbox["error"])
        for outbox in content["outboxes"]
    ]
    lines += [
        f"sending     {item['path']}: {human_bytes(item['done_bytes'])} of {human_bytes(item['bytes'])}"
        for item in content["current"]
    ]
    return "\n".join(lines)


def _as_of(content: Mapping[str, Any], wall: float) -> str:
    """How old the figures are; fresh ones need no words, and an idle agent writes none."""
    age_s = wall - content.get("updated_at", wall)
    return f"; these figures are {_span(age_s)} old" if age_s >= STALE_S else ""


def _next(connection: Mapping[str, Any], wall: float) -> str:
    at = connection["next_attempt_at"]
    return "" if at is None else f", next attempt in {_span(at - wall)}"


def _never_sent_words(reasons: Mapping[str, int]) -> str:
    words = ", ".join(f"{reason}: {number}" for reason, number in reasons.items())
    return f", {sum(reasons.values())} never sent ({words})" if reasons else ""


def _sharing_words(names: Sequence[str]) -> str:
    return f", same destination as {', '.join(names)}: files of the same name overwrite each other" if names else ""


def _because(error: str | None) -> str:
    return f" ({error})" if error else ""


def _span(seconds: float) -> str:
    seconds = max(int(seconds), 0)
    days, hours, minutes = seconds // 86400, seconds // 3600 % 24, seconds // 60 % 60
    if days:
        return f"{days} d {hours} h"
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {seconds % 60} s" if minutes else f"{seconds} s"
