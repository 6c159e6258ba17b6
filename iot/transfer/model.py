"""The values passed between modules: frozen and typed, with no behaviour of their own."""

from __future__ import annotations

import enum
import os
import stat
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any, BinaryIO, NamedTuple, TypeAlias

from iot.transfer.errors import Cancelled, ConfigurationError, TransferError
from iot.transfer.remote_commands import NO_COMMANDS, RemoteCommands

__all__ = [
    "PROGRESS_EVERY_S",
    "Checkpoint",
    "Direction",
    "DownloadJob",
    "Evidence",
    "Failure",
    "Fingerprint",
    "Finished",
    "IfExists",
    "LocalPath",
    "LocalSource",
    "Phase",
    "Progress",
    "Proof",
    "RemoteEntry",
    "RemoteFile",
    "RemotePath",
    "Span",
    "Token",
    "TransferResult",
    "UploadJob",
]

LocalPath: TypeAlias = str | bytes | os.PathLike[str]
LocalSource: TypeAlias = LocalPath | BinaryIO
RemotePath: TypeAlias = str | bytes | PurePosixPath
LOCAL_KINDS = "str, bytes, os.PathLike"
"""What names a local file, for error messages."""


class Proof(str, enum.Enum):
    """How far the content at the destination was proven before it was published."""

    SIZE = "size"
    TAIL = "tail"
    FULL = "full"


class Evidence(str, enum.Enum):
    """What the proof of a download is based on."""

    END_OF_FILE = "end of file"
    SIZE = "size"
    SECOND_READING = "second reading"
    SERVER_HASH = "server's SHA-256"
    EXPECTED_HASH = "expected SHA-256"
    SHA256_FILE = "remote .sha256"


class Phase(str, enum.Enum):
    """The state of a transfer in the journal.

    SENDING: bytes are being written to the part.
    PUBLISHING: the intent to rename the part to its final name is on disk; the server's answer may be lost.
    """

    SENDING = "sending"
    PUBLISHING = "publishing"


class Direction(str, enum.Enum):
    UPLOAD = "upload"
    DOWNLOAD = "download"


class Fingerprint(NamedTuple):
    """Identifies one version of a file.

    ctime_ns and inode are 0 where they are not known (a remote file).
    """

    size: int
    mtime_ns: int
    ctime_ns: int = 0
    inode: int = 0

    @classmethod
    def of(cls, status: os.stat_result) -> Fingerprint:
        return cls(status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino)

    def looks_like(self, other: Fingerprint) -> bool:
        """Whether size and modification time are the same. If anything else differs, only the content can tell."""
        return (self.size, self.mtime_ns) == (other.size, other.mtime_ns)

    def columns(self) -> tuple[int, int | bytes, int | bytes, int]:
        """Size, both times and inode in a form that SQLite stores exactly.

        SQLite integers are signed 64-bit. As nanoseconds they cover 1677 to 2262, but file systems allow more: a time
        outside that range is stored as a 12-byte BLOB. Inodes are unsigned.
        """
        inode = self.inode - 2**64 if self.inode >= 2**63 else self.inode
        return self.size, _time_column(self.mtime_ns), _time_column(self.ctime_ns), inode

    @classmethod
    def from_columns(cls, size: int, mtime_ns: int | bytes, ctime_ns: int | bytes, inode: int) -> Fingerprint:
        return cls(size, _time_from(mtime_ns), _time_from(ctime_ns), inode % 2**64)


def _time_column(time_ns: int) -> int | bytes:
    """64-bit seconds need 94 bits as nanoseconds."""
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
    """How the far side identifies an unfinished upload: a part name, an upload id, a session address.

    Opaque to all but the remote that issued it, and often a secret: kept in the journal (mode 0600), never logged.
    """

    __slots__ = ()

    def __repr__(self) -> str:
        return f"Token({len(self)} bytes)"

    __str__ = __repr__


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """The progress of one transfer: a row of the journal.

    token: identifies the unfinished upload; for a download, the path of the local part.
    acked_bytes: the contiguous prefix whose writes were answered.
    synced_bytes: the value of acked_bytes when the last successful fsync was sent.
    suspect: spans below acked_bytes that the server may have lost; they are read back before publishing.
    published_as: which of its names the file has got, counted from 0, when only commands are to follow, which may take
        that away again; None before.
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
    published_as: int | None = None


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """The attributes of a remote file; None where the server did not report one."""

    size: int | None
    mtime_s: int | None = None
    mode: int | None = None

    @property
    def is_folder(self) -> bool:
        return self.mode is not None and stat.S_ISDIR(self.mode)


@dataclass(frozen=True, slots=True)
class RemoteEntry:
    """What a remote folder holds under one name.

    name: without its folder; never a path. file: as far as the listing reveals it; for a link, its target, or the link
    itself if it leads nowhere or cannot be followed.
    """

    name: str
    file: RemoteFile
    is_link: bool = False

    @property
    def is_folder(self) -> bool:
        return self.file.is_folder


@dataclass(frozen=True, slots=True)
class Progress:
    """One step of a transfer, for a progress callback.

    done_bytes: bytes that the far side has confirmed, including those of earlier attempts.
    """

    path: str
    done_bytes: int
    total_bytes: int
    resumed_at: int = 0


ProgressCallback = Callable[[Progress], None]
PROGRESS_EVERY_S = 0.1
"""Minimum time in seconds between two calls of the callback."""


class IfExists(str, enum.Enum):
    """What an upload does where another file has its destination.

    OVERWRITE: replace it. SKIP: leave it, and send nothing. FAIL: raise AlreadyExists. RENAME: take another name.
    """

    OVERWRITE = "overwrite"
    SKIP = "skip"
    FAIL = "fail"
    RENAME = "rename"


NAME = "{name}"
"""In the name of another program's part: the name of the file."""


def check_partial_name(pattern: str) -> None:
    """Raises: ValueError if it is not a name with NAME in it, once."""
    if pattern.count(NAME) != 1 or "/" in pattern or "\0" in pattern:
        raise ValueError(f"must be a name with {NAME} in it, such as {NAME}.filepart, or {NAME} itself")


@dataclass(frozen=True, slots=True)
class UploadJob:
    """One file to send.

    key: the caller's own handle, returned in the result.
    priority: lower is more urgent; a more urgent job overtakes those in flight.
    fingerprint: the version to send; any other version of the source raises SourceChanged. None: whatever is there.
    check_final: the destination may hold an earlier delivery; compare its content before sending anything.
    grace: where no fsync confirms the publish, delay the result by publish_grace_s and then check the destination
        again; for callers that remove the source afterwards.
    digest: include the SHA-256 in the result.
    keep_times: give the file the time of its source, also if the setting `keep_times` is off.
    sent_before: the SHA-256, in hex, of what was delivered to `dest` before. If the source still has that content,
        nothing is sent, whatever the server holds now: the result is already_done and its proof None.
    part_suffix: the file has the name `<dest><part_suffix>` until it is complete, as with part_name="exact".
    if_exists: what to do where another file has the destination. alternatives: the names that RENAME tries then, in
        order; the same at each attempt.
    ignores_case: the server does; the name of a file that is replaced keeps its spelling.
    share: uploads of one share get as much of a busy link as those of any other share, by bytes.
    adopt_partial: where another program may have left a beginning of the file: a name beside `dest`, in which {name}
        stands for the name of `dest`, such as "{name}.filepart", or "{name}" itself. If its content is that of the
        source so far, the upload takes it over and goes on from there; otherwise it is left alone.
    commands: what else is done on the far side, before the transfer, before publishing and after it.
    suspended: asked again and again, in any thread, whether to stop sending. The job then fails with Cancelled, and its
        part is kept for a resume. A file that was sent to its end is published.
    """

    source: LocalSource
    dest: RemotePath
    key: object = None
    priority: int = 0
    fingerprint: Fingerprint | None = None
    check_final: bool = False
    grace: bool = False
    progress: ProgressCallback | None = field(default=None, compare=False)
    digest: bool = False
    keep_times: bool = False
    sent_before: str | None = None
    part_suffix: str | None = None
    if_exists: IfExists = IfExists.OVERWRITE
    alternatives: tuple[str, ...] = ()
    ignores_case: bool = False
    share: Hashable = None
    adopt_partial: str | None = None
    commands: RemoteCommands = NO_COMMANDS
    suspended: Callable[[], bool] = field(default=lambda: False, compare=False)

    def __post_init__(self) -> None:
        """Its value in words will do for `if_exists`. Raises: ConfigurationError, also for `adopt_partial`."""
        try:
            object.__setattr__(self, "if_exists", IfExists(self.if_exists))
        except ValueError:
            known = ", ".join(each.value for each in IfExists)
            raise ConfigurationError(f"if_exists: must be one of {known} (got {self.if_exists!r})") from None
        if self.adopt_partial is not None:
            try:
                check_partial_name(self.adopt_partial)
            except ValueError as error:
                raise ConfigurationError(f"adopt_partial: {error} (got {self.adopt_partial!r})") from None

    def check_suspended(self) -> None:
        """Raises: Cancelled."""
        if self.suspended():
            raise Cancelled("suspended; what was sent is kept for a resume")


@dataclass(frozen=True, slots=True)
class DownloadJob:
    """One file to fetch.

    dest: a path, or an open file: writable and seekable, and readable if its content is to be verified.
    key: the caller's own handle, returned in the result.
    sha256: True includes the digest in the result; 64 hex digits are the expected SHA-256 of the content.
    keep_times: give the file the time of its source, also if the setting `keep_times` is off.
    sidecar: the content must match `<source>.sha256` on the server, also if the setting `sidecar` is off.
    suspended: asked again and again, in any thread, whether to stop fetching. The job then fails with Cancelled, and
        its part is kept for a resume.
    """

    source: RemotePath
    dest: LocalPath | BinaryIO
    key: object = None
    progress: ProgressCallback | None = field(default=None, compare=False)
    sha256: bool | str = False
    keep_times: bool = False
    sidecar: bool = False
    suspended: Callable[[], bool] = field(default=lambda: False, compare=False)


@dataclass(frozen=True, slots=True)
class TransferResult:
    """A finished transfer and its proof.

    sent_bytes: payload sent (upload) or received (download) by this call, including blocks sent twice.
    resumed_at: offset in bytes at which this call started; 0 for a fresh start.
    already_done: an earlier attempt had published the file; this one only verified it.
    possible_repeat: the answer to an earlier rename was lost and the file was gone, so it was sent again.
    durable: the server confirmed by fsync that content and name are on its disk.
    sha256: hex digest of the whole content; only if requested.
    proof: how far the content was verified. None, for a download: the server reports no usable size, and it is only
        known that READ reached the end of the file. None, for an upload: the content was delivered before.
    evidence: for a download, what the proof is based on.
    published_as: the name that the file has got instead of `dest`, where another file has that; else empty.
    skipped: another file has `dest`, so nothing was published.
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
    published_as: str = ""
    skipped: bool = False

    @property
    def proven(self) -> str:
        """`proof` as a word: "size", "tail", "full", or "none"."""
        return self.proof.value if self.proof is not None else "none"


@dataclass(frozen=True, slots=True)
class Failure:
    """A job of upload_many or download_many that failed; the other jobs continue."""

    key: object
    source: str
    dest: str
    error: TransferError


class Finished(NamedTuple):
    """A piece of work that ended: either `result` or `error` is valid; error None means that it succeeded."""

    tag: Any
    result: Any = None
    error: TransferError | None = None
