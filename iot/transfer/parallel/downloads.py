"""Many downloads over as many connections as needed."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace

from iot.transfer.attempts import Attempts
from iot.transfer.batch import Ticket
from iot.transfer.books import Books
from iot.transfer.errors import TransferError
from iot.transfer.journal.checkpoints import Key
from iot.transfer.landing import Landing, download_key, download_task
from iot.transfer.model import DownloadJob, TransferResult
from iot.transfer.parallel.batch import ParallelBatch, Refused
from iot.transfer.parallel.download import Download
from iot.transfer.parallel.ready import Running
from iot.transfer.parallel.workers import Workers
from iot.transfer.settings import TransferSettings

__all__ = ["Downloads"]


class Downloads(ParallelBatch[DownloadJob]):
    """One call of download_many. settings: what the jobs are checked against."""

    fetches = True

    def __init__(
        self,
        attempts: Attempts[Workers],
        books: Books,
        settings: TransferSettings,
        *,
        resume: bool = True,
        tick: Callable[[], None] = lambda: None,
    ) -> None:
        super().__init__(attempts, books, replace(settings.plain(books.journal.owner), resume=resume), tick=tick)
        self._settings = settings

    def _work(self, ticket: Ticket[DownloadJob], connection: Workers) -> Running:
        try:
            return Running(self._download(ticket, connection), tag=ticket)
        except TransferError as error:
            return Running(Refused(error), tag=ticket)

    def _download(self, ticket: Ticket[DownloadJob], connection: Workers) -> Download:
        task, desk = download_task(ticket.job, self._settings), connection.desk
        options = replace(self._options, resume=self._resumes(ticket))
        landing = Landing(
            task,
            options,
            lambda checkpoint: desk.post(lambda: self._checkpoints.note(checkpoint)),
            lambda progress: desk.post(lambda: task.tell(progress)),
            time.monotonic,
        )
        self._locks.take(landing.lock_name)

        def release() -> None:
            self._locks.release(landing.lock_name)
            ticket.moved_bytes += download.received_bytes

        known = self._checkpoints.load(*landing.key)
        download = Download(landing, known, options, desk, self._checkpoints.forget, release)
        return download

    def _checkpoint_key(self, result: TransferResult) -> Key:
        return download_key(result)
