"""A few workers with a store each, and the loop of the thread that commits.

Theory of operation. The caller's thread owns the journal and runs the loop; a worker is a thread that owns one
connection and runs one transfer at a time. They share only two things: the queue of transfers that are ready, which
workers take from, and the queue of calls that workers leave for the caller's thread.

    tick       give the caller a turn, at least every POLL_S
    admit      pull transfers while there is room
    calls      make the calls that workers have queued: note checkpoints, report progress, end turns
    commit     make the records of the transfers at a barrier durable, many in one go; see group_commit
    wake       put transfers whose wait is over back into the queue

A transfer's error ends that transfer only. A lost link on any worker, a cancel or a failed commit ends all of them:
every connection is aborted, so that calls in progress fail within a second; each transfer notes its progress; and the
connections are closed. A call that does not return even then (a hung mount) is left behind in its thread.
"""

from __future__ import annotations

import contextlib
import heapq
import itertools
import logging
import queue
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

from iot.transfer.errors import Cancelled, LinkLost, LocalStateError, Timeout, TransferError
from iot.transfer.group_commit import GroupCommit
from iot.transfer.model import Checkpoint, Finished
from iot.transfer.parallel.ready import TOGETHER_BYTES, Ready, Running
from iot.transfer.parallel.work import Barrier, Command, Desk, Linger, Transfer
from iot.transfer.rate import Meter, RateLimit
from iot.transfer.remote import Capabilities, Store
from iot.transfer.stop import StopFlag

__all__ = ["Workers"]

log = logging.getLogger(__name__)

POLL_S = 0.1
ASK_AGAIN_S = 0.25
IN_FLIGHT = 64
LINGERING = 1024
ENDING_S = 1.0
IDLE_S = 30.0


class Workers:
    """The connections to one far side, opened as needed; see the theory of operation above.

    make: creates an unconnected store. commit: makes checkpoints durable. stop: set when the caller wants to end.
    clock: monotonic seconds. limit, meter: of all of them together.

    delivered_bytes: what the far side has confirmed or sent so far. desk: to be passed to transfers.
    """

    def __init__(
        self,
        make: Callable[[], Store],
        *,
        commit: Callable[[Sequence[Checkpoint]], None],
        stop: StopFlag,
        clock: Callable[[], float],
        limit: RateLimit | None = None,
        meter: Meter | None = None,
    ) -> None:
        self._make = make
        self._clock = clock
        self._stop = stop
        self._ready = Ready()
        self._calls: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._group: GroupCommit[Running] = GroupCommit(commit)
        self._stores: list[Store] = []
        self._dismissed: set[Store] = set()
        self._connecting = self._idle = self._most = 0
        self._lost: TransferError | None = None
        self._crash: BaseException | None = None
        self._active: dict[int, Running] = {}
        self._active_bytes = 0
        self._lingering: list[tuple[float, int, Running]] = []
        self._waiting: dict[int, Running] = {}
        self._ending: TransferError | None = None
        self._turns = itertools.count()
        self._in_turn = 0
        self._finished: deque[Finished] = deque()
        self._ask_at = clock()
        self.delivered_bytes = 0
        self.desk = Desk(
            self._post, lambda count: self._post(partial(self._delivered, count)), clock, stop, limit, meter
        )

    # -- connections

    def connect(self, tick: Callable[[], None]) -> None:
        """Open the first connection. Raises: LinkLost, Timeout, ServerBusy, AuthenticationError, ConfigurationError,
        Cancelled."""
        store = self._begin_worker()
        try:
            while self._connecting:
                self._call(POLL_S)
                tick()
                self._check()
        except BaseException:
            self.close()
            raise
        self._most = store.capabilities.connections

    @property
    def capabilities(self) -> Capabilities:
        return self._stores[0].capabilities

    @property
    def usable(self) -> bool:
        """Whether the connections can serve another transfer, as far as is known."""
        self._call_queued()
        return self._lost is None and self._crash is None and not self._ready.closed

    def close(self) -> None:
        """End everything: calls in progress fail within a second."""
        for running in self._ready.close():
            running.end()
        for store in self._stores:
            store.abort()

    def fewer(self) -> bool:
        """The far side is busy: use one connection less -> whether another one is left."""
        staying = [store for store in self._stores[1:] if store not in self._dismissed]
        if staying:
            self._dismissed.add(staying[-1])
        self._most = max(1, len(staying))
        return bool(staying)

    def _begin_worker(self) -> Store:
        store = self._make()
        self._stores.append(store)
        self._connecting += 1
        first = len(self._stores) == 1
        threading.Thread(target=self._serve, args=(store, first), name="iot-transfer worker", daemon=True).start()
        return store

    def _grow(self) -> None:
        """Open one more connection if a transfer is ready and no worker is free."""
        if len(self._ready) > self._idle and not self._connecting and len(self._stores) < self._most:
            self._begin_worker()
        self._ready.most_large = max(1, self._most - 1)

    # -- in a worker's thread

    def _serve(self, store: Store, first: bool) -> None:
        try:
            store.connect()
        except TransferError as error:
            self._post(partial(self._not_connected, store, error, first=first))
            store.close()
            return
        except BaseException as error:  # noqa: BLE001 - raised again in the caller's thread
            self._post(partial(self._crashed, error))
            return
        self._post(self._connected)
        try:
            while self._one_turn(store, first):
                if store in self._dismissed:
                    self._post(partial(self._left, store))
                    break
        except BaseException as error:  # noqa: BLE001 - raised again in the caller's thread
            self._post(partial(self._crashed, error))
        finally:
            store.close()

    def _one_turn(self, store: Store, first: bool) -> bool:
        """-> whether this worker continues. The first keeps its connection alive; the others end when idle."""
        running = self._ready.take(IDLE_S)
        if running is None:
            return not self._ready.closed and self._stays(store, first)
        self._post(self._taken)
        said: Command | Finished | None = None
        try:
            said = running.turn(store)
        finally:
            self._ready.back(running)
            self._post(partial(self._turn_over, running, said))
        return True

    def _stays(self, store: Store, first: bool) -> bool:
        if not first:
            self._post(partial(self._left, store))
            return False
        try:
            store.check()
        except TransferError as error:
            self._post(partial(self._lose, error))
            return False
        return True

    def _post(self, call: Callable[[], None]) -> None:
        self._calls.put(call)

    # -- what workers leave for the caller's thread

    def _delivered(self, count: int) -> None:
        self.delivered_bytes += count

    def _connected(self) -> None:
        self._connecting -= 1
        self._idle += 1

    def _not_connected(self, store: Store, error: TransferError, *, first: bool) -> None:
        self._connecting -= 1
        self._stores.remove(store)
        if first:
            self._lose(error)
            return
        self._most = len(self._stores)
        log.info("no further connection connections=%d error=%s", len(self._stores), error)

    def _left(self, store: Store) -> None:
        self._idle -= 1
        self._stores.remove(store)

    def _lose(self, error: TransferError) -> None:
        self._lost = self._lost or error

    def _crashed(self, error: BaseException) -> None:
        self._crash = self._crash or error

    def _taken(self) -> None:
        self._idle -= 1
        self._in_turn += 1

    def _turn_over(self, running: Running, said: Command | Finished | None) -> None:
        self._idle += 1
        self._in_turn -= 1
        if isinstance(said, (Barrier, Linger)):
            self._wait(running, said)
        elif isinstance(said, Finished):
            if isinstance(said.error, (LinkLost, Timeout)):
                self._lose(said.error)
            self._end(running, said)

    def _wait(self, running: Running, why: Command) -> None:
        if self._ending is not None:
            running.end()
            self._end(running, Finished(running.tag, error=self._ending))
            return
        self._waiting[id(running)] = running
        if isinstance(why, Barrier):
            self._group.add(running, why.record, started_at=running.started_at, now=self._clock())
        else:
            heapq.heappush(self._lingering, (self._clock() + why.seconds, next(self._turns), running))

    def _go_on(self, running: Running) -> None:
        del self._waiting[id(running)]
        self._ready.put(running)

    # -- the loop

    def run(self, transfers: Iterator[Running | None], tick: Callable[[], None] = lambda: None) -> Iterator[Finished]:
        """Yield each transfer as it ends, while pulling more; None means that there is none right now.

        Raises: LinkLost, Timeout, Cancelled, LocalStateError, after every transfer in flight has been yielded with that
            same error; any foreign exception of a worker or a callback.
        """
        exhausted = False
        try:
            while self._active or self._finished or not exhausted:
                tick()
                while not exhausted and self._may_admit():
                    exhausted = self._admit(transfers)
                self._grow()
                while self._finished:
                    self._ask_at = self._clock()
                    yield self._finished.popleft()
                if self._active or not exhausted:
                    self._attend(exhausted=exhausted)
        except TransferError as error:
            self._end_all(error, tick)
            yield from self._finished
            raise
        finally:
            self._end_all(Cancelled("the caller stopped asking for results"))
            self._finished.clear()

    def run_one(self, transfer: Transfer[Any]) -> Any:
        """Run a single transfer to its end. Raises: its error."""
        [finished] = self.run(iter([Running(transfer)]))
        if finished.error is not None:
            raise finished.error
        return finished.result

    def _may_admit(self) -> bool:
        in_flight = len(self._active) - min(len(self._lingering), LINGERING)
        most = IN_FLIGHT if self._active_bytes < TOGETHER_BYTES else 2 * self._most
        return in_flight < most and self._clock() >= self._ask_at

    def _admit(self, transfers: Iterator[Running | None]) -> bool:
        """-> whether they are exhausted"""
        try:
            running = next(transfers)
        except StopIteration:
            return True
        if running is None:
            self._ask_at = self._clock() + ASK_AGAIN_S
            return False
        running.started_at = self._clock()
        self._active[id(running)] = running
        self._active_bytes += running.payload_bytes
        self._ready.put(running)
        return False

    def _attend(self, *, exhausted: bool) -> None:
        """Make the queued calls, waiting a while for the first; then whatever is due by time."""
        self._call(self._patience_s(may_admit=not exhausted and self._may_admit()))
        self._call_queued()
        self._check()
        if self._commit_wait_s() == 0.0:
            for running in self._group.commit():
                self._go_on(running)
        while self._lingering and self._lingering[0][0] <= self._clock():
            self._go_on(heapq.heappop(self._lingering)[2])

    def _patience_s(self, *, may_admit: bool) -> float:
        if may_admit:
            return 0.0
        commit_s = self._commit_wait_s()
        return POLL_S if commit_s is None else min(POLL_S, commit_s)

    def _commit_wait_s(self) -> float | None:
        return self._group.wait_s(self._clock(), others=len(self._ready) + self._in_turn)

    def _call(self, wait_s: float) -> None:
        try:
            call = self._calls.get(timeout=wait_s)
        except queue.Empty:
            return
        call()

    def _call_queued(self) -> None:
        while not self._calls.empty():
            self._calls.get()()

    def _check(self) -> None:
        if self._crash is not None:
            raise self._crash
        if self._stop.is_set():
            raise Cancelled("stopped on request; what was sent is kept for a resume")
        if self._lost is not None:
            raise self._lost

    def _end(self, running: Running, finished: Finished) -> None:
        if self._active.pop(id(running), None) is None:
            return
        self._active_bytes -= running.payload_bytes
        if self._ending is not None and isinstance(finished.error, (LinkLost, Timeout, Cancelled)):
            finished = Finished(running.tag, error=self._ending)  # its own error only says that it was aborted
        self._finished.append(finished)

    def _end_all(self, error: TransferError, tick: Callable[[], None] = lambda: None) -> None:
        """Running transfers may still note their progress; waiting ones are given up."""
        if not self._active:
            return
        self._ending = error
        for running in (*self._ready.close(), *self._waiting.values()):
            running.end()
            self._end(running, Finished(running.tag, error=error))
        self.close()
        over_at = self._clock() + ENDING_S
        while self._active and self._clock() < over_at:
            with contextlib.suppress(LocalStateError):  # which may be the very reason for the end
                self._call(POLL_S)
            tick()
        for running in list(self._active.values()):
            self._end(running, Finished(running.tag, error=error))
