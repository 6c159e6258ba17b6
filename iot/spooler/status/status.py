"""How things stand, for people and programs: one small JSON file, replaced atomically. See screen for its table.

It lies in memory wherever there is a folder for that (see state.running), else in the state directory, where it is
written less often. While nothing changes, nothing is written. The last one of a process goes to the state directory.
"""

from __future__ import annotations

import json
import os
from collections import deque
from pathlib import Path
from typing import TYPE_CHECKING, Any

from iot.spooler.agent.agent import Agent
from iot.spooler.agent.dispatch import InFlight
from iot.spooler.config.outboxes import OutboxSettings
from iot.spooler.control.states import OutboxState, Standing
from iot.spooler.naming import shown
from iot.spooler.outbox.intake import Clocks, Intake
from iot.spooler.queue.policy import State
from iot.spooler.queue.queue import Total
from iot.spooler.server.availability import TO_DO, ServerState

if TYPE_CHECKING:
    from iot.spooler.inbox.inbox import Inbox

__all__ = ["StatusFile", "snapshot", "summary"]

MEMORY_EVERY_S = 0.9
"""With what it costs and the loop's own turn, it is at most a second old while something moves."""
STATE_EVERY_S = 10.0
"""On flash each costs about 40 KiB with the file system's own."""
COST_SHARE = 50.0
RATE_S = 10.0
CURRENT_MAX = 16
ALL = 0
"""Instead of an entry's number: the sum of all."""
BACKLOG = (State.READY, State.SENDING, State.WAITING)


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
        "current": [_current(flight) for flight in _largest_first(agent)[:CURRENT_MAX]],
        "in_flight": len(agent.dispatcher.in_flight),
        "quota": agent.quota.figures(wall),
        "rate_limit_bytes_per_s": agent.pacer.rate,
        "delivered": {"files": agent.totals.files, "bytes": agent.totals.bytes},
        "quarantined": agent.owed.quarantined,
        "last_error": _last_error(agent),
        "outboxes": [_outbox(agent, intake, totals) for intake in agent.intakes]
        + [_disabled(outbox) for outbox in agent.settings.outbox if not outbox.enabled],
        "inboxes": [_inbox(agent, inbox) for inbox in agent.pull.inboxes],
    }


def _largest_first(agent: Agent) -> list[InFlight]:
    """Small files are through before anybody has read of them."""
    return sorted(agent.dispatcher.in_flight.values(), key=lambda flight: -flight.entry.fingerprint.size)


def _current(flight: InFlight) -> dict[str, Any]:
    size = flight.total_bytes
    return {
        "id": flight.entry.id,
        "path": shown(flight.entry.path),
        "bytes": size,
        "done_bytes": flight.done_bytes,
        "sent_bytes": flight.sent_bytes,
        "percent": flight.done_bytes * 100 // size if size else 0,
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
        "other_server": agent.other_server(wall),
    }


def _last_error(agent: Agent) -> str | None:
    error = agent.local.error or agent.server.last_error or agent.owed.last_error or agent.outcomes.last_error
    return shown(error) if error else None


def _outbox(agent: Agent, intake: Intake, totals: list[Total]) -> dict[str, Any]:
    mine = {total.state: total for total in totals if total.outbox == intake.number}
    backlog = [mine[state] for state in BACKLOG if state in mine]
    return {
        "name": intake.settings.label,
        "path": shown(str(intake.settings.path)),
        **_standing(agent.states.of(intake.settings.label)),
        "source_failures": intake.failures,
        "files": sum(total.files for total in backlog),
        "bytes": sum(total.bytes for total in backlog),
        "watched": len(intake.readiness),
        "open_for_writing": intake.readiness.open_files,
        "without_marker": intake.without_marker,
        "completeness": str(intake.outbox.completeness or "not known yet"),
        "scanned_often_because": intake.outbox.watches.reason or None,
        "events_lost": intake.outbox.watches.overflows,
        "waiting": mine[State.WAITING].files if State.WAITING in mine else 0,
        "kept": mine[State.KEPT].files if State.KEPT in mine else 0,
        "earlier_destination": sum(total.earlier for total in backlog),
        "held": len(agent.owed.held[intake.number]),
        "hooks": agent.hooks.figures(intake.number),
        "never_sent": dict(intake.outbox.refused.reasons),
        "shares_destination_with": _sharing(agent, intake.settings.label),
        "waits_because": agent.gates.reason(intake.number),
        **agent.budget.figures(intake.number),
        "error": _outbox_error(agent, intake),
    }


def _standing(standing: Standing) -> dict[str, Any]:
    return {
        "state": standing.state.value,
        "state_reason": shown(standing.reason) if standing.reason else None,
        "state_since": round(standing.since),
    }


def _inbox(agent: Agent, inbox: Inbox) -> dict[str, Any]:
    held, waits_because = inbox.held, agent.gates.reason(inbox.number)
    return {
        "name": inbox.label,
        "path": shown(str(inbox.settings.path)),
        "source": shown(inbox.source),
        **_standing(agent.inbox_states.of(inbox.label)),
        "last_look_at": None if inbox.last_look_at is None else round(inbox.last_look_at),
        "taken": inbox.published_files,
        "pending": inbox.pending_files,
        "current": inbox.figures_in_flight()[:CURRENT_MAX],
        "waiting": len(inbox.waiting),
        "not_taken": len(held),
        "reasons": {shown(path): shown(held[path]) for path in sorted(held)[:CURRENT_MAX]},
        "waits_because": waits_because,
        "error": shown(inbox.error) if inbox.error else None,
    }


def _disabled(outbox: OutboxSettings) -> dict[str, Any]:
    """With the keys of the others."""
    return {
        "name": outbox.label,
        "path": shown(str(outbox.path)),
        "state": "disabled",
        "state_reason": None,
        "state_since": None,
        "source_failures": 0,
        **dict.fromkeys(("files", "bytes", "watched", "open_for_writing", "without_marker"), 0),
        **dict.fromkeys(("waiting", "kept", "earlier_destination"), 0),
        "completeness": "not known yet",
        "scanned_often_because": None,
        "events_lost": 0,
        "held": 0,
        "hooks": 0,
        "never_sent": {},
        "dropped": 0,
        "dropped_bytes": 0,
        "over_budget": None,
        "shares_destination_with": [],
        "waits_because": None,
        "error": None,
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


def summary(content: dict[str, Any] | None) -> str:
    """A line for systemd: the connection, the backlog, and each outbox or inbox that is not simply started."""
    if content is None:
        return "starting"
    backlog = content["backlog"]
    words = [f"{content['connection']['state']}, {backlog['files']} files to send, {backlog['bytes']} bytes"]
    boxes = [*content["outboxes"], *content["inboxes"]]
    for state in OutboxState:
        names = [shown(box["name"]) for box in boxes if box["state"] == state.value]
        if names and state is not OutboxState.STARTED:
            words.append(f"{state.value}: {', '.join(names)}")
    return ", ".join(words)


class StatusFile:
    """Writes the snapshot when something has changed, not too often; rates are of what the server has confirmed."""

    def __init__(self, path: Path, clocks: Clocks, *, in_memory: bool) -> None:
        self._path = path
        self._clocks = clocks
        self._in_memory = in_memory
        self._every_s = MEMORY_EVERY_S if in_memory else STATE_EVERY_S
        self._next_at = float("-inf")
        self._due = False
        self._written: dict[str, Any] | None = None
        self._rates: dict[int, Rate] = {}
        self.latest: dict[str, Any] | None = None

    def report(self, agent: Agent, *, changed: bool, final: bool = False) -> bool:
        """Write the file if it is time; whether there is a new snapshot."""
        now = self._clocks.monotonic()
        self._due = self._due or changed or any(rate.moves for rate in self._rates.values())
        if not final and (not self._due or now < self._next_at):
            return False
        self._due = False
        self.write(agent)
        self._next_at = now + max(self._every_s, (self._clocks.monotonic() - now) * COST_SHARE)
        return True

    def due_s(self) -> float:
        """Seconds until what has changed may be written."""
        return max(self._next_at - self._clocks.monotonic(), 0.0) if self._due else float("inf")

    def write(self, agent: Agent) -> None:
        now, wall = self._clocks.monotonic(), self._clocks.wall()
        content = snapshot(agent, wall, now)
        self._add_rates(content, now, agent.totals.bytes)
        self.latest = content
        news = content if self._in_memory else _without_looks(content)
        if news != self._written and _replaced(self._path, {**content, "updated_at": round(wall, 3)}):
            self._written = news

    def keep(self, path: Path) -> None:
        """The last word of this process, where it survives the process: once, for it costs flash."""
        if self.latest is not None:
            _replaced(path, {**self.latest, "updated_at": round(self._clocks.wall(), 3), "ended": True})

    def _add_rates(self, content: dict[str, Any], now: float, confirmed_bytes: int) -> None:
        rate = self._rate(ALL, now, confirmed_bytes)
        if not content["backlog"]["files"]:
            rate = 0  # not slowly less and less, each time a write: nothing is sent any more
        content["rate_bytes_per_s"] = rate
        sends = rate and content["in_flight"]  # else it waits, for a window or a batch, and that says nothing of it
        content["backlog"]["left_s"] = content["backlog"]["bytes"] // rate if sends else None
        for file in content["current"]:
            rate = file["rate_bytes_per_s"] = self._rate(file["id"], now, file.pop("sent_bytes"))
            file["left_s"] = (file["bytes"] - file["done_bytes"]) // rate if rate else None
        for gone in self._rates.keys() - {ALL, *(file.pop("id") for file in content["current"])}:
            del self._rates[gone]

    def _rate(self, key: int, now: float, done_bytes: int) -> int:
        return self._rates.setdefault(key, Rate()).add(now, done_bytes)


def _without_looks(content: dict[str, Any]) -> dict[str, Any]:
    """A look that has found nothing new is not worth a write to flash."""
    return {**content, "inboxes": [{**inbox, "last_look_at": None} for inbox in content["inboxes"]]}


class Rate:
    """Bytes a second within the last RATE_S."""

    def __init__(self) -> None:
        self._samples: deque[tuple[float, int]] = deque()

    def add(self, now: float, done_bytes: int) -> int:
        if self._samples and done_bytes < self._samples[-1][1]:
            self._samples.clear()  # it began anew
        self._samples.append((now, done_bytes))
        while now - self._samples[0][0] > RATE_S:
            self._samples.popleft()
        (start, before), (end, after) = self._samples[0], self._samples[-1]
        return int((after - before) / max(end - start, 0.001))

    @property
    def moves(self) -> bool:
        return self._samples[0][1] != self._samples[-1][1]


def _replaced(path: Path, content: dict[str, Any]) -> bool:
    fresh = path.with_name(path.name + ".new")
    try:
        fresh.unlink(missing_ok=True)
        with open(fresh, "x", encoding="utf-8") as file:  # a link that somebody has put there is not followed
            file.write(json.dumps(content, indent=1) + "\n")
            os.fchmod(file.fileno(), 0o644)  # a folder that is nobody's business has its own rights
        os.replace(fresh, path)
    except OSError:
        return False  # a full disk or a missing folder must not stop deliveries; next time again
    return True
