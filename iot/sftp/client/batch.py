"""Many uploads over as many connections as needed."""

from __future__ import annotations

import logging
import os
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any

from iot.sftp.client.connector import Connector
from iot.sftp.client.jobs.context import Context
from iot.sftp.client.jobs.proof import hash_of
from iot.sftp.client.jobs.upload import Upload
from iot.sftp.client.pipeline.job import Job, Linger, Work, ask_at_once
from iot.sftp.client.pipeline.pipeline import Finished
from iot.sftp.client.protocol import packets
from iot.sftp.client.protocol.packets import Code, Status
from iot.sftp.client.session import Session
from iot.transfer.abandoned_parts import AbandonedParts
from iot.transfer.base import Outcome, delivered_before, upload_key
from iot.transfer.errors import Cancelled, LinkLost, ServerBusy, SFTPError, Timeout, TransientError
from iot.transfer.journal.checkpoints import Checkpoints
from iot.transfer.locks import TransferLocks
from iot.transfer.model import Checkpoint, Failure, TransferResult, UploadJob
from iot.transfer.names import path_text
from iot.transfer.source import Source

log = logging.getLogger(__name__)

SMALL_BYTES = 1024 * 1024
LOOK_AGAIN_S = 0.05
LEAST_URGENT = (sys.maxsize,)


class Batch:
    """One call of upload_many.

    stale_part_s: seconds after which the part of an abandoned upload is removed.
    hold: keep the checkpoints of successes until the caller settles them.
    tick: called at least every 0.25 s, also while connecting and while all slots are taken.
    """

    def __init__(
        self,
        links: Connector,
        checkpoints: Checkpoints,
        locks: TransferLocks,
        *,
        stale_part_s: float,
        hold: bool,
        resume: bool = True,
        sha256: bool = False,
        tick: Callable[[], None] = lambda: None,
    ) -> None:
        self._links = links
        self._checkpoints = checkpoints
        self._locks = locks
        self._attempts = links.attempts(tick, harmless=())
        self._stale_part_s = stale_part_s
        self._hold = hold
        self._resume = resume
        self._sha256 = sha256
        self._tick = tick
        self._again: deque[UploadJob] = deque()
        self._sent_bytes: dict[int, int] = {}
        self._exhausted = False
        self._begun = False

    def run(self, jobs: Iterable[UploadJob | None]) -> Iterator[Outcome]:
        """Yield an outcome for every job. Raises: AuthenticationError, TransientError, LocalStateError."""
        feed = iter(jobs)
        try:
            for attempt in self._attempts:
                with attempt as session:
                    yield from self._on_one_connection(session, feed)
        except Cancelled as error:
            self._links.close()
            yield from self._fail_all(error)
        except TransientError as error:
            if not self._again:
                raise
            yield from self._fail_all(error)
        finally:
            self._checkpoints.flush()

    def _on_one_connection(self, session: Session, feed: Iterator[UploadJob | None]) -> Iterator[Outcome]:
        self._abandoned = AbandonedParts(self._checkpoints, self._locks, self._stale_part_s, _part_of)
        try:
            while self._unfinished:
                pulled = self._pull(feed, self._context(session))
                for finished in session.pipeline.run(pulled, lambda: session.slots, self._tick):
                    outcome = self._outcome(finished, session)
                    if outcome is not None:
                        yield outcome
        except (LinkLost, Timeout):
            if self._unfinished:
                raise
            self._links.drop()  # every outcome is known, so no more connections are needed

    @property
    def _unfinished(self) -> bool:
        return bool(self._again) or not self._exhausted

    def _context(self, session: Session) -> Context:
        options = replace(session.context.options, resume=self._resume, sha256=self._sha256)
        return replace(session.context, options=options)

    def _pull(self, feed: Iterator[UploadJob | None], context: Context) -> Iterator[Job[Any] | None]:
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
            if job is not None:
                yield self._job(job, context)
                self._begun = True
            removal = self._next_removal() if self._begun else None
            if removal is not None or job is None:  # None means nothing for a while, not even a removal
                yield removal

    def _job(self, job: UploadJob, context: Context) -> Job[TransferResult]:
        """Order by the caller's priority, then by size, small first."""
        size = job.fingerprint.size if job.fingerprint else _size(job)
        return Job(self._upload(job, context), (job.priority, int(size > SMALL_BYTES)), job, size)

    def _upload(self, job: UploadJob, context: Context) -> Work[TransferResult]:
        source = Source(job.source)
        try:
            as_before = yield from _as_before(job, source)
            if as_before is not None:
                self._sent_bytes.setdefault(id(job), 0)
                return as_before
            upload = Upload(job, source, context)
            while upload.part in self._abandoned.removing:  # wait until the removal of the old part ends
                yield Linger(LOOK_AGAIN_S)
            self._locks.take(upload.part)
            try:
                return (yield from upload.run())
            finally:
                self._locks.release(upload.part)
                self._sent_bytes[id(job)] = self._sent_bytes.get(id(job), 0) + upload.sent_bytes
        finally:
            source.close()

    def _next_removal(self) -> Job[None] | None:
        """A removal of abandoned parts, as another job; None while one is running, or if nothing is left."""
        bundle = self._abandoned.next_bundle()
        return Job(self._remove(bundle), LEAST_URGENT) if bundle else None

    def _remove(self, bundle: Sequence[Checkpoint]) -> Work[None]:
        try:
            replies = yield from ask_at_once([packets.remove(checkpoint.token) for checkpoint in bundle])
            for checkpoint, reply in zip(bundle, replies, strict=True):
                if isinstance(reply, Status) and (reply.ok or reply.code == Code.NO_SUCH_FILE):
                    self._abandoned.removed(checkpoint)
                else:
                    log.info("abandoned part not removed path=%r answer=%r", checkpoint.remote_path, reply)
        finally:
            self._abandoned.over(bundle)

    def _outcome(self, finished: Finished, session: Session) -> Outcome | None:
        """None: the job goes back to the queue, or is not one of the caller's."""
        job: UploadJob | None = finished.tag
        error = finished.error
        if job is None:
            return None  # a bundle of abandoned parts
        if error is None:
            self._attempts.progressed()
            if not self._hold:
                self._checkpoints.forget_keys([upload_key(finished.result)])
            result: TransferResult = finished.result
            sent_bytes = self._sent_bytes.pop(id(job))
            return result if sent_bytes == result.sent_bytes else replace(result, sent_bytes=sent_bytes)
        if isinstance(error, (LinkLost, Timeout)):
            self._again.append(job)
            return None
        if isinstance(error, ServerBusy):  # raised only while other files are open
            session.slots = max(1, session.slots // 2)
            log.info("server has no more handles slots=%d", session.slots)
            self._again.append(job)
            return None
        self._sent_bytes.pop(id(job), None)
        return _failure(job, error)

    def _fail_all(self, error: SFTPError) -> Iterator[Failure]:
        while self._again:
            yield _failure(self._again.popleft(), error)


def _part_of(checkpoint: Checkpoint) -> bytes:
    return checkpoint.token


def _failure(job: UploadJob, error: SFTPError) -> Failure:
    return Failure(job.key, _name(job), path_text(job.dest), error)


def _name(job: UploadJob) -> str:
    if isinstance(job.source, (str, bytes, os.PathLike)):
        return os.fsdecode(job.source)
    return str(getattr(job.source, "name", "stream"))


def _size(job: UploadJob) -> int:
    if not isinstance(job.source, (str, bytes, os.PathLike)):
        return 0
    try:
        return os.stat(job.source).st_size
    except OSError:
        return 0  # opening it will report the error


def _as_before(job: UploadJob, source: Source) -> Work[TransferResult | None]:
    """The result for a source whose content was already delivered; None if it must be sent."""
    if job.sent_before is None or job.fingerprint not in (None, source.fingerprint):
        return None
    digest = yield from hash_of(source)
    source.check_unchanged()
    if digest != job.sent_before:
        return None
    return delivered_before(job, source, digest)
