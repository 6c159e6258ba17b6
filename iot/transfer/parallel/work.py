"""What a transfer may ask of the committing thread, and the means for it.

A transfer is a plain generator that a worker runs. It calls its store, which blocks, as it likes, and yields when it
has to wait for anything else; another worker, with another store, may then continue it.

    Barrier(record)    continue when this record is durable; records of many transfers share one commit
    Linger(seconds)    continue after a while, without occupying a worker
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import NamedTuple, Protocol, TypeAlias, TypeVar

from iot.transfer.errors import Cancelled
from iot.transfer.model import Checkpoint
from iot.transfer.rate import FULL_PACKETS, Meter, RateLimit, Wire
from iot.transfer.remote import Store
from iot.transfer.stop import WAKE_S, StopFlag

__all__ = ["Barrier", "Command", "Desk", "Linger", "Transfer", "Work"]

R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)


class Barrier(NamedTuple):
    record: Checkpoint


class Linger(NamedTuple):
    seconds: float


Command: TypeAlias = Barrier | Linger
Work: TypeAlias = Generator[Command, None, R]


class Transfer(Protocol[R_co]):
    """store: lent by the worker for each turn. release: called once it has ended, to give back its resources."""

    store: Store

    def run(self) -> Work[R_co]: ...

    def release(self) -> None: ...


class Desk:
    """What a transfer has the committing thread do while it carries on; thread-safe.

    post: queues a call for the committing thread, which makes them soon and in order. delivered: counts bytes that the
    far side has confirmed (upload) or sent (download). clock: monotonic seconds. stop: set when the caller cancels.
    limit, meter: of all transfers together. What the wire carries is estimated from the payload.
    """

    def __init__(
        self,
        post: Callable[[Callable[[], None]], None],
        delivered: Callable[[int], None],
        clock: Callable[[], float],
        stop: StopFlag,
        limit: RateLimit | None = None,
        meter: Meter | None = None,
    ) -> None:
        self.post = post
        self.delivered = delivered
        self.clock = clock
        self._stop = stop
        self._limit = limit or RateLimit()
        self._meter = meter or Meter()

    def block(self, most: int) -> int:
        """The size of a block that suits the limit of the rate."""
        return self._limit.block(most)

    def pay(self, count: int, *, sent: bool = False) -> None:
        """So many bytes of payload come or go: wait until the limit of the rate allows it. Raises: Cancelled."""
        while (wait_s := self._limit.wait_s()) > 0:
            self._stop.wait(min(wait_s, WAKE_S))
            self.check()
        self._limit.spend(count * FULL_PACKETS)
        weight = int(count * FULL_PACKETS)
        self._meter.add(Wire(weight, 0) if sent else Wire(0, weight))

    def check(self) -> None:
        """To be called for every block. Raises: Cancelled."""
        if self._stop.is_set():
            raise Cancelled("stopped on request; what was sent is kept for a resume")
