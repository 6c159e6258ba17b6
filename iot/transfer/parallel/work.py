"""What a transfer may ask of the committing thread, and what that hands out.

A transfer is a plain generator that a worker runs: it calls its store, which blocks, as it likes. It yields where it
has to wait for something that is not the store's; another worker, with another store, may go on with it then.

    Barrier(record)    go on when this record is durable; records of many transfers share one commit
    Linger(seconds)    go on after a while, without taking a worker meanwhile
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import NamedTuple, Protocol, TypeAlias, TypeVar

from iot.transfer.errors import Cancelled
from iot.transfer.model import Checkpoint
from iot.transfer.remote import Store
from iot.transfer.stop import StopFlag

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
    """store: lent by the worker for each turn. release: gives back what was taken for it, once it has ended."""

    store: Store

    def run(self) -> Work[R_co]: ...

    def release(self) -> None: ...


class Desk:
    """What a transfer has the committing thread do while it goes on itself; safe in any thread.

    post: queues a call for the committing thread, which makes them soon and in order. delivered: counts bytes that the
    far side has confirmed (upload) or sent (download). clock: monotonic seconds. stop: set when the caller cancels.
    """

    def __init__(
        self,
        post: Callable[[Callable[[], None]], None],
        delivered: Callable[[int], None],
        clock: Callable[[], float],
        stop: StopFlag,
    ) -> None:
        self.post = post
        self.delivered = delivered
        self.clock = clock
        self._stop = stop

    def check(self) -> None:
        """Raises: Cancelled. To be called for every block."""
        if self._stop.is_set():
            raise Cancelled("stopped on request; what was sent is kept for a resume")
