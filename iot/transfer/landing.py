"""The local side of one download, whatever the protocol: part, checkpoint, proof, result.

    found -> begin -> progressed ... -> check_same -> matches -> publish_together -> published

The part is created beside the destination, and its bytes are synced before a checkpoint records them, so a power cut
costs at most what arrived since the last checkpoint. It gets its final name only if the remote file has not changed
since it was first looked at and the content is verified as far as the settings require.
"""

from __future__ import annotations

import io
import os
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import BinaryIO

from iot.transfer.errors import (
    Cancelled,
    ConfigurationError,
    NotFound,
    PermanentError,
    ProofFailed,
    SourceChanged,
    TransferError,
)
from iot.transfer.model import (
    LOCAL_KINDS,
    PROGRESS_EVERY_S,
    Checkpoint,
    Direction,
    DownloadJob,
    Evidence,
    Fingerprint,
    Progress,
    ProgressCallback,
    Proof,
    RemoteFile,
    Span,
    Token,
    TransferResult,
)
from iot.transfer.names import part_name, remote_path
from iot.transfer.options import TransferOptions
from iot.transfer.settings import TransferSettings
from iot.transfer.sink import FileSink, Kept, Sink, StreamSink

__all__ = ["DownloadTask", "Landing", "download_key", "download_task", "publish_together"]

SHA256_DIGITS = 64
TYPE_BITS, FOLDER, REGULAR = 0o170000, 0o040000, 0o100000
FRESH_S = 10
"""A file whose mtime is less than this many seconds ago may just have been modified: the clocks may differ."""
TICK_S = 2.1
"""After this long, an mtime in whole seconds is over; FAT counts in steps of two."""
FRESH_LOOKS = 3
AHEAD = 4  # so many times checkpoint_bytes may arrive while the disk is synced
READ_TWICE_BYTES = 1024 * 1024
"""A file up to this size is faster to read twice than to wait for."""


@dataclass(frozen=True, slots=True)
class DownloadTask:
    """A checked DownloadJob.

    expected_sha256: the expected SHA-256 of the content, in lower-case hex. digest: the result is to have it.
    keep_times, sidecar: as the settings of these names. suspended: whether to stop, with a part that is kept.
    """

    source: bytes
    dest: str | BinaryIO
    progress: ProgressCallback | None = None
    expected_sha256: str | None = None
    digest: bool = False
    keep_times: bool = False
    sidecar: bool = False
    suspended: Callable[[], bool] = lambda: False

    @property
    def expected_hashes(self) -> list[tuple[str, Evidence]]:
        """The hashes that the caller supplied."""
        return [(self.expected_sha256, Evidence.EXPECTED_HASH)] if self.expected_sha256 is not None else []

    def tell(self, progress: Progress) -> None:
        if self.progress is not None:
            self.progress(progress)


def download_task(job: DownloadJob, settings: TransferSettings) -> DownloadTask:
    """Check a job, refusing settings that its destination cannot honour.

    Raises: ConfigurationError, which names the argument or setting; NameRefused.
    """
    source, expected = remote_path(job.source, "source"), _expected_sha256(job.sha256)
    dest: str | BinaryIO
    if isinstance(job.dest, (str, bytes, os.PathLike)):
        dest = os.fsdecode(job.dest)
    else:
        dest = job.dest
        keep_times = settings.keep_times or job.keep_times
        _check_open_file(dest, settings, keep_times=keep_times, sidecar=job.sidecar, readable=bool(job.sha256))
    return DownloadTask(
        source, dest, job.progress, expected, bool(job.sha256), job.keep_times, job.sidecar, job.suspended
    )


def _expected_sha256(sha256: bool | str) -> str | None:
    if isinstance(sha256, bool):
        return None
    if not re.fullmatch(f"[0-9a-fA-F]{{{SHA256_DIGITS}}}", str(sha256)):
        raise ConfigurationError(f"sha256: must be True, False or {SHA256_DIGITS} hex digits, as sha256sum prints them")
    return sha256.lower()


def _takes_bytes(dest: object) -> bool:
    return hasattr(dest, "write") and not isinstance(dest, io.TextIOBase)


def _check_open_file(
    dest: BinaryIO, options: TransferSettings, *, keep_times: bool, sidecar: bool, readable: bool
) -> None:
    """An open file has no times or mode of its own to set, and content that cannot be read cannot be verified."""
    if not _takes_bytes(dest):
        raise ConfigurationError(f"dest: must be {LOCAL_KINDS} or an open binary file (got {type(dest).__name__})")
    if getattr(dest, "closed", False):
        raise ConfigurationError("dest: the open file is closed already")
    for name, kept in (("keep_times", keep_times), ("keep_mode", options.keep_mode)):
        if kept:
            raise ConfigurationError(f"{name}: not possible for an open file; pass a path as dest instead")
    if not (dest.writable() and dest.seekable()):
        raise ConfigurationError("dest: an open file must be writable and seekable; pass a path instead")
    proofs = {"sha256": readable, "sidecar": options.sidecar or sidecar, "proof": options.proof is not Proof.SIZE}
    for name, wanted in proofs.items():
        if wanted and not dest.readable():
            raise ConfigurationError(f"{name}: cannot verify an open file that is not readable; open it as w+b")


class Landing:
    """note: keeps a checkpoint. tell: calls the progress callback. clock: monotonic seconds. wall_clock: seconds since
    1970 according to this device.

    read_twice: the content must be read a second time, because a newer version may look the same (see `found`).
    failure: why it did not get its name. sink: where the bytes go. lock_name: identifies the destination.
    end: bytes received from the start without a gap. digest: SHA-256 of all, once known.
    """

    def __init__(
        self,
        task: DownloadTask,
        options: TransferOptions,
        note: Callable[[Checkpoint], None],
        tell: Callable[[Progress], None],
        clock: Callable[[], float],
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self.task = task
        self.name = task.source.decode("utf-8", "surrogateescape")
        self.sink: Sink = StreamSink(task.dest) if not isinstance(task.dest, str) else _file_sink(task, options)
        self.lock_name = _lock_name(self.sink, task)
        self.remote = RemoteFile(None)
        self.failure: TransferError | None = None
        self.end = self.resumed_at = 0
        self.digest: str | None = None
        self._options = options
        self._note = note
        self._tell_it = tell
        self._clock = clock
        self._wall_clock = wall_clock
        self._looks = 0
        self._is_open = False
        self.read_twice = False
        self._started_at = self._told_at = clock()
        self._saved = self.end, self._started_at

    @property
    def needs_sidecar(self) -> bool:
        """Whether the content must match `<source>.sha256`."""
        return self._options.sidecar or self.task.sidecar

    @property
    def key(self) -> tuple[Direction, bytes, bytes]:
        """The key of its checkpoint."""
        return Direction.DOWNLOAD, self.task.source, self.sink.path

    # -- begin

    def found(self, remote: RemoteFile | None) -> float:
        """Take note of the remote file -> seconds after which to look again; 0: it can be told from any other version.

        Times have whole seconds: within the second of its last change a file may change again and look the same (git
        calls such a file racily clean). So that second is waited for, or a small file is read twice instead.

        Raises: NotFound; PermanentError if it is not a file; SourceChanged if it keeps changing.
        """
        before, self.remote = self.remote, self._checked(remote)
        modified_s = self.remote.mtime_s or float("-inf")  # 0 is no time either
        fresh = modified_s >= self._wall_clock() - FRESH_S
        is_small = self.remote.size is None or self.remote.size <= READ_TWICE_BYTES
        self.read_twice = fresh and is_small and self.sink.readable
        if not fresh or self.read_twice or self.remote == before:
            return 0
        self._looks += 1
        if self._looks > FRESH_LOOKS:
            raise SourceChanged(f"{self.name} is being written on the server: it changed {FRESH_LOOKS} times in a row")
        return TICK_S

    def begin(self, known: Checkpoint | None) -> Span | None:
        """Open the part, keeping the bytes that an earlier attempt synced (`end`) -> the span of it that must first be
        compared with the far side; if it differs, or cannot be compared, call `begin(None)`."""
        self.end = self.resumed_at = self._usable_bytes(known)
        self.sink.check_space(self.remote.size or 0, self.end)
        self.sink.open(self.end, private=self._options.keep_mode and self.remote.mode is not None)
        self._is_open = True
        self._saved = (self.end, self._clock())
        compared_bytes = {"tail": self._options.tail_size, "full": self.end}.get(self._options.verify)
        if not self.end or compared_bytes is None:
            return None
        return Span(max(0, self.end - compared_bytes), self.end)

    def _checked(self, remote: RemoteFile | None) -> RemoteFile:
        if remote is None:
            raise NotFound(f"{self.name} is not on the server")
        kind = remote.mode and remote.mode & TYPE_BITS
        if kind == FOLDER:
            raise NotFound(f"{self.name} is a folder, not a file")
        if kind not in (REGULAR, 0, None):  # these two: the server does not tell
            raise PermanentError(f"{self.name} is not a regular file (a device, pipe, socket or link)")
        return remote

    def _usable_bytes(self, known: Checkpoint | None) -> int:
        """How much of the part was read from this version of the remote file; 0 if the far side cannot tell."""
        if known is None or not self._options.resume:
            return 0
        if known.token != self.sink.part or not self._is_same_version(known.fingerprint):
            return 0
        return min(known.acked_bytes, self.sink.size())

    def _is_same_version(self, known: Fingerprint) -> bool:
        size, mtime_s = self.remote.size, self.remote.mtime_s
        if not size or size != known.size:
            return False
        return self._options.verify == "size" or (bool(mtime_s) and _version(self.remote) == known)

    # -- fetch

    def progressed(self, end: int) -> None:
        """Raises: Cancelled, if the caller wants this download to stop."""
        self.end = end
        if self.task.suspended():
            raise Cancelled("suspended; what was fetched is kept for a resume")
        self._tell(end)
        saved_bytes, saved_at = self._saved
        many = end - saved_bytes >= self._options.checkpoint_bytes
        if many or self._clock() - saved_at >= self._options.checkpoint_s:
            self.save(beside=True)

    def save(self, *, beside: bool = False) -> None:
        """Sync the bytes to disk, then note the checkpoint. beside: the disk is not waited for, unless it falls far
        behind; what it has synced is noted by a later call."""
        if self.end <= self._saved[0] or not self.sink.path or self.read_twice:
            return
        synced = self.end
        if beside:
            synced = self.sink.sync_beside(self.end, AHEAD * self._options.checkpoint_bytes)
        else:
            self.sink.sync()
        if synced:
            self._saved = (synced, self._clock())
            self._note(self.checkpoint(synced))

    def checkpoint(self, acked: int) -> Checkpoint:
        direction, source, path = self.key
        return Checkpoint(direction, source, path, Token(self.sink.part), _version(self.remote), acked, acked)

    # -- prove

    def check_same(self, now: RemoteFile | None) -> None:
        """Raises: SourceChanged if the remote file is no longer the version that the download started with."""
        later = self._checked(now)
        if (later.size, later.mtime_s) != (self.remote.size, self.remote.mtime_s):
            raise self.changed()

    def changed(self) -> SourceChanged:
        return SourceChanged(f"{self.name} changed on the server during the download")

    @property
    def whole(self) -> Span:
        return Span(0, self.end)

    def matches(self, expected: list[tuple[str, Evidence]]) -> tuple[Proof, Evidence] | None:
        """Compare `digest` with the expected hashes; None if there are none. Raises: ProofFailed."""
        for digest, evidence in expected:
            if digest != self.digest:
                raise ProofFailed(f"{self.name} has SHA-256 {self.digest}, but the {evidence.value} is {digest}")
        return (Proof.FULL, expected[0][1]) if expected else None

    def by_size(self) -> tuple[Proof | None, Evidence]:
        """What is known without reading again."""
        return (Proof.SIZE, Evidence.SIZE) if self.remote.size == self.end else (None, Evidence.END_OF_FILE)

    # -- end

    def throw_away(self) -> bool:
        """Discard what was fetched: it mixes two versions or failed verification, and must not be resumed.

        -> whether there may be a checkpoint of it.
        """
        self._is_open = False
        self.sink.discard()
        return bool(self.sink.path)

    def close(self) -> None:
        """A part is kept for a resume; one that holds nothing, because the far side gave nothing, is removed."""
        try:
            if self._is_open and not self.end and self.sink.path:
                self.sink.discard()
            elif self._is_open:
                self.save()
        finally:
            self.sink.close()

    def rename(self) -> bool:
        """Give the part its final name -> whether it has it; see `publish_together`."""
        options = self._options
        mode = self.remote.mode if options.keep_mode else None
        mtime_s = self.remote.mtime_s if options.keep_times or self.task.keep_times else None
        self._is_open = False
        try:
            self.sink.publish(Kept(mode, mtime_s))
        except TransferError as error:
            self.failure = error
        return self.failure is None

    def published(self, proof: Proof | None, evidence: Evidence, received_bytes: int) -> TransferResult:
        """The result, once the file has its name. Raises: what has kept it from that."""
        if self.failure is not None:
            raise self.failure
        self._told_at = float("-inf")
        self._tell(self.end)
        return TransferResult(
            source=self.name,
            dest=self.sink.name,
            size=self.end,
            sent_bytes=received_bytes,
            resumed_at=self.resumed_at,
            seconds=self._clock() - self._started_at,
            proof=proof,
            evidence=evidence,
            durable=bool(self.sink.path),
            sha256=self.digest,
            fingerprint=_version(self.remote),
            local_path=self.sink.path,
        )

    def _tell(self, done_bytes: int) -> None:
        if self.task.progress is None or self._clock() - self._told_at < PROGRESS_EVERY_S:
            return
        self._told_at = self._clock()
        total_bytes = max(done_bytes, self.remote.size or done_bytes)  # a size of 0 or None is unknown
        self._tell_it(Progress(self.name, done_bytes, total_bytes, self.resumed_at))


def publish_together(landings: Sequence[Landing]) -> None:
    """Give the parts of several downloads their names: each is synced before its rename, and each folder once after
    all renames in it. What goes wrong is the `failure` of the download that it belongs to."""
    renamed: dict[bytes, list[Landing]] = {}
    for landing in landings:
        if landing.rename():
            renamed.setdefault(landing.sink.folder, []).append(landing)
    for neighbours in renamed.values():
        try:
            neighbours[0].sink.sync_name()
        except TransferError as error:
            for landing in neighbours:
                landing.failure = error


def download_key(result: TransferResult) -> tuple[str, bytes, bytes]:
    """The checkpoint key of a finished download."""
    return Direction.DOWNLOAD.value, remote_path(result.source), result.local_path


def _lock_name(sink: Sink, task: DownloadTask) -> bytes:
    """Identifies the destination, however its folder is written: two downloads to one file exclude each other."""
    if not sink.path:
        return b"open file %d of process %d" % (id(task.dest), os.getpid())
    return os.path.join(os.path.realpath(sink.folder), os.path.basename(sink.path))


def _file_sink(task: DownloadTask, options: TransferOptions) -> FileSink:
    local = os.fsencode(os.path.abspath(str(task.dest)))
    return FileSink(local, part_name(local, task.source, options.owner, options.part_suffix))


def _version(found: RemoteFile) -> Fingerprint:
    return Fingerprint(found.size or 0, (found.mtime_s or 0) * 10**9)
