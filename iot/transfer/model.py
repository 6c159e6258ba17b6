"""The values that travel between the modules: frozen, typed, without behaviour of their own."""

from __future__ import annotations

import enum
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import BinaryIO, NamedTuple

from iot.transfer.errors import TransferError

__all__ = [
    "PROGRESS_EVERY_S",
    "Checkpoint",
    "Direction",
    "Evidence",
    "Failure",
    "Fingerprint",
    "Phase",
    "Progress",
    "Proof",
    "RemoteFile",
    "Span",
    "Token",
    "TransferResult",
    "UploadJob",
]

LocalSource = str | bytes | os.PathLike[str] | BinaryIO


class Proof(str, enum.Enum):
    """How far the content at the destination was proven before it was published."""

    SIZE = "size"
    TAIL = "tail"
    FULL = "full"


class Evidence(str, enum.Enum):
    """What the proof of a download rests on."""

    END_OF_FILE = "end of file"
    SIZE = "size"
    SECOND_READING = "second reading"
    SERVER_HASH = "server's SHA-256"
    EXPECTED_HASH = "expected SHA-256"
    SHA256_FILE = "remote .sha256"


class Phase(str, enum.Enum):
    """Where a transfer stands in the journal.

    SENDING: bytes are on their way into the part.
    PUBLISHING: the intent to rename the part to its final name is on disk; the answer may be lost.
    """

    SENDING = "sending"
    PUBLISHING = "publishing"


class Direction(str, enum.Enum):
    UPLOAD = "upload"
    DOWNLOAD = "download"


class Fingerprint(NamedTuple):
    """Which version of a file this is.

    ctime_ns and inode are 0 where the file's side does not tell them (a remote file).
    """

    size: int
    mtime_ns: int
    ctime_ns: int = 0
    inode: int = 0

    @classmethod
    def of(cls, status: os.stat_result) -> Fingerprint:
        return cls(status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino)

    def columns(self) -> tuple[int, int | bytes, int | bytes, int]:
        """Size, both times and inode as SQLite keeps them, every value exactly.

        Its integers have 64 bits and a sign. As nanoseconds they reach from 1677 to 2262, file systems much further: a
        time beyond is a BLOB of 12 bytes. Inodes have no sign.
        """
        inode = self.inode - 2**64 if self.inode >= 2**63 else self.inode
        return self.size, _time_column(self.mtime_ns), _time_column(self.ctime_ns), inode

    @classmethod
    def from_columns(cls, size: int, mtime_ns: int | bytes, ctime_ns: int | bytes, inode: int) -> Fingerprint:
        return cls(size, _time_from(mtime_ns), _time_from(ctime_ns), inode % 2**64)


def _time_column(time_ns: int) -> int | bytes:
    """64 bits of seconds are 94 bits of nanoseconds."""
    return time_ns if -(2**63) <= time_ns < 2**63 else time_ns.to_bytes(12, "big", signed=True)


def _time_from(column: int | bytes) -> int:
    return int.from_bytes(column, "big", signed=True) if isinstance(column, bytes) else column


class Span(NamedTuple):
    """The bytes [start, end) of a file."""

    start: int
    end: int

    @property
    def length(self) -> int:
        return self.end - self.start


class Token(bytes):
    """How the far side knows an unfinished upload: the name of a part, an upload id, the address of a session.

    Opaque to everybody but the remote that issued it, and often a secret: kept in the journal (mode 0600), never shown.
    """

    __slots__ = ()

    def __repr__(self) -> str:
        return f"Token({len(self)} bytes)"

    __str__ = __repr__


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """How far one transfer is: a row of the journal.

    token: how what there is of it is found again; of a download, the path of the local part.
    acked_bytes: the contiguous prefix whose writes were answered.
    synced_bytes: what acked_bytes was when an fsync that has succeeded was sent.
    suspect: spans below acked_bytes that the server may have lost; they are read back before publishing.
    """

    direction: Direction
    remote_path: bytes
    local_path: bytes
    token: Token
    fingerprint: Fingerprint
    acked_bytes: int = 0
    synced_bytes: int = 0
    suspect: tuple[Span, ...] = ()
    phase: Phase = Phase.SENDING


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """What STAT told of a remote file; None where the server did not tell."""

    size: int | None
    mtime_s: int | None = None
    mode: int | None = None


@dataclass(frozen=True, slots=True)
class Progress:
    """One step of a transfer, for a progress callback.

    done_bytes counts what the far side has confirmed, resumed bytes included.
    """

    path: str
    done_bytes: int
    total_bytes: int
    resumed_at: int = 0


ProgressCallback = Callable[[Progress], None]
PROGRESS_EVERY_S = 0.1
"""It is called no more often."""


@dataclass(frozen=True, slots=True)
class UploadJob:
    """One file to send.

    key: the caller's own handle; it comes back in the result.
    priority: lower is more urgent; a more urgent job overtakes those in flight.
    fingerprint: the version the caller wants sent; a source that differs is SourceChanged. None: as found.
    check_final: an earlier delivery may stand already; the final is compared by content before anything is sent.
    grace: where no fsync confirms the publish, hold the result back for publish_grace_s and look once more; for
        callers that remove the source afterwards.
    """

    source: LocalSource
    dest: str
    key: object = None
    priority: int = 0
    fingerprint: Fingerprint | None = None
    check_final: bool = False
    grace: bool = False
    progress: ProgressCallback | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class TransferResult:
    """A finished transfer, with its proof.

    sent_bytes: payload sent (upload) or received (download) by this call, blocks sent twice included.
    resumed_at: offset in bytes at which this call began; 0 for a fresh start.
    already_done: an earlier attempt had published it; this one only proved it.
    possible_repeat: the answer to an earlier rename was lost and the file was gone; it was sent again.
    durable: the server confirmed by fsync that content and name are on its disk.
    sha256: hex digest of the whole content, only when asked for.
    proof: how far the content was proven. None, for a download only: the server reports no size that fits, so nothing
        is known but that READ came to the end of the file.
    evidence: of a download: what the proof rests on.
    """

    source: str
    dest: str
    size: int
    sent_bytes: int
    resumed_at: int
    seconds: float
    proof: Proof | None
    durable: bool = False
    already_done: bool = False
    possible_repeat: bool = False
    sha256: str | None = None
    key: object = None
    fingerprint: Fingerprint | None = None
    local_path: bytes = b""
    evidence: Evidence | None = None

    @property
    def proven(self) -> str:
        """`proof` as a word: "size", "tail", "full", or "none"."""
        return self.proof.value if self.proof is not None else "none"


@dataclass(frozen=True, slots=True)
class Failure:
    """A job of upload_many that did not get through; its neighbours go on."""

    key: object
    source: str
    dest: str
    error: TransferError
