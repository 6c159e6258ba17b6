"""The watches of one outbox: the kernel tells of new, closed, renamed and removed names, and the agent need not wait
for its next scan. The scan stays the truth; whatever is doubtful here leads to one.

    the queue of events overflows           everything is scanned at once
    no watch left for a folder              the outbox is scanned often, and each whole scan tries again
    the outbox is unmounted, moved, gone    it is scanned at once, and watched again when it is back
    a network or stacked file system        changes may be made beside this kernel: the outbox is scanned often
    a new folder                            is watched first and listed then, so that nothing falls between
"""

from __future__ import annotations

import errno
import itertools
import logging
import os
from collections.abc import Callable, Container, Iterator, Sequence
from pathlib import Path

from iot.spooler.naming import shown
from iot.spooler.outbox import inotify
from iot.spooler.outbox.inotify import Inotify, Note
from iot.spooler.outbox.mounts import FileSystem, file_system
from iot.spooler.outbox.noticed import Noticed
from iot.transfer.beneath import DIRECTORY, join

__all__ = ["PRIVATE_PREFIX", "Watches", "is_private", "why_silent", "why_unwatched"]

log = logging.getLogger(__name__)

PRIVATE_PREFIX = b".iot-sent."
"""Of the names under which files are kept away from producers while they are removed."""
PORTIONS = 16
"""Of events read at a time, so that a storm of them cannot keep the agent from its work."""
UNTRIED = "not watched yet"
LIMITS = {
    errno.ENOSPC: "no inotify watches left: raise fs.inotify.max_user_watches",
    errno.EMFILE: "no inotify instances left: raise fs.inotify.max_user_instances",
    errno.ENOENT: "folders cannot be watched without /proc",
    errno.ENOSYS: "this system has no inotify",
}


def why_silent(system: FileSystem) -> str:
    """Why changes on a file system may go unnoticed; "" if they do not."""
    return f"{system.name}: changes made elsewhere are not reported" if system.shared or system.stacked else ""


def why_unwatched(folder: Path) -> str:
    """Why an agent of this user would have to scan an outbox often, as far as its folder shows; "" if not."""
    watches = Watches("")
    try:
        root = os.open(folder, DIRECTORY)
    except OSError:
        return ""  # others tell of it
    try:
        watches.watch(root, b"")
        watches.finish(file_system(root))
        return watches.reason
    finally:
        watches.close()
        os.close(root)


class Watches:
    """label: of the outbox, for the log. subscribe: called with a descriptor that can be read whenever there is
    something for `read` -> what ends that.

    overflows: how often events were lost. reason: why the outbox has to be scanned often; "" while nothing is missed.
    """

    def __init__(self, label: str) -> None:
        self.subscribe: Callable[[int], Callable[[], None]] = lambda _: lambda: None
        self.overflows = 0
        self.reason = self._told = UNTRIED
        self._label = label
        self._inotify: Inotify | None = None
        self._unsubscribe: Callable[[], None] = lambda: None
        self._paths: dict[int, bytes] = {}
        self._numbers: dict[bytes, int] = {}
        self._refused = ""

    def watch(self, folder: int, path: bytes) -> None:
        """Watch an open folder of the outbox from now on, if possible. path: its name relative to the outbox."""
        try:
            if self._inotify is None:
                self._inotify = Inotify()
                self._unsubscribe = self.subscribe(self._inotify.descriptor)
            number = self._inotify.watch(folder)
        except OSError as error:
            self._refused = LIMITS.get(error.errno or 0, f"inotify: {error.strerror}")
            return
        before = self._numbers.get(path)
        if before != number:
            self._drop(path)
            self._numbers.pop(self._paths.get(number, path), None)  # the folder had another name
        self._paths[number], self._numbers[path] = path, number

    def begin(self) -> None:
        """A whole scan begins, which tries to watch every folder."""
        self._refused = ""

    def finish(self, system: FileSystem) -> bool:
        """A whole scan has ended -> whether the kernel tells of every change from now on."""
        self.reason = why_silent(system) or self._refused
        return not self.reason

    def tell(self, every_s: float) -> None:
        """Log what has become of it, if that is new. every_s: seconds between two scans."""
        before, self._told = self._told, self.reason
        if self.reason == before:
            return
        if self.reason:
            level = logging.WARNING if self._refused else logging.INFO
            words = "outbox is scanned often outbox=%s every_s=%g reason=%s"
            log.log(level, words, shown(self._label), every_s, shown(self.reason))
        else:
            level = logging.DEBUG if before == UNTRIED else logging.INFO
            log.log(level, "outbox is watched outbox=%s scanned_every_s=%g", shown(self._label), every_s)

    def forget_below(self, folder: bytes) -> None:
        """A folder is gone or has another name: so have those in it."""
        for path in [path for path in self._numbers if path == folder or path.startswith(folder + b"/")]:
            self._drop(path)

    def forget_all_but(self, folders: Container[bytes]) -> None:
        for path in [path for path in self._numbers if path not in folders]:
            self._drop(path)

    def read(self, noticed: Noticed) -> None:
        """Pass on what has happened since the last call."""
        for _ in range(PORTIONS):
            notes = list(self._inotify.read()) if self._inotify is not None else []
            if not notes:
                return
            for note in _not_ours(notes):
                self._take(note, noticed)

    def close(self) -> None:
        """All watches end; the next `watch` begins anew."""
        if self._inotify is not None:
            self._unsubscribe()
            self._inotify.close()
            self._inotify = None
        self._paths.clear()
        self._numbers.clear()

    def _take(self, note: Note, noticed: Noticed) -> None:
        if note.what & inotify.OVERFLOW:
            self._overflowed(noticed)
            return
        folder = self._paths.get(note.watch)
        if folder is None:
            return  # of a watch that has ended
        if note.what & inotify.UNWATCHED:
            del self._paths[note.watch]
            if self._numbers.get(folder) == note.watch:
                del self._numbers[folder]
        elif not note.name:
            if not folder or note.what & inotify.UNMOUNTED:
                noticed.everything = True
        elif note.what & inotify.FOLDER:
            self._take_folder(join(folder, note.name), note.what, noticed)
        elif note.what & (inotify.MOVED_FROM | inotify.DELETED):
            noticed.gone(join(folder, note.name))
        else:
            noticed.file(join(folder, note.name), closed=bool(note.what & (inotify.CLOSED | inotify.MOVED_TO)))

    def _take_folder(self, path: bytes, what: int, noticed: Noticed) -> None:
        if what & (inotify.MOVED_FROM | inotify.DELETED):
            self.forget_below(path)
            noticed.lost_folders[path] = None  # it may be there all the same: two folders can change places
        elif what & (inotify.MOVED_TO | inotify.CREATED):
            noticed.folders[path] = None

    def _overflowed(self, noticed: Noticed) -> None:
        noticed.everything = True
        self.overflows += 1
        level = logging.WARNING if self.overflows == 1 else logging.DEBUG
        log.log(level, "events were lost, everything is scanned outbox=%s times=%d", shown(self._label), self.overflows)

    def _drop(self, path: bytes) -> None:
        number = self._numbers.pop(path, None)
        if number is not None and self._inotify is not None:
            self._paths.pop(number, None)
            self._inotify.unwatch(number)


def is_private(name: bytes) -> bool:
    return name.startswith(PRIVATE_PREFIX)


def _not_ours(notes: Sequence[Note]) -> Iterator[Note]:
    """Without our own removals: a file that gets a private name, and what becomes of that.

    Whatever else happens to the file's own name has notes of its own. A rename whose two notes do not come together is
    passed on, as if anybody had made it.
    """
    for note, following in itertools.zip_longest(notes, notes[1:]):
        aside = following is not None and following.ends(note) and is_private(following.name)
        if note.what & inotify.FOLDER or not (aside or is_private(note.name)):
            yield note
