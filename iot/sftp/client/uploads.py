"""Many uploads over as many connections as needed."""

from __future__ import annotations

import logging
import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from iot.sftp.client.batch import SFTPBatch
from iot.sftp.client.connector import Connector
from iot.sftp.client.jobs.context import Context
from iot.sftp.client.jobs.proof import hash_of
from iot.sftp.client.jobs.upload import Upload
from iot.sftp.client.pipeline.job import Job, Linger, Work, ask_at_once
from iot.sftp.client.protocol import packets
from iot.sftp.client.protocol.packets import Code, Status
from iot.sftp.client.session import Session
from iot.transfer.abandoned_parts import AbandonedParts
from iot.transfer.base import delivered_before, upload_key
from iot.transfer.batch import Ticket
from iot.transfer.journal.checkpoints import Checkpoints, Key
from iot.transfer.locks import TransferLocks
from iot.transfer.model import Checkpoint, TransferResult, UploadJob
from iot.transfer.source import Source

__all__ = ["Uploads"]

log = logging.getLogger(__name__)

SMALL_BYTES = 1024 * 1024
LOOK_AGAIN_S = 0.05
LEAST_URGENT = (sys.maxsize,)


class Uploads(SFTPBatch[UploadJob]):
    """One call of upload_many. stale_part_s: seconds after which the part of an abandoned upload is removed."""

    def __init__(
        self,
        links: Connector,
        checkpoints: Checkpoints,
        locks: TransferLocks,
        *,
        stale_part_s: float,
        resume: bool = True,
        hold: bool = False,
        sha256: bool = False,
        tick: Callable[[], None] = lambda: None,
    ) -> None:
        super().__init__(links, checkpoints, locks, resume=resume, hold=hold, tick=tick)
        self._stale_part_s = stale_part_s
        self._sha256 = sha256
        self._followed: set[bytes] = set()
        self._contexts: dict[tuple[bool, bool], Context] = {}

    def _connected(self, connection: Session) -> None:
        old = self._checkpoints.abandoned_before(time.time() - self._stale_part_s)
        self._abandoned = AbandonedParts(self._checkpoints, self._locks, old, _part_of)
        self._contexts.clear()

    def _work(self, ticket: Ticket[UploadJob], connection: Session) -> Job[TransferResult]:
        """Order by the caller's priority, then by size, small first."""
        job = ticket.job
        size = job.fingerprint.size if job.fingerprint else _size(job)
        work = self._upload(ticket, self._context(ticket, connection))
        return Job(work, (job.priority, int(size > SMALL_BYTES)), ticket, size, job.share)

    def _context(self, ticket: Ticket[UploadJob], connection: Session) -> Context:
        """That of the connection, with the options of this job; most jobs have the same ones."""
        wanted = self._resumes(ticket), ticket.job.keep_times
        if wanted not in self._contexts:
            resume, keep_times = wanted
            general = connection.context.options
            options = replace(general, resume=resume, sha256=self._sha256, keep_times=general.keep_times or keep_times)
            self._contexts[wanted] = replace(connection.context, options=options)
        return self._contexts[wanted]

    def _upload(self, ticket: Ticket[UploadJob], context: Context) -> Work[TransferResult]:
        job = ticket.job
        source = Source(job.source)
        try:
            as_before = yield from _as_before(job, source)
            if as_before is not None:
                return as_before
            upload = Upload(job, source, context)
            while upload.part in self._abandoned.removing or upload.dest in self._followed:
                yield Linger(LOOK_AGAIN_S)  # the old part is being removed, or commands of another file are to follow
            self._locks.take(upload.part)
            followed = (upload.dest,) if job.commands.after_success else ()
            self._followed.update(followed)
            try:
                return (yield from upload.run())
            finally:
                self._followed.difference_update(followed)
                self._locks.release(upload.part)
                ticket.moved_bytes += upload.sent_bytes
        finally:
            source.close()

    def _checkpoint_key(self, result: TransferResult) -> Key:
        return upload_key(result)

    # -- abandoned parts

    def _beside(self, connection: Session) -> Job[Any] | None:
        return self._next_removal()

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


def _part_of(checkpoint: Checkpoint) -> bytes:
    return checkpoint.token


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
