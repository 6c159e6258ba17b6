"""An agent whose outbox compresses, what compresses well, and what does not."""

from __future__ import annotations

import os
import random
from pathlib import Path
from typing import Any

from unit.agent_rig import Rig

from iot.sftp.client import LinkLost
from iot.spooler.agent.draining import End
from iot.spooler.config.packed import Compression

__all__ = ["KIB", "NOISE", "TEXT", "PackingRig", "begun"]

KIB = 1024
TEXT = b"".join(b"%d;%d;ok\n" % (number, number * 7919 % 1000) for number in range(20_000))
NOISE = random.Random(3).randbytes(300 * KIB)


class PackingRig(Rig):
    def __init__(self, base: Path, kind: Compression = Compression.GZIP) -> None:
        super().__init__(base)
        self.outbox["compress"] = kind.value
        self.most: str | int = "1 MiB"
        self.folder = base / "state" / "compressed"

    def settings(self) -> dict[str, Any]:
        return {**super().settings(), "compress_max_bytes": self.most}

    def content(self, name: str) -> bytes:
        return (self.base / "remote/up" / name).read_bytes()

    def compressed(self) -> list[str]:
        return sorted(os.listdir(self.folder)) if self.folder.exists() else []


def begun(rig: PackingRig) -> None:
    """A run in which the link is lost as the first byte is sent."""

    def lost(_: object) -> None:
        raise LinkLost("cut")

    rig.retry = {"drain_attempts": 1}
    rig.remote.before = lost
    assert rig.run() is End.REMAINS
    rig.remote.before = lambda job: None
