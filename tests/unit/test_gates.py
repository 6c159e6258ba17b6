"""What holds an outbox holds it whatever else fails."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from iot.spooler.gates import FREE, LOOK_S, Gates, Held
from iot.spooler.queue.policy import Admission
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


def gates_of(*gates: Gate, batches: Exception | None = None) -> Gates:
    def look(*_: object) -> bool:
        if batches is not None:
            raise batches
        return False

    intake = SimpleNamespace(number=1, settings=SimpleNamespace(label="box"), wake=lambda: 1)
    calm = SimpleNamespace(
        tell_kept=lambda: None, look=look, next_s=lambda now: 100.0, waits=lambda number: None, of=lambda number: None
    )
    clocks = SimpleNamespace(monotonic=lambda: 50.0, wall=lambda: 1.7e9)
    return Gates(gates, calm, [intake], SimpleNamespace(), clocks)


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
