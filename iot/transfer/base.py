"""What all remotes have in common: one operation at a time, cancel, the journal, shutdown."""

from __future__ import annotations

import contextlib
import time
import weakref
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from typing import TypeAlias

from iot.transfer.books import Books
from iot.transfer.errors import ConfigurationError
from iot.transfer.journal.elsewhere import Elsewhere
from iot.transfer.landing import download_task
from iot.transfer.model import Direction, DownloadJob, Failure, Proof, TransferResult, UploadJob
from iot.transfer.names import path_text, remote_path
from iot.transfer.options import TransferOptions
from iot.transfer.ownership import Outcomes, Ownership
from iot.transfer.rate import Meter, RateLimit, Wire
from iot.transfer.settings import TransferSettings
from iot.transfer.source import Source
from iot.transfer.stop import StopFlag

__all__ = ["BaseRemote", "Outcome", "delivered_before", "upload_key", "uploaded"]

Outcome: TypeAlias = TransferResult | Failure
ENDING_POLL_S = 0.05


class BaseRemote(ABC):
    """books: this remote's part of the journal. max_rate: bytes of the wire a second at most. See remote.Remote for the
    contract of the methods."""

    def __init__(self, books: Books, settings: TransferSettings) -> None:
        self._books = books
        self._settings = settings
        self.limit = RateLimit(settings.max_rate)
        self.meter = Meter()
        self._stop = StopFlag()
        self._ownership = Ownership()
        self._outcomes: Callable[[], Outcomes[Outcome] | None] = lambda: None

    @abstractmethod
    def _uploads(
        self,
        jobs: Iterable[UploadJob | None],
        *,
        hold: bool = False,
        resume: bool = True,
        sha256: bool = False,
        tick: Callable[[], None] = lambda: None,
    ) -> Iterator[Outcome]:
        """Yield an outcome for every job. hold: keep the checkpoints of successes until `release_checkpoints`."""

    @abstractmethod
    def _downloads(
        self, jobs: Iterable[DownloadJob | None], *, resume: bool = True, tick: Callable[[], None] = lambda: None
    ) -> Iterator[Outcome]:
        """Yield an outcome for every job."""

    @abstractmethod
    def _drop(self) -> None:
        """Close all connections."""

    @property
    def options(self) -> TransferOptions:
        return self._settings.plain("")

    def cancel(self) -> None:
        self._stop.set()

    def limit_rate(self, bytes_per_s: float | None) -> None:
        self.limit.change(bytes_per_s)

    @property
    def wire(self) -> Wire:
        return self.meter.wire

    @property
    def connections(self) -> int:
        return 0

    def upload(self, job: UploadJob, *, resume: bool = True, sha256: bool = False) -> Outcome | None:
        with self._exclusively():
            return next(iter([*self._uploads([job], resume=resume, sha256=sha256)]), None)

    def download(self, job: DownloadJob, *, resume: bool = True) -> Outcome | None:
        download_task(job, self._settings)  # what is wrong with it needs no connection to be seen
        with self._exclusively():
            return next(iter([*self._downloads([job], resume=resume)]), None)

    def upload_many(
        self,
        jobs: Iterable[UploadJob | None],
        *,
        resume: bool = True,
        hold_checkpoints: bool = False,
        tick: Callable[[], None] = lambda: None,
    ) -> Iterator[Outcome]:
        return self._batch(lambda: self._uploads(jobs, resume=resume, hold=hold_checkpoints, tick=tick))

    def download_many(
        self, jobs: Iterable[DownloadJob | None], *, resume: bool = True, tick: Callable[[], None] = lambda: None
    ) -> Iterator[Outcome]:
        return self._batch(lambda: self._downloads(jobs, resume=resume, tick=tick))

    def release_checkpoints(self, results: Iterable[TransferResult]) -> None:
        self._books.checkpoints.forget_keys(upload_key(result) for result in results)

    def elsewhere(self) -> Elsewhere:
        return self._books.elsewhere(upload_key)

    def disconnect(self) -> None:
        with self._ending():
            self._drop()
            self._books.flush()

    def close(self) -> None:
        with self._ending():
            self._drop()
            self._books.close()

    def _batch(self, run: Callable[[], Iterator[Outcome]]) -> Iterator[Outcome]:
        outcomes = Outcomes(lambda: self._exclusively(batch=True), run)
        self._outcomes = weakref.ref(outcomes)
        return outcomes

    @contextlib.contextmanager
    def _exclusively(self, *, batch: bool = False) -> Iterator[None]:
        """Run one operation at a time; a cancel request is cleared when it ends.

        Raises: ConfigurationError while a batch runs, because it owns the connections.
        """
        with self._ownership.held(batch=batch):
            try:
                self._books.open()  # here, because connections are made in other threads
                yield
            finally:
                self._stop.clear()

    @contextlib.contextmanager
    def _ending(self) -> Iterator[None]:
        """For calls that close the connections: end a running batch first, and wait for calls of other threads."""
        while (outcomes := self._outcomes()) is not None and self._ownership.batch_runs:
            if outcomes.calls_from_here:
                break
            try:
                outcomes.close()
            except ConfigurationError:  # another thread is waiting for an outcome
                self._stop.set()
                time.sleep(ENDING_POLL_S)
        with self._ownership.held(from_inside=True):
            yield


def upload_key(result: TransferResult) -> tuple[str, bytes, bytes]:
    """The checkpoint key of a finished upload."""
    return Direction.UPLOAD.value, remote_path(result.dest), result.local_path


def uploaded(
    job: UploadJob,
    source: Source,
    published: bytes,
    *,
    sent_bytes: int,
    resumed_at: int,
    seconds: float,
    proof: Proof | None,
    sha256: str | None,
    durable: bool = False,
    already_done: bool = False,
    possible_repeat: bool = False,
    skipped: bool = False,
) -> TransferResult:
    """The result of an upload; published: the name that the file has got."""
    dest = remote_path(job.dest)
    return TransferResult(
        source=source.name,
        dest=path_text(dest),
        size=source.fingerprint.size,
        sent_bytes=sent_bytes,
        resumed_at=resumed_at,
        seconds=seconds,
        proof=None if skipped else proof,
        durable=durable,
        already_done=already_done,
        possible_repeat=possible_repeat,
        sha256=sha256,
        key=job.key,
        fingerprint=source.fingerprint,
        local_path=source.path,
        published_as="" if published == dest else path_text(published),
        skipped=skipped,
    )


def delivered_before(job: UploadJob, source: Source, digest: str) -> TransferResult:
    """The result for a source whose content was already delivered; nothing was sent or verified."""
    return uploaded(
        job,
        source,
        remote_path(job.dest),
        sent_bytes=0,
        resumed_at=0,
        seconds=0.0,
        proof=None,
        sha256=digest,
        already_done=True,
    )
