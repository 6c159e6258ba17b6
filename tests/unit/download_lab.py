"""Downloads without a network: a scripted server, a real local folder."""

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
from iot.sftp.client.jobs.download import Download
from iot.sftp.client.pipeline.pace import Pace
from iot.sftp.client.protocol.packets import Attributes, Code, Data, Reply, Status
from iot.sftp.client.protocol.server import Server
from iot.transfer.errors import LinkLost, SFTPError
from iot.transfer.journal.checkpoints import CHECKPOINTS, Checkpoints
from iot.transfer.journal.journal import Journal
from iot.transfer.landing import DownloadTask
from iot.transfer.model import Checkpoint, Direction, TransferResult
from iot.transfer.options import TransferOptions

__all__ = ["BLOCK", "CONTENT", "SOURCE", "Lab", "Remote", "answering", "calls", "nth"]

SOURCE = b"/up/file"
BLOCK = 1024
CONTENT = random.Random(7).randbytes(20 * BLOCK + 77)


@dataclass
class Remote(Files):
    """size, mtime_s, mode: what STAT reports. longest: bytes of one READ's answer at most."""

    size: int | None = len(CONTENT)
    mtime_s: int | None = 5
    mode: int | None = 0o100640
    longest: Callable[[], int] = lambda: BLOCK

    def _stat(self, event: Event) -> Reply:
        there = Attributes(self.size, self.mode, self.mtime_s)
        return there if event.path in self.content else Status(Code.NO_SUCH_FILE, "")

    def _read(self, event: Event) -> Reply:
        reply = super()._read(event)
        return Data(reply.value[: self.longest()]) if isinstance(reply, Data) else reply


@dataclass
class Lab:
    """One device with its journal, and a server; every attempt is a new connection."""

    folder: Path
    files: Remote = field(default_factory=lambda: Remote({SOURCE: bytearray(CONTENT)}))
    options: dict[str, Any] = field(default_factory=dict)
    clock: Clock = field(default_factory=Clock)

    def __post_init__(self) -> None:
        self.dest = self.folder / "file"
        journal = Journal(None, CHECKPOINTS)
        weakref.finalize(self, journal.close)
        self.ledger = Checkpoints(journal, "s", every_bytes=10**9, every_s=10**9, clock=self.clock)

    def run(self, **script: Any) -> TransferResult:
        server = Server("SSH-2.0-OpenSSH_9.2", "key", {}, max_read=BLOCK)
        options = TransferOptions(**{"chunk_size": BLOCK, "owner": "me", "checkpoint_bytes": 4 * BLOCK, **self.options})
        context = Context(server, Pace(8 * 2**20, BLOCK), self.ledger, options, self.clock)
        return drive(Download(DownloadTask(SOURCE, str(self.dest)), context).run(), self.files, **script)

    def fails(self, kind: type[SFTPError], match: str | None = None, **script: Any) -> None:
        with pytest.raises(kind, match=match):
            self.run(**script)

    def loses_link(self, number: int = 12) -> None:
        """After so many READs; what had come is on the disk."""
        self.fails(LinkLost, lose_at=nth("READ", number), error=LinkLost("cut by the script"))
        self.files.handles.clear()
        self.files.events.clear()

    @property
    def known(self) -> Checkpoint | None:
        return self.ledger.load(Direction.DOWNLOAD, SOURCE, os.fsencode(self.dest))

    @property
    def left(self) -> list[str]:
        return os.listdir(self.folder)

    @property
    def part(self) -> Path:
        [part] = self.folder.glob("*.part")
        return part


def nth(what: str, number: int = 1) -> Callable[[Event], bool]:
    count = 0

    def hit(event: Event) -> bool:
        nonlocal count
        count += event.what == what
        return event.what == what and count == number

    return hit


def answering(hit: Callable[[Event], bool], reply: Reply) -> Callable[[Event], Reply | None]:
    return lambda event: reply if hit(event) else None


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The system calls that make a file durable, in their order; each one is done for real."""
    done: list[str] = []

    def recorded(name: str, told: Callable[..., str]) -> None:
        real = getattr(os, name)

        def call(*arguments: Any, **keywords: Any) -> Any:
            done.append(told(*arguments))
            return real(*arguments, **keywords)

        monkeypatch.setattr(os, name, call)

    def of(fd: Any) -> str:
        name = os.path.basename(os.readlink(f"/proc/self/fd/{fd}"))
        return "part" if name.endswith(".part") else name

    recorded("fsync", lambda fd: f"fsync {of(fd)}")
    recorded("replace", lambda old, new: "rename")
    recorded("pwrite", lambda fd, data, offset: "write")
    recorded("chmod", lambda fd, mode: f"chmod {mode:o} {of(fd)}")
    recorded("utime", lambda fd, times: f"utime {of(fd)}")
    return done
