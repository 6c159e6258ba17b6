"""Files that say of others that they are complete: see `ready_marker`.

A marker counts only if it is not older than its file: one that is left from an earlier version says nothing of the
next. It is removed after its file, so a crash in between leaves at most a marker that does not count.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable

from iot.spooler.outbox.place import Found, SourceFailed
from iot.spooler.outbox.scan import Outbox
from iot.spooler.patterns import MarkerName
from iot.transfer import is_gone
from iot.transfer.beneath import open_below, split

__all__ = ["Markers"]

COUNTED_MAX = 20_000
"""Of files without a marker."""


class Markers:
    """Of one outbox.

    waiting: the files that were found without theirs, as far as they are counted.
    """

    def __init__(self, name: MarkerName, outbox: Outbox) -> None:
        self.waiting: set[bytes] = set()
        self._name = name
        self._outbox = outbox
        self._found: set[bytes] = set()

    def begin(self) -> None:
        """A whole walk begins, which comes by all files that wait."""
        self._found = set()

    def finish(self) -> None:
        """That walk has ended: what it has not found is gone."""
        self.waiting = self._found

    def forget(self, path: bytes) -> None:
        """A file is gone."""
        self.waiting.discard(path)
        self._found.discard(path)

    def is_ready(self, found: Found) -> bool:
        """Whether the marker of this version is there; if it is not, the file is one of those that wait."""
        is_there = self._is_there(found)
        if is_there:
            self.forget(found.path)
        elif len(self._found) < COUNTED_MAX:
            self.waiting.add(found.path)
            self._found.add(found.path)
        return is_there

    def _is_there(self, found: Found) -> bool:
        try:
            marker = self._outbox.look(os.fsencode(self._name.of(os.fsdecode(found.path))))
        except SourceFailed:
            return False  # not known
        return marker is not None and marker.mtime_ns >= found.fingerprint.mtime_ns

    def sort(self, paths: Iterable[bytes]) -> tuple[list[bytes], list[bytes]]:
        """Of the markers among these -> the files that they belong to, and the folders in which it may be any."""
        files, folders = [], []
        for path in paths:
            text = os.fsdecode(path)
            if self._name.is_marker(text):
                file = self._name.file(text)
                if file is not None:
                    files.append(os.fsencode(file))
                else:
                    folders.append(split(path)[0])
        return files, folders

    def drop(self, path: bytes) -> None:
        """Remove the marker of a file that has left, unless a new version has come or others may need it."""
        if not self._name.is_of_one_file:
            return
        folder, name = split(os.fsencode(self._name.of(os.fsdecode(path))))
        try:
            if self._outbox.look(path) is None:
                self._unlink(folder, name)
        except SourceFailed:
            pass  # it is left, and does not count for the next version

    def _unlink(self, folder: bytes, name: bytes) -> None:
        root = self._outbox.open()
        try:
            here = open_below(root, folder)
            try:
                if stat.S_ISREG(os.stat(name, dir_fd=here, follow_symlinks=False).st_mode):
                    os.unlink(name, dir_fd=here)
            finally:
                os.close(here)
        except OSError as error:
            if not is_gone(error):
                raise SourceFailed(str(error)) from error
        finally:
            os.close(root)
