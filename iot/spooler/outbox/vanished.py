"""Rows of files that their producer has removed: forgotten, unless an attempt may have left something on the server."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from iot.spooler.outbox.scan import Outbox
from iot.spooler.queue.policy import Event, State
from iot.spooler.queue.queue import Entry, Queue

__all__ = ["Vanished"]

PAGE = 500
IDLE = State.READY, State.WAITING, State.KEPT


class Vanished:
    """Of one outbox, whose number in the queue is `number`.

    withdrawn: entries that were attempted; whoever reads this list clears it.
    """

    def __init__(self, queue: Queue, number: int, outbox: Outbox) -> None:
        self.withdrawn: list[Entry] = []
        self._queue = queue
        self._number = number
        self._outbox = outbox

    def drop(self, paths: Sequence[bytes]) -> None:
        """Those of these files that are gone (at most a few hundred)."""
        rows = self._queue.known(self._number, [path for path in paths if self._outbox.removed(path)]).values()
        idle = [row.id for row in rows if row.state in IDLE]
        if idle:
            self._drop(self._queue.entries(idle))

    def drop_all(self) -> None:
        for page in self._pages():
            self._drop([entry for entry in page if entry.state in IDLE and self._outbox.removed(entry.path)])

    def drop_below(self, folders: Iterable[bytes]) -> None:
        """Those in folders that are gone."""
        starts = tuple(folder + b"/" for folder in folders)
        for page in self._pages():
            inside = [entry for entry in page if entry.state in IDLE and entry.path.startswith(starts)]
            self._drop([entry for entry in inside if self._outbox.removed(entry.path)])

    def _pages(self) -> Iterator[list[Entry]]:
        after_id = 0
        while page := self._queue.page(self._number, after_id, PAGE):
            after_id = page[-1].id
            yield page

    def _drop(self, entries: Sequence[Entry]) -> None:
        withdrawn = {entry.id for entry in self.withdrawn}
        gone = [entry for entry in entries if entry.id not in withdrawn]
        self.withdrawn += [entry for entry in gone if _was_tried(entry)]
        self._queue.drop([entry for entry in gone if not _was_tried(entry)], Event.VANISHED)


def _was_tried(entry: Entry) -> bool:
    """Whether an incomplete upload of it may be on the server."""
    return entry.attempts > 0 and entry.state is not State.KEPT
