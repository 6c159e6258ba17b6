"""What uploads and downloads of many files over SFTP have in common: one pipeline per connection, bounded by slots."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from typing import Any

from iot.sftp.client.connector import Connector
from iot.sftp.client.pipeline.job import Job
from iot.sftp.client.session import Session
from iot.transfer.batch import Batch, J, Ticket
from iot.transfer.journal.checkpoints import Checkpoints
from iot.transfer.locks import TransferLocks
from iot.transfer.model import Finished

__all__ = ["SFTPBatch"]

log = logging.getLogger(__name__)


class SFTPBatch(Batch[Session, J, Job[Any]]):
    """See transfer.batch.Batch."""

    def __init__(
        self,
        links: Connector,
        checkpoints: Checkpoints,
        locks: TransferLocks,
        *,
        resume: bool,
        hold: bool,
        tick: Callable[[], None],
    ) -> None:
        attempts = links.attempts(tick, harmless=())
        super().__init__(attempts, checkpoints, resume=resume, hold=hold, tick=tick)
        self._links = links
        self._locks = locks

    def _results(self, connection: Session, work: Iterator[Job[Any] | None]) -> Iterator[Finished]:
        return connection.pipeline.run(work, lambda: connection.slots, self._tick)

    def _fewer(self, ticket: Ticket[J], connection: Session) -> bool:
        """ServerBusy is raised only while other files are open, so that one at a time is always tried."""
        connection.slots = max(1, connection.slots // 2)
        log.info("server has no more handles slots=%d", connection.slots)
        return True

    def _leave(self, connection: Session) -> None:
        self._links.drop()

    def _cancelled(self) -> None:
        self._links.close()
