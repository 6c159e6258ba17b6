"""All inboxes of an agent, and how they share the server with the outboxes.

There is one loop and one connection: files are fetched while none is sent. Uploads come first: a download ends at its
offset as soon as an upload is ready, and goes on when none is. So that a device that always has something to send also
gets its files, inboxes that have waited for PATIENCE_S get a turn: for TURN_S only what is urgent is sent, and an
upload in flight is suspended. What is urgent never waits for a download.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

from iot.spooler.agent.local_hold import LocalHold
from iot.spooler.queue.policy import Admission, FailureKind
from iot.spooler.server.availability import Availability, Remote, failure_kind
from iot.transfer import (
    AuthenticationError,
    Cancelled,
    DownloadJob,
    Failure,
    LocalStateError,
    TransferError,
    TransferResult,
)

if TYPE_CHECKING:
    from iot.spooler.inbox.inbox import Inbox

__all__ = ["Pull"]

PATIENCE_S = 30.0
TURN_S = 5.0
LOOK_S = 0.1
"""How often uploads are asked for while files are fetched."""


class Pull:
    """admission: what may be done for the inbox of a number. uploads_ready: whether uploads of this urgency are ready.

    stopping: whether the loop is being stopped. on_change: called when the status has changed. on_progress: called when
    the server has answered. on_lost: called with what has ended the link. asked_to_wait: see Sender.is_asked_to_wait.
    """

    def __init__(
        self,
        inboxes: Sequence[Inbox],
        remote: Remote,
        server: Availability,
        hold: LocalHold,
        admission: Callable[[int], Admission],
        uploads_ready: Callable[[Admission], bool],
        *,
        stopping: Callable[[], bool],
        clock: Callable[[], float],
        on_change: Callable[[], None],
        on_progress: Callable[[], None],
        on_lost: Callable[[TransferError], None],
        asked_to_wait: Callable[[Callable[[], None]], bool],
    ) -> None:
        self.inboxes = inboxes
        self._by_number = {inbox.number: inbox for inbox in inboxes}
        self._remote = remote
        self._server = server
        self._hold = hold
        self._admission = admission
        self._uploads_ready = uploads_ready
        self._stopping = stopping
        self._now = clock
        self._on_change = on_change
        self._on_progress = on_progress
        self._on_lost = on_lost
        self._asked_to_wait = asked_to_wait
        self._tick: Callable[[], None] = lambda: None
        self._waits_since: float | None = None
        self._is_turn = self._runs = self._yields = self._refused = False
        self._turn_over_at = self._look_at = float("-inf")

    # -- for the loop

    def wake(self) -> None:
        for inbox in self.inboxes:
            inbox.wake()

    def step(self) -> bool:
        """What needs no server -> whether something has changed. Raises: DiskFull, JournalUnavailable."""
        has_changed = False
        for inbox in self.inboxes:
            has_changed = inbox.step() or has_changed
        return has_changed

    def wants(self) -> bool:
        """Whether there is something to do at the server now."""
        return any(inbox.needs_server() for inbox in self._open())

    def claims(self) -> bool:
        """Whether it is the turn of the inboxes, because uploads have kept them waiting."""
        if self._runs:
            return self._is_turn
        if not self.inboxes or not self.wants():
            self._waits_since = None
            return False
        if self._waits_since is None:
            self._waits_since = self._now()
        return self._now() - self._waits_since >= PATIENCE_S

    def next_at(self) -> float:
        """When there may be something to do, on the monotonic clock."""
        each = (inbox.next_at() if self._may(inbox) else inbox.next_here() for inbox in self.inboxes)
        return min(each, default=float("inf"))

    def is_idle(self) -> bool:
        """Whether all that can be done now is done: for `run --drain`."""
        return all(inbox.is_idle() for inbox in self._open())

    def has_failed(self) -> bool:
        return any(inbox.has_failed() or inbox.stopped for inbox in self.inboxes)

    def close(self) -> None:
        """Raises: DiskFull, JournalUnavailable."""
        for inbox in self.inboxes:
            inbox.close()

    def run(self, tick: Callable[[], None]) -> None:
        """Look, fetch and remove until nothing is left to do, an upload goes first, or the link is lost.

        tick: called at least every second.
        """
        self._tick = tick
        self._is_turn = self.claims()
        self._turn_over_at = self._now() + TURN_S
        self._runs, self._yields, self._refused = True, False, False
        lost: TransferError | None = None
        self._server.tried()
        try:
            lost = self._work()
        except LocalStateError as error:
            self._hold.begin(error)
        except Cancelled:
            pass  # the loop is being stopped, or the configuration is read anew
        except TransferError as error:
            lost = error
        finally:
            self._runs, self._waits_since = False, None
            for inbox in self.inboxes:
                inbox.abandon()
        if lost is not None:
            self._on_lost(lost)
        else:
            self._server.ended()
        self._on_change()

    # -- inside

    def _open(self) -> list[Inbox]:
        return [inbox for inbox in self.inboxes if self._may(inbox)]

    def _may(self, inbox: Inbox) -> bool:
        return self._admission(inbox.number) is Admission.ALL

    def _work(self) -> TransferError | None:
        """-> what has ended the link, if anything did"""
        if self._asked_to_wait(self._tick_and_look):
            return None
        for inbox in self._open():
            if not self._yields and not self._stopping():
                inbox.look(self._remote, self._tick_and_look)
                self._on_progress()
        lost: TransferError | None = None
        jobs = self._jobs()
        first = next(jobs, None)
        if first is not None:
            for outcome in self._remote.download_many(_again(first, jobs), tick=self._tick_and_look):
                lost = self._book(outcome) or lost
        if lost is None and not self._yields and not self._stopping():
            self.step()
            for inbox in self._open():
                inbox.remove_taken(self._remote, self._tick_and_look)
        return lost

    def _jobs(self) -> Iterator[DownloadJob]:
        for inbox in self._open():
            while not self._suspended(inbox):
                job = inbox.next_job(lambda inbox=inbox: self._suspended(inbox))  # type: ignore[misc]
                if job is None:
                    break
                yield job

    def _suspended(self, inbox: Inbox) -> bool:
        return self._yields or self._refused or not self._may(inbox) or self._stopping()

    def _book(self, outcome: TransferResult | Failure) -> TransferError | None:
        """-> the error, if it was the link's or the server's as a whole"""
        assert isinstance(outcome.key, tuple)
        number, path = outcome.key
        self._by_number[number].ended(path, outcome)
        self._on_change()
        if isinstance(outcome, TransferResult):
            self._on_progress()
            return None
        if isinstance(outcome.error, AuthenticationError):
            self._refused = True
            return outcome.error
        return outcome.error if failure_kind(outcome.error) is FailureKind.LINK else None

    def _tick_and_look(self) -> None:
        self._tick()
        now = self._now()
        if now < self._look_at or self._yields:
            return
        self._look_at = now + LOOK_S
        turn_over = not self._is_turn or now >= self._turn_over_at
        try:
            self._yields = self._uploads_ready(Admission.ALL if turn_over else Admission.URGENT)
        except LocalStateError as error:
            self._hold.begin(error)
            self._yields = True


def _again(first: DownloadJob, rest: Iterator[DownloadJob]) -> Iterator[DownloadJob]:
    yield first
    yield from rest
