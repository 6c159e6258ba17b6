"""Many uploads over as many connections as needed."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace

from iot.transfer.abandoned_parts import AbandonedParts
from iot.transfer.attempts import Attempts
from iot.transfer.base import upload_key
from iot.transfer.batch import Ticket
from iot.transfer.books import Books
from iot.transfer.errors import TransferError
from iot.transfer.journal.checkpoints import Key
from iot.transfer.locks import Busy
from iot.transfer.model import Checkpoint, Direction, TransferResult, UploadJob
from iot.transfer.names import part_name, part_names, remote_path
from iot.transfer.options import TransferOptions
from iot.transfer.parallel.batch import ParallelBatch, Refused
from iot.transfer.parallel.ready import TOGETHER_BYTES, Running
from iot.transfer.parallel.removal import next_removal
from iot.transfer.parallel.upload import Upload
from iot.transfer.parallel.workers import Workers
from iot.transfer.remote import Meta
from iot.transfer.source import Source
from iot.transfer.terminal import quoted

__all__ = ["Uploads"]


class Uploads(ParallelBatch[UploadJob]):
    """One call of upload_many. stale_part_s: seconds after which the part of an abandoned upload is removed."""

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
        super().__init__(attempts, books, options, hold=hold, tick=tick)
        self._stale_part_s = stale_part_s
        self._followed: set[bytes] = set()

    def _connected(self, connection: Workers) -> None:
        old = self._checkpoints.abandoned_before(time.time() - self._stale_part_s)
        self._abandoned = AbandonedParts(self._checkpoints, self._locks, old, self._lock_name)

    def _work(self, ticket: Ticket[UploadJob], connection: Workers) -> Running | None:
        """Order by the caller's priority, then by size, small first. None: an abandoned part of it is being removed, or
        commands of another file at its destination are to follow."""
        try:
            upload = self._upload(ticket, connection)
        except Busy as error:
            if self._abandoned.removing or self._followed:
                self._again.append(ticket)
                return None
            return Running(Refused(error), tag=ticket)
        except TransferError as error:
            return Running(Refused(error), tag=ticket)
        urgency = (ticket.job.priority, int(upload.size > TOGETHER_BYTES))
        return Running(upload, urgency, tag=ticket, payload_bytes=upload.size)

    def _upload(self, ticket: Ticket[UploadJob], connection: Workers) -> Upload:
        job = ticket.job
        dest, keep_times = remote_path(job.dest, "dest"), self._options.keep_times or job.keep_times
        options = replace(self._options, resume=self._resumes(ticket), keep_times=keep_times)
        if dest in self._followed:
            raise Busy(f"another file is being sent to {quoted(dest)}, and commands follow it")
        source = Source(job.source)
        names = part_names(dest, source.path, options.owner, options.part_suffix, options.exact_suffix(job))
        owned = names[-1]
        try:
            self._locks.take(owned)
        except BaseException:
            source.close()
            raise

        if job.commands.after_success:
            self._followed.add(dest)

        def release() -> None:
            source.close()
            if job.commands.after_success:
                self._followed.discard(dest)
            self._locks.release(owned)
            ticket.moved_bytes += upload.sent_bytes

        known = self._checkpoints.load(Direction.UPLOAD, dest, source.path)
        meta = Meta(
            known.token if known is not None and known.token in names else names[0],
            source.fingerprint.mtime_ns // 10**9 if options.keep_times and source.fingerprint.mtime_ns else None,
            source.mode if options.keep_mode else None,
            options.make_dirs,
        )
        upload = Upload(job, source, meta, known, options, connection.desk, self._checkpoints.note, release, owned)
        return upload

    def _lock_name(self, checkpoint: Checkpoint) -> bytes:
        options = self._options
        return part_name(checkpoint.remote_path, checkpoint.local_path, options.owner, options.part_suffix)

    def _beside(self, connection: Workers) -> Running | None:
        return next_removal(self._abandoned, connection.desk)

    def _checkpoint_key(self, result: TransferResult) -> Key:
        return upload_key(result)
