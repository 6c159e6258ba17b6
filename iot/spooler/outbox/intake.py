"""From an outbox folder into the queue: scans it in small steps, waits until files are ready, and adds new ones.

Each step of a walk examines one batch, so that a folder of 100,000 files delays neither transfers nor the watchdog.
The interval follows from measurement: walks take at most a small share of the time, and less while nothing happens.
Between walks it looks at the names that the kernel tells of.

    a file is                 before it is queued, or while it waits    while it is being sent
    ------------------------  ----------------------------------------  -----------------------------------------------
    created, moved in         is queued when it is ready (readiness)    -
    modified                  has to be ready again; only the new       that upload is not published; the new version
                              version is sent                           is sent when it is ready
    deleted, moved out        is forgotten                              that upload is not published
    deleted, created again    counts as the new file alone              as if it was modified
    moved within the outbox   is sent under its new name alone          as deleted, and created under the new name
    created and deleted       leaves no trace                           -
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator

from iot.spooler.config.outboxes import AfterUpload, OutboxSettings, Ready
from iot.spooler.naming import shown
from iot.spooler.outbox.cadence import Cadence, Walk
from iot.spooler.outbox.content import hashless
from iot.spooler.outbox.files import OutboxFiles
from iot.spooler.outbox.markers import Markers
from iot.spooler.outbox.noticed import Noticed
from iot.spooler.outbox.place import Found, SourceFailed
from iot.spooler.outbox.scan import BATCH
from iot.spooler.outbox.taking import Taking
from iot.spooler.outbox.vanished import Vanished
from iot.spooler.outbox.versions import Versions
from iot.spooler.queue.policy import State
from iot.spooler.queue.queue import Entry, Queue
from iot.spooler.state.elapsed import Clocks
from iot.transfer import LocalStateError

__all__ = ["Clocks", "Intake"]

log = logging.getLogger(__name__)


class Intake(OutboxFiles):
    """Brings the files of one outbox into the queue.

    failed: why the outbox, or a folder in it, cannot be read; None when all can. failures: how often that was so, in a
    row. missing: the outbox itself is not there, or cannot be opened. stopped: by command; `step` is not called then.
    passes: finished walks. check_first: for all files of the first walk, check whether an earlier delivery is there
    already.
    """

    def __init__(
        self,
        settings: OutboxSettings,
        queue: Queue,
        clocks: Clocks,
        *,
        device_id: str,
        scan_s: float | None,
        small_file_bytes: int,
        journal_lost: bool,
    ) -> None:
        super().__init__(settings, clocks, device_id)
        self.failed: str | None = None
        self.failures = self.passes = 0
        self.stopped = self.missing = False
        self.number, fresh = queue.outbox(bytes(settings.path), self._naming.rule, decided=self._naming.decided)
        self.check_first = journal_lost or (fresh and settings.after_upload is AfterUpload.KEEP)
        self.cadence = Cadence(scan_s)
        self._queue = queue
        self._noticed = Noticed()
        self._lost_folders: dict[bytes, None] = {}
        self._versions = Versions(settings, queue, self.number, self.outbox, small_file_bytes=small_file_bytes)
        self._versions.check_all = self.check_first
        self._markers = Markers(self._marker, self.outbox) if self._marker else None
        self._taking = Taking(
            self,
            queue,
            self.number,
            clocks,
            self._versions,
            cadence=self.cadence,
            needs_hash=self._naming.needs_hash,
            markers=self._markers,
        )
        self._vanished = Vanished(queue, self.number, self.outbox)
        self._walk: Iterator[list[Found]] | None = None
        self._hashless = self._naming.needs_hash  # rows of an earlier naming may have no hash
        self._kind = Walk.WHOLE
        self._again = False  # woken during this walk
        self._seen_known = 0

    # -- the loop's part

    def take_withdrawn(self) -> list[Entry]:
        """Entries that were attempted and whose producer has since removed the file."""
        withdrawn, self._vanished.withdrawn = self._vanished.withdrawn, []
        return withdrawn

    @property
    def without_marker(self) -> int:
        """Number of files that wait for their marker, up to some thousands."""
        return len(self._markers.waiting) if self._markers is not None else 0

    @property
    def walking(self) -> bool:
        return self._walk is not None or self._taking.hashing

    def wake(self) -> int:
        """Scan everything now, even if a walk is under way.

        -> the value of `passes` at which that is done.
        """
        self._again = self._walk is not None
        self.cadence.wake()
        return self.passes + (2 if self._again and self._kind is Walk.WHOLE else 1)

    def left(self, entry: Entry) -> None:
        """An entry's file has left the outbox: so may its marker, unless the file may come back."""
        if self._markers is not None and entry.state is not State.QUARANTINED:
            self._markers.drop(entry.path)

    def stop(self) -> None:
        """Look no more, until `start`."""
        self.close()
        self.stopped = True
        self.failed, self.failures, self.missing = None, 0, False

    def start(self) -> None:
        """After `stop`: scan everything now."""
        if self.stopped:
            self.stopped = False
            self.wake()

    def close(self) -> None:
        """Abandon the walk that is under way."""
        self._taking.close()
        if self._walk is not None:
            self._walk.close()  # type: ignore[attr-defined]
            self._walk = None

    def next_step(self) -> float:
        """When `step` next has something to do, on the monotonic clock."""
        if self.walking:
            return self.cadence.step_at
        now = self._clocks.monotonic()
        noticed_s = now if self.outbox.again or self.outbox.doubted else self._noticed.next_due(now)
        return min(self.cadence.next_s, self.cadence.next_check_s, self.readiness.next_due(), noticed_s)

    def listen(self) -> None:
        """Note what the kernel tells of the outbox; the next step looks at it."""
        self.outbox.watches.read(self._noticed)

    def step(self, *, busy: bool) -> bool:
        """Do the next small step if one is due -> whether it was about names that the kernel told of.

        busy: transfers are under way and take precedence.

        Raises: DiskFull, JournalUnavailable.
        """
        self.listen()
        now = self._clocks.monotonic()
        self.readiness.clocks(now, self._clocks.wall())
        try:
            if self._hashless:
                self._hashless = False
                self._vanished.withdrawn += hashless(self._queue, self.number)  # the walk finds their files again
            if self._taking.hashing and now >= self.cadence.step_at:
                self._taking.hash()
                self.cadence.stepped(now, self._clocks.monotonic(), busy=busy)
            looked = self._look_at_noticed(now, busy=busy)
            self._look_at_watched(now)
            if self._walk is None:
                self._start(now)
            if self._walk is not None and now >= self.cadence.step_at and not self._taking.hashing:
                self._advance(now, busy)
        except SourceFailed as error:
            self._source_failed(str(error), now)
            return False
        except LocalStateError:
            self.cadence.whole_soon(now)  # what could not be queued is found again
            raise
        return looked

    # -- inside: walks

    def _start(self, now: float) -> None:
        """A walk that is due, else one of the folders that were reported."""
        if now >= self.cadence.next_s:
            self._kind = self.cadence.begin(now)
            self._again = False
            self._seen_known = 0
            self._taking.begin()
            self._walk = self.outbox.walk(whole=self._kind is Walk.WHOLE)
            if self._kind is Walk.WHOLE:
                self._noticed.folders.clear()
                if self._markers is not None:
                    self._markers.begin()
        elif self._noticed.folders:
            self._kind = Walk.NEW
            self.cadence.step_at = now
            self._walk = self.outbox.enter(list(self._noticed.folders))
            self._noticed.folders.clear()

    def _advance(self, now: float, busy: bool) -> None:
        assert self._walk is not None
        batch = next(self._walk, None)
        if batch:
            is_whole = self._kind is Walk.WHOLE
            self._seen_known += self._taking.take_walked(batch) if is_whole else self._taking.take(batch)
        self.cadence.stepped(now, self._clocks.monotonic(), busy=busy)
        if batch is None:
            self._finish(busy)

    def _finish(self, busy: bool) -> None:
        now = self._clocks.monotonic()
        self._walk = None
        self.missing = False
        self._say_failed(next(iter(self.outbox.unread.values()), None))
        if self._kind is Walk.WHOLE:
            self._adopt_watches()
        self.cadence.finished(self._kind, now, again=self._again)
        if self.outbox.unread:
            self.cadence.soon(now)
        if self._kind is not Walk.WHOLE:
            return
        self.passes += 1
        self._versions.check_all = False
        self.decisions.walked()
        if self._markers is not None:
            self._markers.finish()
        rows = self._queue.count(self.number)
        if not self._taking.finish(rows=rows, seen=self._seen_known):
            self.cadence.whole_soon(now)
        if not busy and rows > self._seen_known:
            self._vanished.drop_all()

    def _adopt_watches(self) -> None:
        """Whether the kernel can be relied on decides how often the next walks are."""
        completeness = self.outbox.completeness
        known = completeness is not None and completeness.known
        self.cadence.told = self.outbox.watches.finish(self.outbox.system) and known
        self.outbox.watches.tell(self.cadence.scan_s)

    # -- what is noticed between walks

    def _look_at_noticed(self, now: float, *, busy: bool) -> bool:
        noticed, outbox = self._noticed, self.outbox
        again, outbox.again = outbox.again, {}
        for path, closed in again.items():
            if not noticed.again(path, now, closed=closed):
                outbox.doubted = True
        if noticed.everything or (self.cadence.check_is_due(now) and not outbox.is_home()):
            noticed.clear()
            self._again = self._walk is not None
            self.cadence.wake()
        looked = self._look_at_names(now)
        for folder in noticed.lost_folders:
            outbox.leave(folder)  # once: it may be made again, and is watched then
        self._lost_folders.update(noticed.lost_folders)
        noticed.lost_folders.clear()
        if self._lost_folders and not busy:
            self._vanished.drop_below(self._lost_folders)
            self._lost_folders.clear()
        if outbox.doubted:
            outbox.doubted = False
            self.cadence.soon(now)
        return looked

    def _look_at_names(self, now: float) -> bool:
        names = self._noticed.take(now, BATCH)
        gone = self._noticed.take_gone(BATCH)
        for path in gone:
            self.readiness.forget(path)
            if self._markers is not None:
                self._markers.forget(path)
            names.setdefault(path, False)  # it may be there all the same: two files can change places
        if self._markers is not None:
            files, folders = self._markers.sort(names)
            names.update(dict.fromkeys(files, False))
            self._noticed.folders.update(dict.fromkeys(folders))
        if names:
            found = self.outbox.find(names)
            at_once = {each.path for each in found if names[each.path] and each.fingerprint.size}
            self._taking.take(found, at_once if self.settings.readiness is Ready.CLOSED else ())
        if gone:
            self._vanished.drop(gone)
        return bool(names or gone)

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
        self._taking.take(batch, {path for path, _ in batch if self.readiness.was_closed(path)})

    def _source_failed(self, reason: str, now: float) -> None:
        self.close()
        self.missing = not self._can_be_opened()
        self._say_failed(reason)
        self.cadence.failed(now)

    def _can_be_opened(self) -> bool:
        try:
            os.close(self.outbox.open())
        except SourceFailed:
            return False
        return True

    def _say_failed(self, reason: str | None) -> None:
        """The change is that of the outbox's state, which is logged as such."""
        if reason is not None:
            self.failures += 1
            log.debug(
                "source cannot be read outbox=%s reason=%s times=%d",
                shown(self.settings.label),
                shown(reason),
                self.failures,
            )
        else:
            self.failures = 0
        self.failed = reason
