"""Runs the operations of one client: one at a time, on the connection that there is, with the journal behind it."""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import BinaryIO, TypeVar

from iot.sftp.client.batch import Batch, upload_key
from iot.sftp.client.checkpoints import CHECKPOINTS, Checkpoints, LearnedRefusals
from iot.sftp.client.connector import Connector
from iot.sftp.client.engine import Engine, Making, target_from, transfer_options
from iot.sftp.client.errors import ConfigurationError, JournalUnavailable, LocalStateError
from iot.sftp.client.fetch import Fetch, download_task
from iot.sftp.client.journal import Journal, default_state_dir
from iot.sftp.client.locks import TransferLocks
from iot.sftp.client.model import Failure, ProgressCallback, TransferResult, UploadJob
from iot.sftp.client.rival import LOGIN_S, PATIENCE_S
from iot.sftp.client.settings import ClientOptions
from iot.sftp.client.stale import abandoned, remove_stale_parts
from iot.sftp.client.wire.job import Job, Work

log = logging.getLogger(__name__)
T = TypeVar("T")


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
        self._cancelled = threading.Event()
        self._lock = threading.RLock()
        self.batch_runs = False
        self.links = Connector(self._connect_once, options, self._cancelled)

    def cancel(self) -> None:
        self._cancelled.set()

    @contextlib.contextmanager
    def exclusively(self) -> Iterator[None]:
        """One operation at a time; what was cancelled is over when it ends.

        Raises: ConfigurationError from inside a running batch: its connection is taken.
        """
        with self._lock:
            if self.batch_runs:
                raise ConfigurationError("upload_many is under way on this client: use a second client meanwhile")
            try:
                yield
            finally:
                self._cancelled.clear()

    def run(self, work: Callable[[Engine, bool], Work[T]]) -> T:
        """One small job, again on a new connection where the link is lost."""
        with self.exclusively():
            result: T = self.links.retrying(lambda engine, again: engine.pipeline.run_one(Job(work(engine, again))))
            return result

    def batch(
        self,
        jobs: Iterable[UploadJob | None],
        *,
        hold: bool,
        resume: bool = True,
        sha256: bool = False,
        tick: Callable[[], None] = lambda: None,
    ) -> Iterator[TransferResult | Failure]:
        with self.exclusively():
            checkpoints, locks = self._opened()
            batch = Batch(
                self.links,
                checkpoints,
                locks,
                attempts=self._options.attempts,
                hold=hold,
                resume=resume,
                sha256=sha256,
                tick=tick,
            )
            self.batch_runs = True
            try:
                yield from batch.run(jobs)
            finally:
                self.batch_runs = False

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
        with self.exclusively():
            checkpoints, locks = self._opened()
            return Fetch(self.links, checkpoints, locks, task, resume=resume, sha256=bool(sha256)).run()

    def drop(self) -> None:
        with self._lock:
            self.links.close()
            self._flush()

    def close(self) -> None:
        """Disconnect, and close the journal unless it was given to us."""
        with self._lock:
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
        checkpoints, _ = self._opened()
        assert self._journal is not None
        account = self._account
        target = target_from(account.host, account.port, account.user, account.password, self._options)
        refusals = LearnedRefusals(self._journal)
        if making.beside:
            target = replace(
                target, connect_timeout_s=PATIENCE_S, login_deadline_s=LOGIN_S, redial_s=making.beside.redial_s
            )
        engine = Engine(target, self._options, self._journal.owner, checkpoints, refusals, self._cancelled, making)
        if making.beside:
            return engine
        try:
            remove_stale_parts(engine, checkpoints, self._options.stale_part_s)
        except BaseException:
            engine.close()
            raise
        return engine
