"""Compresses files, one after the other, in a thread of its own: the loop is never kept.

The thread reads the original and writes into the folder of compressed files; it knows no journal. A version that
changes meanwhile is not used.
"""

from __future__ import annotations

import logging
import os
import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import NamedTuple

from iot.spooler.compression.codecs import TRIAL_BYTES, pays, writer
from iot.spooler.compression.folder import Folder, Made
from iot.spooler.config.packed import Compression
from iot.spooler.naming import shown
from iot.transfer import Fingerprint
from iot.transfer.beneath import open_below, opener, split

__all__ = ["Packer", "Task"]

log = logging.getLogger(__name__)

PIECE_BYTES = 256 * 1024
READ = os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW


class Task(NamedTuple):
    """root: opens the outbox. version: of the file at `path` in it. must: it has to be compressed, whether or not that
    pays, because an earlier attempt has begun so."""

    name: str
    root: Callable[[], int]
    path: bytes
    version: Fingerprint
    kind: Compression
    must: bool


class Stopped(Exception):
    """The agent ends."""


class Packer:
    """finished: how many tasks were done."""

    def __init__(self, folder: Folder) -> None:
        self.finished = 0
        self._folder = folder
        self._todo: OrderedDict[str, Task] = OrderedDict()
        self._done: dict[str, Made | None] = {}
        self._changed = threading.Condition()
        self._runs = self._stopped = False

    @property
    def is_busy(self) -> bool:
        return self._runs

    def ask(self, task: Task) -> None:
        """Have it done, unless that was asked for already."""
        with self._changed:
            if task.name in self._todo or task.name in self._done or self._stopped:
                return
            self._todo[task.name] = task
            if self._runs:
                return
            self._runs = True
        try:
            threading.Thread(target=self._run, name="packer", daemon=True).start()
        except RuntimeError:  # the system has none left
            self._run()

    def take(self) -> dict[str, Made | None]:
        """What was done since the last call; None for a file that is not compressed."""
        with self._changed:
            done, self._done = self._done, {}
        return done

    def stop(self) -> None:
        """End it, at the latest after the piece that it is at."""
        with self._changed:
            self._stopped = True
            self._todo.clear()
            self._changed.wait_for(lambda: not self._runs, timeout=5.0)

    # -- in the thread

    def _run(self) -> None:
        while True:
            with self._changed:
                if not self._todo:
                    self._runs = False
                    self._changed.notify_all()
                    return
                task = next(iter(self._todo.values()))
            made = self._tried(task)
            with self._changed:
                self._todo.pop(task.name, None)
                self._done[task.name] = made
                self.finished += 1

    def _tried(self, task: Task) -> Made | None:
        """Whatever is wrong with the original is found out, and said, when it is sent."""
        try:
            return self._packed(task)
        except Stopped:
            return None
        except Exception as error:  # noqa: BLE001  whatever it is: the file is sent as it is
            log.warning("not compressed path=%s error=%s", shown(task.path), shown(str(error)))
            return None

    def _packed(self, task: Task) -> Made | None:
        with open(split(task.path)[1], "rb", buffering=0, opener=_opener(task)) as file:
            if Fingerprint.of(os.fstat(file.fileno())) != task.version:
                return None
            piece = file.read(TRIAL_BYTES)
            if not task.must and not pays(task.kind, piece):
                return None
            if not self._folder.has_room_for(task.version.size):
                log.warning("not compressed, the state directory has no room path=%s", shown(task.path))
                return None
            with self._folder.making(task.name, task.version.mtime_ns) as target:
                made = writer(task.kind)
                while piece:
                    self._check()
                    _write(target, made.compress(piece))
                    piece = file.read(PIECE_BYTES)
                _write(target, made.flush())
                if Fingerprint.of(os.fstat(file.fileno())) != task.version:
                    raise OSError("it has changed meanwhile")
        return self._folder.made(task.name)

    def _check(self) -> None:
        if self._stopped:
            raise Stopped


def _opener(task: Task) -> Callable[[str | bytes, int], int]:
    """Opens below the outbox, through no symlink."""

    def opened(name: str | bytes, flags: int) -> int:
        root = task.root()
        try:
            here = open_below(root, split(task.path)[0])
        finally:
            os.close(root)
        try:
            return opener(here, READ)(name, flags)
        finally:
            os.close(here)

    return opened


def _write(target: int, piece: bytes) -> None:
    rest = memoryview(piece)
    while rest:
        rest = rest[os.write(target, rest) :]
