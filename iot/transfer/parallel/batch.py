"""Many uploads over as many connections as needed."""

from __future__ import annotations

import logging
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace

from iot.transfer.abandoned_parts import AbandonedParts
from iot.transfer.attempts import Attempts
from iot.transfer.base import Outcome, upload_key
from iot.transfer.books import Books
from iot.transfer.errors import Cancelled, LinkLost, ServerBusy, Timeout, TransferError, TransientError
from iot.transfer.locks import Busy
from iot.transfer.model import Checkpoint, Direction, Failure, TransferResult, UploadJob
from iot.transfer.names import part_name, path_text, remote_path
from iot.transfer.options import TransferOptions
from iot.transfer.parallel.ready import TOGETHER_BYTES, Finished, Running
from iot.transfer.parallel.removal import next_removal
from iot.transfer.parallel.upload import Upload
from iot.transfer.parallel.work import Work
from iot.transfer.parallel.workers import Workers
from iot.transfer.remote import Meta, Store
from iot.transfer.source import Source

__all__ = ["Batch"]

log = logging.getLogger(__name__)


class Batch:
    """One call of upload_many.

    attempts: the loop over connections. stale_part_s: seconds after which the part of an abandoned upload is removed.
    hold: keep the checkpoints of successes until the caller settles them.
    """

    def __init__(
        self,
        attempts: Attempts[Workers],
        books: Books,
        options: TransferOptions,
        *,
        stale_part_s: float,
        hold: bool,
        tick: Callable[[], None] = lambda: None,
    ) -> None:
        self._attempts = attempts
        self._checkpoints = books.checkpoints
        self._locks = books.locks
        self._options = options
        self._stale_part_s = stale_part_s
        self._hold = hold
        self._tick = tick
        self._again: deque[UploadJob] = deque()
        self._sent_bytes: dict[int, int] = {}
        self._exhausted = self._begun = False

    def run(self, jobs: Iterable[UploadJob | None]) -> Iterator[Outcome]:
        """Yield an outcome for every job. Raises: AuthenticationError, TransientError, LocalStateError."""
        feed = iter(jobs)
        try:
            for attempt in self._attempts:
                with attempt as workers:
                    yield from self._on_these_connections(workers, feed)
        except (Cancelled, TransientError) as error:
            if not self._again and not isinstance(error, Cancelled):
                raise
            yield from self._fail_all(error)
        finally:
            self._checkpoints.flush()

    def _on_these_connections(self, workers: Workers, feed: Iterator[UploadJob | None]) -> Iterator[Outcome]:
        abandoned = AbandonedParts(self._checkpoints, self._locks, self._stale_part_s, self._lock_name)
        try:
            while self._unfinished:
                for finished in workers.run(self._pull(feed, workers, abandoned), self._tick):
                    outcome = self._outcome(finished, workers)
                    if outcome is not None:
                        yield outcome
        except (LinkLost, Timeout):
            if self._unfinished:
                raise
            workers.close()  # every outcome is known, so no more connections are needed

    @property
    def _unfinished(self) -> bool:
        return bool(self._again) or not self._exhausted

    def _pull(
        self, feed: Iterator[UploadJob | None], workers: Workers, abandoned: AbandonedParts
    ) -> Iterator[Running | None]:
        while True:
            job: UploadJob | None
            if self._again:
                job = self._again.popleft()
            else:
                try:
                    job = next(feed)
                except StopIteration:
                    self._exhausted = True
                    return
            yield self._begin(job, workers, abandoned) if job is not None else None
            bundle = next_removal(abandoned, workers.desk) if self._begun else None
            if bundle is not None:
                yield bundle

    def _begin(self, job: UploadJob, workers: Workers, abandoned: AbandonedParts) -> Running | None:
        """Order by the caller's priority, then by size, small first. None: an abandoned part of it is being removed."""
        self._begun = True
        try:
            upload = self._upload(job, workers)
        except Busy as error:
            if abandoned.removing:
                self._again.append(job)
                return None
            return Running(_Refused(error), tag=(job, None))
        except TransferError as error:
            return Running(_Refused(error), tag=(job, None))
        return Running(
            upload, (job.priority, int(upload.size > TOGETHER_BYTES)), tag=(job, upload), payload_bytes=upload.size
        )

    def _upload(self, job: UploadJob, workers: Workers) -> Upload:
        dest, options = remote_path(job.dest, "dest"), self._options
        source = Source(job.source)
        part = part_name(dest, source.path, options.owner, options.part_suffix)
        try:
            self._locks.take(part)
        except BaseException:
            source.close()
            raise

        def release() -> None:
            source.close()
            self._locks.release(part)

        known = self._checkpoints.load(Direction.UPLOAD, dest, source.path)
        meta = Meta(
            part,
            source.fingerprint.mtime_ns // 10**9 if options.keep_times and source.fingerprint.mtime_ns else None,
            source.mode if options.keep_mode else None,
            options.make_dirs,
        )
        return Upload(job, source, meta, known, options, workers.desk, self._checkpoints.note, release)

    def _lock_name(self, checkpoint: Checkpoint) -> bytes:
        options = self._options
        return part_name(checkpoint.remote_path, checkpoint.local_path, options.owner, options.part_suffix)

    def _outcome(self, finished: Finished, workers: Workers) -> Outcome | None:
        """None: the job goes back to the queue, or is not one of the caller's."""
        if finished.tag is None:
            return None  # a bundle of abandoned parts
        job: UploadJob = finished.tag[0]
        upload: Upload | None = finished.tag[1]
        sent_bytes = self._sent_bytes.pop(id(job), 0) + (upload.sent_bytes if upload is not None else 0)
        error = finished.error
        if error is None:
            self._attempts.progressed()
            if not self._hold:
                self._checkpoints.forget_keys([upload_key(finished.result)])
            result: TransferResult = finished.result
            return replace(result, sent_bytes=sent_bytes)
        if isinstance(error, (LinkLost, Timeout)) or (isinstance(error, ServerBusy) and workers.fewer()):
            self._sent_bytes[id(job)] = sent_bytes
            self._again.append(job)
            return None
        return _failure(job, error)

    def _fail_all(self, error: TransferError) -> Iterator[Failure]:
        while self._again:
            yield _failure(self._again.popleft(), error)


class _Refused:
    """An upload that cannot even start."""

    store: Store

    def __init__(self, error: TransferError) -> None:
        self._error = error

    def run(self) -> Work[None]:
        yield from ()
        raise self._error

    def release(self) -> None:
        """Nothing to release."""


def _failure(job: UploadJob, error: TransferError) -> Failure:
    return Failure(job.key, _name(job), path_text(job.dest), error)


def _name(job: UploadJob) -> str:
    if isinstance(job.source, (str, bytes, os.PathLike)):
        return os.fsdecode(job.source)
    return str(getattr(job.source, "name", "stream"))
