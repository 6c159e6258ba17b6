"""Which entries are sent compressed, and from which file.

An entry is compressed before it is begun, because its name depends on it: with the suffix, or without where compressing
does not pay, or the state directory has no room. From then on the recorded destination says which of the two it is, and
the file is made again if it is missing. What was sent, its hash and its size in the delivery record are those of the
compressed file; whatever concerns the original (its version, readiness, removal, archive) stays with the original.

Compressed files are removed soon after their entry needs them no more. Those that nothing waits for at the moment may
go for others: they are made again.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from iot.spooler.compression.folder import Folder, Made, name_of
from iot.spooler.compression.packer import Packer, Task
from iot.spooler.config.packed import Compression, is_packed, kind_named
from iot.spooler.naming import shown
from iot.spooler.outbox.intake import Intake
from iot.spooler.queue.policy import State
from iot.spooler.queue.queue import Entry, Queue
from iot.transfer import Fingerprint
from iot.transfer.beneath import DIRECTORY, split

__all__ = ["Packing"]

log = logging.getLogger(__name__)

SWEEP_S = 5.0
PAGE = 256
NAME_MAX_BYTES = 255
LIVE = (State.READY, State.SENDING, State.WAITING)


class Packing:
    """max_bytes: of all compressed files; a larger original is sent as it is. clock: seconds, monotonic."""

    def __init__(
        self,
        state_dir: Path,
        intakes: Iterable[Intake],
        queue: Queue,
        max_bytes: int,
        clock: Callable[[], float],
    ) -> None:
        self._folder = Folder(state_dir)
        self._packer = Packer(self._folder)
        self._intakes = {intake.number: intake for intake in intakes}
        self._queue = queue
        self._max_bytes = max_bytes
        self._clock = clock
        self._kinds: dict[int, frozenset[str]] = {}
        self._made: dict[str, Made] = {}
        self._pending: dict[str, int] = {}
        self._plain: set[str] = set()
        self._wanted: dict[str, Entry] = {}
        self._used_by: dict[int, str] = {}
        self._ended = 0
        self._sweep_at = clock()
        self._begun = False

    @property
    def is_busy(self) -> bool:
        """Whether an entry may become ready soon, without anybody's doing."""
        return self._packer.is_busy

    @property
    def news(self) -> int:
        """Changes whenever an entry may have become ready."""
        return self._packer.finished + self._ended

    # -- what the dispatcher asks

    def is_ready(self, entry: Entry) -> bool:
        """Whether it can be begun, which is to be done at once; if its file is yet to be compressed, that is begun."""
        kind = self._kind(entry)
        if kind is None:
            return True
        self._collect()
        name = self._name(entry, kind)
        if name in self._plain:
            return True
        if name in self._made:
            self._used_by[entry.id] = name
            return True
        if name not in self._pending and self._make_room(entry.fingerprint.size):
            self._pending[name] = entry.fingerprint.size
            self._wanted[name] = entry
            self._packer.ask(self._task(entry, kind, name))
        return False

    def suffix(self, entry: Entry) -> str:
        """What its name gets that is being decided."""
        kind = self._kind(entry)
        if kind is None:
            return ""
        name = self._name(entry, kind)
        self._plain.discard(name)
        return kind.suffix if name in self._made else ""

    def source(self, entry: Entry) -> tuple[str, Fingerprint]:
        """The file that is sent for an entry that is begun, and its version."""
        path = self.path(entry, entry.destination)
        made = self._made.get(self._used_by.get(entry.id, ""))
        return path, made.fingerprint if made is not None else entry.fingerprint

    def ended(self, entries: Iterable[Entry]) -> None:
        """They are not claimed and not in flight any more."""
        for entry in entries:
            kind = self._kind_begun(entry, entry.destination)
            if kind is not None:
                self._plain.discard(self._name(entry, kind))
                self._ended += 1
            self._used_by.pop(entry.id, None)

    def path(self, entry: Entry, destination: str) -> str:
        """The file that attempts to send it to this destination were made with."""
        kind = self._kind_begun(entry, destination)
        if kind is None:
            return self._intakes[entry.outbox].source(entry)
        return str(self._folder.path / self._name(entry, kind))

    # -- what the loop asks

    def tend(self) -> None:
        """Remove compressed files that nobody needs any more. Raises: DiskFull, JournalUnavailable."""
        if self._clock() >= self._sweep_at:
            self._tidy()

    def close(self) -> None:
        """Raises: DiskFull, JournalUnavailable."""
        self._packer.stop()
        self._collect()
        self._tidy()

    def _tidy(self) -> None:
        try:
            if not self._begun:
                self._begin()
            self._sweep()
        except OSError as error:
            log.warning("cannot tidy compressed files error=%s", shown(str(error)))
        self._sweep_at = self._clock() + SWEEP_S if self._made or not self._begun else float("inf")

    def _begin(self) -> None:
        """See what an earlier run has left."""
        ours = {*self._made, *self._pending}  # where the folder could not be read at first
        left = {made.name: made for made in self._folder.kept(ours)}
        for entry in self._live_entries() if left else ():
            kind = self._kind_begun(entry, entry.destination)
            name = self._name(entry, kind) if kind is not None else ""
            if name in left:
                self._made[name], self._wanted[name] = left.pop(name), entry
        for name in left:
            self._folder.remove(name)
        self._begun = True

    def _live_entries(self) -> Iterator[Entry]:
        for number in self._intakes:
            after_id = 0
            while page := self._queue.page(number, after_id, PAGE):
                after_id = page[-1].id
                yield from (entry for entry in page if entry.state in LIVE)

    def _sweep(self) -> None:
        ids = [self._wanted[name].id for name in self._made]
        live: set[int] = set()
        for start in range(0, len(ids), PAGE):
            found = self._queue.entries(ids[start : start + PAGE])
            live.update(entry.id for entry in found if entry.state in LIVE)
        for name in [name for name in self._made if self._wanted[name].id not in live]:
            self._remove(name)
        self._used_by = {number: name for number, name in self._used_by.items() if name in self._made}

    def _remove(self, name: str) -> None:
        self._folder.remove(name)
        del self._made[name]
        self._wanted.pop(name, None)

    # -- inside

    def _kind(self, entry: Entry) -> Compression | None:
        """How it is compressed: as its name says, if that is decided, else as its outbox says."""
        if entry.destination:
            return self._kind_begun(entry, entry.destination)
        settings = self._intakes[entry.outbox].settings
        if settings.compress is None or is_packed(entry.path) or entry.fingerprint.size > self._max_bytes:
            return None
        packed = entry.path + os.fsencode(settings.compress.suffix)
        if len(split(packed)[1]) > NAME_MAX_BYTES or self._queue.known(entry.outbox, [packed]):
            return None  # too long, or another file has that name
        return settings.compress

    def _kind_begun(self, entry: Entry, destination: str) -> Compression | None:
        kind = kind_named(destination)
        if kind is None or is_packed(entry.path):
            return None
        if entry.outbox not in self._kinds:
            self._kinds[entry.outbox] = self._queue.compressions(entry.outbox)
        return kind if kind.value in self._kinds[entry.outbox] else None

    def _name(self, entry: Entry, kind: Compression) -> str:
        return name_of(entry, self._intakes[entry.outbox].settings.path, kind)

    def _task(self, entry: Entry, kind: Compression, name: str) -> Task:
        folder = self._intakes[entry.outbox].settings.path
        begun = bool(entry.destination)
        return Task(name, lambda: os.open(folder, DIRECTORY), entry.path, entry.fingerprint, kind, must=begun)

    def _collect(self) -> None:
        for name, made in self._packer.take().items():
            self._pending.pop(name, None)
            if made is None:
                self._wanted.pop(name, None)
                self._plain.add(name)
                continue
            self._made[name] = made
            self._sweep_at = min(self._sweep_at, self._clock() + SWEEP_S)
            entry, size = self._wanted[name], made.fingerprint.size
            log.info("compressed path=%s bytes=%d to=%d", shown(entry.path), entry.fingerprint.size, size)

    def _make_room(self, size: int) -> bool:
        """Whether a file of this size may be compressed now; files that are not in use go for it."""
        sizes = {name: made.fingerprint.size for name, made in self._made.items()}
        taken = sum(sizes.values()) + sum(self._pending.values())
        in_use = set(self._used_by.values())
        for name in [name for name in self._made if name not in in_use]:
            if taken + size > self._max_bytes:
                taken -= sizes[name]
                self._remove(name)
        return taken + size <= self._max_bytes
