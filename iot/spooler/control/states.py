"""The states of an outbox, an inbox and the connection, and what leads from one to the next.

An outbox, or an inbox:

    STARTED <--> STOPPED              by command: neither scanned nor sent; neither looked at nor fetched
            <--> SOURCE_FAILED        it, or a folder in it, cannot be read, which is tried again for ever; for an
                                      inbox that is the folder on the server, or the server is held
            <--> FAILED               this device is in the way: the journal cannot be written
            <--> DESTINATION_FAILED   the server is held, or refuses what this outbox sends; the local folder of an
                                      inbox cannot be written
            <--> SUSPENDED            found, but not sent, or not fetched: its schedule, a rule, or a command

Several of these may be true at once; the uppermost is the state, so that one may take the place of another. When its
reason is over, the outbox is STARTED, or what else is true then.

The connection:

    DISCONNECTED --TRIED--> CONNECTING --ANSWERED--> CONNECTED
          ^                      |                       |
          |-------LOST-----------+-------LOST------------|
          `---RELEASED-- HELD <--+-------REFUSED---------'

A hold ends by itself (TRIED) or because somebody asks for a try (RELEASED). REMEMBERED: an earlier process was held.
A remote that dials on its own may be lost, refused or answered without TRIED, too. A server that answers and asks to be
left alone is LOST before what was asked of it has ENDED.
"""

from __future__ import annotations

import enum
import logging
from dataclasses import dataclass
from typing import NamedTuple

from iot.spooler.naming import shown

__all__ = [
    "CONNECTION",
    "TRANSITIONS",
    "Causes",
    "ConnectionEvent",
    "OutboxEvent",
    "OutboxState",
    "OutboxStates",
    "ServerState",
    "Standing",
    "connection_after",
    "events",
    "outbox_after",
]

log = logging.getLogger(__name__)


class OutboxState(str, enum.Enum):
    """The words are those of `status`."""

    STOPPED = "stopped"
    SOURCE_FAILED = "source failed"
    FAILED = "failed"
    DESTINATION_FAILED = "destination failed"
    SUSPENDED = "suspended"
    STARTED = "started"


class OutboxEvent(enum.Enum):
    """What can happen to an outbox; the second of each pair ends the first."""

    STOP = enum.auto()
    START = enum.auto()
    SOURCE_LOST = enum.auto()
    SOURCE_BACK = enum.auto()
    HINDERED = enum.auto()
    UNHINDERED = enum.auto()
    REFUSED = enum.auto()
    ACCEPTED = enum.auto()
    SUSPEND = enum.auto()
    RESUME = enum.auto()


_S, _E = OutboxState, OutboxEvent
TRANSITIONS: dict[tuple[OutboxState, OutboxEvent], OutboxState] = {
    (_S.STARTED, _E.STOP): _S.STOPPED,
    (_S.SUSPENDED, _E.STOP): _S.STOPPED,
    (_S.DESTINATION_FAILED, _E.STOP): _S.STOPPED,
    (_S.FAILED, _E.STOP): _S.STOPPED,
    (_S.SOURCE_FAILED, _E.STOP): _S.STOPPED,
    (_S.STOPPED, _E.START): _S.STARTED,
    (_S.STARTED, _E.SOURCE_LOST): _S.SOURCE_FAILED,
    (_S.SUSPENDED, _E.SOURCE_LOST): _S.SOURCE_FAILED,
    (_S.DESTINATION_FAILED, _E.SOURCE_LOST): _S.SOURCE_FAILED,
    (_S.FAILED, _E.SOURCE_LOST): _S.SOURCE_FAILED,
    (_S.SOURCE_FAILED, _E.SOURCE_BACK): _S.STARTED,
    (_S.STARTED, _E.HINDERED): _S.FAILED,
    (_S.SUSPENDED, _E.HINDERED): _S.FAILED,
    (_S.DESTINATION_FAILED, _E.HINDERED): _S.FAILED,
    (_S.FAILED, _E.UNHINDERED): _S.STARTED,
    (_S.STARTED, _E.REFUSED): _S.DESTINATION_FAILED,
    (_S.SUSPENDED, _E.REFUSED): _S.DESTINATION_FAILED,
    (_S.DESTINATION_FAILED, _E.ACCEPTED): _S.STARTED,
    (_S.STARTED, _E.SUSPEND): _S.SUSPENDED,
    (_S.SUSPENDED, _E.RESUME): _S.STARTED,
}


class ServerState(str, enum.Enum):
    """State of the connection. HELD: login or host key refused; the server is left alone for a long time."""

    DISCONNECTED = "disconnected"
    CONNECTING = "connecting"
    CONNECTED = "connected"
    HELD = "held"


class ConnectionEvent(enum.Enum):
    """What can happen to the connection. ENDED: nothing was left to do before the server had answered."""

    TRIED = enum.auto()
    ANSWERED = enum.auto()
    ENDED = enum.auto()
    LOST = enum.auto()
    REFUSED = enum.auto()
    RELEASED = enum.auto()
    REMEMBERED = enum.auto()


_C, _D = ServerState, ConnectionEvent
CONNECTION: dict[tuple[ServerState, ConnectionEvent], ServerState] = {
    (_C.DISCONNECTED, _D.TRIED): _C.CONNECTING,
    (_C.DISCONNECTED, _D.ANSWERED): _C.CONNECTED,
    (_C.DISCONNECTED, _D.ENDED): _C.DISCONNECTED,
    (_C.DISCONNECTED, _D.LOST): _C.DISCONNECTED,
    (_C.DISCONNECTED, _D.REFUSED): _C.HELD,
    (_C.DISCONNECTED, _D.REMEMBERED): _C.HELD,
    (_C.CONNECTING, _D.ANSWERED): _C.CONNECTED,
    (_C.CONNECTING, _D.ENDED): _C.DISCONNECTED,
    (_C.CONNECTING, _D.LOST): _C.DISCONNECTED,
    (_C.CONNECTING, _D.REFUSED): _C.HELD,
    (_C.CONNECTED, _D.TRIED): _C.CONNECTED,
    (_C.CONNECTED, _D.ANSWERED): _C.CONNECTED,
    (_C.CONNECTED, _D.ENDED): _C.CONNECTED,
    (_C.CONNECTED, _D.LOST): _C.DISCONNECTED,
    (_C.CONNECTED, _D.REFUSED): _C.HELD,
    (_C.HELD, _D.TRIED): _C.CONNECTING,
    (_C.HELD, _D.ANSWERED): _C.CONNECTED,
    (_C.HELD, _D.LOST): _C.DISCONNECTED,
    (_C.HELD, _D.REFUSED): _C.HELD,
    (_C.HELD, _D.RELEASED): _C.DISCONNECTED,
}


def outbox_after(state: OutboxState, event: OutboxEvent) -> OutboxState:
    """The next state, of an inbox as well. Raises: ValueError for an impossible pair."""
    try:
        return TRANSITIONS[state, event]
    except KeyError:
        raise ValueError(f"an outbox that is {state.value} cannot be told {event.name}") from None


def connection_after(state: ServerState, event: ConnectionEvent) -> ServerState:
    """The next state. Raises: ValueError for an impossible pair."""
    try:
        return CONNECTION[state, event]
    except KeyError:
        raise ValueError(f"a connection that is {state.value} cannot be told {event.name}") from None


class Causes(NamedTuple):
    """Why an outbox is not simply started, uppermost first; "" where that is not so."""

    stopped: str = ""
    source_failed: str = ""
    failed: str = ""
    destination_failed: str = ""
    suspended: str = ""


ORDER = (_S.STOPPED, _S.SOURCE_FAILED, _S.FAILED, _S.DESTINATION_FAILED, _S.SUSPENDED)
"""Of Causes."""
BEGINS = dict(zip(ORDER, (_E.STOP, _E.SOURCE_LOST, _E.HINDERED, _E.REFUSED, _E.SUSPEND), strict=True))
ENDS = dict(zip(ORDER, (_E.START, _E.SOURCE_BACK, _E.UNHINDERED, _E.ACCEPTED, _E.RESUME), strict=True))


def events(state: OutboxState, causes: Causes) -> list[OutboxEvent]:
    """What has happened to an outbox in this state, now that these causes hold."""
    wanted = next((state for state, cause in zip(ORDER, causes, strict=True) if cause), OutboxState.STARTED)
    if wanted is state:
        return []
    happened = []
    if state is not OutboxState.STARTED and not causes[ORDER.index(state)]:
        happened.append(ENDS[state])
    if wanted is not OutboxState.STARTED:
        happened.append(BEGINS[wanted])
    return happened


@dataclass(slots=True)
class Standing:
    """The state of an outbox, why, and since when (wall clock, seconds)."""

    state: OutboxState
    reason: str
    since: float


LEVELS = {
    OutboxState.SOURCE_FAILED: logging.WARNING,
    OutboxState.FAILED: logging.WARNING,
    OutboxState.DESTINATION_FAILED: logging.WARNING,
}
TOLD_AGAIN = (OutboxState.STOPPED, OutboxState.SOURCE_FAILED, OutboxState.SUSPENDED)
"""Another reason of the same state is news. The others' reasons are the errors of single files, which are logged."""


class OutboxStates:
    """The states of all outboxes, or of all inboxes, by label. Each transition is logged once.

    kind: the word for one of them.
    """

    def __init__(self, kind: str = "outbox") -> None:
        self._kind = kind
        self._standings: dict[str, Standing] = {}

    def of(self, label: str) -> Standing:
        return self._standings.get(label) or Standing(OutboxState.STARTED, "", 0.0)

    def look(self, label: str, causes: Causes, wall: float) -> bool:
        """Follow what holds now -> whether the state, or its reason, is another one. wall: seconds."""
        standing = self._standings.setdefault(label, Standing(OutboxState.STARTED, "", wall))
        before, state = standing.state, standing.state
        for event in events(state, causes):
            state = outbox_after(state, event)
        reason = "" if state is OutboxState.STARTED else causes[ORDER.index(state)]
        if (state, reason) == (before, standing.reason):
            return False
        if state is not before:
            standing.since = wall
        standing.state, standing.reason = state, reason
        if state is not before or state in TOLD_AGAIN:
            self._tell(shown(label), standing, before)
        return True

    def _tell(self, label: str, standing: Standing, before: OutboxState) -> None:
        state, level = standing.state, LEVELS.get(standing.state, logging.INFO)
        if state is OutboxState.STARTED:
            log.log(level, "%s started %s=%s was=%s", self._kind, self._kind, label, shown(before.value))
        else:
            reason = shown(standing.reason)
            log.log(level, "%s %s %s=%s reason=%s", self._kind, state.value, self._kind, label, reason)
