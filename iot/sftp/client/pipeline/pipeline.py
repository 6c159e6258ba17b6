"""Many requests in flight on one channel, for several jobs at once.

Theory of operation. One thread, one loop:

    tick       give the caller a turn, at least every POLL_S
    admit      pull jobs while there are slots
    turn       run every job that can continue; requests that fit are numbered and coalesced
    commit     make the records of the jobs that reached a barrier durable, many in one go; see group_commit.py
    flush      hand the coalesced bytes to the channel, as many as it accepts
    receive    wait for bytes, cut them into replies, pass each to the job that made the request

A WRITE or READ waits for room in the window (Pace) and for the limit of the rate. Both go to the most urgent jobs first
and then in turn: by bytes among the shares (outboxes), in order within a share. Requests without payload pass at once.
While a small file of a more urgent class is under way, others only keep the link full (Courtesy).
A job's error ends that job. A lost link, a cancel or a failed commit is thrown into every job, so that each can note
its progress, and ends the run.
"""

from __future__ import annotations

import heapq
import itertools
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

from iot.sftp.client.pipeline.job import CLOSED, WAIT, Barrier, Command, Job, Linger, Room, Send
from iot.sftp.client.pipeline.outstanding import Outstanding, Running
from iot.sftp.client.pipeline.pace import Pace
from iot.sftp.client.pipeline.sharing import Courtesy, Turns
from iot.sftp.client.protocol.outgoing import Outgoing
from iot.sftp.client.protocol.parsing import Deframer, parse_reply
from iot.transfer.errors import Cancelled, LinkLost, SFTPError, Timeout
from iot.transfer.group_commit import GroupCommit
from iot.transfer.model import Finished
from iot.transfer.stop import StopFlag

POLL_S = 0.25
BLOCKED_S = 0.1  # wait for a server that does not read; jobs get a turn in between
SILENT_POLL_S = 0.03  # a standby connection is being made; notice at once when it is ready
FLUSH_BYTES = 256 * 1024
EARLY_BYTES = 32 * 1024  # a packet of SSH: hundreds of small jobs take longer than it does on a slow link
RECEIVE_BYTES = 4 * 1024 * 1024
TOGETHER_BYTES = 1024 * 1024
URGENT_BYTES = 64 * 1024
"""A file of up to this size that is more urgent than others has them stand back; a larger one only goes first."""
CLASSES_APART = 2
"""By so much its urgency differs: the large and the small files of one outbox are one class apart."""
LINGERING_JOBS = 1024  # beyond this they occupy slots again: each needs a little memory
CLOSED_JOBS = 320  # likewise
ONE_AND_ANOTHER = 2  # a job that runs beside a single one keeps it waiting for nothing


class Channel(Protocol):
    """What the pipeline needs of a channel; see channel.SFTPChannel."""

    def send(self, outgoing: Outgoing, wait_s: float) -> None: ...

    def receive(self, limit: int, timeout_s: float) -> bytes | None: ...

    def check_alive(self, waiting_since: float | None) -> float: ...


class Pipeline:
    """Drives jobs over one channel.

    clock: monotonic seconds. commit: makes barrier records durable. reply_deadline_s: longest wait for one answer
    while the link is alive. cancelled: set by any thread to stop.
    wire_sent: bytes that the wire has carried for this connection so far, for the limit of the rate.
    on_silence: called with the seconds for which nothing came although bytes are in flight; True ends the run as a
        lost link.
    """

    def __init__(
        self,
        channel: Channel,
        pace: Pace,
        *,
        clock: Callable[[], float],
        commit: Callable[[Sequence[Any]], None],
        reply_deadline_s: float,
        cancelled: StopFlag,
        wire_sent: Callable[[], int] = lambda: 0,
        on_silence: Callable[[float], bool] = lambda _: False,
    ) -> None:
        self.pace = pace
        self._channel = channel
        self._clock = clock
        self._reply_deadline_s = reply_deadline_s
        self._cancelled = cancelled
        self._wire_sent = wire_sent
        self._on_silence = on_silence
        self._deframer = Deframer()
        self._turns = itertools.count()
        self._outstanding = Outstanding(pace)
        self._ask_at = clock()
        self._check_at = clock()
        self._poll_s = POLL_S
        self._out = Outgoing()
        self._active: dict[int, Running] = {}
        self._active_bytes = 0
        self._closed_jobs = 0
        self._ready: deque[Running] = deque()
        self._parked: list[tuple[tuple[int, ...], float, int, Running, Send | Room]] = []
        self._turns_of_shares = Turns()
        self._courtesy = Courtesy()
        self._small: Counter[int] = Counter()
        self._lingering: list[tuple[float, int, Running]] = []
        self._group: GroupCommit[Running] = GroupCommit(commit)
        self._beside: list[Job[Any]] = []
        self._finished: deque[Finished] = deque()

    def beside(self, job: Job[Any]) -> None:
        """Run a job alongside the next ones: its end is not reported, and nobody waits for it."""
        self._beside.append(job)

    def run(
        self,
        jobs: Iterator[Job[Any] | None],
        slots: Callable[[], int],
        tick: Callable[[], None] = lambda: None,
    ) -> Iterator[Finished]:
        """Yield each job as it ends, while pulling more.

        `jobs` is pulled one at a time as slots become free; None means that there is none right now. `slots` may
        change; the second half is for jobs so small that all of them together do not fill a link.
        `tick` is called in every round of the loop, at least every POLL_S, also while no slot is free.

        Raises: LinkLost, Timeout, Cancelled, LocalStateError, after every job in flight has been yielded with that same
            error.
        """
        exhausted = False
        while self._beside:
            self._start(Running(self._beside.pop(), self._clock(), silent=True))
        try:
            while self._active or not exhausted:
                tick()
                while not exhausted and self._may_admit(slots()):
                    exhausted = self._admit(jobs)
                self._turn()
                if self._finished and self._out:
                    self._channel.send(self._out, 0.0)  # what the caller does with a thousand results takes a while
                if self._finished:
                    self._ask_at = self._clock()  # a source that had no job may have one now, or be exhausted
                while self._finished:
                    yield self._finished.popleft()
                self._communicate(in_haste=not exhausted and self._may_admit(slots()))
        except SFTPError as error:
            self._end_all(error, listen=True)
            yield from self._finished
            raise
        finally:
            self._end_all(Cancelled("the caller stopped asking for results"), listen=False)
            self._finished.clear()

    def run_one(self, job: Job[Any]) -> Any:
        """Run a single job to its end. Raises: its error."""
        [finished] = self.run(iter([job]), slots=lambda: ONE_AND_ANOTHER)
        if finished.error is not None:
            raise finished.error
        return finished.result

    # -- admit and turn

    def _may_admit(self, slots: int) -> bool:
        most = slots if self._active_bytes < TOGETHER_BYTES else (slots + 1) // 2
        return self._slots_taken() < most and self._clock() >= self._ask_at

    def _admit(self, jobs: Iterator[Job[Any] | None]) -> bool:
        """-> whether `jobs` is exhausted"""
        try:
            job = next(jobs)
        except StopIteration:
            return True
        if job is None:
            self._ask_at = self._clock() + POLL_S
            return False
        self._start(Running(job, self._clock()))
        return False

    def _start(self, running: Running) -> None:
        self._active[id(running)] = running
        running.small = 0 < running.job.payload_bytes <= URGENT_BYTES
        self._small.update([running.job.urgency[0]] if running.small else [])
        self._active_bytes += running.job.payload_bytes
        self._ready.append(running)

    def _slots_taken(self) -> int:
        without = min(len(self._lingering), LINGERING_JOBS) + min(self._closed_jobs, CLOSED_JOBS)
        return len(self._active) - without

    def _turn(self) -> None:
        while self._lingering and self._lingering[0][0] <= self._clock():
            self._ready.append(heapq.heappop(self._lingering)[2])
        for _ in range(len(self._ready)):
            self._advance(self._ready.popleft())
            if len(self._out) >= EARLY_BYTES:
                self._channel.send(self._out, 0.0)
        while self._can_unpark():
            _, turn, _, running, command = heapq.heappop(self._parked)
            self._turns_of_shares.begun(turn)
            if isinstance(command, Send):
                self._put(running, command)
            else:
                running.has_room = True
            self._advance(running)

    def _can_unpark(self) -> bool:
        """Once enough bytes are coalesced, a flush comes before the next block."""
        if not self._parked or len(self._out) >= FLUSH_BYTES:
            return False
        *_, running, command = self._parked[0]
        return self._has_room(running, command)

    def _has_room(self, running: Running, command: Send | Room) -> bool:
        is_behind = any(urgency <= running.job.urgency[0] - CLASSES_APART for urgency in self._small)
        return self.pace.has_room(command.cost, courteous=is_behind and self._courtesy.is_due(self._clock()))

    def _no_longer_small(self, running: Running) -> None:
        """A small file has ended, or only waits for time to pass."""
        if not running.small:
            return
        running.small = False
        urgency = running.job.urgency[0]
        self._small[urgency] -= 1
        if not self._small[urgency]:
            del self._small[urgency]
            self._courtesy.over(self._clock())

    def _advance(self, running: Running) -> None:
        """Run a job until it waits, is parked, reaches a barrier, gives up its turn, or ends."""
        work = running.job.work
        while True:
            news = running.news()
            try:
                command = next(work) if news is None else work.send(news)
            except StopIteration as stop:
                self._end(running, Finished(running.job.tag, stop.value))
                return
            except (LinkLost, Timeout):
                raise
            except SFTPError as error:
                self._end(running, Finished(running.job.tag, error=error))
                return
            if not self._obey(running, command):
                return

    def _obey(self, running: Running, command: Command) -> bool:
        """-> whether the job can continue at once"""
        if isinstance(command, Send):
            if command.request.cost and not running.has_room and self._must_park(running, command):
                return False
            self._put(running, command)
            return not command.request.cost or len(self._out) < FLUSH_BYTES or self._let_others(running)
        if isinstance(command, Room):
            running.has_room = not self._must_park(running, command)
            return running.has_room
        if isinstance(command, Barrier):
            self._group.add(running, command.record, started_at=running.started_at, now=self._clock())
            return False
        if isinstance(command, Linger):
            self._no_longer_small(running)
            heapq.heappush(self._lingering, (self._clock() + command.seconds, next(self._turns), running))
            return False
        if command is not WAIT:
            return self._close(running) if command is CLOSED else self._let_others(running)
        running.waits = not running.inbox
        return not running.waits

    def _must_park(self, running: Running, command: Send | Room) -> bool:
        """Whether it has to wait for room, as it does from now on."""
        if not self._parked and self._has_room(running, command):
            return False
        turn = self._turns_of_shares.next(running.job.share, command.cost)
        heapq.heappush(self._parked, (running.job.urgency, turn, next(self._turns), running, command))
        return True

    def _close(self, running: Running) -> bool:
        """A job waits for its last answers: only the server's limit of open files made it one of `slots`. -> True"""
        if not running.closed:
            running.closed = True
            self._closed_jobs += 1
            self._active_bytes -= running.job.payload_bytes
        return True

    def _let_others(self, running: Running) -> bool:
        self._ready.append(running)
        return False

    def _put(self, running: Running, send: Send) -> None:
        running.has_room = running.has_room and not send.request.cost
        self._out.add(self._outstanding.ask(running, send, self._clock()))

    def _end(self, running: Running, finished: Finished) -> None:
        running.ended = True
        running.job.work.close()
        del self._active[id(running)]
        self._no_longer_small(running)
        self._close(running)
        self._closed_jobs -= 1
        if not running.silent:
            self._finished.append(finished)

    def _end_all(self, error: SFTPError, *, listen: bool) -> None:
        """listen: first give jobs the answers that have arrived. Not if the caller's own code has failed, because jobs
        may call it again."""
        for running in list(self._active.values()):
            self._end(running, self._last_word(running, error, listen=listen))
        self._ready.clear()
        self._parked.clear()
        self._lingering.clear()
        self._group.clear()

    def _last_word(self, running: Running, error: SFTPError, *, listen: bool) -> Finished:
        """Give a job the answers that have arrived, then the error: what was answered counts."""
        try:
            if running.inbox and listen:
                running.job.work.send(running.inbox)
        except StopIteration as stop:
            return Finished(running.job.tag, stop.value)
        except SFTPError as own:
            return Finished(running.job.tag, error=own)
        try:
            running.job.work.throw(error)
        except (SFTPError, StopIteration):
            pass  # the job has noted its progress; report the error of the link below
        return Finished(running.job.tag, error=error)

    # -- commit, flush, receive

    def _communicate(self, in_haste: bool) -> None:
        """in_haste: there is a free slot, so do not wait."""
        if self._cancelled.is_set():
            raise Cancelled("stopped on request; what was sent is kept for a resume")
        self._flush()
        self._commit_group()
        self._receive(0.0 if in_haste else self._patience_s())
        if self._clock() >= self._check_at:
            self._check_deadlines()

    def _patience_s(self) -> float:
        """How long to wait for data: not at all while there is work, otherwise until `jobs` may be asked again."""
        if self._ready or self._out or self._can_unpark():
            return 0.0  # send() waits for the rest
        commit_s = self._commit_wait_s()
        limited_s = self.pace.limited_s(self._parked[0][-1].cost) if self._parked else None
        poll_s = min(self._poll_s, limited_s or self._poll_s)
        if commit_s is not None:
            return min(commit_s, poll_s)
        return poll_s if self._active else max(0.0, self._ask_at - self._clock())

    def _commit_wait_s(self) -> float | None:
        """Only jobs that have a request outstanding or are due to run can still reach a barrier."""
        others = len(self._outstanding) + len(self._ready) + len(self._parked)
        return self._group.wait_s(self._clock(), others=min(others, self._slots_taken()))

    def _commit_group(self) -> None:
        if self._commit_wait_s() == 0.0:
            self._ready.extend(self._group.commit())

    def _flush(self) -> None:
        if self._out:
            self._channel.send(self._out, BLOCKED_S)

    def _receive(self, wait_s: float) -> None:
        chunk = self._channel.receive(RECEIVE_BYTES, wait_s)
        if chunk is None:
            return
        for packet in self._deframer.feed(chunk):
            owner = self._outstanding.answered(*parse_reply(packet), self._clock())
            if owner is not None:
                self._ready.append(owner)

    def _check_deadlines(self) -> None:
        now = self._clock()
        oldest = self._outstanding.oldest
        quiet_s = self._channel.check_alive(oldest.mark.sent_at if oldest else None)
        self._poll_s = SILENT_POLL_S if self.pace.in_flight and quiet_s > 2 * POLL_S else POLL_S
        self._check_at = now + self._poll_s
        if self.pace.limit.rate is not None:
            self.pace.carried(self._wire_sent())
        if self._on_silence(quiet_s if self.pace.in_flight else 0.0):
            raise LinkLost("the link fell silent, and the standby connection is ready")
        if oldest is not None and now - oldest.mark.sent_at > self._reply_deadline_s:
            raise Timeout(f"no answer for {self._reply_deadline_s:g} s to a request of type {oldest.kind}")
