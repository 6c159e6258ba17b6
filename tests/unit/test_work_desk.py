"""What a transfer pays for its bytes: it waits as long as the limit of the rate says, and a cancel ends the wait."""

from __future__ import annotations

import pytest

from iot.transfer.errors import Cancelled
from iot.transfer.parallel.work import Desk
from iot.transfer.rate import FULL_PACKETS, Meter, Wire
from iot.transfer.stop import WAKE_S


class Limit:
    """waits: what is still to be waited for, each time that it is asked."""

    def __init__(self, *waits: float) -> None:
        self.waits, self.spent = list(waits), []

    def wait_s(self) -> float:
        return self.waits.pop(0)

    def spend(self, count: float) -> None:
        self.spent.append(count)

    def block(self, most: int) -> int:
        return most // 2


class Stop:
    """Is set after so many waits."""

    def __init__(self, after: int = 99) -> None:
        self.after, self.waited = after, []

    def wait(self, seconds: float) -> bool:
        self.waited.append(seconds)
        return self.is_set()

    def is_set(self) -> bool:
        return len(self.waited) >= self.after


def desk(limit: Limit | None = None, stop: Stop | None = None, meter: Meter | None = None) -> Desk:
    return Desk(lambda _: None, lambda _: None, lambda: 0.0, stop or Stop(), limit, meter)  # type: ignore[arg-type]


def test_it_is_waited_for_in_short_steps_until_nothing_is_owed():
    limit, stop = Limit(9 * WAKE_S, WAKE_S / 2, 0.0), Stop()
    desk(limit, stop).pay(1000)
    assert stop.waited == [WAKE_S, WAKE_S / 2]
    assert limit.spent == [1000 * FULL_PACKETS]


def test_a_cancel_ends_the_wait_and_nothing_is_spent():
    limit, stop = Limit(*[9.0] * 5), Stop(after=2)
    with pytest.raises(Cancelled, match="what was sent is kept for a resume"):
        desk(limit, stop).pay(1000)
    assert (len(stop.waited), limit.spent) == (2, [])


@pytest.mark.parametrize("sent", [True, False])
def test_what_the_wire_carries_is_counted_by_its_direction(sent):
    meter = Meter()
    desk(Limit(0.0), meter=meter).pay(1000, sent=sent)
    weight = int(1000 * FULL_PACKETS)
    assert meter.wire == (Wire(weight, 0) if sent else Wire(0, weight))


def test_unless_told_otherwise_bytes_are_fetched_and_nothing_is_limited():
    meter = Meter()
    plain = desk(meter=meter)
    plain.pay(1000)
    assert (meter.wire.sent, plain.block(10)) == (0, 10)
    assert desk(Limit()).block(10) == 5
