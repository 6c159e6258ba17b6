"""What every transfer on one connection shares."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from iot.sftp.client.pipeline.pace import Pace
from iot.sftp.client.protocol.server import Server
from iot.transfer.model import Checkpoint, Direction, Proof
from iot.transfer.window import PartState


class Ledger(Protocol):
    """Where checkpoints are kept: durable soon (note) or before going on (a Barrier carrying the checkpoint)."""

    def load(self, direction: Direction, remote_path: bytes, local_path: bytes) -> Checkpoint | None: ...

    def note(self, checkpoint: Checkpoint, *, now: bool = False) -> None:
        """Keep for the next batch; written by bytes and time, for all transfers at once, or now."""

    def forget(self, checkpoint: Checkpoint) -> None:
        """The transfer is done, or starts over: drop the checkpoint with the next batch."""


@dataclass(frozen=True, slots=True)
class Options:
    """The transfer's settings as plain values; see settings.ClientOptions for their meaning."""

    verify: str = "timestamp"
    proof: Proof = Proof.SIZE
    tail_size: int = 1024 * 1024
    trust: bool = False
    chunk_size: int | None = None
    part_suffix: str = ".part"
    owner: str = ""
    make_dirs: bool = True
    keep_times: bool = False
    keep_mode: bool = False
    replace_by_remove: bool = False
    direct_write: bool = False
    sidecar: bool = False
    sha256: bool = False
    resume: bool = True
    checkpoint_bytes: int = 4 * 1024 * 1024
    checkpoint_s: float = 10.0
    publish_grace_s: float = 30.0


@dataclass(slots=True)
class Context:
    """One connection's server, pace and ledger.

    folders: remote folders known to be there. handles: open parts. large: the large parts that are being filled.
    """

    server: Server
    pace: Pace
    ledger: Ledger
    options: Options
    clock: Callable[[], float]
    folders: set[bytes] = field(default_factory=set)
    handles: set[bytes] = field(default_factory=set)
    large: dict[bytes, PartState] = field(default_factory=dict)

    @property
    def write_block(self) -> int:
        return min(self.options.chunk_size or self.pace.block, self.server.max_write)

    @property
    def read_block(self) -> int:
        return min(self.options.chunk_size or self.pace.block, self.server.max_read)
