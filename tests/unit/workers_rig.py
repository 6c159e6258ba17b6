"""Workers by themselves: a store and transfers that a test has its hands on."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from iot.transfer.errors import LinkLost
from iot.transfer.parallel.ready import Running
from iot.transfer.parallel.workers import Workers
from iot.transfer.remote import Capabilities, Publish, Resume
from iot.transfer.stop import StopFlag

__all__ = ["LONG_S", "Rig", "Store", "Transfer", "blocks", "ends", "meeting"]

LONG_S = 20.0


@dataclass(eq=False)
class Store:
    connecting: BaseException | None = None
    checking: BaseException | None = None
    connections: int = 3
    checks: int = 0
    closed: int = 0
    aborted: threading.Event = field(default_factory=threading.Event)

    @property
    def capabilities(self) -> Capabilities:
        return Capabilities(resume=Resume.OFFSET, publish=Publish.RENAME, connections=self.connections)

    def connect(self) -> None:
        if self.connecting is not None:
            raise self.connecting

    def check(self) -> None:
        self.checks += 1
        if self.checking is not None:
            raise self.checking

    def abort(self) -> None:
        self.aborted.set()

    def close(self) -> None:
        self.closed += 1


class Transfer:
    """A generator as a transfer; `steps` gets the store."""

    def __init__(self, steps: Callable[[Any], Iterator[Any]]) -> None:
        self.steps, self.released = steps, 0

    def run(self):
        return (yield from self.steps(self))

    def release(self) -> None:
        self.released += 1


def ends(value: Any = "done", after: Callable[[], Any] = lambda: None) -> Transfer:
    def steps(_: Any) -> Iterator[Any]:
        yield from ()
        after()
        if isinstance(value, BaseException):
            raise value
        return value

    return Transfer(steps)


def blocks() -> Transfer:
    def steps(transfer: Any) -> Iterator[Any]:
        yield from ()
        transfer.store.aborted.wait(LONG_S)
        raise LinkLost("aborted")

    return Transfer(steps)


def meeting(count: int) -> list[Running]:
    """Transfers that end only if all of them are under way at once."""
    together = threading.Barrier(count)
    return [Running(ends(number, lambda: together.wait(LONG_S)), tag=number) for number in range(count)]


class Rig:
    """clock: monotonic seconds, of the workers."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.stores: list[Store] = []
        self.next: list[Store] = []
        self.commits: list[list[Any]] = []
        self.stop = StopFlag()
        self.workers = Workers(self.make, commit=self.commit, stop=self.stop, clock=clock)

    def make(self) -> Store:
        self.stores.append(self.next.pop(0) if self.next else Store())
        return self.stores[-1]

    def commit(self, records: list[Any]) -> None:
        self.commits.append(list(records))

    def connect(self, connections: int = 3) -> Workers:
        self.next = self.next or [Store(connections=connections)]
        self.workers.connect(lambda: None)
        return self.workers

    def until(self, what: Callable[[], bool]) -> None:
        end = time.monotonic() + LONG_S
        while not what():
            assert time.monotonic() < end
            assert self.workers.usable in (True, False)  # makes the calls that are there
            time.sleep(0.002)
