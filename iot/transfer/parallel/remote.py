"""ParallelRemote: a Remote on top of stores."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Generic, TypeVar

from iot.transfer.abandoned_parts import abandoned
from iot.transfer.attempts import ANSWERS, Attempts, Patience
from iot.transfer.base import BaseRemote, Outcome
from iot.transfer.books import Books
from iot.transfer.errors import (
    LinkLost,
    NameRefused,
    NotFound,
    PermanentError,
    ServerBusy,
    Timeout,
    TransferError,
)
from iot.transfer.journal.journal import Journal
from iot.transfer.model import (
    DownloadJob,
    LocalPath,
    RemoteEntry,
    RemoteFile,
    RemotePath,
    UploadJob,
)
from iot.transfer.names import remote_path
from iot.transfer.options import TransferOptions
from iot.transfer.parallel.downloads import Downloads
from iot.transfer.parallel.ready import Running
from iot.transfer.parallel.uploads import Uploads
from iot.transfer.parallel.work import Work
from iot.transfer.parallel.workers import Workers
from iot.transfer.remote import Capabilities, Store
from iot.transfer.settings import TransferSettings
from iot.transfer.terminal import quoted

__all__ = ["ParallelRemote"]

T = TypeVar("T")


class ParallelRemote(BaseRemote):
    """make: creates an unconnected store. server: identifies the far side in the journal, e.g. user@host:port.

    journal: may be shared with other users of the same state directory. See transfer.remote.Remote for the methods.
    """

    def __init__(
        self, make: Callable[[], Store], server: str, settings: TransferSettings, journal: Journal | None = None
    ) -> None:
        super().__init__(Books(server, journal, settings), settings)
        self._make = make
        self._patience = Patience(settings.attempts, settings.backoff_s, settings.backoff_cap_s)
        self._workers: Workers | None = None
        self._capabilities = make().capabilities

    @property
    def capabilities(self) -> Capabilities:
        return self._workers.capabilities if self._workers is not None else self._capabilities

    @property
    def connected(self) -> bool:
        """Whether there are connections, as far as is known without asking."""
        return self._workers is not None

    # -- connections, for the loop over attempts

    another_stands = False

    def session(self, tick: Callable[[], None]) -> Workers:
        """The current connections, or new ones. Raises: like Workers.connect."""
        if self._workers is not None and not self._workers.usable:
            self._drop()
        if self._workers is None:
            workers = Workers(
                self._make,
                commit=self._books.checkpoints.commit,
                stop=self._stop,
                clock=time.monotonic,
                limit=self.limit,
                meter=self.meter,
            )
            workers.connect(tick)
            self._workers = workers
        return self._workers

    def drop(self) -> None:
        self._drop()

    def _drop(self) -> None:
        if self._workers is not None:
            self._workers.close()
            self._workers = None

    def connect(self) -> None:
        with self._exclusively():
            for attempt in self._attempts():
                with attempt:
                    return

    def is_connected(self) -> bool:
        if self._ownership.batch_runs:
            return self.connected
        with self._exclusively():
            try:
                if self._workers is not None and self._workers.usable:
                    self._workers.run_one(_Call(lambda store: store.check()))
            except PermanentError:
                pass  # any answer proves that it is alive
            except BaseException:
                self._drop()
                raise
            return self._workers is not None and self._workers.usable

    # -- transfers

    def discard(self, uploads: Iterable[tuple[LocalPath, RemotePath]]) -> None:
        checkpoints = self._books.checkpoints
        options = self._options()
        for source, dest in uploads:
            given_up = abandoned(source, dest, options)
            known = checkpoints.load(given_up.direction, given_up.remote_path, given_up.local_path)
            if known is None and self.capabilities.named_tokens:
                checkpoints.note(given_up)
        checkpoints.flush()

    def _uploads(
        self,
        jobs: Iterable[UploadJob | None],
        *,
        hold: bool = False,
        resume: bool = True,
        sha256: bool = False,
        tick: Callable[[], None] = lambda: None,
    ) -> Iterator[Outcome]:
        options = self._options(resume=resume, sha256=sha256)
        stale_part_s = self._settings.stale_part_s
        attempts = self._attempts(tick, harmless=())
        return Uploads(attempts, self._books, options, stale_part_s=stale_part_s, hold=hold, tick=tick).run(jobs)

    def _downloads(
        self, jobs: Iterable[DownloadJob | None], *, resume: bool = True, tick: Callable[[], None] = lambda: None
    ) -> Iterator[Outcome]:
        attempts = self._attempts(tick, harmless=())
        return Downloads(attempts, self._books, self._settings, resume=resume, tick=tick).run(jobs)

    # -- paths

    def stat(self, path: bytes) -> RemoteFile | None:
        return self._call(lambda store, _: store.stat(path))

    def read_small(self, path: bytes, most_bytes: int, *, tick: Callable[[], None] = lambda: None) -> bytes | None:
        def read(store: Store, _: bool) -> bytes | None:
            content = b""
            try:
                for block in store.read(path, 0):
                    content += block
                    if len(content) > most_bytes:
                        break
            except PermanentError:
                return None
            return content[: most_bytes + 1]

        return self._call(read, tick)

    def scan(
        self, paths: Sequence[bytes], leave_out: Callable[[bytes, bytes], None] | None = None
    ) -> list[list[RemoteEntry] | PermanentError]:
        found: dict[int, list[RemoteEntry] | PermanentError] = {}
        with self._exclusively():
            for attempt in self._attempts():
                with attempt as workers:
                    while len(found) < len(paths):
                        _scan_rest(workers, paths, found, leave_out)
        return [found[number] for number in range(len(paths))]

    def move(self, source: bytes, dest: bytes) -> None:
        make_dirs = self._settings.make_dirs

        def move(store: Store, again: bool) -> None:
            if store.stat(source) is None:
                if again and store.stat(dest) is not None:
                    return  # it had succeeded, and only the answer was lost
                raise NotFound(f"cannot move {quoted(source)}: it is not on the server")
            store.move(source, dest, make_dirs=make_dirs)

        self._call(move)

    def delete(self, path: bytes) -> None:
        self._call(lambda store, again: _gone_is_fine(again, lambda: store.delete(path)))

    def mkdir(self, path: bytes) -> None:
        self._call(lambda store, _: store.mkdir(path))

    def rmdir(self, path: bytes) -> None:
        self._call(lambda store, again: _gone_is_fine(again, lambda: store.rmdir(path)))

    def _call(self, work: Callable[[Store, bool], T], tick: Callable[[], None] = lambda: None) -> T:
        """A small operation on one store, repeated on a new connection if the link is lost. The second argument of
        `work` says that an earlier attempt may have succeeded with its answer lost."""
        again = False

        def run_on(workers: Workers) -> T:
            nonlocal again
            try:
                result: T = workers.run_one(_Call(lambda store: work(store, again)))
            except (LinkLost, Timeout):
                again = True
                raise
            return result

        with self._exclusively():
            return self._attempts(tick).run(run_on)

    # -- inside

    def _options(self, *, resume: bool = True, sha256: bool = False) -> TransferOptions:
        return replace(self._settings.plain(self._books.journal.owner), resume=resume, sha256=sha256)

    def _attempts(
        self, tick: Callable[[], None] = lambda: None, harmless: tuple[type[TransferError], ...] = ANSWERS
    ) -> Attempts[Workers]:
        return Attempts(self, self._patience, self._stop, tick, harmless)


class _Call(Generic[T]):
    """A call on one store, in the form of a transfer."""

    store: Store

    def __init__(self, work: Callable[[Store], T]) -> None:
        self._work = work

    def run(self) -> Work[T]:
        yield from ()
        return self._work(self.store)

    def release(self) -> None:
        """Nothing to release."""


def _gone_is_fine(again: bool, work: Callable[[], None]) -> None:
    """If an answer was lost, a file that is gone means success."""
    try:
        work()
    except NotFound:
        if not again:
            raise


def _scan_rest(
    workers: Workers,
    paths: Sequence[bytes],
    found: dict[int, list[RemoteEntry] | PermanentError],
    leave_out: Callable[[bytes, bytes], None] | None,
) -> None:
    """List the folders that are not yet in `found`. Raises: ServerBusy on the last connection."""

    def call(path: bytes) -> _Call[list[RemoteEntry]]:
        return _Call(lambda store: _listed(store, path, leave_out))

    rest = [number for number in range(len(paths)) if number not in found]
    for finished in workers.run(Running(call(paths[number]), tag=number) for number in rest):
        if finished.error is None or isinstance(finished.error, PermanentError):
            found[finished.tag] = finished.error or finished.result
        elif not (isinstance(finished.error, ServerBusy) and workers.fewer()):
            raise finished.error


def _listed(store: Store, path: bytes, leave_out: Callable[[bytes, bytes], None] | None) -> list[RemoteEntry]:
    """Raises: NameRefused for a name with a slash: a server must not lead us out of a folder."""
    found = []
    for entry in store.list(path):
        if "/" in entry.name or "\0" in entry.name or not entry.name:
            if leave_out is not None:
                leave_out(path, entry.name.encode("utf-8", "surrogateescape"))
                continue
            raise NameRefused(
                f"server lists the name {entry.name!r} in {quoted(path)}; a name must not contain a slash"
            )
        if entry.name not in (".", ".."):
            found.append(entry)
    return sorted(found, key=lambda entry: remote_path(entry.name))
