"""Unlinks what has left an outbox, and syncs the folder, in a thread of its own.

unlink(2) waits for the file system's log: 0.1 to 0.6 ms a file on ext4, as long as all else that a small file costs.
The thread owns nothing but the folders that it is handed; what came of it is collected by whoever has the rows.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

__all__ = ["Unlinker", "Unlinking"]

FOLDERS_MAX = 16
"""Handed over at a time; each is a descriptor, and with up to a few hundred files a moment's work."""


@dataclass(slots=True)
class Unlinking:
    """The last step of some files in one folder.

    folder: its descriptor, which `run` closes. names: what to unlink, by key. done: keys of files that have left; after
    `run` that is durable. failed: keys with the error.
    """

    folder: int
    names: dict[int, bytes]
    done: list[int]
    failed: list[tuple[int, OSError]] = field(default_factory=list)

    def run(self) -> None:
        keys = [*self.done, *self.names]
        try:
            unlinked = _unlink_all(self.folder, self.names, self.failed)
            os.fsync(self.folder)
            self.done += unlinked
        except OSError as error:  # nothing is durable
            self.done, self.failed = [], [(key, error) for key in keys]
        finally:
            os.close(self.folder)


def _unlink_all(folder: int, names: Mapping[int, bytes], failed: list[tuple[int, OSError]]) -> list[int]:
    """-> keys of those that are gone"""
    gone: list[int] = []
    for key, name in names.items():
        try:
            os.unlink(name, dir_fd=folder)
        except FileNotFoundError:
            pass  # somebody was faster
        except OSError as error:
            failed.append((key, error))
            continue
        gone.append(key)
    return gone


class Unlinker:
    """Runs one Unlinking after the other. Its thread ends when there is nothing left to do."""

    def __init__(self) -> None:
        self._todo: deque[Unlinking] = deque()
        self._finished: list[Unlinking] = []
        self._unfinished = 0
        self._error: BaseException | None = None
        self._changed = threading.Condition()

    def start(self, work: Unlinking) -> None:
        """Hand it over; waits while there is too much under way."""
        with self._changed:
            self._changed.wait_for(lambda: self._unfinished < FOLDERS_MAX)
            self._unfinished += 1
            self._todo.append(work)
            if self._unfinished == 1:
                try:
                    threading.Thread(target=self._run, name="unlinker", daemon=True).start()
                except RuntimeError:  # the system has none left
                    self._run()

    def finished(self, *, wait: bool = False) -> Sequence[Unlinking]:
        """Those that were run since the last call. wait: until all are.

        Raises: what a run raised that is no OSError.
        """
        with self._changed:
            if wait:
                self._changed.wait_for(lambda: not self._unfinished)
            if self._error is not None:
                raise self._error
            finished, self._finished = self._finished, []
        return finished

    def _run(self) -> None:
        while True:
            work = self._todo[0]
            try:
                work.run()
            except BaseException as error:  # noqa: BLE001  it is raised where the results are collected
                self._error = error
            with self._changed:
                self._todo.popleft()
                self._finished.append(work)
                self._unfinished -= 1
                self._changed.notify_all()
                if not self._unfinished:
                    return
