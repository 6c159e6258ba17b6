"""What is to be looked at without waiting for the next walk: names that the kernel told of, and files put off.

Pure bookkeeping. More than MOST names are not kept: then everything is looked at.
"""

from __future__ import annotations

import itertools

__all__ = ["Noticed"]

MOST = 20_000
AGAIN_S = 2.0
"""Until a file is looked at again that could not be decided on."""


class Noticed:
    """The names of one outbox that wait to be looked at, relative to it.

    everything: the whole outbox is to be walked. folders: new ones, to be listed. lost_folders: those that are gone.
    """

    def __init__(self) -> None:
        self.everything = False
        self.folders: dict[bytes, None] = {}
        self.lost_folders: dict[bytes, None] = {}
        self._files: dict[bytes, bool] = {}
        self._gone: dict[bytes, None] = {}
        self._later: dict[bytes, tuple[float, bool]] = {}

    def file(self, path: bytes, *, closed: bool) -> None:
        """A file has appeared or changed. closed: its writer is done with it, or it was renamed to this name."""
        if self._has_room():
            self._gone.pop(path, None)
            self._files[path] = closed or self._files.get(path, False)

    def gone(self, path: bytes) -> None:
        if self._has_room():
            self._files.pop(path, None)
            self._gone[path] = None

    def again(self, path: bytes, now: float, *, closed: bool) -> bool:
        """Look at this file in a while -> whether there was room for it."""
        if len(self._later) >= MOST:
            return False
        self._later.pop(path, None)
        self._later[path] = now + AGAIN_S, closed  # the first is always the one that is due first
        return True

    def next_due(self, now: float) -> float:
        """When there is something to look at; infinity when nothing waits."""
        if self.everything or self._files or self._gone or self.folders:
            return now
        return next((due_s for due_s, _ in self._later.values()), float("inf"))

    def take(self, now: float, limit: int) -> dict[bytes, bool]:
        """The next files to look at, and whether each was closed. They are forgotten here."""
        taken = {path: self._files.pop(path) for path in list(itertools.islice(self._files, limit))}
        while self._later and len(taken) < limit:
            path, (due_s, closed) = next(iter(self._later.items()))
            if due_s > now:
                break
            del self._later[path]
            taken[path] = taken.get(path, False) or closed
        return taken

    def take_gone(self, limit: int) -> list[bytes]:
        """The next names that are gone. They are forgotten here."""
        taken = list(itertools.islice(self._gone, limit))
        for path in taken:
            del self._gone[path]
        return taken

    def clear(self) -> None:
        """A whole walk is about to look at everything."""
        self.everything = False
        for waiting in (self.folders, self._files, self._gone, self._later):
            waiting.clear()

    def _has_room(self) -> bool:
        if len(self._files) + len(self._gone) < MOST:
            return True
        self.everything = True
        return False
