"""Workers by themselves: a store and transfers that a test has its hands on."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from iot.transfer.parallel.workers import Workers
from iot.transfer.remote import Capabilities, Publish, Resume
from iot.transfer.stop import StopFlag

__all__ = ["Rig", "Store", "Transfer"]


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


class Rig:
    def __init__(self) -> None:
        self.stores: list[Store] = []
        self.next: list[Store] = []
        self.commits: list[list[Any]] = []
        self.stop = StopFlag()
        self.workers = Workers(self.make, commit=self.commit, stop=self.stop, clock=time.monotonic)

    def make(self) -> Store:
        self.stores.append(self.next.pop(0) if self.next else Store())
        return self.stores[-1]

    def commit(self, records: list[Any]) -> None:
        self.commits.append(list(records))

    def connect(self) -> Workers:
        self.workers.connect(lambda: None)
        return self.workers

    def until(self, what: Callable[[], bool]) -> None:
        end = time.monotonic() + 20
        while not what():
            assert time.monotonic() < end
            assert self.workers.usable in (True, False)  # makes the calls that are there
            time.sleep(0.002)
