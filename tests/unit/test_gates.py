"""What holds an outbox holds it whatever else fails."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from iot.spooler.gates.gates import FREE, LOOK_S, Gates, Held
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
