"""What is measured: one row a work. The figures of the link are those of the table in the README."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = ["KIB", "MIB", "WORKS", "Work"]

KIB = 1024
MIB = 1024 * KIB
HEADERS = 1.04  # TCP/IP and SSH around the payload of full packets

Kind = Literal["put", "get", "folder", "resume", "sync"]


@dataclass(frozen=True, slots=True)
class Work:
    """files x size bytes over a link; rate None is loopback.

    put, get: one file. folder: all files of a folder, each a file on the server. resume: a put while after every
    5 s the link falls silent for 2 s and the server's session is killed. sync: `files` lie on both sides, only
    `new` of them do not.
    limit_s: a run that takes longer is killed.
    """

    name: str
    kind: Kind
    files: int
    size: int
    rate_bps: float | None = None
    rtt_s: float = 0.0
    loss: float = 0.0
    new: int = 0
    limit_s: float = 150.0

    @property
    def payload_bytes(self) -> int:
        return (self.new or self.files) * self.size

    @property
    def floor_s(self) -> float | None:
        """What the link alone takes, without login and round trips; with the silent time where there is any."""
        if self.rate_bps is None or self.kind == "sync":
            return None
        seconds = self.payload_bytes * 8 * HEADERS / self.rate_bps
        return seconds * 7 / 5 if self.kind == "resume" else seconds


WORKS = (
    Work("up-32m-100ms", "put", 1, 32 * MIB, 50e6, 0.1),
    Work("up-1000-100ms", "folder", 1000, 10 * KIB, 50e6, 0.1),
    Work("up-24m-cut", "resume", 1, 24 * MIB, 10e6, 0.1, limit_s=200),
    Work("up-500-600ms", "folder", 500, 10 * KIB, 20e6, 0.6, limit_s=200),
    Work("up-16m-600ms", "put", 1, 16 * MIB, 20e6, 0.6),
    Work("up-8m-loss", "put", 1, 8 * MIB, 20e6, 0.1, loss=0.02),
    Work("up-256m-loopback", "put", 1, 256 * MIB),
    Work("down-256m-loopback", "get", 1, 256 * MIB),
    Work("up-10000-200ms", "folder", 10_000, KIB, 50e6, 0.2, limit_s=300),
    Work("sync-10-of-20000", "sync", 20_000, KIB, 50e6, 0.1, new=10),
)
