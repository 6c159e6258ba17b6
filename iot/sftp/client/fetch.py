"""One download over as many connections as needed."""

from __future__ import annotations

import logging
from dataclasses import replace

from iot.sftp.client.connector import Connector
from iot.sftp.client.jobs.download import Download
from iot.sftp.client.pipeline.job import Job
from iot.sftp.client.session import Session
from iot.transfer.errors import LinkLost, ProofFailed, Timeout
from iot.transfer.journal.checkpoints import Checkpoints
from iot.transfer.landing import DownloadTask
from iot.transfer.locks import TransferLocks
from iot.transfer.model import Direction, TransferResult

__all__ = ["Fetch"]

log = logging.getLogger(__name__)


class Fetch:
    """One call of download.

    resume: continue from what an earlier call synced to disk. sha256: include the digest in the result.
    """

    def __init__(
        self,
        links: Connector,
        checkpoints: Checkpoints,
        locks: TransferLocks,
        task: DownloadTask,
        *,
        resume: bool,
        sha256: bool,
    ) -> None:
        self._links = links
        self._checkpoints = checkpoints
        self._locks = locks
        self._task = task
        self._resume = resume
        self._sha256 = sha256
        self._received_bytes = 0

    def run(self) -> TransferResult:
        """Fetch over as many connections as needed; once more from the start if the proof fails.

        Raises: like client.Client.download.
        """
        try:
            return self._over_lost_links()
        except ProofFailed as error:  # the part may mix two versions, or a .sha256 may have come after its file
            log.warning("fetching once more from the start error=%s", error)
            return self._over_lost_links()

    def _over_lost_links(self) -> TransferResult:
        """Reconnect after a lost link; progress resets the count of attempts."""
        for attempt in self._links.attempts(harmless=(ProofFailed,)):  # no answer is outstanding then
            with attempt as session:
                try:
                    return self._once(session)
                except (LinkLost, Timeout):
                    self._resume = True
                    raise
                finally:
                    self._checkpoints.flush()
        raise AssertionError("attempts end with a result or an error")

    def _once(self, session: Session) -> TransferResult:
        options = replace(session.context.options, resume=self._resume, sha256=self._sha256)
        download = Download(self._task, replace(session.context, options=options))
        self._locks.take(download.part)
        try:
            result: TransferResult = session.pipeline.run_one(Job(download.run()))
        finally:
            self._locks.release(download.part)
            self._received_bytes += download.received_bytes
        self._checkpoints.forget_keys([(Direction.DOWNLOAD.value, self._task.source, result.local_path)])
        return replace(result, sent_bytes=self._received_bytes)
