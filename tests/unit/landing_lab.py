"""The local side of a download by itself, in a folder of its own and on a clock of the test's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from iot.transfer.landing import DownloadTask, Landing, publish_together
from iot.transfer.model import Checkpoint, Progress, RemoteFile, TransferResult
from iot.transfer.options import TransferOptions

__all__ = ["NOW", "OLD", "Lab", "publish"]

NOW = 2_000_000_000
OLD = RemoteFile(1000, NOW - 11, 0o100640)


class Lab:
    def __init__(self, folder: Path, **options: Any) -> None:
        self.dest = folder / "file"
        self.now = 50.0
        self.noted: list[Checkpoint] = []
        self.told: list[Progress] = []
        self.options = TransferOptions(owner="me", **options)
        self.open: list[Landing] = []

    def landing(self, dest: Any = None, **task: Any) -> Landing:
        asked = DownloadTask(b"/far/file", dest or str(self.dest), task.pop("progress", self.told.append), **task)
        self.open.append(
            Landing(asked, self.options, self.noted.append, asked.tell, lambda: self.now, wall_clock=lambda: float(NOW))
        )
        return self.open[-1]

    def begun(self, remote: RemoteFile = OLD, known: Checkpoint | None = None, **task: Any) -> Landing:
        landing = self.landing(**task)
        assert landing.found(remote) == 0
        landing.begin(known)
        return landing

    def close(self) -> None:
        for landing in self.open:
            landing.sink.close()


def publish(landing: Landing, *known: Any) -> TransferResult:
    publish_together([landing])
    return landing.published(*known)
