"""An outbox whose batches have hooks: real programs, an agent on a fake clock, and a folder for a server."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from unit.test_hooks import Hooked

__all__ = ["TOLD", "Batched"]

TOLD = "$IOT_RESULT $IOT_PATH $IOT_FILES $IOT_BYTES $IOT_ERROR"


class Batched(Hooked):
    """kind: what ends a batch. whole: its last file; its files are a/1 and a/2, with 5 and 7 bytes."""

    def __init__(self, tmp_path: Path, kind: str) -> None:
        super().__init__(tmp_path)
        self.kind = kind
        self.scan_s = 10.0
        self.outbox |= (
            {"batch_interval_s": 30} if kind == "interval" else {"batch_marker": "*.done", "batch_grace_s": 5}
        )
        self.about = f"{self.box}/a/x.done" if kind == "marker" else str(self.box)

    def settings(self):
        return {**super().settings(), "scan_s": self.scan_s}

    def put_batch(self, folder: str = "a") -> None:
        self.put(f"{folder}/1", b"12345")
        self.put(f"{folder}/2", b"1234567")
        if self.kind == "marker":
            self.put(f"{folder}/x.done")

    def go_on(self, seconds: float) -> None:
        self.loop.stop_at = self.loop.now + seconds
        self.loop.stop = False
        self.run(drain=False)

    def rows(self, table: str) -> int:
        db = sqlite3.connect(self.base / "state" / "journal.db")
        try:
            return int(db.execute(f"SELECT count(*) FROM {table}").fetchone()[0])
        finally:
            db.close()

    def files(self) -> list[str]:
        return [name for name in self.arrived() if not name.endswith(".done")]

    def waits_because(self) -> str | None:
        return self.loop.last["outboxes"][0]["waits_because"]
