"""Takes files that were found into the queue: those that are complete, in a version that it does not know."""

from __future__ import annotations

import logging
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence

from iot.spooler.naming import shown
from iot.spooler.outbox.cadence import Cadence
from iot.spooler.outbox.content import Hashing
from iot.spooler.outbox.files import OutboxFiles
from iot.spooler.outbox.lease import Writer
from iot.spooler.outbox.markers import Markers
from iot.spooler.outbox.place import Found
from iot.spooler.outbox.versions import Versions
from iot.spooler.queue.policy import State
from iot.spooler.queue.queue import Known, NewEntry, Queue
from iot.spooler.state.elapsed import Clocks
from iot.transfer import DiskFull
from iot.transfer.beneath import split

__all__ = ["Taking"]

log = logging.getLogger(__name__)

TIGHT_BATCH = 16


class Taking:
    """Of one outbox, whose number in the queue is `number`.

    needs_hash: the names of its files contain a hash of their content, which is read first. markers: say of files that
    they are complete; None: they need none.
    """

    def __init__(
        self,
        files: OutboxFiles,
        queue: Queue,
        number: int,
        clocks: Clocks,
        versions: Versions,
        *,
        cadence: Cadence,
        needs_hash: bool,
        markers: Markers | None,
    ) -> None:
        self._settings = files.settings
        self._queue = queue
        self._number = number
        self._clocks = clocks
        self._outbox = files.outbox
        self._versions = versions
        self._readiness = files.readiness
        self._decisions = files.decisions
        self._cadence = cadence
        self._needs_hash = needs_hash
        self._markers = markers
        self._hashing = Hashing(files.outbox.open)
        self._marks: set[int] = set()
        self._known_marks: set[int] = set()
        self._all_known = False

    @property
    def hashing(self) -> bool:
        """Whether files wait for their hash."""
        return len(self._hashing) > 0

    def close(self) -> None:
        """Forget those; the next walk finds them again."""
        self._hashing.close()

    def begin(self) -> None:
        """A whole walk begins."""
        self._marks = set()

    def take_walked(self, batch: Sequence[Found]) -> int:
        """As `take`, for a batch of a whole walk. One that is as it was in the walk before, and known to the queue
        then, is not looked up again: `forget` tells of rows that go while their file stays."""
        mark = hash(tuple(batch))
        if mark in self._known_marks and not self._queue.lost_rows and not self._decisions.are_told:
            self._marks.add(mark)
            return len(batch)
        there = self.take(batch)
        if batch and self._all_known:
            self._marks.add(mark)
        return there

    def finish(self, *, rows: int, seen: int) -> bool:
        """A whole walk has ended -> whether all that it has found can be in the queue. rows: in the queue; seen: found
        that are known."""
        self._known_marks = self._marks if rows >= seen else set()
        return rows >= seen

    def take(self, batch: Sequence[Found], closed: Container[bytes] = ()) -> int:
        """Add the files that are ready and whose version is not known yet -> how many of them the queue has then.

        closed: those whose writer is done: they need not have been quiet. Raises: DiskFull, JournalUnavailable.
        """
        if not batch:
            return 0
        known = self._queue.known(self._number, [found.path for found in batch])
        now, wall = self._clocks.monotonic(), self._clocks.wall()
        unlike = self._unlike(batch, known)
        new = [found for found in unlike if self._is_new(found, known.get(found.path), is_closed=found.path in closed)]
        ask = [found for found in new if found.path in closed or self._is_quiet(found, known, now, wall)]
        fresh: list[NewEntry] = []
        for path, fingerprint in self._complete(ask, known, closed, now, wall):
            fresh += self._versions.entries(path, fingerprint, known.get(path), wall)
        self._all_known = _are_all(unlike, () if self._needs_hash else fresh, known)
        if self._readiness.overflowed:
            self._readiness.overflowed = False
            self._leave_to_walk(found.path for found in batch)
        if self._needs_hash:
            self._hashing.add(fresh)
        else:
            self._queue_up(fresh)
        return len(known) + sum(1 for entry in fresh if entry.path not in known)

    def _queue_up(self, fresh: Sequence[NewEntry]) -> None:
        self._add(fresh)
        for entry in fresh:
            self._readiness.forget(entry.path)
            self._decisions.tell(entry.path, "queued", priority=entry.priority, bytes=entry.fingerprint.size)

    def hash(self) -> None:
        """Read on in files whose content is part of their name. Raises: SourceFailed, DiskFull, JournalUnavailable."""
        done, lost = self._hashing.step()
        for path in lost:
            self._readiness.forget(path)
            self._outbox.forget(path)
        self._queue_up(done)

    def _unlike(self, batch: Sequence[Found], known: Mapping[bytes, Known]) -> Sequence[Found]:
        """Without the versions that the queue knows, if nothing is to be noted of them: fast, for large outboxes."""
        if len(self._readiness) or self._decisions.are_told:
            return batch
        before = known.get
        return [found for found in batch if (row := before(found.path)) is None or row.fingerprint != found.fingerprint]

    def _is_new(self, found: Found, before: Known | None, *, is_closed: bool) -> bool:
        if self._hashing.has(found.path):
            return False
        if before is None:
            return True
        is_known = self._versions.is_known(before, found.fingerprint)
        if not is_known and before.state is not State.SENDING:
            return True
        if not is_known:
            self._outbox.forget(found.path, closed=is_closed)  # it is taken when the version before has been sent
        self._readiness.forget(found.path)
        self._decisions.tell_state(found.path, before.state)
        return False

    def _is_quiet(self, found: Found, known: Mapping[bytes, Known], now: float, wall: float) -> bool:
        """After a wrong guess, a version must be quiet for longer. One that needs a marker must have it first."""
        if self._markers is not None and not self._markers.is_ready(found):
            self._decisions.tell(found.path, "waiting for its marker")
            return False
        hold_s = self._settings.hold_s if self._versions.was_guessed_wrong(found, known.get(found.path)) else 0.0
        is_quiet = self._readiness.quiet(found.path, found.fingerprint, now, wall, hold_s)
        if not is_quiet and not self._readiness.is_open(found.path):
            self._decisions.tell(found.path, "settling", for_s=max(self._settings.settle_s, hold_s))
        return is_quiet

    def _complete(
        self, files: Sequence[Found], known: Mapping[bytes, Known], closed: Container[bytes], now: float, wall: float
    ) -> Iterator[Found]:
        """Those of the files that nobody is known to write to, in the version that was examined."""
        for found, answer in self._outbox.ask(files) if files else ():
            path, was_closed = found.path, found.path in closed
            if answer is None:
                self._outbox.forget(path)  # not known: it is found again
            elif answer.fingerprint is None:
                self._readiness.forget(path)
            elif answer.writer is Writer.SOME:
                self._readiness.opened(path, answer.fingerprint, now, soon=was_closed)
                self._decisions.tell(path, "open for writing")
            else:
                asked = Found(path, answer.fingerprint)
                is_sure = answer.writer is Writer.NONE if was_closed else asked == found
                if is_sure or self._is_quiet(asked, known, now, wall):
                    yield asked

    def _add(self, entries: Sequence[NewEntry]) -> None:
        try:
            self._queue.add(entries)
        except DiskFull:
            self._all_known = False
            self._queue.add(entries[:TIGHT_BATCH])  # a few can be sent and free space; the rest is found again
            self._leave_to_walk(entry.path for entry in entries[TIGHT_BATCH:])
            self._cadence.whole_soon(self._clocks.monotonic())
            log.warning("disk full: queueing a few files at a time outbox=%s", shown(self._settings.label))

    def _leave_to_walk(self, paths: Iterable[bytes]) -> None:
        for folder in {split(path)[0] for path in paths}:
            self._outbox.doubt(folder)


def _are_all(unlike: Sequence[Found], fresh: Sequence[NewEntry], known: Container[bytes]) -> bool:
    """Whether all these files are queued now, in the version that was found. Known paths are looked at once more."""
    if len(unlike) != len(fresh):
        return False
    queued = {entry.path: entry.fingerprint for entry in fresh}
    return all(queued.get(path) == version and path not in known for path, version in unlike)
