"""Jobs: which entry the client gets next, and which are in flight.

Entries are claimed a few at a time, and one transaction records the attempts of all of them. Claims are small, so that
an urgent file never waits behind many; large files get few slots, so that a small one always finds a free one.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Sequence

from iot.spooler.compression.packing import Packing
from iot.spooler.config.outboxes import AfterUpload
from iot.spooler.hooks.before import Before, HookRefusal
from iot.spooler.naming import UnsafeName, shown
from iot.spooler.outbox.intake import Intake
from iot.spooler.queue.policy import Allowed, State, job_priority, prefers_large
from iot.spooler.queue.queue import Entry, Queue
from iot.transfer import Failure, Progress, RemoteCommands, TransferResult, UploadJob, may_be_part

__all__ = ["Dispatcher", "InFlight"]

log = logging.getLogger(__name__)

MAX_LARGE = 2
TOLD_EVERY_S = 60.0
CLAIM_FILES = 256
CLAIM_BYTES = 1024 * 1024


class InFlight:
    """An entry that the client has; done_bytes: what the server has confirmed of the total_bytes that are sent;
    sent_bytes: how much of that since this attempt began."""

    __slots__ = ("done_bytes", "entry", "progressed", "sent_bytes", "total_bytes")

    def __init__(self, entry: Entry, total_bytes: int) -> None:
        self.entry = entry
        self.total_bytes = total_bytes
        self.done_bytes = self.sent_bytes = 0
        self.progressed = False


class Dispatcher:
    """Hands out jobs and knows what is under way.

    clock: seconds, monotonic. on_progress: called with the bytes newly confirmed by the server. on_refused: called with
    an entry that has been begun and cannot be named, and why. on_moved: called with entries that go to another
    destination than their earlier attempts, before they do. on_hindered: called with an entry whose hook `before` has
    refused it. before: runs these hooks. wants_digest: whether the digest of what is sent from an outbox is wanted.
    commands: what is done on the server beside sending an entry's file.
    allowed: what of an outbox may be sent now; after it has changed, `withdraw` is called. packing:
    which files are sent compressed.
    """

    def __init__(
        self,
        queue: Queue,
        intakes: Sequence[Intake],
        on_progress: Callable[[int], None],
        on_moved: Callable[[Sequence[Entry]], None],
        on_refused: Callable[[Entry, str], None],
        on_hindered: Callable[[Entry, HookRefusal], None],
        before: Before,
        wants_digest: Callable[[int], bool],
        clock: Callable[[], float],
        packing: Packing,
        allowed: Callable[[int], Allowed] = lambda _: Allowed(),
        commands: Callable[[Entry], RemoteCommands] = lambda _: RemoteCommands(),
    ) -> None:
        self.in_flight: dict[int, InFlight] = {}
        self._queue = queue
        self._intakes = {intake.number: intake for intake in intakes}
        self._part_suffixes = frozenset[str]().union(*(intake.part_suffixes for intake in intakes))
        self._rotation = [intake.number for intake in intakes]
        self._on_progress = on_progress
        self._on_moved = on_moved
        self._on_refused = on_refused
        self._on_hindered = on_hindered
        self._before = before
        self._wants_digest = wants_digest
        self._now = clock
        self._packing = packing
        self._allowed = allowed
        self._commands = commands
        self._claimed: dict[bool, deque[Entry]] = {False: deque(), True: deque()}
        self._preparing: dict[int, Entry] = {}
        self._none_left: dict[bool, int] = {}
        self._destinations: set[str] = set()
        self._large_in_flight = 0

    @property
    def is_preparing(self) -> bool:
        """Whether the hook `before` of a claimed entry has not ended, or a file is being compressed."""
        return bool(self._preparing) or self._packing.is_busy

    def next_job(self) -> UploadJob | None:
        """The most urgent job; None if there is none, or none that may start yet."""
        self._take_prepared()
        small, large = self._head(large=False), self._head(large=True)
        first_large = prefers_large(
            small.priority if small else None,
            large.priority if large else None,
            large_in_flight=self._large_in_flight,
            max_large=MAX_LARGE,
        )
        entry = large if first_large else small
        if entry is None:
            return None
        self._claimed[first_large].remove(entry)
        return self._job(entry)

    def finished(self, outcome: TransferResult | Failure) -> InFlight:
        """The job has ended: it is in flight no more."""
        assert isinstance(outcome.key, int)
        if isinstance(outcome, TransferResult):
            self._before.delivered(outcome.key)
        return self._land(outcome.key)

    def is_busy(self, outbox: int) -> bool:
        """Whether something of this outbox is claimed or in flight."""
        flying = (flight.entry for flight in self.in_flight.values())
        entries = (*flying, *self._preparing.values(), *self._claimed[False], *self._claimed[True])
        return any(entry.outbox == outbox for entry in entries)

    def withdraw(self) -> list[Entry]:
        """Entries that were claimed and may not be sent any more. Those in flight find out by themselves."""
        late = [entry for claimed in self._claimed.values() for entry in claimed if not self._may_go(entry)]
        for entry in late:
            self._claimed[entry.large].remove(entry)
        early = [entry for entry in self._preparing.values() if not self._may_go(entry)]
        for entry in early:
            del self._preparing[entry.id]
        self._none_left.clear()
        self._packing.ended(late + early)
        return late + early

    def abandon(self) -> tuple[list[Entry], list[Entry]]:
        """After the client has ended: entries handed out that have no outcome, and those that were only claimed."""
        flying = [self._land(number).entry for number in list(self.in_flight)]
        waiting = [entry for claimed in self._claimed.values() for entry in claimed] + list(self._preparing.values())
        for claimed in self._claimed.values():
            claimed.clear()
        self._preparing.clear()
        self._packing.ended(waiting)
        return flying, waiting

    # -- inside

    def _head(self, *, large: bool) -> Entry | None:
        """The first claimed entry whose destination no other job is writing to."""
        if large and self._large_in_flight >= MAX_LARGE:
            return None
        claimed = self._claimed[large]
        while not claimed and self._none_left.get(large) != self._news:
            news = self._news
            if not self._claim(large=large):
                self._none_left[large] = news
        head = next((entry for entry in claimed if entry.destination not in self._destinations), None)
        if head is None:
            for entry in claimed:
                decisions = self._intakes[entry.outbox].decisions
                decisions.tell(entry.path, "waiting, another file is being sent to its destination")
        return head

    def _take_prepared(self) -> None:
        """Those whose hook has succeeded are claimed like others, in their place; the others are not sent."""
        answers = self._before.answers()
        for number, refusal in answers:
            entry = self._preparing.pop(number, None)
            if entry is None:
                continue  # it was let go meanwhile
            if refusal is not None:
                self._packing.ended([entry])
                self._on_hindered(entry, refusal)
                continue
            later = [each for each in self._claimed[entry.large] if each.priority > entry.priority]
            self._claimed[entry.large].insert(len(self._claimed[entry.large]) - len(later), entry)
        if answers:
            self._none_left.clear()  # there is room for more

    def _prepare(self, begun: Sequence[Entry]) -> list[Entry]:
        """Have their hooks run -> those that have none"""
        ready = []
        for entry in begun:
            if self._before.room(entry.outbox) is None:
                ready.append(entry)
            else:
                self._preparing[entry.id] = entry
                self._before.ask(entry)
        return ready

    def _heads(self, outbox: int, *, large: bool, limit: int) -> list[Entry]:
        """The next entries of an outbox, no more than there is room for with its hook, and than a claim may have."""
        room = self._before.room(outbox)
        limit = limit if room is None else min(limit, room)
        if not limit:
            return []
        allowed = self._allowed(outbox)
        may_be_passed_over = self._intakes[outbox].settings.compress is not None
        most_bytes = float("inf") if may_be_passed_over else CLAIM_BYTES
        return self._queue.heads(outbox, large=large, limit=limit, most_bytes=most_bytes, allowed=allowed)

    def _claim(self, *, large: bool) -> bool:
        """-> whether there was anything to claim; it may have to wait for its hook, or may have no name"""
        limit = 1 if large else CLAIM_FILES
        heads = [self._heads(number, large=large, limit=limit) for number in self._rotation]
        self._rotation = self._rotation[1:] + self._rotation[:1]
        chosen: list[Entry] = []
        total = 0
        for entry in _merged(heads):
            if len(chosen) == limit or (chosen and total + entry.fingerprint.size > CLAIM_BYTES):
                break
            if self._packing.is_ready(entry):
                chosen.append(entry)
                total += entry.fingerprint.size
        if not chosen:
            return False
        reasons: dict[int, str] = {}
        named = [self._named(entry, reasons) for entry in chosen]
        moved = [entry for entry in named if entry.left_at is not None]
        if moved:
            self._on_moved(moved)
        begun = self._queue.begin(named)
        for entry in begun:
            if entry.id in reasons:
                self._on_refused(entry, reasons[entry.id])
        self._claimed[large].extend(self._prepare([entry for entry in begun if entry.id not in reasons]))
        return True

    def _named(self, entry: Entry, reasons: dict[int, str]) -> Entry:
        """With its destination, which is recorded when it is begun and then stays. reasons: of those that have none."""
        intake = self._intakes[entry.outbox]
        suspicion = intake.suspicion(entry)
        if suspicion:
            reasons[entry.id] = suspicion
            return entry._replace(rule=None)
        try:
            destination = entry.destination or intake.destination(entry) + self._packing.suffix(entry)
            self._check(destination)
        except UnsafeName as error:
            reasons[entry.id] = str(error)
            return entry._replace(rule=None)
        left_at = entry.left_at if entry.left_at != destination else None
        return entry._replace(destination=destination, left_at=left_at)

    @property
    def _news(self) -> int:
        """Changes whenever something may have become ready."""
        return self._queue.made_ready + self._packing.news

    def _check(self, destination: str) -> None:
        """Raises: UnsafeName for a name that the part of another file, of any outbox, may have."""
        for suffix in self._part_suffixes:
            if may_be_part(destination, suffix):
                raise UnsafeName(f"{shown(destination)} ends in {suffix!r}, as parts do by temporary-suffix")

    def _job(self, entry: Entry) -> UploadJob:
        source, version = self._packing.source(entry)
        flight = self.in_flight[entry.id] = InFlight(entry, version.size)
        if entry.large:
            log.info("sending path=%s bytes=%d", shown(entry.path), entry.fingerprint.size)
        self._destinations.add(entry.destination)
        self._large_in_flight += entry.large
        intake = self._intakes[entry.outbox]
        intake.decisions.tell_state(entry.path, State.SENDING)
        return UploadJob(
            source=source,
            dest=entry.destination,
            key=entry.id,
            priority=job_priority(entry.priority, large=entry.large),
            fingerprint=version,
            check_final=entry.check_final,
            grace=intake.settings.after_upload is not AfterUpload.KEEP,
            progress=self._follow(flight) if entry.large else None,
            digest=intake.may_be_touched or self._wants_digest(entry.outbox),
            sent_before=entry.sent_before,
            part_suffix=intake.part_suffix(entry),
            if_exists=intake.settings.collision.if_exists,
            alternatives=intake.alternatives(entry),
            ignores_case=intake.settings.server_ignores_case,
            share=entry.outbox,
            adopt_partial=intake.settings.adopt_partial,
            commands=self._commands(entry),
            suspended=lambda: not self._may_go(entry),
        )

    def _may_go(self, entry: Entry) -> bool:
        allowed = self._allowed(entry.outbox)
        return entry.priority <= allowed.admission and entry.id <= allowed.up_to

    def _follow(self, flight: InFlight) -> Callable[[Progress], None]:
        """Tells the agent of every progress, and the log once a minute."""
        told_at = self._now()
        told_bytes: int | None = None

        def follow(progress: Progress) -> None:
            nonlocal told_at, told_bytes
            told_bytes = progress.resumed_at if told_bytes is None else told_bytes
            seconds = self._now() - told_at
            if seconds >= TOLD_EVERY_S:
                _tell(flight.entry, progress, (progress.done_bytes - told_bytes) / seconds)
                told_at, told_bytes = told_at + seconds, progress.done_bytes
            news = progress.done_bytes - max(flight.done_bytes, progress.resumed_at)
            flight.done_bytes = progress.done_bytes
            if news > 0:
                flight.progressed = True
                flight.sent_bytes += news
                self._on_progress(news)

        return follow

    def _land(self, number: int) -> InFlight:
        flight = self.in_flight.pop(number)
        self._destinations.discard(flight.entry.destination)
        self._large_in_flight -= flight.entry.large
        self._packing.ended([flight.entry])
        return flight


def _tell(entry: Entry, progress: Progress, rate: float) -> None:
    log.info(
        "under way path=%s done=%d bytes=%d percent=%d rate_bytes_per_s=%d",
        shown(entry.path),
        progress.done_bytes,
        progress.total_bytes,
        progress.done_bytes * 100 // max(progress.total_bytes, 1),
        rate,
    )


def _merged(heads: Sequence[Sequence[Entry]]) -> list[Entry]:
    """By priority; outboxes of equal priority take turns, each in its own order."""
    turns = [
        (entry.priority, turn, place, entry) for place, head in enumerate(heads) for turn, entry in enumerate(head)
    ]
    return [item[-1] for item in sorted(turns, key=lambda item: item[:3])]
