"""The hash of a file's content, for names that contain it: computed in small steps, before the file is queued."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence

from iot.spooler.outbox.place import open_file
from iot.spooler.queue.policy import State
from iot.spooler.queue.queue import Entry, NewEntry, Queue
from iot.transfer import Fingerprint

__all__ = ["Hashing", "hashless"]

BLOCK_BYTES = 256 * 1024
STEP_BYTES = 4 * 1024 * 1024
FILE_BYTES = 64 * 1024
"""What opening a file counts as."""
UNREADABLE = Fingerprint(-1, 0)
"""The version of no file."""
HEX_DIGITS = 8
PAGE = 256


def hashless(queue: Queue, outbox: int) -> list[Entry]:
    """The entries that have no hash and are not under way; those that may have been published keep their names."""
    found: list[Entry] = []
    after_id = 0
    while page := queue.page(outbox, after_id, PAGE):
        after_id = page[-1].id
        idle = [entry for entry in page if entry.state in (State.READY, State.WAITING) and not entry.unanswered]
        found += [entry for entry in idle if entry.hash8 is None]
    return found


class Hashing:
    """Entries whose content is still to be read. root: opens the outbox."""

    def __init__(self, root: Callable[[], int]) -> None:
        self._root = root
        self._waiting: dict[bytes, NewEntry] = {}
        self._file: int | None = None
        self._digest = hashlib.sha256()

    def __len__(self) -> int:
        return len(self._waiting)

    def has(self, path: bytes) -> bool:
        return path in self._waiting

    def add(self, entries: Sequence[NewEntry]) -> None:
        self._waiting.update((entry.path, entry) for entry in entries)

    def step(self) -> tuple[list[NewEntry], list[bytes]]:
        """Read a few MiB -> the entries that are complete, and the paths of files that changed or cannot be read.

        Raises: SourceFailed; then nothing is lost.
        """
        done: list[NewEntry] = []
        lost: list[bytes] = []
        left_bytes = STEP_BYTES
        while self._waiting and left_bytes > 0:
            path, entry = next(iter(self._waiting.items()))
            try:
                read_bytes, version = self._read_on(path, left_bytes)
            except OSError:
                read_bytes, version = FILE_BYTES, UNREADABLE
            left_bytes -= max(read_bytes, FILE_BYTES)
            if version is None:
                break
            if version == entry.fingerprint:
                done.append(entry._replace(hash8=self._digest.hexdigest()[:HEX_DIGITS]))
            else:
                lost.append(path)
            del self._waiting[path]
            self._close()
        return done, lost

    def close(self) -> None:
        """Forget them all; the next walk finds them again."""
        self._waiting.clear()
        self._close()

    def _read_on(self, path: bytes, most: int) -> tuple[int, Fingerprint | None]:
        """-> how many bytes were read; at the end of the file, the version that was read"""
        if self._file is None:
            self._file = self._opened(path)
            self._digest = hashlib.sha256()
        read_bytes = 0
        while read_bytes < most:
            block = os.read(self._file, BLOCK_BYTES)
            if not block:
                return read_bytes, Fingerprint.of(os.fstat(self._file))
            self._digest.update(block)
            read_bytes += len(block)
        return read_bytes, None

    def _opened(self, path: bytes) -> int:
        root = self._root()
        try:
            return open_file(root, path)
        finally:
            os.close(root)

    def _close(self) -> None:
        if self._file is not None:
            file, self._file = self._file, None
            os.close(file)
