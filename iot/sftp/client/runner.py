"""SFTP as a Remote: one operation at a time on one connection, backed by the journal."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias, TypeVar

from iot.sftp.client.connector import Connector
from iot.sftp.client.downloads import Downloads
from iot.sftp.client.jobs import paths
from iot.sftp.client.jobs.checksum_file import read_small
from iot.sftp.client.jobs.look import look, look_at_link
from iot.sftp.client.jobs.paths import Earlier, real_path
from iot.sftp.client.learned import REFUSALS, LearnedRefusals
from iot.sftp.client.pipeline.job import Job, Work
from iot.sftp.client.session import Making, Session, login_problems, target_from
from iot.sftp.client.settings import ClientOptions
from iot.sftp.client.ssh.openssh_config import Way
from iot.sftp.client.standby import LOGIN_S, PATIENCE_S
from iot.sftp.client.uploads import Uploads
from iot.transfer.abandoned_parts import abandoned
from iot.transfer.base import BaseRemote, Outcome
from iot.transfer.books import Books
from iot.transfer.errors import Cancelled, LinkLost, PermanentError, ServerBusy, Timeout
from iot.transfer.journal.journal import Journal
from iot.transfer.model import DownloadJob, LocalPath, RemoteEntry, RemoteFile, RemotePath, UploadJob
from iot.transfer.remote import Capabilities, Publish, Resume

T = TypeVar("T")
Problems: TypeAlias = "list[tuple[str, str]]"
CAPABILITIES = Capabilities(
    Resume.OFFSET, Publish.RENAME, durable=True, hashes=("sha256",), connections=1, keeps_times=True
)
"""For a server with OpenSSH's extensions; if a server refuses one, that is learned and the client does without."""


@dataclass(frozen=True, slots=True)
class Account:
    """Where to log in, and as whom."""

    way: Way
    password: str | None

    def __str__(self) -> str:
        return f"{self.way.user}@{self.way.host}:{self.way.port}"

    __repr__ = __str__  # never the password


class Runner(BaseRemote):
    """links: the connection. See transfer.remote.Remote for the contract of the methods."""

    capabilities = CAPABILITIES

    def __init__(self, account: Account, options: ClientOptions, journal: Journal | None) -> None:
        super().__init__(Books(str(account), journal, options, REFUSALS), options)
        self._account = account
        self._options = options
        self.links = Connector(self._connect_once, options, self._stop, self.limit, self.meter)

    # -- the connection

    def connect(self) -> None:
        self.session()

    def session(self) -> Session:
        """The live connection, made if there is none."""
        with self._exclusively():
            return self.links.attempts().run(lambda session: session)

    def is_connected(self) -> bool:
        if self.links.current is None or self._ownership.batch_runs:
            return self.links.current is not None
        with self._exclusively():
            try:
                if self.links.current is not None:
                    self.links.current.pipeline.run_one(Job(real_path(b".")))
            except PermanentError:
                pass  # any answer proves that it is alive
            except BaseException:
                self.links.drop()
                raise
        return self.links.current is not None

    @property
    def connections(self) -> int:
        return self.links.made

    # -- transfers

    def _uploads(
        self,
        jobs: Iterable[UploadJob | None],
        *,
        hold: bool = False,
        resume: bool = True,
        sha256: bool = False,
        tick: Callable[[], None] = lambda: None,
    ) -> Iterator[Outcome]:
        return Uploads(
            self.links,
            self._books.checkpoints,
            self._books.locks,
            stale_part_s=self._options.stale_part_s,
            hold=hold,
            resume=resume,
            sha256=sha256,
            tick=tick,
        ).run(jobs)

    def discard(self, uploads: Iterable[tuple[LocalPath, RemotePath]]) -> None:
        checkpoints = self._books.checkpoints
        options = self._options.plain(self._books.journal.owner)
        for source, dest in uploads:
            given_up = abandoned(source, dest, options)
            if checkpoints.load(given_up.direction, given_up.remote_path, given_up.local_path) is None:
                checkpoints.note(given_up)
        checkpoints.flush()

    def _downloads(
        self, jobs: Iterable[DownloadJob | None], *, resume: bool = True, tick: Callable[[], None] = lambda: None
    ) -> Iterator[Outcome]:
        checkpoints, locks = self._books.checkpoints, self._books.locks
        return Downloads(self.links, checkpoints, locks, self._options, resume=resume, tick=tick).run(jobs)

    # -- paths

    def stat(self, path: bytes) -> RemoteFile | None:
        return self._run(lambda *_: look(path))

    def lstat(self, path: bytes) -> RemoteFile | None:
        """As stat, but of a link itself."""
        return self._run(lambda *_: look_at_link(path))

    def read_small(self, path: bytes, most_bytes: int, *, tick: Callable[[], None] = lambda: None) -> bytes | None:
        return self._run(lambda *_: read_small(path, most_bytes), tick)

    def scan(
        self, folders: Sequence[bytes], leave_out: Callable[[bytes, bytes], None] | None = None
    ) -> list[list[RemoteEntry] | PermanentError]:
        found: dict[int, list[RemoteEntry] | PermanentError] = {}
        with self._exclusively():
            for attempt in self.links.attempts():
                with attempt as session:
                    while len(found) < len(folders):
                        _scan_rest(session, folders, found, leave_out)
        return [found[number] for number in range(len(folders))]

    def move(self, source: bytes, dest: bytes) -> None:
        self._run(lambda session, earlier: paths.move(session.context, source, dest, earlier))

    def delete(self, path: bytes) -> None:
        self._run(lambda _, earlier: paths.delete(path, earlier))

    def mkdir(self, path: bytes) -> None:
        self._run(lambda session, _: paths.make_dir(session.context, path))

    def rmdir(self, path: bytes) -> None:
        self._run(lambda session, earlier: paths.delete_dir(session.context, path, earlier))

    def _run(self, work: Callable[[Session, Earlier], Work[T]], tick: Callable[[], None] = lambda: None) -> T:
        """Run a small job, again on a new connection if the link is lost."""
        earlier = Earlier()

        def run_on(session: Session) -> T:
            sent_bytes = session.sent_bytes
            try:
                result: T = session.pipeline.run_one(Job(work(session, earlier)))
            except (LinkLost, Timeout):
                earlier.lost(something_sent=session.sent_bytes > sent_bytes)
                raise
            return result

        with self._exclusively():
            return self.links.attempts(tick).run(run_on)

    # -- inside

    def _drop(self) -> None:
        self.links.close()

    def login_problems(self) -> Problems:
        account = self._account
        return login_problems(account.way, account.password, self._options)

    def _connect_once(self, making: Making) -> Session:
        """Runs in a thread of its own: the journal is open by now, or closed again."""
        if not self._books.is_open:
            raise Cancelled("the client was closed while connecting")
        journal, checkpoints = self._books.journal, self._books.checkpoints
        account = self._account
        target = target_from(account.way, account.password, self._options)
        if making.beside:
            target = replace(
                target, connect_timeout_s=PATIENCE_S, login_deadline_s=LOGIN_S, redial_s=making.beside.redial_s
            )
        return Session(target, self._options, journal.owner, checkpoints, LearnedRefusals(journal), making)


def _scan_rest(
    session: Session,
    folders: Sequence[bytes],
    found: dict[int, list[RemoteEntry] | PermanentError],
    leave_out: Callable[[bytes, bytes], None] | None,
) -> None:
    """List the folders that are not yet in `found`. Raises: ServerBusy if not even one can be opened at a time."""
    busy: ServerBusy | None = None
    rest = [number for number in range(len(folders)) if number not in found]
    jobs = (Job(paths.scan(session.context, folders[number], leave_out), tag=number) for number in rest)
    for finished in session.pipeline.run(jobs, lambda: session.slots):
        if finished.error is None or isinstance(finished.error, PermanentError):
            found[finished.tag] = finished.error or finished.result
        elif isinstance(finished.error, ServerBusy) and session.slots > 1:
            busy = finished.error
        else:
            raise finished.error
    if busy is not None:  # once for all refusals of one flight
        session.slots //= 2
