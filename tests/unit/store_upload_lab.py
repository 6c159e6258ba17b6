"""One upload over a store, step by step: a real folder as the far side, a clock that is moved by hand, no threads."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from unit.faulty_store import Faults, FaultyStore

from iot.folder.place import Place
from iot.folder.store import FolderStore
from iot.transfer.model import Checkpoint, TransferResult, UploadJob
from iot.transfer.names import part_names
from iot.transfer.options import TransferOptions
from iot.transfer.parallel.upload import Upload
from iot.transfer.parallel.work import Desk
from iot.transfer.rate import Meter
from iot.transfer.remote import Ack, Meta, Store
from iot.transfer.source import Source
from iot.transfer.stop import StopFlag

__all__ = ["BLOCK", "CONTENT", "NOT_DURABLE", "StoreLab"]

BLOCK = 1000
CONTENT = bytes(number * 7 % 251 for number in range(10 * BLOCK))
NOT_DURABLE = {"write": lambda ack: Ack(ack.end), "publish": lambda _: False}
"""Answers of a far side that does not say what is on its disk."""


@dataclass
class StoreLab:
    """notes: what was to go on record. delivered: what counted as progress. commands: what the upload waited for.

    at_command: called with each of these, before the upload goes on.
    """

    folder: Path
    faults: Faults = field(default_factory=Faults)
    options: dict[str, Any] = field(default_factory=dict)
    job: dict[str, Any] = field(default_factory=dict)
    make: Callable[[], Store] | None = None
    now: float = 1000.0
    notes: list[Checkpoint] = field(default_factory=list)
    delivered: list[int] = field(default_factory=list)
    commands: list[Any] = field(default_factory=list)
    at_command: Callable[[Any], None] = lambda _: None
    stop: StopFlag = field(default_factory=StopFlag)
    meter: Meter = field(default_factory=Meter)

    def __post_init__(self) -> None:
        self.far = self.folder / "far"
        self.far.mkdir(exist_ok=True)
        self.path = self.folder / "source"
        self.write(CONTENT)
        self.faults.capabilities = {"block_bytes": BLOCK, "write_bytes": 4 * BLOCK, **self.faults.capabilities}

    def write(self, content: bytes, mtime_s: int = 10**9) -> None:
        self.path.write_bytes(content)
        os.utime(self.path, (mtime_s, mtime_s))

    def run(self, known: Checkpoint | None = None) -> TransferResult:
        """known: what is on record of an earlier attempt."""
        options = TransferOptions(owner="me", **self.options)
        job = UploadJob(self.path, "file", **self.job)
        with closing(Source(self.path)) as source:
            names = part_names(b"file", source.path, options.owner, options.part_suffix, options.exact_suffix(job))
            meta = Meta(known.token if known is not None and known.token in names else names[0])
            desk = Desk(lambda call: call(), self.delivered.append, lambda: self.now, self.stop, meter=self.meter)
            upload = Upload(job, source, meta, known, options, desk, self.notes.append, lambda: None, names[-1])
            upload.store = FaultyStore(self.make() if self.make else FolderStore(Place(str(self.far))), self.faults)
            self.upload = upload
            return self._driven(upload.run())

    def _driven(self, work: Iterator[Any]) -> TransferResult:
        while True:
            try:
                command = next(work)
            except StopIteration as end:
                return end.value
            self.commands.append(command)
            self.at_command(command)

    def fails(self, kind: type[BaseException], known: Checkpoint | None = None) -> Checkpoint | None:
        """-> what is on record afterwards"""
        try:
            self.run(known)
        except kind:
            return self.notes[-1] if self.notes else None
        raise AssertionError(f"it did not fail with {kind.__name__}")

    def again(self, **changes: Any) -> None:
        """For another attempt: nothing is noted yet, and the far side does what it is asked for."""
        capabilities = self.faults.capabilities
        self.faults = Faults(capabilities=capabilities, **changes)
        for told in (self.notes, self.delivered, self.commands):
            told.clear()

    def there(self) -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in self.far.iterdir()}
