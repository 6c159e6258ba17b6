"""Many downloads over as many connections as needed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from iot.sftp.client.batch import SFTPBatch
from iot.sftp.client.connector import Connector
from iot.sftp.client.jobs.context import Context
from iot.sftp.client.jobs.download import Download
from iot.sftp.client.pipeline.job import Job, Work
from iot.sftp.client.session import Session
from iot.transfer.batch import Ticket
from iot.transfer.journal.checkpoints import Checkpoints, Key
from iot.transfer.landing import download_key, download_task
from iot.transfer.locks import TransferLocks
from iot.transfer.model import DownloadJob, TransferResult
from iot.transfer.settings import TransferSettings

__all__ = ["Downloads"]


class Downloads(SFTPBatch[DownloadJob]):
    """One call of download_many. settings: what the jobs are checked against."""

    fetches = True

    def __init__(
        self,
        links: Connector,
        checkpoints: Checkpoints,
        locks: TransferLocks,
        settings: TransferSettings,
        *,
        resume: bool = True,
        tick: Callable[[], None] = lambda: None,
    ) -> None:
        super().__init__(links, checkpoints, locks, resume=resume, hold=False, tick=tick)
        self._settings = settings
        self._fewer_since = 0

    def _work(self, ticket: Ticket[DownloadJob], connection: Session) -> Job[TransferResult]:
        context = connection.context
        options = replace(context.options, resume=self._resumes(ticket))
        return Job(self._download(ticket, replace(context, options=options)), tag=ticket)

    def _download(self, ticket: Ticket[DownloadJob], context: Context) -> Work[TransferResult]:
        download = Download(download_task(ticket.job, self._settings), context)
        self._locks.take(download.lock_name)
        try:
            return (yield from download.run())
        finally:
            self._locks.release(download.lock_name)
            ticket.moved_bytes += download.received_bytes

    def _fewer(self, ticket: Ticket[DownloadJob], connection: Session) -> bool:
        """One flight of refusals counts as one: those that began before there were fewer say nothing new."""
        if ticket.turn > self._fewer_since:
            self._fewer_since = self._begun
            return super()._fewer(ticket, connection)
        return True

    def _checkpoint_key(self, result: TransferResult) -> Key:
        return download_key(result)
