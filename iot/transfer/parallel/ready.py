"""Running transfers, and the queue that workers take them from."""

from __future__ import annotations

import heapq
import itertools
import threading
from typing import Any

from iot.transfer.errors import TransferError
from iot.transfer.model import Finished
from iot.transfer.parallel.work import Command, Transfer, Work
from iot.transfer.remote import Store

__all__ = ["TOGETHER_BYTES", "Ready", "Running"]

TOGETHER_BYTES = 1024 * 1024
"""A transfer of more bytes than this counts as large."""


class Running:
    """A transfer that was admitted. urgency: lower comes first; large: never given to the last free worker."""

    def __init__(
        self, transfer: Transfer[Any], urgency: tuple[int, ...] = (0,), *, tag: Any = None, payload_bytes: int = 0
    ) -> None:
        self.transfer = transfer
        self.urgency = urgency
        self.tag = tag
        self.payload_bytes = payload_bytes
        self.large = payload_bytes > TOGETHER_BYTES
        self.started_at = 0.0
        self._work: Work[Any] = transfer.run()

    def turn(self, store: Store) -> Command | Finished:
        """Run until it waits or ends; called in a worker's thread."""
        self.transfer.store = store
        try:
            return next(self._work)
        except StopIteration as end:
            finished = Finished(self.tag, end.value)
        except TransferError as error:
            finished = Finished(self.tag, error=error)
        except BaseException:
            self.transfer.release()
            raise
        self.transfer.release()
        return finished

    def end(self) -> None:
        """Give up a transfer that waits."""
        self._work.close()
        self.transfer.release()


class Ready:
    """The transfers that a worker may take. A large one is left waiting if it would take the last free worker."""

    def __init__(self) -> None:
        self._waiting: dict[bool, list[tuple[tuple[int, ...], int, Running]]] = {False: [], True: []}
        self._turns = itertools.count()
        self._changed = threading.Condition()
        self._closed = False
        self._large = 0
        self.most_large = 1

    def __len__(self) -> int:
        return sum(map(len, self._waiting.values()))

    def put(self, running: Running) -> None:
        with self._changed:
            heapq.heappush(self._waiting[running.large], (running.urgency, next(self._turns), running))
            self._changed.notify()

    def take(self, wait_s: float) -> Running | None:
        """The most urgent one; None after `wait_s` seconds, or once the queue is closed."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed or self._heap() is not None, wait_s)
            heap = None if self._closed else self._heap()
            if heap is None:
                return None
            running: Running = heapq.heappop(heap)[2]
            self._large += running.large
            return running

    def back(self, running: Running) -> None:
        """A worker's turn with this transfer is over."""
        with self._changed:
            self._large -= running.large
            self._changed.notify()

    def close(self) -> list[Running]:
        """-> the transfers that nobody has taken"""
        with self._changed:
            self._closed = True
            left = [item[2] for heap in self._waiting.values() for item in heap]
            self._waiting = {False: [], True: []}
            self._changed.notify_all()
        return left

    @property
    def closed(self) -> bool:
        return self._closed

    def _heap(self) -> list[tuple[tuple[int, ...], int, Running]] | None:
        small, large = self._waiting[False], self._waiting[True]
        if self._large >= self.most_large or not large:
            return small or None
        return large if not small or large[0] < small[0] else small
