"""What all transfers on one connection share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from iot.sftp.client.pipeline.pace import Pace
from iot.sftp.client.protocol.server import Server
from iot.transfer.model import Checkpoint, Direction
from iot.transfer.options import TransferOptions
from iot.transfer.window import PartState


class Ledger(Protocol):
    """Stores checkpoints: durable soon (note), or before the job continues (a Barrier with the checkpoint)."""

    def load(self, direction: Direction, remote_path: bytes, local_path: bytes) -> Checkpoint | None: ...

    def note(self, checkpoint: Checkpoint, *, now: bool = False) -> None:
        """Keep it for the next batch, which is written by bytes and time for all transfers; `now` writes at once."""

    def forget(self, checkpoint: Checkpoint) -> None:
        """The transfer is done, or starts over: drop the checkpoint with the next batch."""


@dataclass(slots=True)
class Context:
    """One connection's server, pace and ledger.

    folders: remote folders known to exist. asked_folders: those that were requested along with a file.
    handles: open parts, and files that are being read. large: large parts that are being written or that wait for the
    free space of the server. arriving: the sizes of the large files that are being fetched.
    """

    server: Server
    pace: Pace
    ledger: Ledger
    options: TransferOptions
    clock: Callable[[], float]
    folders: set[bytes] = field(default_factory=set)
    asked_folders: set[bytes] = field(default_factory=set)
    handles: set[bytes] = field(default_factory=set)
    large: dict[bytes, PartState] = field(default_factory=dict)
    arriving: dict[int, int] = field(default_factory=dict)

    @property
    def write_block(self) -> int:
        return min(self.options.chunk_size or self.pace.block, self.server.max_write)

    @property
    def read_block(self) -> int:
        return min(self.options.chunk_size or self.pace.block, self.server.max_read)
