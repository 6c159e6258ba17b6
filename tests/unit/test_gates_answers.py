"""What the gates answer of each outbox and inbox: what may be sent, why not more, and what a flush changes of it."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timezone
from types import SimpleNamespace
from typing import Any

import pytest
from unit.test_gates import Gate, unmarked

from iot.spooler.gates.gates import ELSEWHERE, FREE, LOOK_S, SETTLED_S, Gates, Held, ServerGate, WindowGate, held
from iot.spooler.queue.policy import LATEST, Admission, Allowed

SHUT = Held(Admission.NONE, "outside its window")
URGENT = Held(Admission.URGENT, "the quota is used up")
OUTBOX, INBOX = 1, -1


class Box:
    """An outbox and an inbox at once, as far as the gates look at them."""

    def __init__(self, label: str) -> None:
        self.label, self.number = label, OUTBOX
        self.settings = SimpleNamespace(label=label, settle_s=3.0)
        self.passes = self.looks = self.pending_files = self.wakes = 0
        self.settles_at, self.missing = float("inf"), False

    def wake(self) -> int:
        self.wakes += 1
        return 2


class Lab:
    """One outbox and one inbox behind one gate."""

    def __init__(self) -> None:
        self.now = 100.0
        self.gate = Gate()
        self.box, self.inbox = Box("box"), Box("in")
        self.batches = SimpleNamespace(**vars(unmarked()), up_to=lambda number: LATEST, is_going_on=lambda: False)
        self.markers = SimpleNamespace(**vars(unmarked()), is_going_on=lambda: False)
        self.queue = SimpleNamespace(newest=lambda number: 7, any_ready=lambda allowed: False)
        clocks = SimpleNamespace(monotonic=lambda: self.now, wall=lambda: 1.7e9)
        given: Any = ([self.gate], self.batches, self.markers, [self.box], self.queue, clocks, {INBOX: self.inbox})
        self.gates = Gates(*given)

    def look(self, held: Held | None = None) -> bool:
        self.gate.held = held or self.gate.held
        return self.gates.look(lambda number: False)


@pytest.fixture
def lab() -> Lab:
    return Lab()


def test_a_reason_holds_back_unless_all_may_be_sent_all_the_same() -> None:
    assert held(Admission.URGENT, "why") == Held(Admission.URGENT, "why")
    assert held(Admission.NONE, "") == held(Admission.ALL, "why") == FREE


def test_inboxes_of_the_first_server_are_held_while_it_is_not_used() -> None:
    gate = ServerGate([INBOX])
    assert gate.of(INBOX, flushed=True) == Held(Admission.NONE, ELSEWHERE)
    assert gate.of(OUTBOX, flushed=False) == FREE
    assert gate.look(0.0, 0.0) == float("inf")


def test_a_window_tells_until_when_and_is_looked_at_again_then() -> None:
    gate = WindowGate({1: ["08:00-10:00"], 2: ["09:00-10:00"], 3: ()}, timezone.utc)
    assert gate.look(8 * 3600.0, 0.0) == 3600.0
    assert gate.of(1, flushed=False) == gate.of(3, flushed=False) == FREE
    assert gate.of(2, flushed=False) == Held(Admission.NONE, "outside its window, opens 09:00")
    assert gate.look(9 * 3600.0, 0.0) == 3600.0
    assert gate.of(2, flushed=False) == FREE
    assert gate.look(10 * 3600.0, 0.0) == 22 * 3600.0
    assert gate.of(1, flushed=False).reason == "outside its window, opens Fri 08:00"
    assert WindowGate({1: ()}, timezone.utc).look(0.0, 0.0) == float("inf")


def test_an_outbox_of_which_something_may_be_sent_is_not_suspended(lab: Lab) -> None:
    for given, reason in ((FREE, ""), (URGENT, ""), (SHUT, SHUT.reason)):
        lab.look(given)
        assert lab.gates.suspended(OUTBOX) == reason
        assert lab.gates.admission(OUTBOX) is given.admission
        assert lab.gates.reason(OUTBOX) == (given.reason or None)


def test_a_batch_or_marker_that_is_waited_for_is_a_reason_of_an_outbox_alone(lab: Lab) -> None:
    lab.look()
    lab.markers.reason = lambda number: "waits for its marker"
    assert (lab.gates.reason(OUTBOX), lab.gates.reason(INBOX)) == ("waits for its marker", None)
    lab.batches.reason = lambda number: "waits for its batch"
    assert lab.gates.reason(OUTBOX) == "waits for its batch"
    lab.look(SHUT)
    assert lab.gates.reason(OUTBOX) == SHUT.reason


@pytest.mark.parametrize(("batch", "marker"), [(False, False), (True, False), (False, True)])
def test_a_batch_is_collected_by_rule_or_by_marker(lab: Lab, batch: bool, marker: bool) -> None:
    lab.batches.is_going_on, lab.markers.is_going_on = lambda: batch, lambda: marker
    assert lab.gates.is_collecting() is (batch or marker)


def test_what_may_be_sent_is_the_least_of_all_that_is_asked(lab: Lab) -> None:
    lab.look(URGENT)
    assert lab.gates.allowed_up_to(Admission.ALL) == {OUTBOX: Allowed(Admission.URGENT)}
    assert lab.gates.allowed_up_to(Admission.NONE) == {OUTBOX: Allowed(Admission.NONE)}
    lab.look(FREE)
    assert lab.gates.allowed_up_to(Admission.URGENT) == {OUTBOX: Allowed(Admission.URGENT)}
    lab.markers.has, lab.batches.up_to = lambda number: True, lambda number: 5
    assert lab.gates.allowed(OUTBOX) == Allowed(Admission.ALL, 5, True)


def test_a_look_tells_whether_anything_has_changed(lab: Lab) -> None:
    assert not lab.look()
    assert lab.look(SHUT)
    assert not lab.look()
    lab.box.missing = True
    assert lab.look()
    assert not lab.look()
    lab.batches.look = lambda now, flushed: True
    assert lab.look()
    lab.batches.look, lab.markers.look = lambda now, flushed: False, lambda now, flushed: True
    assert lab.look()


@pytest.mark.parametrize(
    ("before", "after", "told"),
    [
        (FREE, URGENT, 'outbox sends only what is urgent outbox=box reason="the quota is used up"'),
        (SHUT, URGENT, 'outbox sends only what is urgent outbox=box reason="the quota is used up"'),
        (URGENT, FREE, "outbox may send outbox=box"),
        (FREE, SHUT, ""),
        (SHUT, FREE, ""),
        (URGENT, SHUT, ""),
    ],
)
def test_a_change_of_what_may_be_sent_is_told_once(
    lab: Lab, before: Held, after: Held, told: str, caplog: pytest.LogCaptureFixture
) -> None:
    lab.look(before)
    caplog.set_level("INFO", "iot.spooler.gates.gates")
    caplog.clear()
    lab.look(after)
    lab.look(after)
    assert [record.getMessage() for record in caplog.records] == [told] * bool(told)


def test_whatever_opens_is_looked_at_at_once(lab: Lab) -> None:
    lab.look(SHUT)
    assert (lab.box.wakes, lab.inbox.wakes) == (0, 0)
    lab.look(URGENT)
    assert (lab.box.wakes, lab.inbox.wakes) == (1, 1)
    lab.look(Held(Admission.URGENT, "another reason"))
    assert (lab.box.wakes, lab.inbox.wakes) == (1, 1)


def test_the_next_look_is_no_later_than_anybody_asks_for(lab: Lab) -> None:
    lab.look()
    assert lab.gates.look_at == 105.0
    lab.gates._gates = ()
    lab.look()
    assert lab.gates.look_at == 100.0 + LOOK_S


# -- a flush


def settled(lab: Lab) -> None:
    """What lay there when it was flushed has been found, and nothing is to be sent of it any more."""
    lab.box.passes, lab.inbox.looks = 2, 1
    lab.now += 3.0 + SETTLED_S
    lab.look()


def opened_by_a_flush(lab: Lab) -> None:
    lab.gate.of = lambda number, *, flushed: FREE if flushed else SHUT  # type: ignore[method-assign]
    lab.look()


@pytest.mark.parametrize(
    ("numbers", "outbox", "inbox"),
    [(None, True, False), ([OUTBOX], True, False), ([INBOX], False, True), ([OUTBOX, INBOX, 77], True, True)],
)
def test_a_flush_opens_those_that_are_meant_and_without_a_name_all_outboxes(
    lab: Lab, numbers: list[int] | None, outbox: bool, inbox: bool
) -> None:
    opened_by_a_flush(lab)
    lab.gates.flush(numbers)
    lab.look()
    assert [lab.gates.admission(number) is Admission.ALL for number in (OUTBOX, INBOX)] == [outbox, inbox]
    settled(lab)
    assert [lab.gates.admission(number) is Admission.ALL for number in (OUTBOX, INBOX)] == [False, False]


def test_what_is_open_needs_no_flush(lab: Lab, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    lab.look()
    lab.gates.flush([OUTBOX, INBOX])
    assert (lab.box.wakes, lab.inbox.wakes) == (0, 1)
    assert (lab.gates._flushed, lab.gates._flushed_inboxes) == ({}, {})
    assert "flushed" not in caplog.text


def of_a_batch(lab: Lab) -> None:
    lab.batches.reason = lambda number: "waits for its batch"


def of_a_marker(lab: Lab) -> None:
    lab.markers.reason = lambda number: "waits for its marker"


@pytest.mark.parametrize("waits", [of_a_batch, of_a_marker])
def test_what_waits_for_a_batch_is_flushed_though_its_window_is_open(
    lab: Lab, waits: Callable[[Lab], None], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    lab.look()
    waits(lab)
    lab.gates.flush()
    assert list(lab.gates._flushed) == [OUTBOX]
    assert "flushed past its schedule outbox=box" in caplog.text
    released: list[Any] = []
    lab.batches.look = lambda now, flushed: bool(released.append(list(flushed)))
    lab.look()
    settled(lab)
    assert released == [[OUTBOX], [OUTBOX]]
    assert lab.gates._flushed == {}


def test_a_second_flush_counts_from_when_it_was_asked_for(lab: Lab) -> None:
    opened_by_a_flush(lab)
    lab.gates.flush([OUTBOX, INBOX])
    lab.look()
    lab.inbox.looks, lab.now = 1, lab.now + 2.0
    lab.gates.flush([OUTBOX, INBOX])
    lab.box.passes, lab.now = 2, lab.now + 3.0 + SETTLED_S - 0.1
    lab.look()
    assert [lab.gates.admission(number) is Admission.ALL for number in (OUTBOX, INBOX)] == [True, True]
    lab.inbox.looks, lab.now = 2, lab.now + 0.1
    assert lab.look()
    assert [lab.gates.admission(number) is Admission.ALL for number in (OUTBOX, INBOX)] == [False, False]


def test_a_flush_that_is_ended_leaves_the_schedule_in_charge(lab: Lab) -> None:
    opened_by_a_flush(lab)
    lab.gates.flush([OUTBOX, INBOX])
    lab.look()
    for number in (OUTBOX, INBOX):
        lab.gates.end_flush(number)
        lab.gates.end_flush(number)  # which does no harm
    assert lab.look()
    assert lab.gates.suspended(OUTBOX) == lab.gates.suspended(INBOX) == SHUT.reason


def test_only_what_lay_there_is_asked_for_when_a_flush_may_be_over(lab: Lab) -> None:
    asked: list[Any] = []
    lab.queue.any_ready = lambda allowed: bool(asked.append(allowed))
    lab.markers.has = lambda number: True
    opened_by_a_flush(lab)
    lab.gates.flush()
    lab.look()
    settled(lab)
    assert asked == [{OUTBOX: Allowed(Admission.ALL, 7, True)}]


def test_an_inbox_that_was_looked_at_goes_on_until_its_files_have_settled(lab: Lab) -> None:
    opened_by_a_flush(lab)
    lab.gates.flush([INBOX])
    lab.look()
    lab.inbox.looks, lab.inbox.settles_at = 1, 200.0
    lab.look()
    assert lab.gates.admission(INBOX) is Admission.ALL
    lab.inbox.settles_at = float("inf")
    lab.look()
    assert lab.gates.admission(INBOX) is Admission.NONE
