"""One run of the client after the other: hands out jobs, books what comes of them, and says what became of the link."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from iot.spooler.agent.dispatch import Dispatcher
from iot.spooler.agent.local_hold import LocalHold
from iot.spooler.agent.outcomes import OutcomeRecorder
from iot.spooler.naming import shown
from iot.spooler.queue.policy import FailureKind
from iot.spooler.server.availability import TO_DO, Availability, Remote, ServerState, failure_kind
from iot.spooler.server.hint import Hints
from iot.transfer import (
    AuthenticationError,
    Cancelled,
    Failure,
    LinkLost,
    LocalStateError,
    TransferError,
    TransferResult,
    UploadJob,
)

__all__ = ["Sender", "Totals"]

log = logging.getLogger(__name__)


@dataclass
class Totals:
    """Since the start of the process: files delivered, and bytes that the server has confirmed."""

    files: int = 0
    bytes: int = 0


class Sender:
    """Sends what the dispatcher hands out.

    totals: what earlier agents of this process did. hints: those of the server, if they are to be read.
    stopping: whether the loop is being stopped. on_change: called when the status has changed. on_progress: called with
    the bytes newly confirmed by the server.
    """

    def __init__(
        self,
        remote: Remote,
        dispatcher: Dispatcher,
        outcomes: OutcomeRecorder,
        server: Availability,
        hold: LocalHold,
        totals: Totals,
        hints: Hints | None = None,
        *,
        stopping: Callable[[], bool],
        clock: Callable[[], float],
        on_change: Callable[[], None],
        on_progress: Callable[[int], None],
    ) -> None:
        self._remote = remote
        self._dispatcher = dispatcher
        self._outcomes = outcomes
        self._server = server
        self._hold = hold
        self._totals = totals
        self._hints = hints
        self._stopping = stopping
        self._now = clock
        self._on_change = on_change
        self._on_progress = on_progress
        self._jobs_ended = self._refused = False

    def run(self, tick: Callable[[], None]) -> None:
        """One run of the client: ends when nothing is ready, the link is lost, or the loop is stopped.

        tick: called at least every second, also while nothing moves.
        """
        self._jobs_ended = self._refused = False
        self._server.tried()
        lost = self._run(tick)
        flying, claimed = self._dispatcher.abandon()
        self._outcomes.interrupted(flying)
        self._outcomes.released(claimed)
        if lost is not None:
            self.lost(lost)
        else:
            self._server.ended()
        with self._hold:
            self._outcomes.record()

    def _run(self, tick: Callable[[], None]) -> TransferError | None:
        """-> what ended the link, if anything did"""
        lost: TransferError | None = None
        try:
            if self.is_asked_to_wait(tick):
                return None
            for outcome in self._remote.upload_many(self._jobs(), hold_checkpoints=True, tick=tick):
                lost = self._book(outcome) or lost
        except LocalStateError as error:
            self._hold.begin(error)
        except Cancelled:
            pass  # the loop is being stopped; transfers in flight are abandoned by the caller
        except TransferError as error:
            lost = error
        else:
            if lost is None and not self._jobs_ended and not self._stopping():
                lost = LinkLost("the connection could not be made")
        return lost

    def is_asked_to_wait(self, tick: Callable[[], None]) -> bool:
        """Whether the server asks, on this connection, to be left alone. Raises: what ends the link."""
        wait_s = 0.0 if self._hints is None else self._hints.look(tick)
        if wait_s:
            self._server.asked_to_wait(self._now(), wait_s)
            log.info("the server asks to be left alone next_s=%.0f", wait_s)
            self._on_change()
        return wait_s > 0

    def _jobs(self) -> Iterator[UploadJob | None]:
        """The jobs that the client pulls."""
        while not self._stopping() and not self._refused and not self._is_hint_due():
            job = None if self._hold.is_on else self._dispatcher.next_job()
            if job is None and not self._dispatcher.in_flight and not self._dispatcher.is_preparing:
                break
            yield job
        self._jobs_ended = True

    def _is_hint_due(self) -> bool:
        """Another connection has taken over: its hint is read by the next run."""
        return self._hints is not None and self._hints.is_due

    def _book(self, outcome: TransferResult | Failure) -> TransferError | None:
        """Book an outcome -> the error, if it was the link's or the server's as a whole."""
        flight = self._dispatcher.finished(outcome)
        self._on_change()
        if isinstance(outcome, TransferResult):
            self._outcomes.succeeded(flight.entry, outcome)
            self._totals.files += outcome.proof is not None  # else it had been delivered before
            self._on_progress(max(outcome.size - max(flight.done_bytes, outcome.resumed_at), 0))
            return None
        if isinstance(outcome.error, Cancelled) and not self._stopping():
            log.info("suspended path=%s done=%d", shown(flight.entry.path), flight.done_bytes)
        self._outcomes.failed(flight.entry, outcome, progressed=flight.progressed)
        if isinstance(outcome.error, AuthenticationError):
            self._refused = True  # it is that of every file: no more jobs
            return outcome.error
        kind = failure_kind(outcome.error)
        if kind is FailureKind.PERMANENT:
            self._server.answered()
        return outcome.error if kind is FailureKind.LINK else None

    def lost(self, error: TransferError) -> None:
        """This has ended the link: say so, and when the next try is due."""
        if self._hints is not None:
            self._hints.connection_lost()
        self._server.lost(error, self._now())
        wait_s = max(self._server.ready_at - self._now(), 0.0)
        words = shown(self._server.last_error or "")
        if self._server.state is ServerState.HELD:
            log.error("link held error=%s next_s=%.0f to_do=%s", words, wait_s, shown(TO_DO))
        else:
            log.warning("link %s error=%s next_s=%.1f", self._server.state.value, words, wait_s)
        self._on_change()
