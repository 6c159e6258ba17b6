"""One inbox: what lies in its remote folder, what of that is fetched, and what is removed there afterwards.

look        the remote folder is listed: what is new, has settled and did not fail just now is wanted
fetching    each to its place in a hidden folder: see there
arrivals    sealed, recorded, judged, published: see there
removal     the remote file is looked at once more, and deleted or moved only if it is still the one that was taken
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping
from typing import Any

from iot.spooler.config.inboxes import AfterDownload, Checksum, InboxSettings
from iot.spooler.inbox.arrivals import Arrivals
from iot.spooler.inbox.fetching import Fetching
from iot.spooler.inbox.judge import Judge
from iot.spooler.inbox.listing import Listing, listed, remote_join
from iot.spooler.inbox.place import Place
from iot.spooler.inbox.records import FileState, Record, Records
from iot.spooler.inbox.removal import Removals, Remover
from iot.spooler.inbox.retries import Retries
from iot.spooler.inbox.wanted import Candidate, Settling, candidates, clashes
from iot.spooler.naming import shown
from iot.spooler.outbox.intake import Clocks
from iot.spooler.patterns import wanted
from iot.spooler.queue.policy import Backoff, FailureKind
from iot.spooler.server.availability import failure_kind
from iot.spooler.state.homes import Homes
from iot.transfer import (
    AuthenticationError,
    Cancelled,
    DownloadJob,
    Failure,
    Journal,
    LocalStateError,
    NotFound,
    PermanentError,
    ProofFailed,
    SourceChanged,
    TransferError,
    TransferResult,
)

__all__ = ["Inbox"]

log = logging.getLogger(__name__)

LEAST_S = 0.1
"""Between two looks."""
CHANGED_S = 1.0
"""At least so long a file is left alone that has changed while it was fetched."""


class Inbox:
    """number: its own among the gates. device_id: for its remote folders. environment: of its hook. homes: where its
    folder has to be mounted.

    last_look_at: seconds since 1970. error: what is wrong with the inbox as a whole; fails_here: on this device, not at
    the server. stopped: by command; nothing is done then. looks: how often it was looked at.
    settles_at: when the next file that the last look found has settled; infinity if all have.
    waiting: what is not fetched yet, by path, and why.
    """

    def __init__(
        self,
        settings: InboxSettings,
        number: int,
        device_id: str,
        journal: Journal,
        clocks: Clocks,
        backoff: Backoff,
        environment: Mapping[str, str],
        random: Callable[[], float],
        homes: Homes | None = None,
    ) -> None:
        self.settings = settings
        self.number = number
        self.source = settings.source_of(device_id)
        self.last_look_at: float | None = None
        self.error: str | None = None
        self.fails_here = self.stopped = False
        self.looks, self.settles_at = 0, float("inf")
        self.waiting: dict[str, str] = {}
        self._clocks = clocks
        self._now = clocks.monotonic
        self._place = Place(settings.path, judged=bool(settings.before_publish), homes=homes)
        self._records = Records(f"{settings.path} from {self.source}", journal)
        self._wanted = wanted(settings.include, settings.exclude, ignore_case=settings.ignore_case)
        self._settling = Settling(settings.settle_s, self._now)
        self._retries = Retries(settings.label, backoff, random, self._now)
        self._fetching = Fetching(number, self.source, self._place)
        self._arrivals = self._made_arrivals(environment)
        self._removals = Removals(
            settings.label, self.source, settings.move_to_of(device_id), self._records, self._retries
        )
        self._refused: dict[str, str] = {}
        self._local_failures = 0
        self._began_at = self._now()
        self._due_at = self._not_before = float("-inf")

    def _made_arrivals(self, environment: Mapping[str, str]) -> Arrivals:
        settings = self.settings
        command, limit_s = settings.before_publish, settings.before_publish_limit_s
        return Arrivals(
            settings.label,
            self._place,
            self._records,
            Judge(command, limit_s, environment, self._now) if command else None,
            self._retries,
            self._now,
            lambda path: remote_join(self.source, path),
            keeps=settings.after_download is AfterDownload.KEEP,
            replaces=settings.replace,
        )

    # -- when

    def wake(self) -> None:
        """Look at once, and try again what failed. Polls are counted from now on."""
        self._began_at = self._now()
        self._due_at = self._not_before = float("-inf")
        self._retries.wake()
        self._arrivals.wake()

    def stop(self) -> None:
        """Do nothing more, until `start`. Raises: DiskFull, JournalUnavailable."""
        self.stopped = True
        self._arrivals.close()

    def start(self) -> None:
        """After `stop`: look at once."""
        if self.stopped:
            self.stopped = False
            self.wake()

    def needs_server(self) -> bool:
        """Whether there is something to do now that needs the server."""
        now = self._now()
        return now >= self._not_before and (now >= self._due_at or bool(self._fetching) or self._removals.is_due(now))

    def is_idle(self) -> bool:
        """Whether all is done that does not wait for another try: for `run --drain`."""
        if self.error is not None:
            return True
        if self._now() >= self._due_at or self._fetching or self._settling.look_at() < float("inf"):
            return False
        unfinished = [*self._arrivals.under_way(), *self._removals.owed()]
        return all(self._retries.has_failed(each.path) for each in unfinished)

    def has_failed(self) -> bool:
        """Whether the inbox as a whole, or a file of it, is to be tried again."""
        return self.error is not None or bool(self._retries.reasons)

    def next_at(self) -> float:
        """When there may be something to do, on the monotonic clock."""
        fetch_at = float("-inf") if self._fetching else float("inf")
        remote_at = max(min(self._due_at, self._removals.next_at(), fetch_at), self._not_before)
        return min(remote_at, self.next_here())

    def next_here(self) -> float:
        """The same of what needs no server, and is done while nothing may be fetched, too."""
        return float("inf") if self.stopped else self._arrivals.next_at()

    # -- at the server

    def look(self, remote: Remover, tick: Callable[[], None]) -> None:
        """Raises: TransientError, AuthenticationError, Cancelled, LocalStateError."""
        if self._now() >= self._due_at and self._is_prepared():
            try:
                found = listed(remote, self.source, recursive=self.settings.recursive, tick=tick)
            except PermanentError as error:
                self._fail(f"{self.source}: {error}")
            else:
                self._take(found)
        self.remove_taken(remote, tick)

    def next_job(self, suspended: Callable[[], bool]) -> DownloadJob | None:
        """The next file to fetch; None if there is none."""
        return self._fetching.next_job(suspended) if self._now() >= self._not_before else None

    def ended(self, path: str, outcome: TransferResult | Failure) -> None:
        """Book what has become of a job."""
        candidate = self._fetching.ended(path)
        if isinstance(outcome, Failure):
            self._failed_to_fetch(candidate, outcome.error)
            return
        self._fetching.done(candidate)
        self._retries.forget(os.fsencode(path))
        self._local_failures = 0
        self._arrivals.add(_record(candidate, outcome, self._clocks.wall()))
        log.info(
            "fetched inbox=%s path=%s bytes=%d resumed_at=%d s=%.1f",
            *(shown(self.settings.label), shown(path), outcome.size, outcome.resumed_at, outcome.seconds),
        )

    def abandon(self) -> None:
        """The run is over: what has no outcome goes on in the next one."""
        self._fetching.abandon()

    def remove_taken(self, remote: Remover, tick: Callable[[], None]) -> None:
        """Delete or move on the server what is published here. Raises: as look."""
        self._removals.run(remote, self._now(), tick)

    # -- on this device

    def step(self) -> bool:
        """Whether anything has changed. Raises: DiskFull, JournalUnavailable."""
        return not self.stopped and self._arrivals.step()

    def close(self) -> None:
        """Raises: DiskFull, JournalUnavailable."""
        self._arrivals.close()

    # -- for the status

    @property
    def label(self) -> str:
        return self.settings.label

    @property
    def published_files(self) -> int:
        return self._arrivals.published_files

    @property
    def held(self) -> dict[str, str]:
        """What is not taken, by path, and why."""
        judged = {os.fsdecode(each.path): each.reason for each in self._records.of(FileState.REFUSED)}
        return {**self._refused, **judged, **self._retries.reasons}

    def figures_in_flight(self) -> list[dict[str, Any]]:
        return self._fetching.figures()

    @property
    def pending_files(self) -> int:
        return len(self._fetching)

    # -- inside: looking

    def _is_prepared(self) -> bool:
        try:
            self._place.prepare()
        except OSError as error:
            self._fail(f"{self.settings.path}: {error.strerror}", here=True)
            return False
        return True

    def _fail(self, reason: str, *, here: bool = False) -> None:
        """The inbox as a whole: it is looked at again with the next poll. The change is that of its state, which is
        logged as such."""
        self.error, self.fails_here = reason, here
        self.looks += 1
        self._due_at = self._next_poll()

    def _take(self, found: Listing) -> None:
        self.error, self.fails_here = None, False
        self.looks += 1
        self.last_look_at = self._clocks.wall()
        chosen, self.waiting = candidates(found.files, self._wanted, self.settings.checksum)
        self._refused = dict(found.refused)
        if self.settings.checksum is Checksum.REQUIRE:
            self._refused |= self.waiting
        if self._place.ignores_case():
            twins = clashes([each.path for each in chosen])
            self._refused |= {path: f"here it has the same name as {shown(other)}" for path, other in twins.items()}
            chosen = [each for each in chosen if each.path not in twins]
        for path, reason in self._refused.items():
            self._retries.tell(os.fsencode(path), reason)
        new = [each for each in chosen if self._is_new(each)]
        self._settling.keep_only({each.path for each in new})
        self._fetching.want(each for each in new if self._is_wanted(each))
        if found.complete:
            self._forget_all_but({os.fsencode(path) for path in found.files})
        self.settles_at = self._settling.look_at()
        again = [self._retries.again_at(os.fsencode(each.path)) for each in new]
        later = [moment for moment in again if moment > self._now()]
        self._due_at = max(min(self._next_poll(), self.settles_at, *later), self._now() + LEAST_S)

    def _is_new(self, candidate: Candidate) -> bool:
        known = self._records.get(os.fsencode(candidate.path))
        return known is None or (known.version, known.checksum) != (candidate.version, candidate.checksum)

    def _is_wanted(self, candidate: Candidate) -> bool:
        path = os.fsencode(candidate.path)
        is_settled = self._settling.is_settled(candidate)
        if not is_settled or self._arrivals.is_judging(path) or self._retries.again_at(path) > self._now():
            return False
        return not self._is_here(candidate, path)

    def _is_here(self, candidate: Candidate, path: bytes) -> bool:
        """Whether it was fetched before the journal was lost: size and time say so, as we have set them. If the file on
        the server is to go, or has a checksum, that is not proof enough: it is fetched and compared."""
        proven = candidate.checksum or self.settings.after_download is not AfterDownload.KEEP
        if proven or self._records.get(path) is not None:
            return False
        try:
            here = self._place.here(path)
        except OSError:
            return False  # publishing it will say what is wrong
        if here is None or tuple(here) != (candidate.file.size, candidate.file.mtime_s):
            return False
        now = self._clocks.wall()
        known = Record(path, FileState.TAKEN, candidate.version, "", here.size, here.mtime_s, taken_at=now)
        self._records.write([known])
        log.info("already there inbox=%s path=%s bytes=%d", shown(self.settings.label), shown(path), here.size)
        return True

    def _forget_all_but(self, paths: set[bytes]) -> None:
        self._records.keep_only(paths)
        waiting = self._arrivals.under_way()
        unfinished = {each.path for each in [*waiting, *self._removals.owed()]}
        self._retries.forget_all_but(paths | unfinished)
        try:
            self._place.clean([*paths, *(each.path for each in waiting)], [each.content for each in waiting])
        except OSError as error:
            log.debug("hidden folder not cleaned inbox=%s reason=%s", shown(self.settings.label), error)

    def _next_poll(self) -> float:
        """Polls are a whole number of poll_s after the first one, or after somebody asked."""
        every_s = self.settings.poll_s
        return self._began_at + ((self._now() - self._began_at) // every_s + 1) * every_s

    # -- inside: fetching

    def _failed_to_fetch(self, candidate: Candidate, error: TransferError) -> None:
        path = os.fsencode(candidate.path)
        if isinstance(error, LocalStateError):
            self._fail_here(error)
            return
        if isinstance(error, (Cancelled, AuthenticationError)) or failure_kind(error) is FailureKind.LINK:
            return  # it goes on in the next run
        self._fetching.done(candidate)
        if isinstance(error, SourceChanged):
            self._settling.unsettle(candidate.path)
            self._due_at = min(self._due_at, self._now() + max(self.settings.settle_s, CHANGED_S))
        elif isinstance(error, ProofFailed):
            self._arrivals.add(_refusal(candidate, str(error), self._clocks.wall()))
            self._retries.tell(path, str(error))
        elif not isinstance(error, NotFound):  # what was removed meanwhile, the next look does not find
            self._due_at = min(self._due_at, self._retries.put_off(path, str(error)))

    def _fail_here(self, error: LocalStateError) -> None:
        """The disk is full, for example: what was fetched so far is kept, and all files of this inbox wait."""
        due_at = self._due_at
        self._fail(f"{self.settings.path}: {error}", here=True)
        self._due_at = due_at
        self._local_failures += 1
        self._not_before = self._now() + self._retries.wait_s(self._local_failures)


def _record(candidate: Candidate, result: TransferResult, wall: float) -> Record:
    mtime_ns = result.fingerprint.mtime_ns if result.fingerprint is not None else 0
    return Record(
        path=os.fsencode(candidate.path),
        state=FileState.FETCHED,
        version=candidate.version,
        checksum=candidate.checksum,
        size=result.size,
        mtime_s=mtime_ns // 10**9 if mtime_ns else None,
        sha256=result.sha256 or "",
        taken_at=wall,
    )


def _refusal(candidate: Candidate, reason: str, wall: float) -> Record:
    return Record(
        path=os.fsencode(candidate.path),
        state=FileState.REFUSED,
        version=candidate.version,
        checksum=candidate.checksum,
        size=candidate.file.size or 0,
        mtime_s=candidate.file.mtime_s,
        reason=reason,
        taken_at=wall,
    )
