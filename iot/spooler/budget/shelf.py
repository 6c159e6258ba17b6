"""One outbox, its budget, and how far looking through it has come."""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Iterator, Sequence

from iot.spooler.budget.excess import Space
from iot.spooler.budget.tombstones import TombstoneLists
from iot.spooler.config.budget import BudgetSettings, Evict
from iot.spooler.naming import shown
from iot.spooler.outbox.intake import Intake
from iot.spooler.outbox.place import SourceFailed
from iot.spooler.outbox.versions import URGENT
from iot.spooler.patterns import matcher
from iot.spooler.queue.policy import LATEST
from iot.spooler.queue.queue import Entry, Queue

__all__ = ["Shelf"]

log = logging.getLogger(__name__)

PAGE = 256
PAGES = 16
"""Looked through at a time; the next look goes on from there."""
TOLD_MAX = 10
TOLD_S = 60.0
NEVER_S = float("inf")


class Shelf:
    """lists, sender: where the lists of dropped files are written, and what sends them; None: nothing is ever dropped.

    over: by what it is too much, why nothing more may be dropped. dropped: files and bytes since the start. seen: of
    Queue.made_ready. again_at: when the backlog is looked at again without news, paced_until: not before. space_at,
    list_at: when the disk is looked at and a list is written. All monotonic seconds.
    """

    def __init__(self, intake: Intake, lists: TombstoneLists | None, sender: Intake | None, queue: Queue) -> None:
        self.intake = intake
        self.settings: BudgetSettings = intake.settings.budget
        self.lists = lists
        self.sender = sender
        self.over: dict[str, str] = {}
        self.dropped = Counter[str]()
        self.seen = -1
        self.again_at = self.list_at = NEVER_S
        self.paced_until = float("-inf")
        watches_disk = self.settings.min_free_percent is not None or self.settings.min_free_inodes is not None
        self.space_at = float("-inf") if watches_disk else NEVER_S
        self._queue = queue
        self._cursors: dict[str, int] = {}
        marker = intake.settings.batch_marker  # which its batch waits for
        preserve = [*self.settings.preserve, *([marker] if marker is not None else [])]
        self._preserved = matcher(preserve, ignore_case=intake.settings.ignore_case)
        self._told = 0
        self._told_until = float("-inf")

    def backlog_at(self) -> float:
        """When to look at the backlog next."""
        if not self.settings.limits_backlog:
            return NEVER_S
        return self.paced_until if self.seen != self._queue.made_ready else max(self.again_at, self.paced_until)

    def candidates(self) -> Iterator[list[Entry]]:
        """What may be dropped, in that order: page by page, what is not urgent before what is."""
        for way, urgent in ((self.settings.evict, False), (self.settings.evict_urgent, True)):
            if way is not Evict.NONE:
                what = "urgent" if urgent else "others"
                for page in self._pages(what, LATEST, newest_first=way is Evict.NEWEST):
                    yield [entry for entry in page if (entry.priority == URGENT) is urgent]
                if what in self._cursors:
                    return  # the next look goes on with these

    def old(self, up_to: int) -> list[Entry]:
        """A page of what waits, up to this row."""
        return next(self._pages("old", up_to + 1, newest_first=False), [])

    def _pages(self, what: str, below: int, *, newest_first: bool) -> Iterator[list[Entry]]:
        """From where the last look came to, to the end; the next one begins anew then."""
        for _ in range(PAGES):
            last = self._cursors.get(what)
            above, end = (0, last or below) if newest_first else (last or 0, below)
            page = self._queue.idle(self.intake.number, above, end, PAGE, newest_first=newest_first)
            if not page:
                self._cursors.pop(what, None)
                return
            self._cursors[what] = page[-1].id
            yield [entry for entry in page if not self._preserved(entry.path.decode("utf-8", "surrogateescape"))]

    @property
    def is_in_the_middle(self) -> bool:
        """Whether a look has not come to the end yet."""
        return bool(self._cursors)

    def begin_anew(self) -> None:
        """What is dropped next is the first again."""
        self._cursors.clear()

    def space(self) -> Space | None:
        """Of its file system; None where that cannot be known."""
        try:
            folder = self.intake.outbox.open()
        except SourceFailed:
            return None  # said by the scan
        try:
            found = os.fstatvfs(folder)
        except OSError:
            return None
        finally:
            os.close(folder)
        unit = found.f_frsize or 1
        return Space(found.f_blocks * unit, found.f_bavail * unit, found.f_files, found.f_favail, unit)

    def tell(self, entries: Sequence[Entry], why: str, now: float) -> None:
        """The first few of a minute one by one, the others as a number."""
        if now >= self._told_until:
            self._told, self._told_until = 0, now + TOLD_S
        each = entries[: max(TOLD_MAX - self._told, 0)]
        self._told += len(each)
        label, words = shown(self.intake.settings.label), "dropped path=%s bytes=%d reason=%s outbox=%s"
        for entry in each:
            log.warning(words, shown(entry.path), entry.fingerprint.size, shown(why), label)
        if len(entries) > len(each):
            log.warning("dropped more outbox=%s files=%d reason=%s", label, len(entries) - len(each), shown(why))
