"""Many transfers over as many connections as needed, whatever the protocol: one outcome for every job.

A job that was under way when the link was lost goes on over the next connection, up to `attempts` in a row without
progress. A job that fails otherwise ends alone. Each remote says how a job becomes work, and how work is run.
"""

from __future__ import annotations

import logging
import os
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Generic, TypeVar

from iot.transfer.attempts import Attempts, Connected
from iot.transfer.base import Outcome
from iot.transfer.errors import Cancelled, LinkLost, ProofFailed, ServerBusy, Timeout, TransferError, TransientError
from iot.transfer.journal.checkpoints import Checkpoints, Key
from iot.transfer.model import DownloadJob, Failure, Finished, TransferResult, UploadJob
from iot.transfer.names import path_text

__all__ = ["Batch", "Ticket", "failure"]

log = logging.getLogger(__name__)

C = TypeVar("C", bound=Connected)
J = TypeVar("J", bound=UploadJob | DownloadJob)
W = TypeVar("W")


@dataclass(slots=True, eq=False)
class Ticket(Generic[J]):
    """A job until its outcome is known.

    moved_bytes: payload that its attempts have moved so far. turn: number of its last attempt, over all jobs.
    interrupted: a lost link ended an attempt of this call, and its progress counts. fetched_twice: its proof has failed
    once.
    """

    job: J
    moved_bytes: int = 0
    turn: int = 0
    interrupted: bool = False
    fetched_twice: bool = False


class Batch(ABC, Generic[C, J, W]):
    """One call of upload_many or download_many.

    resume: False starts over; what a lost link interrupts goes on all the same.
    hold: keep the checkpoints of successes until the caller settles them.
    tick: called at least every 0.25 s, also while connecting and while all slots are taken.
    """

    fetches = False
    """Whether a job whose proof failed is tried once more: the part may mix two versions, or a .sha256 may have come
    after its file."""

    def __init__(
        self,
        attempts: Attempts[C],
        checkpoints: Checkpoints,
        *,
        resume: bool = True,
        hold: bool = False,
        tick: Callable[[], None] = lambda: None,
    ) -> None:
        self._attempts = attempts
        self._checkpoints = checkpoints
        self._resume = resume
        self._hold = hold
        self._tick = tick
        self._again: deque[Ticket[J]] = deque()
        self._exhausted = False
        self._begun = 0

    def run(self, jobs: Iterable[J | None]) -> Iterator[Outcome]:
        """Yield an outcome for every job. Raises: AuthenticationError, TransientError, LocalStateError."""
        feed = iter(jobs)
        try:
            for attempt in self._attempts:
                with attempt as connection:
                    yield from self._on_one_connection(connection, feed)
        except Cancelled as error:
            self._cancelled()
            yield from self._fail_all(error)
        except TransientError as error:
            if not self._again:
                raise
            yield from self._fail_all(error)
        finally:
            self._checkpoints.flush()

    # -- what a remote says

    @abstractmethod
    def _work(self, ticket: Ticket[J], connection: C) -> W | None:
        """The work of a job, tagged with its ticket; None: not now, and the ticket is in `_again`."""

    @abstractmethod
    def _results(self, connection: C, work: Iterator[W | None]) -> Iterator[Finished]:
        """Run all work on a connection."""

    @abstractmethod
    def _fewer(self, ticket: Ticket[J], connection: C) -> bool:
        """The far side is too busy for this job: do less at once -> whether it is worth another try."""

    @abstractmethod
    def _leave(self, connection: C) -> None:
        """The connection is lost, and nothing is left to do."""

    @abstractmethod
    def _checkpoint_key(self, result: TransferResult) -> Key: ...

    def _connected(self, connection: C) -> None:
        """Called before anything is run on a new connection."""

    def _beside(self, connection: C) -> W | None:
        """Work that is not one of the caller's jobs; asked for after each job. Its tag is None."""
        return None

    def _cancelled(self) -> None:
        """The caller wants to end."""

    # -- the loop

    def _on_one_connection(self, connection: C, feed: Iterator[J | None]) -> Iterator[Outcome]:
        self._connected(connection)
        try:
            while self._again or not self._exhausted:
                for finished in self._results(connection, self._pull(feed, connection)):
                    outcome = self._outcome(finished, connection)
                    if outcome is not None:
                        yield outcome
        except (LinkLost, Timeout):
            self._checkpoints.flush()  # the next connection may be long in coming
            if self._again or not self._exhausted:
                raise
            self._leave(connection)

    def _pull(self, feed: Iterator[J | None], connection: C) -> Iterator[W | None]:
        while True:
            ticket = self._next_ticket(feed)
            if ticket is None and self._exhausted:
                return
            work = self._begin(ticket, connection) if ticket is not None else None
            if work is not None:
                yield work
            beside = self._beside(connection) if self._begun else None
            if beside is not None or work is None:  # None means nothing for a while, not even beside
                yield beside

    def _begin(self, ticket: Ticket[J], connection: C) -> W | None:
        self._begun += 1
        ticket.turn = self._begun
        return self._work(ticket, connection)

    def _next_ticket(self, feed: Iterator[J | None]) -> Ticket[J] | None:
        if self._again:
            return self._again.popleft()
        try:
            job = next(feed)
        except StopIteration:
            self._exhausted = True
            return None
        return Ticket(job) if job is not None else None

    # -- outcomes

    def _outcome(self, finished: Finished, connection: C) -> Outcome | None:
        """None: the job goes back to the queue, or is not one of the caller's."""
        ticket: Ticket[J] | None = finished.tag
        if ticket is None:
            return None
        if finished.error is None:
            return self._succeeded(ticket, finished.result)
        if self._goes_again(ticket, finished.error, connection):
            self._again.append(ticket)
            return None
        return failure(ticket.job, finished.error)

    def _succeeded(self, ticket: Ticket[J], result: TransferResult) -> TransferResult:
        self._attempts.progressed()
        if not self._hold:
            self._checkpoints.forget_keys([self._checkpoint_key(result)])
        whole = result.sent_bytes == ticket.moved_bytes and result.key is ticket.job.key
        return result if whole else replace(result, sent_bytes=ticket.moved_bytes, key=ticket.job.key)

    def _goes_again(self, ticket: Ticket[J], error: TransferError, connection: C) -> bool:
        if isinstance(error, (LinkLost, Timeout)):
            ticket.interrupted = True
            return True
        if self.fetches and isinstance(error, ProofFailed) and not ticket.fetched_twice:
            log.warning("fetching once more from the start error=%s", error)
            ticket.fetched_twice = True
            return True
        return isinstance(error, ServerBusy) and self._fewer(ticket, connection)

    def _resumes(self, ticket: Ticket[J]) -> bool:
        return self._resume or ticket.interrupted

    def _fail_all(self, error: TransferError) -> Iterator[Failure]:
        while self._again:
            yield failure(self._again.popleft().job, error)


def failure(job: UploadJob | DownloadJob, error: TransferError) -> Failure:
    return Failure(job.key, _shown(job.source), _shown(job.dest), error)


def _shown(place: object) -> str:
    """A path or an open file as a result shows it; of another type, the error says so."""
    if isinstance(place, os.PathLike):
        place = os.fspath(place)
    if hasattr(place, "seek"):
        return str(getattr(place, "name", "stream"))
    return path_text(place)
