"""The facade over any remote: methods that return a bool, each with a twin that raises."""

from __future__ import annotations

import builtins
import fnmatch
import logging
import posixpath
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import TYPE_CHECKING, BinaryIO, TypeVar

from iot.transfer.connections import ConnectionMethods
from iot.transfer.errors import Cancelled, ConfigurationError, NotFound, PermanentError, TransferError
from iot.transfer.model import (
    DownloadJob,
    Failure,
    LocalPath,
    LocalSource,
    ProgressCallback,
    RemoteEntry,
    RemoteFile,
    RemotePath,
    TransferResult,
    UploadJob,
)
from iot.transfer.names import path_text, remote_path
from iot.transfer.remote import Remote
from iot.transfer.stop import no_tick
from iot.transfer.terminal import quoted
from iot.transfer.trees.methods import TreeMethods

if TYPE_CHECKING:
    from typing_extensions import Self

    from iot.transfer.journal.elsewhere import Elsewhere

__all__ = ["Client"]

log = logging.getLogger(__name__)
T = TypeVar("T")
J = TypeVar("J", UploadJob, DownloadJob)


class Client(TreeMethods, ConnectionMethods):
    """A synchronous client for devices: resumable, journaled, many files at once.

    Connects on first use and reconnects after a loss.

    The methods that return a bool return False on an error and keep it in `last_error`; their twins raise it:
    upload_file/upload, download_file/download, move_file/move, delete_file/delete, make_dir/mkdir, delete_dir/rmdir,
    list_files/list, list_dirs/list_directories.

    Threads may share a client. One operation runs at a time; calls from other threads wait for each other, but none
    waits for an `upload_many` or `download_many`: until that is exhausted or closed, other operations raise
    ConfigurationError. `cancel` may be called from any thread and from a signal handler; `disconnect` and `close` from
    any thread. `last_error` is the client's, not the thread's: threads that share one use the twins.

    RemotePath is str, bytes or a PurePosixPath; LocalPath is str, bytes or a path object; LocalSource is that, or an
    open binary file.

    Every operation may raise TransientError, AuthenticationError, LocalStateError (the journal), ConfigurationError
    and Cancelled; every operation on a path also PermissionDenied, NameRefused and ServerRefused. `Raises:` lists
    what a method raises beyond these.
    """

    def __init__(self, remote: Remote) -> None:
        self._remote = remote
        self.last_error: TransferError | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # -- transfers

    def upload_file(
        self,
        source: LocalSource,
        dest: RemotePath,
        *,
        progress: ProgressCallback | None = None,
        resume: bool = True,
        sha256: bool = False,
        adopt_partial: str | None = None,
    ) -> bool:
        """Like `upload`, but returns False and sets `last_error` instead of raising."""
        return self._succeeds(
            lambda: self.upload(
                source, dest, progress=progress, resume=resume, sha256=sha256, adopt_partial=adopt_partial
            )
        )

    def upload(
        self,
        source: LocalSource,
        dest: RemotePath,
        *,
        progress: ProgressCallback | None = None,
        resume: bool = True,
        sha256: bool = False,
        adopt_partial: str | None = None,
    ) -> TransferResult:
        """Send one file, resuming an earlier attempt, and publish it atomically.

        source: a path, or an open seekable binary file. dest: remote path of the file. progress: called with a
        Progress at most ten times a second. resume: False starts over. sha256: include the digest in the result.
        adopt_partial: the name of another program's part to go on from, such as "{name}.filepart": see UploadJob.

        Raises: TransientError (a retry resumes), PermanentError, AuthenticationError, LocalStateError,
            ConfigurationError, Cancelled.
        """
        job = UploadJob(source, dest, progress=progress, adopt_partial=adopt_partial)
        if not isinstance(sha256, bool):
            raise ConfigurationError("sha256: must be True or False for an upload; the digest is in the result")
        return _result(self._remote.upload(job, resume=resume, sha256=sha256))

    def upload_many(
        self,
        jobs: Iterable[UploadJob | tuple[LocalSource, RemotePath] | None],
        *,
        resume: bool = True,
        hold_checkpoints: bool = False,
        tick: Callable[[], None] | None = None,
    ) -> Iterator[TransferResult | Failure]:
        """Send many files at once over one connection; yield each outcome as it comes, in any order.

        jobs: UploadJob, or (source, dest); pulled one at a time as slots become free, so that the caller can always
        supply the most urgent one; None means "none right now, ask again soon" (within 0.25 s). A job that fails
        yields a Failure; the others continue. If the link stays lost, every job in flight yields a Failure and the
        iteration ends; `cancel` does the same.
        resume: False starts every file over. hold_checkpoints: keep the checkpoints of successes until
        `release_checkpoints`.
        tick: called at least every 0.25 s for the caller's own work, also while connecting and while no slot is free
        (when `jobs` is not asked).
        Any thread may take the outcomes, one at a time; `close`, or dropping the iterator, ends it early.

        Raises: AuthenticationError, TransientError (cannot connect), LocalStateError; ConfigurationError, also if an
            outcome is requested while another thread is waiting for one.
        """
        prepared, ticked = map(partial(_job, kind=UploadJob), jobs), tick or no_tick
        return self._remote.upload_many(prepared, resume=resume, hold_checkpoints=hold_checkpoints, tick=ticked)

    def release_checkpoints(self, results: Iterable[TransferResult]) -> None:
        """Drop the held checkpoints of these results, once the caller has recorded them durably.

        They are removed with the next records written, at the latest on `disconnect`. One that survives a crash is
        harmless: the next transfer of a file of that name only makes one extra check.
        """
        self._remote.release_checkpoints(results)

    def elsewhere(self) -> Elsewhere:
        """What was begun with other servers that share this journal. Raises: JournalUnavailable."""
        return self._remote.elsewhere()

    def give_up(self, uploads: Iterable[tuple[LocalPath, RemotePath]]) -> None:
        """Give up on these uploads (source, dest): what earlier attempts left on the server is removed. This happens
        later, together with other abandoned parts: beside uploads, `stale_part_s` from now."""
        self._remote.discard(uploads)

    def download_file(
        self,
        source: RemotePath,
        dest: LocalPath | BinaryIO,
        *,
        progress: ProgressCallback | None = None,
        resume: bool = True,
        sha256: bool | str = False,
    ) -> bool:
        """Like `download`, but returns False and sets `last_error` instead of raising."""
        return self._succeeds(lambda: self.download(source, dest, progress=progress, resume=resume, sha256=sha256))

    def download(
        self,
        source: RemotePath,
        dest: LocalPath | BinaryIO,
        *,
        progress: ProgressCallback | None = None,
        resume: bool = True,
        sha256: bool | str = False,
    ) -> TransferResult:
        """Fetch one file into a part beside `dest`, verify it, sync it to disk, and rename it to `dest` atomically.

        Resumes an earlier attempt if the remote file is still the same, as far as `verify` checks. The file is read to
        its end, whatever size the server reports.

        dest: a path, or an open file: writable and seekable, and readable if its content is to be verified.
        sha256: True includes the digest in the result; 64 hex digits are the expected SHA-256 of the content.

        Before the rename, the content is compared with `sha256` and, with the setting `sidecar`, with
        `<source>.sha256` on the server; otherwise as `proof` says. If it differs, the file is fetched once more from
        the start; if it still differs, that is an error and nothing is kept. The result says what was verified.

        Raises: TransientError, NotFound, SourceChanged, ProofFailed, PermanentError, AuthenticationError,
            LocalStateError, ConfigurationError (a setting that an open file cannot honour), Cancelled.
        """
        job = DownloadJob(source, dest, progress=progress, sha256=sha256)
        return _result(self._remote.download(job, resume=resume))

    def download_many(
        self,
        jobs: Iterable[DownloadJob | tuple[RemotePath, LocalPath | BinaryIO] | None],
        *,
        resume: bool = True,
        tick: Callable[[], None] | None = None,
    ) -> Iterator[TransferResult | Failure]:
        """Fetch many files at once, each as `download` does it; yield each outcome as it comes, in any order.

        jobs: DownloadJob, or (source, dest); pulled one at a time as slots become free; None means "none right now, ask
        again soon" (within 0.25 s). A job that fails yields a Failure; the others continue. Jobs in flight have
        different destinations: a second one for the same destination yields a Failure (TransientError). If the link
        stays lost, every job in flight yields a Failure and the iteration ends; `cancel` does the same.
        resume: False starts every file over. tick: called at least every 0.25 s for the caller's own work, also while
        connecting and while no slot is free (when `jobs` is not asked).
        Any thread may take the outcomes, one at a time; `close`, or dropping the iterator, ends it early.

        Raises: AuthenticationError, TransientError (cannot connect), LocalStateError; ConfigurationError, also if an
            outcome is requested while another thread is waiting for one.
        """
        return self._remote.download_many(
            map(partial(_job, kind=DownloadJob), jobs), resume=resume, tick=tick or no_tick
        )

    # -- paths

    def exists(self, path: RemotePath) -> bool:
        """Whether something exists at `path`. Raises: PermissionDenied and the errors of every operation: an unknown
        answer is never reported as False."""
        return self._remote.stat(remote_path(path)) is not None

    def stat(self, path: RemotePath) -> RemoteFile:
        """Size in bytes, mtime in seconds since 1970 (UTC), mode. Raises: NotFound."""
        found = self._remote.stat(remote_path(path))
        if found is None:
            raise NotFound(f"{quoted(remote_path(path))} is not on the server")
        return found

    def read_small(self, path: RemotePath, most_bytes: int, *, tick: Callable[[], None] | None = None) -> bytes | None:
        """The first `most_bytes` + 1 bytes of a small file, so that a longer one is noticed; None if it cannot be
        read. tick: called several times a second while connecting."""
        return self._remote.read_small(remote_path(path), most_bytes, tick=tick or no_tick)

    def delete_file(self, path: RemotePath) -> bool:
        """Like `delete`, but returns False and sets `last_error` instead of raising."""
        return self._succeeds(lambda: self.delete(path))

    def delete(self, path: RemotePath) -> None:
        """Delete a file. Raises: NotFound."""
        self._remote.delete(remote_path(path))

    def move_file(self, source: RemotePath, dest: RemotePath) -> bool:
        """Like `move`, but returns False and sets `last_error` instead of raising."""
        return self._succeeds(lambda: self.move(source, dest))

    def move(self, source: RemotePath, dest: RemotePath) -> None:
        """Rename a file or folder. A file at `dest` is replaced atomically; missing folders are made (`make_dirs`).
        Raises: NotFound, AlreadyExists (the server cannot replace a file)."""
        self._remote.move(remote_path(source, "source"), remote_path(dest, "dest"))

    def make_dir(self, path: RemotePath) -> bool:
        """Like `mkdir`, but returns False and sets `last_error` instead of raising."""
        return self._succeeds(lambda: self.mkdir(path))

    def mkdir(self, path: RemotePath) -> None:
        """Make a folder and any missing parents. Raises: AlreadyExists or ServerRefused if a file is there."""
        self._remote.mkdir(remote_path(path))

    def delete_dir(self, path: RemotePath) -> bool:
        """Like `rmdir`, but returns False and sets `last_error` instead of raising."""
        return self._succeeds(lambda: self.rmdir(path))

    def rmdir(self, path: RemotePath) -> None:
        """Delete an empty folder. Raises: NotFound; ServerRefused if it is not empty."""
        self._remote.rmdir(remote_path(path))

    def list_files(self, path: RemotePath, file_pattern: str | None = None) -> list[str] | None:
        """Like `list`, but returns None if the path cannot be listed, and [] if it is empty.

        Raises: TransientError, AuthenticationError, LocalStateError, ConfigurationError, Cancelled: a lost link is
            never reported as an empty folder.
        """
        return self._or_none(lambda: self.list(path, file_pattern))

    def list(self, path: RemotePath, file_pattern: str | None = None) -> list[str]:
        """Paths of the files directly in `path`, sorted.
        file_pattern: only those whose path contains it; with `*`, `?` or `[` it is a pattern for the whole name.

        Raises: NotFound; NameRefused if the server lists a name that is not a valid file name.
        """
        return self._listing(path, file_pattern, folders=False)

    def list_dirs(self, path: RemotePath) -> builtins.list[str] | None:
        """Like `list_directories`, but returns None if the path cannot be listed. Raises: like `list_files`."""
        return self._or_none(lambda: self.list_directories(path))

    def list_directories(self, path: RemotePath) -> builtins.list[str]:
        """Paths of the folders directly in `path`, sorted. Raises: like `list`."""
        return self._listing(path, None, folders=True)

    def scan(
        self, path: RemotePath, *, leave_out: Callable[[bytes, bytes], None] | None = None
    ) -> builtins.list[RemoteEntry]:
        """What is directly in a folder, sorted by name: each with size in bytes, mtime in seconds and mode, as far as
        the listing reveals them (a plain FTP listing may not).

        leave_out: called in any thread, at least once for each name that is not a valid file name, with its folder and
        that name; it is then left out.

        Raises: NotFound; NameRefused if the server lists a name that is not a valid file name, without `leave_out`.
        """
        [found] = self._remote.scan([remote_path(path)], leave_out)
        if isinstance(found, PermanentError):
            raise found
        return found

    # -- inside

    def _listing(self, path: RemotePath, pattern: str | None, folders: bool) -> builtins.list[str]:
        folder = path_text(path)
        names = [posixpath.join(folder, entry.name) for entry in self.scan(path) if entry.is_folder is folders]
        if pattern and any(char in pattern for char in "*?["):
            return [name for name in names if fnmatch.fnmatchcase(posixpath.basename(name), pattern)]
        return [name for name in names if not pattern or pattern in name]

    def _succeeds(self, work: Callable[[], object]) -> bool:
        try:
            work()
        except TransferError as error:
            self.last_error = error
            log.warning("failed error=%s", error)
            return False
        return True

    def _or_none(self, work: Callable[[], T]) -> T | None:
        try:
            return work()
        except PermanentError as error:
            self.last_error = error
            return None


def _result(outcome: TransferResult | Failure | None) -> TransferResult:
    if outcome is None:
        raise Cancelled("stopped on request")
    if isinstance(outcome, Failure):
        raise outcome.error
    return outcome


def _job(job: object, kind: type[J]) -> J | None:
    if job is None or isinstance(job, kind):
        return job
    if isinstance(job, tuple) and len(job) == 2:
        return kind(*job)
    raise ConfigurationError(f"jobs: must hold {kind.__name__}, (source, dest) or None (got {type(job).__name__})")
