"""When a drain ends, and whether all is delivered then; everything around it is scripted."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from iot.spooler.agent.draining import LOCAL_PATIENCE_S, SETTLE_S, Draining, End
from iot.spooler.outbox.departure import Why
from iot.spooler.queue.policy import Backoff, State
from iot.spooler.server.availability import Availability
from iot.transfer import LinkLost, LoginRefused


class Readiness(list[str]):
    settle_s = 2.0


class Lab:
    def __init__(self) -> None:
        self.now = 1000.0
        self.local: str | None = None
        self.waits = False
        self.waiting: dict[Why, int] = {}
        self.intakes: list[Any] = [self._intake(number) for number in (1, 2)]
        self.totals: list[Any] = []
        self.owed = SimpleNamespace(
            forwarded=0,
            waiting=SimpleNamespace(count=lambda why: self.waiting.get(why, 0)),
            stuck=[],
            quarantined=0,
            is_quarantine_empty=lambda: True,
        )
        self.server = Availability(Backoff(10.0, 60.0), Backoff(900.0, 3600.0), lambda: 0.0)
        queue: Any = SimpleNamespace(totals=lambda: self.totals)
        owed: Any = self.owed
        self.draining = Draining(queue, self.intakes, owed, self.server, 3, lambda: self.now)

    def _intake(self, number: int) -> Any:
        def wake() -> int:
            intake.wanted = intake.passes + 1
            return int(intake.wanted)

        refused = SimpleNamespace(reasons={})
        intake = SimpleNamespace(
            number=number, readiness=Readiness(), without_marker=0, failed=None, stopped=False, passes=0, wanted=0,
            wake=wake, outbox=SimpleNamespace(refused=refused),
        )  # fmt: skip
        return intake

    def end(self) -> End | None:
        return self.draining.end(self.local, waits=lambda: self.waits)

    def walked(self) -> End | None:
        """The end, after a whole walk of each outbox if one is asked for."""
        self.end()
        for intake in self.intakes:
            intake.passes = max(intake.passes, intake.wanted)
        return self.end()


@pytest.fixture
def lab() -> Lab:
    return Lab()


def test_it_ends_after_a_whole_walk_of_every_outbox_that_came_after_the_last_job_and_the_last_move(lab: Lab) -> None:
    first, second = lab.intakes
    assert lab.end() is None
    first.passes = 1
    assert lab.end() is None
    second.passes = 1
    assert lab.end() is End.DRAINED
    lab.draining.sent()
    assert lab.end() is None
    first.passes = second.passes = 2
    assert lab.end() is End.DRAINED
    lab.owed.forwarded = 1
    assert lab.end() is None
    assert lab.walked() is End.DRAINED


def test_what_cannot_be_read_or_is_stopped_is_not_waited_for_and_remains(lab: Lab) -> None:
    for name, value in (("failed", "no"), ("stopped", True)):
        lab = Lab()
        setattr(lab.intakes[0], name, value)
        assert lab.end() is None
        lab.intakes[1].passes = 1
        assert lab.end() is End.REMAINS


def test_it_gives_up_a_held_server_and_one_that_was_tried_in_vain(lab: Lab) -> None:
    assert lab.walked() is End.DRAINED
    for tries in range(1, 4):
        lab.server.lost(LinkLost("no"), lab.now)
        assert lab.end() is (End.REMAINS if tries == 3 else None)  # the next try is not due
    held = Lab()
    held.server.lost(LoginRefused("no"), held.now)
    assert held.end() is End.REMAINS


def test_when_the_next_try_is_due_the_link_hinders_no_end(lab: Lab) -> None:
    lab.server.ready_at = lab.now
    assert lab.walked() is End.DRAINED
    lab.server.ready_at = lab.now + 0.1
    assert lab.walked() is None


def test_a_walk_is_asked_for_once_until_another_job_was_tried(lab: Lab) -> None:
    lab.owed.forwarded = 2
    for _ in range(3):
        assert lab.end() is None
    assert [intake.wanted for intake in lab.intakes] == [1, 1]
    lab.intakes[0].passes = 1
    lab.intakes[1].passes = 2  # one more than needed
    assert lab.end() is End.DRAINED


def test_the_longest_of_all_quiet_times_is_waited_for(lab: Lab) -> None:
    for intake, settle_s in zip(lab.intakes, (2.0, 7.0), strict=True):
        intake.readiness.append("f")
        intake.readiness.settle_s = settle_s
    lab.now += SETTLE_S + 20.9
    assert lab.walked() is None
    lab.now += 0.1
    assert lab.walked() is End.REMAINS


def test_this_device_is_given_its_time_from_the_start(lab: Lab) -> None:
    lab.local = "DiskFull: no room"
    assert lab.walked() is None
    lab.now += LOCAL_PATIENCE_S
    assert lab.walked() is None
    lab.now += 0.1
    assert lab.end() is End.REMAINS
    lab.local = None
    assert lab.walked() is End.DRAINED


def test_what_is_ready_or_rests_is_waited_for(lab: Lab) -> None:
    lab.waits = True
    assert lab.walked() is None
    lab.waits = False
    lab.waiting = {Why.RESTING: 1}
    lab.now += 1000
    assert lab.walked() is None
    lab.waiting = {}
    assert lab.walked() is End.DRAINED


@pytest.mark.parametrize("touched", [True, False])
def test_what_is_undecided_is_waited_for_three_times_as_long_as_files_settle(lab: Lab, touched: bool) -> None:
    if touched:
        lab.waiting = {Why.TOUCHED: 1}
    else:
        lab.intakes[0].readiness.append("f")
    patience_s = SETTLE_S + (0.0 if touched else 3 * Readiness.settle_s)
    lab.now += patience_s - 0.1
    assert lab.walked() is None
    lab.now += 0.1
    assert lab.walked() is (End.DRAINED if touched else End.REMAINS)


def total(state: State, outbox: int = 1) -> Any:
    return SimpleNamespace(state=state, outbox=outbox, files=3)


REMAINS: dict[str, Any] = {
    "files=3": lambda lab: lab.totals.append(total(State.WAITING)),
    "files=6": lambda lab: lab.totals.extend([total(State.READY), total(State.QUARANTINED, 2)]),
    "without_marker=2": lambda lab: setattr(lab.intakes[1], "without_marker", 2),
    "never_sent=7": lambda lab: lab.intakes[0].outbox.refused.reasons.update({"a": 3, "b": 4}),
    "not_ready=2": lambda lab: lab.intakes[0].readiness.extend("fg") or setattr(lab, "now", lab.now + 100.0),
    "not_ready=3": lambda lab: (
        lab.intakes[0].readiness.extend("fg")
        or lab.intakes[1].readiness.append("h")
        or setattr(lab, "now", lab.now + 100.0)
    ),
    "unread_outboxes=1": lambda lab: setattr(lab.intakes[1], "failed", "no"),
    "unread_outboxes=2": lambda lab: setattr(lab.intakes[0], "failed", "") or setattr(lab.intakes[1], "stopped", True),
    "files=3 stuck=1": lambda lab: lab.owed.stuck.append("f") or lab.totals.append(total(State.DROPPED)),
    "stuck=1": lambda lab: lab.owed.stuck.append("f"),
    "in_quarantine=1": lambda lab: setattr(lab.owed, "is_quarantine_empty", lambda: False),
    "in_quarantine=5": lambda lab: lab.owed.__dict__.update(is_quarantine_empty=lambda: False, quarantined=5),
    "": lambda lab: lab.totals.extend([total(State.KEPT), total(State.READY, outbox=9)]),
}


@pytest.mark.parametrize("words", REMAINS)
def test_what_remains_is_told_with_its_number_and_nothing_else(
    lab: Lab, words: str, caplog: pytest.LogCaptureFixture
) -> None:
    REMAINS[words](lab)
    assert lab.walked() is (End.REMAINS if words else End.DRAINED)
    assert [record.message for record in caplog.records] == [f"not all is delivered {words}"] * bool(words)
