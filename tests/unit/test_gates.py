"""What holds an outbox holds it whatever else fails."""

from __future__ import annotations

from datetime import timezone
from types import SimpleNamespace

import pytest

from iot.spooler.gates.gates import FREE, LOOK_S, LOOKED_S, Gates, Held, WindowGate
from iot.spooler.queue.policy import LATEST, Admission, Allowed
from iot.transfer.errors import DiskFull


class Gate:
    def __init__(self, held: Held = FREE, failure: Exception | None = None) -> None:
        self.held, self.failure, self.closed = held, failure, False

    def look(self, wall: float, now: float) -> float:
        if self.failure is not None:
            raise self.failure
        return 5.0

    def close(self) -> None:
        self.closed = True
        if self.failure is not None:
            raise self.failure

    def of(self, outbox: int, *, flushed: bool) -> Held:
        return self.held


def unmarked() -> SimpleNamespace:
    """Outboxes without batch_marker."""
    return SimpleNamespace(
        has=lambda number: False,
        asks=lambda number: False,
        look=lambda *_: False,
        next_s=lambda now: float("inf"),
        reason=lambda number: None,
        tell_kept=lambda: None,
    )


def gates_of(*gates: Gate, batches: Exception | None = None) -> Gates:
    def look(*_: object) -> bool:
        if batches is not None:
            raise batches
        return False

    intake = SimpleNamespace(number=1, settings=SimpleNamespace(label="box"), wake=lambda: 1, missing=False)
    calm = SimpleNamespace(
        tell_kept=lambda: None, look=look, next_s=lambda now: 100.0, waits=lambda number: None, of=lambda number: None
    )
    clocks = SimpleNamespace(monotonic=lambda: 50.0, wall=lambda: 1.7e9)
    return Gates(gates, calm, unmarked(), [intake], SimpleNamespace(), clocks)


@pytest.mark.parametrize("where", ["gate", "batches"])
def test_a_disk_that_is_full_opens_no_window_and_makes_nobody_spin(where: str) -> None:
    full = DiskFull("full")
    closed = Gate(Held(Admission.NONE, "outside its window"))
    gates = gates_of(Gate(failure=full), closed) if where == "gate" else gates_of(closed, batches=full)
    with pytest.raises(DiskFull):
        gates.look(lambda number: False)
    assert gates._held[1].admission is Admission.NONE
    assert 50.0 < gates.look_at <= 50.0 + LOOK_S


def test_at_the_end_all_are_closed_whatever_cannot_be_written() -> None:
    full, other = Gate(failure=DiskFull("full")), Gate()
    with pytest.raises(DiskFull):
        gates_of(full, other).close()
    assert (full.closed, other.closed) == (True, True)


def flushed_gates(now: list[float], ready: list[bool], newest: int = 7) -> tuple[Gates, SimpleNamespace]:
    """An outbox outside its window, just flushed: its scan is the second, and it settles after 3 s."""

    class Window(Gate):
        def of(self, outbox: int, *, flushed: bool) -> Held:
            return FREE if flushed else Held(Admission.NONE, "outside its window")

    settings = SimpleNamespace(label="box", settle_s=3.0)
    intake = SimpleNamespace(number=1, settings=settings, wake=lambda: 2, passes=1, missing=False)
    calm = SimpleNamespace(
        look=lambda *_: False, next_s=lambda now: 100.0, reason=lambda number: None, up_to=lambda number: LATEST
    )
    queue = SimpleNamespace(newest=lambda number: newest, any_ready=lambda allowed: ready[0])
    clocks = SimpleNamespace(monotonic=lambda: now[0], wall=lambda: 1.7e9)
    gates = Gates([Window()], calm, unmarked(), [intake], queue, clocks)
    gates.look(lambda number: False)
    gates.flush()
    gates.look(lambda number: False)
    return gates, intake


def test_a_flush_waits_for_the_scan_and_for_what_settles_and_for_what_is_under_way() -> None:
    now, ready = [0.0], [False]
    gates, intake = flushed_gates(now, ready)
    now[0] = 100.0
    gates.look(lambda number: False)
    assert gates.allowed(1) == Allowed()  # not scanned yet
    intake.passes, now[0] = 2, 3.5
    gates.look(lambda number: False)
    assert gates.allowed(1) == Allowed()  # not settled yet
    now[0] = 4.5
    gates.look(lambda number: True)
    assert gates.allowed(1) == Allowed(Admission.ALL, 7)  # under way
    ready[0] = True
    gates.look(lambda number: False)
    assert gates.allowed(1) == Allowed(Admission.ALL, 7)  # still to be sent
    ready[0] = False
    assert gates.look(lambda number: False)
    assert gates.admission(1) is Admission.NONE


def test_a_batch_that_is_due_is_looked_at_in_time() -> None:
    gates = gates_of(Gate())
    gates._batches.next_s = lambda now: 2.0  # type: ignore[method-assign]
    gates.look(lambda number: False)
    assert gates.look_at == 52.0
    gates._markers.next_s = lambda now: 1.0  # type: ignore[method-assign]
    gates.look(lambda number: False)
    assert gates.look_at == 51.0


def test_a_clock_that_is_set_back_closes_a_window_again_and_opens_it_again() -> None:
    gate = WindowGate({1: ["08:00-10:00"], 2: []}, timezone.utc)
    for hour, is_open in ((9.0, True), (7.0, False), (9.0, True), (11.0, False), (9.5, True), (6.0, False)):
        gate.look(hour * 3600, 0.0)
        assert (gate.of(1, flushed=False) == FREE) is is_open, hour
        assert gate.of(1, flushed=True) == gate.of(2, flushed=False) == FREE
    assert gate.look(9 * 3600.0, 0.0) == 3600.0


def test_of_a_folder_that_is_not_there_nothing_may_be_sent() -> None:
    gates = gates_of(Gate())
    gates._batches.up_to = lambda number: 5  # type: ignore[method-assign]
    gates._intakes[1].missing = True  # type: ignore[misc]
    assert gates.look(lambda number: False)
    assert gates.allowed(1) == Allowed(Admission.NONE, 5)
    gates._intakes[1].missing = False  # type: ignore[misc]
    assert gates.look(lambda number: False)
    assert gates.allowed(1) == Allowed(Admission.ALL, 5)  # a batch is complete up to this one


def test_an_outbox_is_scanned_when_it_opens_and_not_when_it_closes() -> None:
    gate, wakes = Gate(), list[str]()
    gates = gates_of(gate)
    gates._intakes[1].wake = lambda: wakes.append("scan") or 1  # type: ignore[method-assign, func-returns-value]
    for admission, count in ((Admission.NONE, 0), (Admission.URGENT, 1), (Admission.ALL, 2), (Admission.URGENT, 2)):
        gate.held = Held(admission, "a rule")
        gates.look(lambda number: False)
        assert len(wakes) == count


def test_a_flush_goes_on_while_a_marker_is_asked_about() -> None:
    now, ready = [0.0], [False]
    gates, intake = flushed_gates(now, ready)
    intake.passes, now[0] = 2, 5.0
    gates._markers.asks = lambda number: True  # type: ignore[method-assign]
    gates.look(lambda number: False)
    assert gates.admission(1) is Admission.ALL
    gates._markers.asks = lambda number: False  # type: ignore[method-assign]
    gates.look(lambda number: False)
    assert gates.admission(1) is Admission.NONE


def flushed_inbox(now: list[float]) -> tuple[Gates, SimpleNamespace]:
    """An inbox outside its window, just flushed: it has not been looked at since."""
    gates, _ = flushed_gates(now, [False])
    inbox = SimpleNamespace(label="in", looks=4, settles_at=float("inf"), pending_files=0, wake=lambda: None)
    gates._inboxes[-1], gates._held[-1] = inbox, FREE
    gates.look(lambda number: False)
    gates.flush([-1])
    gates.look(lambda number: False)
    return gates, inbox


def test_a_flushed_inbox_is_open_until_what_lay_there_is_looked_at_has_settled_and_is_fetched() -> None:
    now = [0.0]
    gates, inbox = flushed_inbox(now)
    now[0] = 1000.0
    gates.look(lambda number: False)
    assert gates.admission(-1) is Admission.ALL  # the server could not be reached for long
    inbox.looks, inbox.settles_at = 5, 1003.0
    for moment in (1002.0, 1003.0 + LOOKED_S - 1):  # the second look may be late
        now[0] = moment
        gates.look(lambda number: False)
        assert gates.admission(-1) is Admission.ALL
    inbox.settles_at, inbox.pending_files, now[0] = float("inf"), 1, 5000.0
    gates.look(lambda number: False)
    assert gates.admission(-1) is Admission.ALL
    inbox.pending_files = 0
    gates.look(lambda number: False)
    assert gates.admission(-1) is Admission.NONE


def test_a_flush_of_an_inbox_ends_however_fast_files_keep_coming() -> None:
    now = [0.0]
    gates, inbox = flushed_inbox(now)
    inbox.looks, inbox.settles_at = 5, 3.0
    gates.look(lambda number: False)
    now[0], inbox.settles_at = 3.0 + LOOKED_S, 3.0 + LOOKED_S + 2
    gates.look(lambda number: False)
    assert gates.admission(-1) is Admission.NONE
