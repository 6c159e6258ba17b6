"""What to send next, when to try again, when to give up: decisions only, no input or output.

An entry's life, one arrow a row of TRANSITIONS:

    READY --BEGUN--> SENDING --SENT--> DELIVERED --SETTLED--> GONE     (removed or archived)
      ^                 |  `----SENT_TO_KEEP--> KEPT                   (remembered: the file stays)
      |                 |-----INTERRUPTED--> READY                     (link lost, stopped: go on where it was)
      `---DUE-- WAITING <-----FAILED-------'
                        `-----GIVEN_UP--> QUARANTINED --SETTLED--> GONE

RENEWED: the file has a new version, which starts from READY. CHANGED, VANISHED: the entry is dropped; the folder
is the truth for what is there.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import NamedTuple

__all__ = [
    "TRANSITIONS",
    "Backoff",
    "Event",
    "Kind",
    "State",
    "Verdict",
    "after",
    "job_priority",
    "judge",
    "prefers_large",
]

LOSSES_IN_PLACE = 2
"""An entry that was in flight at so many losses in a row without progress lets the others go first."""


class State(enum.IntEnum):
    """Where an entry stands; the number is what the journal keeps."""

    READY = 0
    SENDING = 1
    WAITING = 2
    DELIVERED = 3
    KEPT = 4
    QUARANTINED = 5
    GONE = -1


class Event(enum.Enum):
    """What can happen to an entry."""

    BEGUN = enum.auto()
    SENT = enum.auto()
    SENT_TO_KEEP = enum.auto()
    INTERRUPTED = enum.auto()
    FAILED = enum.auto()
    GIVEN_UP = enum.auto()
    CHANGED = enum.auto()
    VANISHED = enum.auto()
    RENEWED = enum.auto()
    DUE = enum.auto()
    SETTLED = enum.auto()


TRANSITIONS: dict[tuple[State, Event], State] = {
    (State.READY, Event.BEGUN): State.SENDING,
    (State.READY, Event.RENEWED): State.READY,
    (State.READY, Event.VANISHED): State.GONE,
    (State.SENDING, Event.SENT): State.DELIVERED,
    (State.SENDING, Event.SENT_TO_KEEP): State.KEPT,
    (State.SENDING, Event.INTERRUPTED): State.READY,
    (State.SENDING, Event.FAILED): State.WAITING,
    (State.SENDING, Event.GIVEN_UP): State.QUARANTINED,
    (State.SENDING, Event.CHANGED): State.GONE,
    (State.SENDING, Event.VANISHED): State.GONE,
    (State.WAITING, Event.DUE): State.READY,
    (State.WAITING, Event.RENEWED): State.READY,
    (State.WAITING, Event.VANISHED): State.GONE,
    (State.DELIVERED, Event.SETTLED): State.GONE,
    (State.DELIVERED, Event.RENEWED): State.READY,
    (State.KEPT, Event.RENEWED): State.READY,
    (State.KEPT, Event.VANISHED): State.GONE,
    (State.QUARANTINED, Event.SETTLED): State.GONE,
    (State.QUARANTINED, Event.RENEWED): State.READY,
}


def after(state: State, event: Event) -> State:
    """The state that follows. Raises: ValueError for a pair that cannot happen."""
    try:
        return TRANSITIONS[state, event]
    except KeyError:
        raise ValueError(f"{event.name} cannot happen to an entry that is {state.name}") from None


class Kind(enum.Enum):
    """What a failed job says about the entry."""

    LINK = enum.auto()
    """the connection went; not the entry's doing"""
    TRANSIENT = enum.auto()
    """this entry, for now"""
    PERMANENT = enum.auto()
    """this entry; trying again changes nothing by itself"""
    CHANGED = enum.auto()
    """the file is another version by now"""
    STOPPED = enum.auto()
    """cancelled, held or hindered by this device; says nothing about the entry"""


class Verdict(NamedTuple):
    """What follows for the entry: the event, its new counts, and the wait in seconds (FAILED only).

    failures: failed tries in a row without progress. strikes: permanent errors; they alone lead to quarantine.
    """

    event: Event
    failures: int
    strikes: int
    delay_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Backoff:
    """Doubling waits with a cap; the jitter comes after the cap, so that a fleet never falls into step.

    base_s, cap_s: first and longest wait in seconds; jitter: share of the wait added at random.
    """

    base_s: float
    cap_s: float
    jitter: float = 0.3

    def delay_s(self, failures: int, random: float) -> float:
        """The wait after so many failures in a row (1 or more); random is within [0, 1)."""
        doubled = self.base_s * 2.0 ** min(max(failures - 1, 0), 40)
        return min(doubled, self.cap_s) * (1.0 + self.jitter * random)


def judge(
    kind: Kind, *, failures: int, strikes: int, progressed: bool, max_attempts: int, backoff: Backoff, random: float
) -> Verdict:
    """What a failure of this kind means for an entry that had `failures` and `strikes` before."""
    count = 1 if progressed else failures + 1
    wait_s = backoff.delay_s(count, random)
    match kind:
        case Kind.CHANGED:
            return Verdict(Event.CHANGED, 0, 0)
        case Kind.STOPPED:
            return Verdict(Event.INTERRUPTED, failures, strikes)
        case Kind.LINK if progressed or count <= LOSSES_IN_PLACE:
            return Verdict(Event.INTERRUPTED, 0 if progressed else count, strikes)
        case Kind.LINK | Kind.TRANSIENT:
            return Verdict(Event.FAILED, count, strikes, wait_s)
        case Kind.PERMANENT if strikes + 1 >= max_attempts:
            return Verdict(Event.GIVEN_UP, count, strikes + 1)
        case _:
            return Verdict(Event.FAILED, count, strikes + 1, wait_s)


def prefers_large(small: int | None, large: int | None, *, large_in_flight: int, max_large: int) -> bool:
    """Whether the next job is a large file; small and large are the priorities of the two heads, None: nothing there.

    Large files never take more than `max_large` places, so a small one always finds one; while they have places
    they start, so that an endless stream of small files cannot starve them: within the pipeline small ones go first.
    """
    if large is None or large_in_flight >= max_large:
        return False
    return small is None or large <= small


def job_priority(priority: int, *, large: bool) -> int:
    """The urgency within the pipeline, lower first: by the entry's priority, then small before large."""
    return 2 * priority + (1 if large else 0)
