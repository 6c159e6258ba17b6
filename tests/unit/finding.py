"""An outbox whose files are found and queued on a clock of the test's own: real folders, real events, no agent."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import pytest

from iot.sftp.client import Journal
from iot.spooler.config.outboxes import OutboxSettings
from iot.spooler.outbox.intake import Clocks, Intake
from iot.spooler.queue.policy import State
from iot.spooler.queue.queue import QUEUE_SCHEMA, Queue

__all__ = ["SETTLE_S", "Rig"]

SETTLE_S = 2.0


class Rig:
    """An outbox, its intake and a queue. The clock stands unless it is moved."""

    def __init__(self, home: Path, **outbox: Any) -> None:
        self.box = home / "box"
        self.box.mkdir(exist_ok=True)
        self.journal = Journal(home / "state", QUEUE_SCHEMA)
        self.queue = Queue(self.journal)
        self.now = 1000.0
        self.began = time.time()
        self.scan_s = outbox.pop("scan_s", None)
        self.settings = OutboxSettings.model_validate({"path": str(self.box), "destination": "/up", **outbox})
        self.intake = Intake(
            self.settings, self.queue, Clocks(lambda: self.now, lambda: self.began + self.now - 1000.0),
            device_id="d", scan_s=self.scan_s, small_file_bytes=100, journal_lost=False,
        )  # fmt: skip
        self.run()

    def work(self, seconds: float = 0.0) -> list[str]:
        """Let time pass and do all that is due then -> the names of all files that wait to be sent."""
        self.now += seconds
        self.run()
        return self.names()

    def run(self) -> None:
        """Do all that is due now."""
        for _ in range(1000):
            self.intake.step(busy=False)
            if self.intake.next_step() > self.now:
                break
        else:
            pytest.fail("there is always something to do")

    def names(self, state: State = State.READY) -> list[str]:
        rows = self.queue.page(self.intake.number, 0, 10**6)
        return sorted(os.fsdecode(row.path) for row in rows if row.state is state)

    def put(self, name: str, content: bytes = b"content") -> Path:
        path = self.box / name
        path.write_bytes(content)
        return path

    def close(self) -> None:
        self.intake.close()
        self.intake.outbox.release()
        self.journal.close()
