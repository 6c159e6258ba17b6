"""One device with its journal and a scripted server: what the tests of uploads without network share."""

from __future__ import annotations

import os
import random
import weakref
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from unit.scripted import Clock, Event, Files, drive

from iot.sftp.client.jobs.context import Context
from iot.sftp.client.jobs.upload import Upload
from iot.sftp.client.pipeline.pace import Pace
from iot.sftp.client.protocol.packets import Code, Reply, Status
from iot.sftp.client.protocol.server import Refusal, Server
from iot.transfer.errors import LinkLost, SFTPError
from iot.transfer.journal.checkpoints import CHECKPOINTS, Checkpoints
from iot.transfer.journal.journal import Journal
from iot.transfer.model import Checkpoint, Direction, TransferResult, UploadJob
from iot.transfer.options import TransferOptions
from iot.transfer.source import Source

__all__ = [
    "BLOCK",
    "CONTENT",
    "DEST",
    "EXTENSIONS",
    "FAILURE",
    "Lab",
    "any_request",
    "nth",
    "of_final",
    "refusing",
    "whats",
]

DEST = b"/up/file"
EXTENSIONS = dict.fromkeys([b"fsync@openssh.com", b"posix-rename@openssh.com"], b"1")
FAILURE = Status(Code.FAILURE, "Failure")
BLOCK = 1024
CONTENT = random.Random(7).randbytes(20 * BLOCK + 77)


@dataclass
class Lab:
    """One device with its journal, and a server; every attempt is a new connection."""

    path: Path
    dest: bytes = DEST
    files: Files = field(default_factory=Files)
    options: dict[str, Any] = field(default_factory=dict)
    extensions: dict[bytes, bytes] = field(default_factory=lambda: dict(EXTENSIONS))
    banner: str = "SSH-2.0-OpenSSH_9.2"
    job: dict[str, Any] = field(default_factory=dict)
    refused: set[Refusal] = field(default_factory=set)
    clock: Clock = field(default_factory=Clock)
    block: int = BLOCK
    others: set[bytes] = field(default_factory=set)
    """Handles that other jobs have open."""

    def __post_init__(self) -> None:
        self.journal = Journal(None, CHECKPOINTS)
        weakref.finalize(self, self.journal.close)
        self.ledger = Checkpoints(self.journal, "s", every_bytes=1, every_s=1, clock=self.clock)

    def upload(self) -> Upload:
        server = Server(self.banner, "key", self.extensions, max_write=self.block, refused=self.refused)
        options = TransferOptions(**{"chunk_size": self.block, "owner": "me", **self.options})
        pace, handles = Pace(8 * 2**20, BLOCK), set(self.others)
        context = Context(server, pace, self.ledger, options, self.clock, handles=handles)
        job = UploadJob(self.path, self.dest.decode("utf-8", "surrogateescape"), **self.job)
        return Upload(job, Source(self.path), context)

    def run(self, **script: Any) -> TransferResult:
        upload = self.upload()
        committing = script.pop("at_barrier", lambda: None)

        def at_barrier() -> None:
            self.ledger.commit([self.files.events[-1].record])
            committing()

        result = drive(upload.run(), self.files, at_barrier=at_barrier, clock=self.clock, **script)
        assert upload.context.handles == self.others, "what is closed does not count as open"
        return result

    def fails(self, kind: type[SFTPError], **script: Any) -> SFTPError:
        with pytest.raises(kind) as told:
            self.run(**script)
        return told.value

    def loses_link(self, at: Callable[[Event], bool], **script: Any) -> None:
        self.fails(LinkLost, lose_at=at, error=LinkLost("cut by the script"), **script)
        self.files.handles.clear()

    @property
    def part(self) -> bytes:
        upload = self.upload()
        upload.source.close()
        return upload.part

    @property
    def known(self) -> Checkpoint | None:
        return self.ledger.load(Direction.UPLOAD, DEST, os.fsencode(self.path))

    @property
    def published(self) -> bytes | None:
        content = self.files.content.get(DEST)
        return None if content is None else bytes(content)

    def expect_unpublished(self) -> None:
        assert self.published is None
        assert self.files.did("RENAME") == self.files.did("PLAIN-RENAME") == []


def nth(what: str, number: int = 1) -> Callable[[Event], bool]:
    count = 0

    def hit(event: Event) -> bool:
        nonlocal count
        count += event.what == what
        return event.what == what and count == number

    return hit


def any_request(number: int) -> Callable[[Event], bool]:
    """The request of this number, counted from 1, whatever it asks."""
    count = 0

    def hit(event: Event) -> bool:
        nonlocal count
        count += 1
        return count == number

    return hit


def of_final(what: str) -> Callable[[Event], bool]:
    return lambda event: event.what == what and event.path == DEST


def refusing(hit: Callable[[Event], bool], reply: Reply = FAILURE) -> Callable[[Event], Reply | None]:
    return lambda event: reply if hit(event) else None


def whats(files: Files) -> list[str]:
    return [event.what for event in files.events]
