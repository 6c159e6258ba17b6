"""The facade over any remote: bool methods for those who want yes or no, raising twins for those who want to know."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, BinaryIO, TypeVar

from iot.transfer.errors import Cancelled, ConfigurationError, NotFound, PermanentError, TransferError
from iot.transfer.model import Failure, LocalSource, ProgressCallback, RemoteFile, TransferResult, UploadJob
from iot.transfer.names import remote_path
from iot.transfer.remote import Remote

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["Client"]

log = logging.getLogger(__name__)
T = TypeVar("T")
_List = list  # the class below has a method of that name


class Client:
    """A synchronous client for devices: resumable, journaled, many files at once.

    Connects by itself on first use and again after a loss. One operation runs at a time; calls from several threads
    wait for each other, but none waits for an `upload_many`: until that is exhausted or closed, other operations raise
    ConfigurationError. `cancel` may be called from any thread or signal handler.

    Bool methods return False on an error and keep it in `last_error`; their twins raise it:
    upload_file/upload, download_file/download, move_file/move, delete_file/delete, make_dir/mkdir, delete_dir/rmdir,
    list_files/list, list_dirs/list_directories.

    remote: what all of it is done with.
    """

    def __init__(self, remote: Remote) -> None:
        self._remote = remote
        self.last_error: TransferError | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # -- connection

    def connect(self) -> None:
        """Connect now instead of on first use. Raises: TransientError, AuthenticationError, ConfigurationError."""
        self._remote.connect()

    def is_connected(self) -> bool:
        """Whether the server answers on the present connection: one real round trip, with a deadline.

        While upload_many is under way its connection counts as it is.
        """
        try:
            return self._remote.is_connected()
        except TransferError as error:
            self.last_error = error
            return False

    def disconnect(self) -> None:
        """Close the connection; the next operation opens a new one. An upload_many under way is ended."""
        self._remote.disconnect()

    def close(self) -> None:
        """Disconnect, and close the journal unless it was given to us."""
        self._remote.close()

    def cancel(self) -> None:
        """End the operation under way, or else the next one, with Cancelled; parts are kept for a resume."""
        self._remote.cancel()

    # -- transfers

    def upload_file(self, source: LocalSource, dest: str, **keywords: Any) -> bool:
        """Like `upload`; False and `last_error` instead of an error."""
        return self._succeeds(lambda: self.upload(source, dest, **keywords))

    def upload(
        self,
        source: LocalSource,
        dest: str,
        *,
        progress: ProgressCallback | None = None,
        resume: bool = True,
        sha256: bool = False,
    ) -> TransferResult:
        """Send one file; go on where an earlier attempt ended; publish it in one step.

        source: path, or open seekable binary file. dest: remote path of the file. progress: called at most ten times
        a second. resume: False starts over. sha256: put the digest into the result.

        Raises: TransientError (try again: it resumes), PermanentError, AuthenticationError, LocalStateError, Cancelled.
        """
        job = UploadJob(source, dest, progress=progress)
        if not isinstance(sha256, bool):
            raise ConfigurationError(
                "sha256 of an upload: True or False; what was sent is in the result, to be compared"
            )
        outcome = self._remote.upload(job, resume=resume, sha256=sha256)
        if outcome is None:
            raise Cancelled("stopped on request")
        if isinstance(outcome, Failure):
            raise outcome.error
        return outcome

    def upload_many(
        self,
        jobs: Iterable[UploadJob | None],
        *,
        hold_checkpoints: bool = False,
        tick: Callable[[], None] = lambda: None,
    ) -> Iterator[TransferResult | Failure]:
        """Send many files at once over one connection; yield each outcome as it comes, in any order.

        jobs: pulled one at a time as slots come free, so that the caller always gives what is most urgent now; None
        means "none right now, ask again soon" (within 0.25 s). A job's own error is its Failure, its neighbours go on.
        A link that stays lost is a Failure of every job in flight and ends the iteration; so does `cancel`.
        hold_checkpoints: keep the checkpoints of successes until `settle`.
        tick: called at least every 0.25 s - also while connecting, and while no slot is free, when `jobs` is not
        asked - for what the caller has to do meanwhile.
        The outcomes may be taken by any thread, one at a time; `close` ends it early, as does dropping the iterator.

        Raises: AuthenticationError, TransientError (cannot connect), LocalStateError; ConfigurationError, also when
            an outcome is asked for while another one is being waited for.
        """
        return self._remote.upload_many(jobs, hold_checkpoints=hold_checkpoints, tick=tick)

    def settle(self, results: Iterable[TransferResult]) -> None:
        """Drop the held checkpoints of these results: what came of them is on record elsewhere, durably.

        They go with the next records that are written, at the latest on `disconnect`: one that a crash leaves does no
        harm, the transfer of the next file of that name only looks once more.
        """
        self._remote.settle(results)

    def give_up(self, uploads: Iterable[tuple[str, str]]) -> None:
        """These uploads (source, dest) will not be tried again: what an attempt has left on the server is removed.

        Not at once, but with the other abandoned parts: beside uploads, `stale_part_s` from now.
        """
        self._remote.discard(uploads)

    def download_file(self, source: str, dest: str | os.PathLike[str] | BinaryIO, **keywords: Any) -> bool:
        """Like `download`; False and `last_error` instead of an error."""
        return self._succeeds(lambda: self.download(source, dest, **keywords))

    def download(
        self,
        source: str,
        dest: str | os.PathLike[str] | BinaryIO,
        *,
        progress: ProgressCallback | None = None,
        resume: bool = True,
        sha256: bool | str = False,
    ) -> TransferResult:
        """Fetch one file into a part beside `dest`, prove it, bring it to the disk, and rename it there in one step.

        Goes on where an earlier attempt ended if the remote file is still the same, as far as `verify` asks. The file
        is read to its end, whatever size the server reports.

        dest: path, or open file: writable and seekable, readable too where its content is to be proven.
        sha256: True puts the digest into the result; 64 hex digits are what the content must hash to.

        Before it gets its name the content is compared with `sha256` and, with the option `sidecar`, with
        `<source>.sha256` on the server; else as `proof` asks. What differs is fetched once more from the start, then
        it is an error, and nothing is left. The result states what was proven, and by what.

        Raises: TransientError, NotFound, SourceChanged, ProofFailed, PermanentError, AuthenticationError,
            LocalStateError, ConfigurationError (what cannot be kept for an open file), Cancelled.
        """
        return self._remote.download(remote_path(source), dest, progress, resume=resume, sha256=sha256)

    # -- paths

    def exists(self, path: str) -> bool:
        """Whether something is there.

        Raises: TransientError, AuthenticationError, PermissionDenied: what cannot be known is never "no".
        """
        return self._remote.stat(remote_path(path)) is not None

    def stat(self, path: str) -> RemoteFile:
        """Size in bytes, mtime in seconds, mode. Raises: NotFound, PermissionDenied, TransientError ..."""
        found = self._remote.stat(remote_path(path))
        if found is None:
            raise NotFound(f"{path!r} is not on the server")
        return found

    def delete_file(self, path: str) -> bool:
        """Like `delete`; False and `last_error` instead of an error."""
        return self._succeeds(lambda: self.delete(path))

    def delete(self, path: str) -> None:
        """Delete a file. Raises: NotFound, PermissionDenied, TransientError ..."""
        self._remote.delete(remote_path(path))

    def move_file(self, source: str, dest: str) -> bool:
        """Like `move`; False and `last_error` instead of an error."""
        return self._succeeds(lambda: self.move(source, dest))

    def move(self, source: str, dest: str) -> None:
        """Rename; a file at `dest` is replaced in one step, missing folders are made.

        Raises: NotFound, AlreadyExists (server cannot replace), PermissionDenied, TransientError ...
        """
        self._remote.move(remote_path(source), remote_path(dest))

    def make_dir(self, path: str) -> bool:
        """Like `mkdir`; False and `last_error` instead of an error."""
        return self._succeeds(lambda: self.mkdir(path))

    def mkdir(self, path: str) -> None:
        """Make a folder and the missing ones above it. Raises: PermissionDenied, ServerRefused ..."""
        self._remote.mkdir(remote_path(path))

    def delete_dir(self, path: str) -> bool:
        """Like `rmdir`; False and `last_error` instead of an error."""
        return self._succeeds(lambda: self.rmdir(path))

    def rmdir(self, path: str) -> None:
        """Delete an empty folder. Raises: NotFound, ServerRefused (not empty) ..."""
        self._remote.rmdir(remote_path(path))

    def list_files(self, path: str, file_pattern: str | None = None) -> list[str] | None:
        """Like `list`; None where the path cannot be listed, [] where it is empty.

        Raises: TransientError, AuthenticationError: a lost link is never an empty folder.
        """
        return self._or_none(lambda: self.list(path, file_pattern))

    def list(self, path: str, file_pattern: str | None = None) -> list[str]:
        """Paths of the files right below `path`, sorted; only those whose path contains `file_pattern`.

        Raises: NotFound, PermissionDenied, NameRefused (a name from the server that is no name), TransientError ...
        """
        return self._listing(path, file_pattern, folders=False)

    def list_dirs(self, path: str) -> _List[str] | None:
        """Like `list_directories`; None where it cannot be listed. Raises: TransientError, AuthenticationError."""
        return self._or_none(lambda: self.list_directories(path))

    def list_directories(self, path: str) -> _List[str]:
        """Paths of the folders right below `path`, sorted. Raises: as `list`."""
        return self._listing(path, None, folders=True)

    # -- inside

    def _listing(self, path: str, pattern: str | None, folders: bool) -> _List[str]:
        found = self._remote.list(remote_path(path), folders=folders)
        names = [name.decode("utf-8", "surrogateescape") for name in found]
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
