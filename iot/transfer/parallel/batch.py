"""What uploads and downloads of many files through workers have in common."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from iot.transfer.attempts import Attempts
from iot.transfer.batch import Batch, J, Ticket
from iot.transfer.books import Books
from iot.transfer.errors import TransferError
from iot.transfer.model import Finished
from iot.transfer.options import TransferOptions
from iot.transfer.parallel.ready import Running
from iot.transfer.parallel.work import Work
from iot.transfer.parallel.workers import Workers
from iot.transfer.remote import Store

__all__ = ["ParallelBatch", "Refused"]


class ParallelBatch(Batch[Workers, J, Running]):
    """attempts: the loop over connections. options: for every job. See transfer.batch.Batch for the rest."""

    def __init__(
        self,
        attempts: Attempts[Workers],
        books: Books,
        options: TransferOptions,
        *,
        hold: bool = False,
        tick: Callable[[], None] = lambda: None,
    ) -> None:
        super().__init__(attempts, books.checkpoints, resume=options.resume, hold=hold, tick=tick)
        self._locks = books.locks
        self._options = options

    def _results(self, connection: Workers, work: Iterator[Running | None]) -> Iterator[Finished]:
        return connection.run(work, self._tick)

    def _fewer(self, ticket: Ticket[J], connection: Workers) -> bool:
        return connection.fewer()

    def _leave(self, connection: Workers) -> None:
        connection.close()


class Refused:
    """A transfer that cannot even start."""

    store: Store

    def __init__(self, error: TransferError) -> None:
        self._error = error

    def run(self) -> Work[None]:
        yield from ()
        raise self._error

    def release(self) -> None:
        """Nothing to release."""
