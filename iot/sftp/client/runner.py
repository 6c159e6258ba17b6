"""Runs the operations of one client: one at a time, on the connection that there is, with the journal behind it."""

from __future__ import annotations

import contextlib
import logging
import os
import time
import weakref
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import BinaryIO, TypeVar

from iot.sftp.client.abandoned_parts import abandoned
from iot.sftp.client.batch import Batch, Outcome, upload_key
from iot.sftp.client.connector import Connector
from iot.sftp.client.fetch import Fetch
from iot.sftp.client.jobs.paths import Earlier, real_path
from iot.sftp.client.pipeline.job import Job, Work
from iot.sftp.client.session import Engine, Making, target_from, transfer_options
from iot.sftp.client.settings import ClientOptions
from iot.sftp.client.standby import LOGIN_S, PATIENCE_S
from iot.transfer.errors import (
    Cancelled,
    ConfigurationError,
    JournalUnavailable,
    LinkLost,
    LocalStateError,
    PermanentError,
    Timeout,
)
from iot.transfer.journal.checkpoints import CHECKPOINTS, Checkpoints, LearnedRefusals
from iot.transfer.journal.journal import Journal, default_state_dir
from iot.transfer.landing import download_task
from iot.transfer.locks import TransferLocks
from iot.transfer.model import ProgressCallback, TransferResult, UploadJob
from iot.transfer.ownership import Outcomes, Ownership
from iot.transfer.stop import StopFlag

log = logging.getLogger(__name__)
T = TypeVar("T")

ENDING_POLL_S = 0.05


@dataclass(frozen=True, slots=True)
class Account:
    """Who logs in where."""

    host: str
    port: int
    user: str
    password: str | None

    def __str__(self) -> str:
        return f"{self.user}@{self.host}:{self.port}"

    __repr__ = __str__  # never the password


class Runner:
    """links: the connection. cancel: ends the operation under way, or else the next one."""

    def __init__(self, account: Account, options: ClientOptions, journal: Journal | None) -> None:
        self._account = account
        self._options = options
        self._journal = journal
        self._owns_journal = journal is None
        self._checkpoints: Checkpoints | None = None
        self._locks: TransferLocks | None = None
        self._stop = StopFlag()
        self._ownership = Ownership()
        self._outcomes: Callable[[], Outcomes[Outcome] | None] = lambda: None
        self.links = Connector(self._connect_once, options, self._stop)

    def cancel(self) -> None:
        self._stop.set()

    def connect(self) -> Engine:
        with self._exclusively():
            for attempt in self.links.attempts():
                with attempt as engine:
                    return engine
        raise AssertionError("attempts end with a connection or an error")

    def is_connected(self) -> bool:
        """Raises: LinkLost, Timeout, Cancelled."""
        if self.links.current is None or self._ownership.batch_runs:
            return self.links.current is not None
        with self._exclusively():
            try:
                if self.links.current is not None:
                    self.links.current.pipeline.run_one(Job(real_path(b".")))
            except PermanentError:
                pass  # an answer is an answer
            except BaseException:
                self.links.drop()
                raise
        return self.links.current is not None

    def run(self, work: Callable[[Engine, Earlier], Work[T]]) -> T:
        """One small job, again on a new connection where the link is lost."""
        earlier = Earlier()
        with self._exclusively():
            for attempt in self.links.attempts():
                with attempt as engine:
                    sent_bytes = engine.sent_bytes
                    try:
                        result: T = engine.pipeline.run_one(Job(work(engine, earlier)))
                    except (LinkLost, Timeout):
                        earlier.lost(something_sent=engine.sent_bytes > sent_bytes)
                        raise
                    return result
        raise AssertionError("attempts end with a result or an error")

    def upload(self, job: UploadJob, *, resume: bool, sha256: bool) -> Outcome | None:
        """-> None when it was cancelled before it began"""
        with self._exclusively():
            outcomes = [*self._batch(hold=False, resume=resume, sha256=sha256).run([job])]
            return outcomes[0] if outcomes else None

    def batch(
        self, jobs: Iterable[UploadJob | None], *, hold: bool, tick: Callable[[], None] = lambda: None
    ) -> Iterator[Outcome]:
        outcomes = Outcomes(self._steps(jobs, hold, tick))
        self._outcomes = weakref.ref(outcomes)
        return outcomes

    def _steps(
        self, jobs: Iterable[UploadJob | None], hold: bool, tick: Callable[[], None]
    ) -> Generator[Outcome, None, None]:
        with self._exclusively(batch=True):
            yield from self._batch(hold=hold, tick=tick).run(jobs)

    def _batch(
        self, *, hold: bool, resume: bool = True, sha256: bool = False, tick: Callable[[], None] = lambda: None
    ) -> Batch:
        checkpoints, locks = self._opened()
        stale_part_s = self._options.stale_part_s
        return Batch(
            self.links,
            checkpoints,
            locks,
            stale_part_s=stale_part_s,
            hold=hold,
            resume=resume,
            sha256=sha256,
            tick=tick,
        )

    @contextlib.contextmanager
    def _exclusively(self, *, batch: bool = False) -> Iterator[None]:
        """One operation at a time; what was cancelled is over when it ends.

        Raises: ConfigurationError while a batch runs: its connection is taken.
        """
        with self._ownership.held(batch=batch):
            try:
                self._opened()
                yield
            finally:
                self._stop.clear()

    @contextlib.contextmanager
    def _ending(self) -> Iterator[None]:
        """For what ends the connection: a batch is ended first, calls of other threads are waited for."""
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

    def settle(self, results: Iterable[TransferResult]) -> None:
        checkpoints, _ = self._opened()
        checkpoints.forget_keys(upload_key(result) for result in results)

    def give_up(self, uploads: Iterable[tuple[str, str]]) -> None:
        checkpoints, _ = self._opened()
        assert self._journal is not None
        options = transfer_options(self._options, self._journal.owner)
        for source, dest in uploads:
            given_up = abandoned(source, dest, options)
            if checkpoints.load(given_up.direction, given_up.remote_path, given_up.local_path) is None:
                checkpoints.note(given_up)
        checkpoints.flush()

    def fetch(
        self,
        source: bytes,
        dest: str | os.PathLike[str] | BinaryIO,
        progress: ProgressCallback | None,
        *,
        resume: bool,
        sha256: bool | str,
    ) -> TransferResult:
        task = download_task(source, dest, progress, sha256, self._options)
        with self._exclusively():
            checkpoints, locks = self._opened()
            return Fetch(self.links, checkpoints, locks, task, resume=resume, sha256=bool(sha256)).run()

    def drop(self) -> None:
        with self._ending():
            self.links.close()
            self._flush()

    def close(self) -> None:
        """Disconnect, and close the journal unless it was given to us."""
        with self._ending():
            self.links.close()
            self._flush()
            if self._locks is not None:
                self._locks.close()
            if self._journal is not None and self._owns_journal:
                self._journal.close()
                self._journal = None
            self._checkpoints = self._locks = None

    def _flush(self) -> None:
        """Drop now what was settled."""
        if self._checkpoints is not None:
            try:
                self._checkpoints.flush()
            except LocalStateError as error:  # a checkpoint too many does no harm
                log.warning("settled checkpoints stay in the journal: %s", error)

    def _opened(self) -> tuple[Checkpoints, TransferLocks]:
        """The journal's part of this client, opened on first use."""
        if self._checkpoints is None or self._locks is None:
            if self._journal is None:
                self._journal = self._open_journal()
            else:
                self._journal.register(CHECKPOINTS)
            self._checkpoints = Checkpoints(
                self._journal,
                str(self._account),
                every_bytes=self._options.checkpoint_bytes,
                every_s=self._options.checkpoint_s,
                clock=time.monotonic,
            )
            self._locks = TransferLocks(self._journal.state_dir)
        return self._checkpoints, self._locks

    def _open_journal(self) -> Journal:
        if self._options.state_dir is not None:
            return Journal(self._options.state_dir, CHECKPOINTS)
        try:
            return Journal(default_state_dir(), CHECKPOINTS)
        except JournalUnavailable as error:
            log.warning("no journal, a resume will not survive this process: %s", error)
            return Journal(None, CHECKPOINTS)

    def _connect_once(self, making: Making) -> Engine:
        """In a thread of its own: the journal's part of this client is there already, or not any more."""
        journal, checkpoints = self._journal, self._checkpoints
        if journal is None or checkpoints is None:
            raise Cancelled("the client was closed while connecting")
        account = self._account
        target = target_from(account.host, account.port, account.user, account.password, self._options)
        if making.beside:
            target = replace(
                target, connect_timeout_s=PATIENCE_S, login_deadline_s=LOGIN_S, redial_s=making.beside.redial_s
            )
        return Engine(target, self._options, journal.owner, checkpoints, LearnedRefusals(journal), making)
