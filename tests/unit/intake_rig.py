"""An intake by itself, with an outbox and a queue that a test fills."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from iot.spooler.config.outboxes import OutboxSettings
from iot.spooler.outbox import files
from iot.spooler.outbox.intake import Clocks, Intake
from iot.spooler.outbox.lease import Answer, Completeness, Writer
from iot.spooler.outbox.mounts import FileSystem
from iot.spooler.outbox.place import Found, SourceFailed
from iot.spooler.outbox.watches import Watches
from iot.spooler.queue.policy import Event, State
from iot.spooler.queue.queue import Known, NewEntry
from iot.transfer import DiskFull, Fingerprint

__all__ = ["OLD", "Outbox", "Queue", "Rig", "row"]

OLD = Fingerprint(10, 10**18, 5, 7)


class Outbox:
    """A folder in memory: what a walk finds, and what is answered for each path."""

    def __init__(self, *_: object, **__: object) -> None:
        self.batches: list[list[Found]] = []
        self.answers: dict[bytes, Answer | None] = {}
        self.looks: dict[bytes, Any] = {}
        self.forgotten: list[bytes] = []
        self.unread: dict[bytes, str] = {}
        self.completeness: Completeness | None = Completeness(known=True, reason="")
        self.system = FileSystem()
        self.leases = object()
        self.again: dict[bytes, bool] = {}
        self.doubted = False
        self.watches = Watches("box")
        self.walks: list[bool] = []
        self.closed = 0
        self.home = True
        self.entered: list[bytes] = []
        self.left: list[bytes] = []

    def walk(self, *, whole: bool) -> Iterator[list[Found]]:
        self.walks.append(whole)
        try:
            for batch in self.batches:
                if isinstance(batch, BaseException):
                    raise batch
                yield batch
        finally:
            self.closed += 1

    def ask(self, files: list[Found]) -> Iterator[tuple[Found, Answer | None]]:
        for found in files:
            yield found, self.answers.get(found.path, Answer(Writer.NONE, found.fingerprint))

    def open(self) -> int:
        raise SourceFailed("a folder in memory")

    def look(self, path: bytes) -> Any:
        found = self.looks.get(path, OLD)
        if isinstance(found, BaseException):
            raise found
        return found

    def is_home(self) -> bool:
        return self.home

    def enter(self, folders: list[bytes]) -> Iterator[list[Found]]:
        self.entered += folders
        yield []

    def leave(self, folder: bytes) -> None:
        self.left.append(folder)

    def find(self, paths: Iterable[bytes]) -> list[Found]:
        return [Found(path, found) for path in paths if (found := self.looks.get(path, OLD)) is not None]

    def forget(self, path: bytes, *, closed: bool = False) -> None:
        self.forgotten.append(path)

    def doubt(self, folder: bytes) -> None:
        self.doubted = True

    def removed(self, path: bytes) -> bool:
        return self.looks.get(path, OLD) is None


class Queue:
    def __init__(self) -> None:
        self.rows: dict[bytes, Known] = {}
        self.sent: dict[Known, str | None] = {}
        self.added: list[NewEntry] = []
        self.pages: list[Any] = []
        self.dropped: list[tuple[list[int], Event]] = []
        self.lost_rows, self.room, self.total, self.fresh = False, 10**6, 0, False

    def outbox(self, *_: object, **__: object) -> tuple[int, bool]:
        return 3, self.fresh

    def known(self, _: int, paths: list[bytes]) -> dict[bytes, Known]:
        return {path: self.rows[path] for path in paths if path in self.rows}

    def sent_before(self, known: Known) -> str | None:
        return self.sent.get(known)

    def add(self, entries: list[NewEntry]) -> None:
        if len(entries) > self.room:
            raise DiskFull("no room")
        self.added += entries

    def count(self, _: int) -> int:
        return self.total

    def page(self, _: int, after_id: int, __: int) -> list[Any]:
        return [each for each in self.pages if each.id > after_id]

    def drop(self, entries: list[Any], event: Event) -> None:
        self.dropped.append(([each.id for each in entries], event))


class Rig:
    def __init__(self, monkeypatch: pytest.MonkeyPatch, **settings: Any) -> None:
        monkeypatch.setattr(files, "Outbox", Outbox)
        self.queue, self.now = Queue(), 1000.0
        self.journal_lost = settings.pop("journal_lost", False)
        self.queue.fresh = settings.pop("fresh", False)
        values = {"path": "/box", "destination": "/up", "settle_s": 0, **settings}
        self.settings = OutboxSettings.model_validate(values)
        clocks = Clocks(lambda: self.now, lambda: self.now + 2e9)
        self.intake = Intake(
            self.settings, self.queue, clocks, device_id="d", scan_s=2.0, small_file_bytes=100,
            journal_lost=self.journal_lost,
        )  # fmt: skip
        self.box: Outbox = self.intake.outbox

    def walk(self, *paths: bytes, version: Fingerprint = OLD, **versions: Fingerprint) -> list[bytes]:
        """One whole walk -> what was queued by it."""
        self.box.batches = [[Found(path, versions.get(path.decode("latin1"), version)) for path in paths]]
        self.queue.added.clear()
        self.intake.wake()
        while not self.intake.walking or self.box.walks[-1:] == []:
            self.intake.step(busy=False)
        while self.intake.walking:
            self.intake.step(busy=False)
        return [entry.path for entry in self.queue.added]


def row(number: int, state: State, attempts: int = 0) -> Any:
    return SimpleNamespace(id=number, state=state, attempts=attempts, path=b"%d" % number)
