"""What to send next, when to try again, when to give up: decisions only, no input or output.

An entry's life, one arrow a row of TRANSITIONS:

    READY --BEGUN--> SENDING --SENT--> DELIVERED --LEFT--> GONE     (removed or archived)
      ^                 |  `----SENT_TO_KEEP--> KEPT                   (remembered: the file stays)
      |                 |-----INTERRUPTED--> READY                     (link lost, stopped: go on where it was)
      |                 |-----RELEASED--> READY                        (never handed out)
      `---DUE-- WAITING <-----FAILED         (this file's own error)
                  ^     |-----SKIPPED -----. (its hook has refused it: it was never handed out)
                  ^     |-----POSTPONED ---. (the link was lost repeatedly: others go first)
                  `-----|------------------'
                        `-----GIVEN_UP--> QUARANTINED --LEFT--> GONE

    READY, WAITING --EVICTED--> DROPPED --LEFT--> GONE               (beyond the outbox's budget, or too old)
    READY, WAITING --EXPIRED--> QUARANTINED                          (too old, where the outbox says so)

RESTARTED: a new run; nothing is in flight (see starting for who is POSTPONED then). CARRIED: it waits on in a new run;
where somebody has asked for a try, it is RESTARTED, too. RENEWED: the file has a
new version, which has its own entry; the old entry is dropped, unless its file still has to leave. CHANGED, VANISHED:
the entry is dropped, because the folder decides what there is to send.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import NamedTuple

__all__ = [
    "LATEST",
    "NEVER",
    "TRANSITIONS",
    "Admission",
    "Allowed",
    "Backoff",
    "Event",
    "FailureKind",
    "RetryRules",
    "State",
    "Tries",
    "Verdict",
    "after",
    "job_priority",
    "judge",
    "prefers_large",
]

LOSSES_IN_PLACE = 2
"""An entry that was in flight, without progress, at so many losses in a row lets others go first."""


NEVER = 1e15
"""Seconds of a wait that does not end within this run."""


class State(enum.IntEnum):
    """State of an entry; the journal stores the number."""

    READY = 0
    SENDING = 1
    WAITING = 2
    DELIVERED = 3
    KEPT = 4
    QUARANTINED = 5
    DROPPED = 6
    GONE = -1


class Event(enum.Enum):
    """What can happen to an entry."""

    BEGUN = enum.auto()
    SENT = enum.auto()
    SENT_TO_KEEP = enum.auto()
    INTERRUPTED = enum.auto()
    RELEASED = enum.auto()
    SKIPPED = enum.auto()
    POSTPONED = enum.auto()
    FAILED = enum.auto()
    GIVEN_UP = enum.auto()
    CHANGED = enum.auto()
    VANISHED = enum.auto()
    RENEWED = enum.auto()
    EVICTED = enum.auto()
    EXPIRED = enum.auto()
    DUE = enum.auto()
    LEFT = enum.auto()
    RESTARTED = enum.auto()
    CARRIED = enum.auto()


TRANSITIONS: dict[tuple[State, Event], State] = {
    (State.READY, Event.BEGUN): State.SENDING,
    (State.READY, Event.RENEWED): State.GONE,
    (State.READY, Event.VANISHED): State.GONE,
    (State.READY, Event.EVICTED): State.DROPPED,
    (State.READY, Event.EXPIRED): State.QUARANTINED,
    (State.SENDING, Event.SENT): State.DELIVERED,
    (State.SENDING, Event.SENT_TO_KEEP): State.KEPT,
    (State.SENDING, Event.INTERRUPTED): State.READY,
    (State.SENDING, Event.RELEASED): State.READY,
    (State.SENDING, Event.SKIPPED): State.WAITING,
    (State.SENDING, Event.POSTPONED): State.WAITING,
    (State.SENDING, Event.FAILED): State.WAITING,
    (State.SENDING, Event.GIVEN_UP): State.QUARANTINED,
    (State.SENDING, Event.CHANGED): State.GONE,
    (State.SENDING, Event.VANISHED): State.GONE,
    (State.SENDING, Event.RESTARTED): State.READY,
    (State.WAITING, Event.DUE): State.READY,
    (State.WAITING, Event.RENEWED): State.GONE,
    (State.WAITING, Event.VANISHED): State.GONE,
    (State.WAITING, Event.EVICTED): State.DROPPED,
    (State.WAITING, Event.EXPIRED): State.QUARANTINED,
    (State.WAITING, Event.RESTARTED): State.READY,
    (State.WAITING, Event.CARRIED): State.WAITING,
    (State.DELIVERED, Event.LEFT): State.GONE,
    (State.KEPT, Event.RENEWED): State.GONE,
    (State.KEPT, Event.VANISHED): State.GONE,
    (State.QUARANTINED, Event.LEFT): State.GONE,
    (State.DROPPED, Event.LEFT): State.GONE,
}


def after(state: State, event: Event) -> State:
    """The next state. Raises: ValueError for an impossible pair."""
    try:
        return TRANSITIONS[state, event]
    except KeyError:
        raise ValueError(f"{event.name} cannot happen to an entry that is {state.name}") from None


LATEST = 2**63 - 1
"""Above the number of any row, and above any number that a row holds."""


class Admission(enum.IntEnum):
    """What of an outbox may be sent now: the files of up to this priority.

    It is no state of a file: a file that may not be sent stays READY, and is not chosen.
    """

    NONE = -1
    URGENT = 0
    ALL = LATEST
    """also a row that a bad disk has given a priority that no outbox has"""


class Allowed(NamedTuple):
    """What of an outbox may be sent now: files of up to this priority, whose row is of up to this number. listed: only
    those that belong to a batch with a marker."""

    admission: Admission = Admission.ALL
    up_to: int = LATEST
    listed: bool = False


class FailureKind(enum.Enum):
    """What a failed job means for the entry."""

    LINK = enum.auto()
    """the link was lost, which is not the entry's fault"""
    TRANSIENT = enum.auto()
    """an error of this entry, perhaps a passing one"""
    PERMANENT = enum.auto()
    """an error of this entry, which a retry alone does not fix"""
    CHANGED = enum.auto()
    """the file has a new version by now"""
    STOPPED = enum.auto()
    """cancelled, held, or a problem of this device; says nothing about the entry"""


class Tries(NamedTuple):
    """The history of an entry.

    failures: failures of its own in a row. strikes: permanent errors; only these lead to quarantine.
    losses: lost links in a row at which it was in flight without progress.
    """

    failures: int = 0
    strikes: int = 0
    losses: int = 0


class Verdict(NamedTuple):
    """The consequence for the entry: the event, its new Tries, and the wait in seconds (FAILED, POSTPONED)."""

    event: Event
    failures: int
    strikes: int
    delay_s: float = 0.0
    losses: int = 0


@dataclass(frozen=True, slots=True)
class Backoff:
    """Doubling waits with a cap. The jitter is added after the cap, so that a fleet never synchronises.

    Short waits may double by it: all who lose a server that starts anew would else be back in step.
    base_s, cap_s: first and longest wait in seconds; jitter: what is added at random is at most this share of the cap.
    """

    base_s: float
    cap_s: float
    jitter: float = 0.3

    def delay_s(self, failures: int, random: float) -> float:
        """Seconds to wait after so many failures in a row (1 or more). random: within [0, 1)."""
        wait_s = min(self.base_s * 2.0 ** min(max(failures - 1, 0), 40), self.cap_s)
        return wait_s + min(wait_s, self.jitter * self.cap_s) * random


@dataclass(frozen=True, slots=True)
class RetryRules:
    """When a file is tried again and when it is given up.

    max_attempts: permanent errors until quarantine. max_failures: failures in a row after which a file is left to the
    next run (`--drain`); None: never.
    """

    backoff: Backoff
    max_attempts: int
    max_failures: int | None = None


def judge(kind: FailureKind, before: Tries, rules: RetryRules, *, progressed: bool, random: float) -> Verdict:
    """The consequence of a failure of this kind. Whether the file has CHANGED is for the caller to find out.

    progressed: the server has confirmed part of the file in this attempt. random: within [0, 1).
    """
    match kind:
        case FailureKind.STOPPED:
            return Verdict(Event.INTERRUPTED, before.failures, before.strikes, losses=before.losses)
        case FailureKind.LINK:
            return _link_lost(before, rules, progressed=progressed, random=random)
    failures = 1 if progressed else before.failures + 1
    strikes = before.strikes + (1 if kind is FailureKind.PERMANENT else 0)
    if kind is FailureKind.PERMANENT and strikes >= rules.max_attempts:
        return Verdict(Event.GIVEN_UP, failures, strikes)
    left = rules.max_failures is not None and failures >= rules.max_failures
    return Verdict(Event.FAILED, failures, strikes, NEVER if left else rules.backoff.delay_s(failures, random))


def _link_lost(before: Tries, rules: RetryRules, *, progressed: bool, random: float) -> Verdict:
    """Never the file's fault: it may have to let others go first, but it is retried for as long as the link is."""
    if progressed:
        return Verdict(Event.INTERRUPTED, 0, before.strikes)
    losses = before.losses + 1
    if losses <= LOSSES_IN_PLACE:
        return Verdict(Event.INTERRUPTED, before.failures, before.strikes, losses=losses)
    wait_s = rules.backoff.delay_s(losses, random)
    return Verdict(Event.POSTPONED, before.failures, before.strikes, wait_s, losses)


def prefers_large(small: int | None, large: int | None, *, large_in_flight: int, max_large: int) -> bool:
    """Whether the next job is a large file. small, large: priorities of the first of each; None: there is none.

    Large files take at most `max_large` slots, so a small one always finds a slot. As long as they have slots they
    start, so that an endless stream of small files cannot starve them; within the pipeline small files go first.
    """
    if large is None or large_in_flight >= max_large:
        return False
    return small is None or large <= small


def job_priority(priority: int, *, large: bool) -> int:
    """The priority within the pipeline, lower first: by the entry's priority, then small before large."""
    return 2 * priority + (1 if large else 0)
