"""From an outbox folder into the queue: scans it in small steps, waits until files are ready, and adds new ones.

Each step of a walk examines one batch, so that a folder of 100,000 files delays neither transfers nor the watchdog.
The interval follows from measurement: walks take at most a small share of the time, and less while nothing happens.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from iot.spooler.config.outboxes import AfterUpload, OutboxSettings
from iot.spooler.decisions import Decisions
from iot.spooler.naming import UnsafeName, check_path, shown
from iot.spooler.outbox.content import Hashing, hashless
from iot.spooler.outbox.departure import Departure
from iot.spooler.outbox.lease import Writer
from iot.spooler.outbox.names import name_of
from iot.spooler.outbox.readiness import Readiness
from iot.spooler.outbox.scan import BATCH, Found, Outbox, SourceFailed
from iot.spooler.patterns import matcher, wanted
from iot.spooler.queue.policy import Event, State
from iot.spooler.queue.queue import Entry, Known, NewEntry, Queue
from iot.spooler.state.elapsed import is_synchronised
from iot.transfer import DiskFull, Fingerprint

__all__ = ["Clocks", "Intake"]

log = logging.getLogger(__name__)

WHOLE_SHARE = 2000.0
QUICK_SHARE = 20.0
BUSY_SHARE = 5.0
WHOLE_MAX_S = 600.0
QUICK_MAX_S = 60.0
TIGHT_BATCH = 16
URGENT = 0


@dataclass(frozen=True, slots=True)
class Clocks:
    """Both clocks, in seconds: the monotonic one drives everything, the wall clock is for file times and records.
    synchronised: whether the wall clock is; None: unknown."""

    monotonic: Callable[[], float]
    wall: Callable[[], float]
    synchronised: Callable[[], bool | None] = is_synchronised


class Intake:
    """Brings the files of one outbox into the queue.

    failed: why the outbox, or a folder in it, cannot be read; None when all can. passes: finished walks.
    withdrawn: entries that were attempted and whose producer has since removed the file; whoever reads this list
    clears it. check_first: for all files of the first walk, check whether an earlier delivery is there already.
    """

    def __init__(
        self,
        settings: OutboxSettings,
        queue: Queue,
        clocks: Clocks,
        *,
        device_id: str,
        scan_s: float,
        small_file_bytes: int,
        journal_lost: bool,
    ) -> None:
        self.settings = settings
        self.failed: str | None = None
        self.passes = 0
        self.readiness = Readiness(settings.settle_s)
        self.withdrawn: list[Entry] = []
        self.decisions = Decisions(settings.label)
        self._naming = settings.naming(device_id)
        self.number, fresh = queue.outbox(bytes(settings.path), self._naming.rule, decided=self._naming.decided)
        self.check_first = journal_lost or (fresh and settings.after_upload is AfterUpload.KEEP)
        self.outbox = Outbox(
            settings.path,
            wanted=wanted(settings.include, settings.exclude, ignore_case=settings.ignore_case),
            clock=clocks.monotonic,
            recursive=settings.recursive,
            excluded=matcher(settings.exclude, ignore_case=settings.ignore_case),
            unwanted=lambda path: self.decisions.tell(path, "not sent, by the patterns include and exclude"),
        )
        self._urgent = matcher(settings.urgent, ignore_case=settings.ignore_case)
        self._queue = queue
        self._clocks = clocks
        self._scan_s = scan_s
        self._small = small_file_bytes
        self._walk: Iterator[list[Found]] | None = None
        self._hashing = Hashing(self.outbox.open)
        self._hashless = self._naming.needs_hash  # rows of an earlier naming may have no hash
        self._whole = True
        self._again = False  # woken during this walk
        self._lost = False  # the last walk could not be finished
        self._seen_known = 0
        self._cost_s = 0.0
        self._step_at = self._quick_at = self._whole_at = float("-inf")

    # -- the loop's part

    @property
    def walking(self) -> bool:
        return self._walk is not None or len(self._hashing) > 0

    @property
    def may_be_touched(self) -> bool:
        """Whether a delivered file may have to be compared, because it stays in the outbox for a while and may be
        modified there, or because a remount changes its inode: its digest is recorded then."""
        completeness = self.outbox.completeness
        guessed = completeness is None or not completeness.known
        return guessed or not self.outbox.system.inodes or self.settings.after_upload is AfterUpload.KEEP

    def source(self, entry: Entry) -> str:
        """The local path of an entry's file."""
        return os.fsdecode(os.path.join(bytes(self.settings.path), entry.path))

    def destination(self, entry: Entry) -> str:
        """The name on the server of a file that has none yet. Raises: UnsafeName if it cannot have one."""
        return name_of(entry, self._naming)

    def alternatives(self, entry: Entry) -> tuple[str, ...]:
        """Where the file goes if another has its destination."""
        return self._naming.alternatives(entry.path, entry.destination, entry.fingerprint)

    @property
    def part_suffixes(self) -> frozenset[str]:
        return self._naming.part_suffixes

    def part_suffix(self, entry: Entry) -> str | None:
        return self._naming.temporary_suffix(entry.path)

    def departure(self, *, rested: bool) -> Departure:
        """The checks before a file leaves this outbox, which is open. rested: the file has been watched for hold_s."""
        assert self.outbox.leases is not None
        now, wall, hold_s = self._clocks.monotonic(), self._clocks.wall(), self.settings.hold_s
        return Departure(
            self.outbox.leases,
            lambda version: rested or self.readiness.rested(version, now, wall, hold_s),
            self.outbox.system,
        )

    def wake(self) -> int:
        """Scan everything now, even if a walk is under way.

        -> the value of `passes` at which that is done.
        """
        self._again = self._walk is not None
        self._quick_at = self._whole_at = self._step_at = float("-inf")
        return self.passes + (2 if self._again and self._whole else 1)

    def close(self) -> None:
        """Abandon the walk that is under way."""
        self._hashing.close()
        if self._walk is not None:
            self._walk.close()  # type: ignore[attr-defined]
            self._walk = None

    def next_step(self) -> float:
        """When `step` next has something to do, on the monotonic clock."""
        if self.walking:
            return self._step_at
        return min(self._quick_at, self._whole_at, self.readiness.next_due())

    def step(self, *, busy: bool) -> None:
        """Do the next small step if one is due. busy: transfers are under way and take precedence.

        Raises: DiskFull, JournalUnavailable.
        """
        now = self._clocks.monotonic()
        self.readiness.clocks(now, self._clocks.wall())
        try:
            if self._hashless:
                self._hashless = False
                self.withdrawn += hashless(self._queue, self.number)  # the walk finds their files again
            if self._hashing and now >= self._step_at:
                self._hash(now, busy)
            self._look_at_watched(now)
            if self._walk is None and now >= min(self._quick_at, self._whole_at):
                self._start(now)
            if self._walk is not None and now >= self._step_at and not self._hashing:
                self._advance(now, busy)
        except SourceFailed as error:
            self._source_failed(str(error), now)

    # -- inside

    def _start(self, now: float) -> None:
        self._whole = now >= self._whole_at or self._lost
        self._again = False
        self._cost_s = 0.0
        self._seen_known = 0
        self._walk = self.outbox.walk(whole=self._whole)
        self._step_at = now

    def _advance(self, now: float, busy: bool) -> None:
        assert self._walk is not None
        batch = next(self._walk, None)
        if batch:
            self._take(batch)
        self._pace(now, busy)
        if batch is None:
            self._finish(busy)

    def _pace(self, now: float, busy: bool) -> None:
        spent_s = self._clocks.monotonic() - now
        self._cost_s += spent_s
        self._step_at = now + spent_s * (BUSY_SHARE if busy else 1.0)

    def _finish(self, busy: bool) -> None:
        now = self._clocks.monotonic()
        self._walk = None
        self._lost = False
        self._say_failed(next(iter(self.outbox.unread.values()), None))
        self._quick_at = now + min(max(self._scan_s, self._cost_s * QUICK_SHARE), QUICK_MAX_S)
        if not self._whole:
            return
        self.passes += 1
        self.decisions.walked()
        if not self._again:
            self._whole_at = now + min(max(self._scan_s, self._cost_s * WHOLE_SHARE), WHOLE_MAX_S)
        if not busy and self._queue.count(self.number) > self._seen_known:
            self._drop_vanished()

    def _take(self, batch: Sequence[Found]) -> None:
        """Add the files that are ready and whose version is not known yet."""
        known = self._queue.known(self.number, [found.path for found in batch])
        self._seen_known += len(known)
        now, wall = self._clocks.monotonic(), self._clocks.wall()
        quiet = [found for found in batch if self._is_quiet(found, known.get(found.path), now, wall)]
        fresh: list[NewEntry] = []
        for path, fingerprint in self._complete(quiet, now, wall):
            fresh += self._entries(path, fingerprint, known.get(path), wall)
        if self.readiness.overflowed:
            self.readiness.overflowed = False
            for path, _ in batch:
                self.outbox.forget(path)
        if self._naming.needs_hash:
            self._hashing.add(fresh)
        else:
            self._queue_up(fresh)
        self._seen_known += sum(1 for entry in fresh if entry.path not in known)

    def _queue_up(self, fresh: Sequence[NewEntry]) -> None:
        self._add(fresh)
        for entry in fresh:
            self.readiness.forget(entry.path)
            self.decisions.tell(entry.path, "queued", priority=entry.priority, bytes=entry.fingerprint.size)

    def _hash(self, now: float, busy: bool) -> None:
        done, lost = self._hashing.step()
        for path in lost:
            self.readiness.forget(path)
            self.outbox.forget(path)
        self._queue_up(done)
        self._pace(now, busy)

    def _is_quiet(self, found: Found, before: Known | None, now: float, wall: float) -> bool:
        """Whether this version is new and has been quiet. After a wrong guess, a version must be quiet for longer."""
        if self._hashing.has(found.path):
            return False
        if before is not None and (before.state is State.SENDING or self._same_version(before, found.fingerprint)):
            self.readiness.forget(found.path)
            self.decisions.tell_state(found.path, before.state)
            return False
        hold_s = self.settings.hold_s if self._was_guessed_wrong(found, before) else 0.0
        is_quiet = self.readiness.quiet(found.path, found.fingerprint, now, wall, hold_s)
        if not is_quiet and not self.readiness.is_open(found.path):
            self.decisions.tell(found.path, "settling", for_s=max(self.settings.settle_s, hold_s))
        return is_quiet

    def _was_guessed_wrong(self, found: Found, before: Known | None) -> bool:
        """Whether its producer went on writing to a delivered file whose completeness was only a guess."""
        if before is None or before.state is not State.DELIVERED or before.fingerprint.inode != found.fingerprint.inode:
            return False
        completeness = self.outbox.completeness
        return completeness is None or not completeness.known

    def _same_version(self, before: Known, found: Fingerprint) -> bool:
        """Where inode numbers are unstable, a kept file is compared by size and time: a remount sends nothing."""
        was, system = before.fingerprint, self.outbox.system
        if before.state is State.KEPT and not system.inodes:
            return was == found._replace(inode=was.inode, ctime_ns=found.ctime_ns if system.times else was.ctime_ns)
        return was == found

    def _complete(self, quiet: Sequence[Found], now: float, wall: float) -> Iterator[Found]:
        """Those of the quiet files that nobody is known to write to, in the version that was examined."""
        for (path, fingerprint), answer in self.outbox.ask(quiet) if quiet else ():
            if answer is None:
                self.outbox.forget(path)  # not known: it is found again
            elif answer.fingerprint is None:
                self.readiness.forget(path)
            elif answer.writer is Writer.SOME:
                self.readiness.opened(path, answer.fingerprint, now)
                self.decisions.tell(path, "open for writing")
            elif answer.fingerprint == fingerprint or self.readiness.quiet(path, answer.fingerprint, now, wall):
                yield Found(path, answer.fingerprint)

    def _look_at_watched(self, now: float) -> None:
        batch = []
        for path in self.readiness.due(now, BATCH):
            try:
                fingerprint = self.outbox.look(path)
            except SourceFailed:
                continue  # not known: it comes up again
            if fingerprint is None:
                self.readiness.forget(path)
            else:
                batch.append(Found(path, fingerprint))
        if not batch:
            return
        seen = self._seen_known
        self._take(batch)
        self._seen_known = seen

    def _entries(self, path: bytes, version: Fingerprint, before: Known | None, wall: float) -> list[NewEntry]:
        """-> one entry, or none if its name is refused"""
        settings = self.settings
        try:
            check_path(path)
        except UnsafeName as error:
            log.warning("refused path=%s reason=%s", shown(path), shown(str(error)))
            return []
        entry = NewEntry(
            outbox=self.number,
            path=path,
            fingerprint=version,
            large=version.size > self._small,
            priority=URGENT if self._urgent(path.decode("utf-8", "surrogateescape")) else settings.priority,
            rank=settings.order.rank(path, version),
            first_seen=wall,
            check_final=self._may_stand(before, version),
            sent_before=self._queue.sent_before(before) if before and self._only_touched(before, version) else None,
        )
        return [entry]

    def _may_stand(self, before: Known | None, version: Fingerprint) -> bool:
        """Whether an earlier delivery of this version may be on the server already."""
        first_look = self.check_first and self.passes == 0
        return first_look or (before is None and self._queue.lost_rows) or self._only_touched(before, version)

    def _only_touched(self, before: Known | None, version: Fingerprint) -> bool:
        """Size and time are those of the delivered version, but change time or inode differ: somebody changed its mode,
        owner or links, the medium was put in again, or it was rewritten and its time restored. The content decides: it
        is compared with the digest of what was delivered, if known, else with the file on the server. Until that is
        done, every version that takes the place of one still to be compared is to be compared as well."""
        if before is None or (before.state not in (State.KEPT, State.DELIVERED) and not before.check_final):
            return False
        return self.outbox.system.may_be_same(version, before.fingerprint)

    def _add(self, entries: Sequence[NewEntry]) -> None:
        try:
            self._queue.add(entries)
        except DiskFull:
            self._queue.add(entries[:TIGHT_BATCH])  # a few can be sent and free space; the rest is found again
            for entry in entries[TIGHT_BATCH:]:
                self.outbox.forget(entry.path)
            self._whole_at = self._clocks.monotonic() + self._scan_s
            log.warning("disk full: queueing a few files at a time outbox=%s", shown(self.settings.label))

    def _drop_vanished(self) -> None:
        """Forget rows of files that their producer has removed. Attempts may have left something on the server."""
        after_id = 0
        while page := self._queue.page(self.number, after_id, BATCH):
            after_id = page[-1].id
            idle = [entry for entry in page if entry.state in (State.READY, State.WAITING, State.KEPT)]
            gone = [entry for entry in idle if self._is_gone(entry)]
            self.withdrawn += [entry for entry in gone if _was_tried(entry)]
            self._queue.drop([entry for entry in gone if not _was_tried(entry)], Event.VANISHED)

    def _is_gone(self, entry: Entry) -> bool:
        try:
            return self.outbox.look(entry.path) is None
        except SourceFailed:
            return False  # not known

    def _source_failed(self, reason: str, now: float) -> None:
        self.close()
        self._lost = True
        self._say_failed(reason)
        self._quick_at = self._whole_at = now + max(self._scan_s, 1.0)

    def _say_failed(self, reason: str | None) -> None:
        if reason == self.failed:
            return
        if reason is not None:
            log.error("source failed outbox=%s reason=%s", shown(self.settings.label), shown(reason))
        else:
            log.info("source readable again outbox=%s", shown(self.settings.label))
        self.failed = reason


def _was_tried(entry: Entry) -> bool:
    """Whether an incomplete upload of it may be on the server."""
    return entry.attempts > 0 and entry.state is not State.KEPT
