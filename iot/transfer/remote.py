"""What a remote is: a place that files are sent to and fetched from, over any protocol.

Remote   what the facade, the command line and the spooler use. SFTP implements it with its own pipeline.
Store    what a protocol with a blocking library implements instead: plain calls on one connection.
         parallel.py turns it into a Remote.

Rules for a store
    - The token is the complete state of an upload. A token issued on one connection is valid on any other, and in a
      later process, for `Capabilities.token_life_s`.
    - A store is used by one thread at a time. Only `abort` may be called from another thread, at any moment.
    - Every call returns, or raises an error of iot.transfer, within the store's own deadlines: foreign exceptions
      (OSError, ftplib.Error, http.client.HTTPException, ssl.SSLError) are translated at the store's edge, with the
      cause kept. A store never retries: the caller does.
    - Any call may raise LinkLost or Timeout (the connection is then abandoned), ServerBusy (the connection is still
      usable), AuthenticationError, PermissionDenied, NameRefused or ServerRefused. Other errors are listed per call.
    - Unknown is never "gone": a file, part or token is missing only if the far side says so.
    - Paths are bytes, with slashes, exactly as the user wrote them. They are relative to the login folder unless they
      start with a slash. Sizes, offsets and spans are in bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, TypeAlias

from iot.transfer.capabilities import Capabilities, Publish, Resume
from iot.transfer.errors import PermanentError
from iot.transfer.model import (
    DownloadJob,
    Evidence,
    Failure,
    LocalPath,
    RemoteEntry,
    RemoteFile,
    RemotePath,
    Span,
    Token,
    TransferResult,
    UploadJob,
)
from iot.transfer.options import TransferOptions
from iot.transfer.rate import Metered

if TYPE_CHECKING:
    from iot.transfer.journal.elsewhere import Elsewhere

__all__ = [
    "Ack",
    "Capabilities",
    "Gone",
    "Meta",
    "Offset",
    "Parts",
    "Publish",
    "Published",
    "Remote",
    "Resume",
    "Standing",
    "Store",
    "Token",
]

Outcome: TypeAlias = TransferResult | Failure


@dataclass(frozen=True, slots=True)
class Meta:
    """What accompanies an upload besides its bytes.

    part: the name until the file is complete, in the folder of the destination; what has this name is ours and may be
        removed. Stores without part names ignore it.
    mtime_s, mode: attributes to set on the file, best effort; None: leave them alone.
    make_dirs: make missing folders of the destination.
    """

    part: bytes
    mtime_s: int | None = None
    mode: int | None = None
    make_dirs: bool = True


# -- the state of an upload


@dataclass(frozen=True, slots=True)
class Offset:
    """The far side reports that it has the bytes [0, end)."""

    end: int


@dataclass(frozen=True, slots=True)
class Parts:
    """The far side reports that it has these spans, in order."""

    spans: tuple[Span, ...]


@dataclass(frozen=True, slots=True)
class Gone:
    """The far side no longer knows the token: start over, without counting it as a failure of the file."""


@dataclass(frozen=True, slots=True)
class Published:
    """The far side reports that this upload is complete and has its name. The caller then checks the file."""


Standing: TypeAlias = Offset | Parts | Gone | Published


@dataclass(frozen=True, slots=True)
class Ack:
    """The answer to a write.

    end: the far side has confirmed the bytes of the span up to this offset; the rest is sent again.
    durable: the confirmed bytes are on the far side's disk, as far as that can be known.
    """

    end: int
    durable: bool = False


class Store(Protocol):
    """One connection to the far side; constructing it does not connect. The rules above apply to all calls.

    An upload as a sequence of calls, each of which may be the last before the device loses power:

        begin -> write ... -> where (its size) -> verify or read_part, as the settings say -> publish
        where -> read_part (suspect spans) -> write ...            a later attempt, on another connection
        abandon                                                    it is given up, or starts over
    """

    @property
    def capabilities(self) -> Capabilities:
        """Before `connect`: the most that the protocol can offer."""

    # -- the connection

    def connect(self) -> None:
        """Connect and log in; called once, before any other call.

        Raises: LinkLost, Timeout, ServerBusy (too many connections), AuthenticationError and its subclasses,
            ConfigurationError.
        """

    def check(self) -> None:
        """One real round trip, with a deadline: proves that the connection is alive, and keeps it from idling out."""

    def abort(self) -> None:
        """End whatever is running, from any thread: the current call raises LinkLost within a second, later calls at
        once. Takes no lock, never blocks, and may be called twice, also during `connect`."""

    def close(self) -> None:
        """Say goodbye if that takes no time, and release everything. Never raises; may be called twice."""

    # -- uploads

    def begin(self, dest: bytes, size: int, meta: Meta) -> Token:
        """Prepare an upload of `size` bytes -> its token, which is journaled before the first byte if it could not be
        found again otherwise.

        A part that an earlier attempt left under the same name is removed and recreated, never truncated: data that a
        lost connection still has in flight to the old file cannot reach the new one.

        Raises: NoSpaceOnServer if the far side reports too little space; NotFound (no folder, and make_dirs is off).
        """

    def where(self, token: Token) -> Standing:
        """How much the far side has. The answer is trusted as far as acknowledgements are durable. Raises:
        ServerRefused if the token's name belongs to something that is not a regular file (a folder, a link)."""

    def write(self, token: Token, span: Span, body: Iterable[bytes]) -> Ack:
        """Write the bytes of `span` at their offset: exactly span.length bytes, in non-empty blocks.

        span.start is 0, or the end of what the far side has (`where`, or an earlier Ack), or an offset before that, in
        which case the bytes there are replaced. Never append: the same write done twice leaves the same bytes. Nothing
        may rely on what the part holds behind the span afterwards.

        `body` is read once, in this thread. Its own errors (SourceChanged, Cancelled) pass through unchanged, after the
        store has ended the transfer such that the connection can serve the next call, or raises LinkLost there. A write
        of length 0 (an empty file) leaves a part of size 0.

        Raises: NoSpaceOnServer; NotFound if the part is gone; Unsupported if the far side refuses to resume at an
            offset: the upload then starts over.
        """

    def read_part(self, token: Token, span: Span) -> Iterator[bytes]:
        """The bytes of a span of an unpublished part, in blocks; fewer if the part ends earlier.

        The reader may stop early and close the iterator; the connection must then be ready for the next call.

        Raises: NotFound; Unsupported or PermissionDenied if parts cannot be read.
        """

    def verify(self, token: Token, digests: Mapping[str, str]) -> Evidence | None:
        """Have the far side hash the whole part, and compare -> what the proof is based on.

        digests: algorithm -> lower-case hex digest; those of `Capabilities.hashes` that the caller has computed. None
        if the far side turns out to refuse: the caller then reads the part back.

        Raises: ProofFailed if they differ.
        """

    def publish(self, token: Token, dest: bytes, meta: Meta, *, replace: bool) -> bool:
        """Give the complete part its name, atomically -> whether content and name survive a power loss of the far side.

        replace: replace a file at `dest`; otherwise an existing file is left alone and AlreadyExists raised. Times and
        mode of `meta` are best effort: their refusal is not an error. The answer may be lost: the caller then calls
        `where`, looks at `dest` and compares.

        Raises: AlreadyExists, also if the far side cannot replace; NotFound if the part is gone; ProofFailed if the far
            side's own check failed; NoSpaceOnServer.
        """

    def confirm(self, dest: bytes) -> bool:
        """Sync a file that an earlier attempt published to the far side's disk -> whether content and name are there;
        False if the far side has no way to ask, or the file is gone."""

    def abandon(self, token: Token) -> None:
        """Remove what the far side has of this upload, if anything. A published file is not touched."""

    # -- downloads and paths

    def stat(self, path: bytes) -> RemoteFile | None:
        """None if the far side says that nothing is there. `mode` contains at least the file type bits (folder,
        regular file) if the far side reports them; `mtime_s` is UTC."""

    def read(self, path: bytes, offset: int) -> Iterator[bytes]:
        """A file's bytes from an offset to its end, in blocks; the iterator ends only at the far side's end of file.

        The reader may stop early and close the iterator, as with `read_part`. An offset at the end yields nothing; an
        offset beyond it yields nothing or raises ServerRefused.

        Raises: NotFound; Unsupported if reading cannot start at an offset: the caller then starts at 0.
        """

    def digest(self, path: bytes, algorithm: str) -> str | None:
        """The far side's own hash of a published file, in lower-case hex; None if it offers none. Raises: NotFound."""

    def list(self, path: bytes) -> Iterator[RemoteEntry]:
        """The entries of a folder, in any order: size and time if the listing reveals them, and always whether it is a
        folder. The caller refuses names with a slash, and skips "." and "..". Raises: NotFound, also for a file."""

    def move(self, source: bytes, dest: bytes, *, make_dirs: bool = True) -> None:
        """Rename a file or folder; a file at `dest` is replaced, atomically if `Capabilities.replaces`.
        Raises: NotFound, AlreadyExists (it cannot be replaced)."""

    def delete(self, path: bytes) -> None:
        """Delete a file. Raises: NotFound; ServerRefused for a folder."""

    def mkdir(self, path: bytes) -> None:
        """Make a folder and any missing parents; an existing one is fine. Raises: AlreadyExists (a file is there)."""

    def rmdir(self, path: bytes) -> None:
        """Delete an empty folder. Raises: NotFound; ServerRefused if it is not empty, or not a folder."""

    def chmod(self, path: bytes, mode: int) -> None:
        """Set the permission bits of a file or folder. Raises: NotFound; Unsupported if the far side has none."""

    def touch(self, path: bytes, mtime_s: int) -> None:
        """Set the modification time (UTC, seconds since 1970) of what is there; make an empty file, and missing
        folders, where nothing is. Raises: Unsupported if times cannot be set there."""


class Remote(Metered, Protocol):
    """A place with its connections, journal and retries: what a facade and the spooler work with.

    One operation runs at a time. `cancel` may be called from any thread or signal handler. After a lost link, new
    connections are made as often as the settings allow. For the errors of every operation see client.Client.
    """

    @property
    def capabilities(self) -> Capabilities: ...

    @property
    def options(self) -> TransferOptions: ...

    def connect(self) -> None:
        """Connect now instead of on first use. Raises: TransientError, AuthenticationError, ConfigurationError."""

    def is_connected(self) -> bool:
        """Whether the far side answers on the current connection, without making a new one."""

    def upload(self, job: UploadJob, *, resume: bool = True, sha256: bool = False) -> Outcome | None:
        """Send one file -> its outcome; None if it was cancelled before it started."""

    def upload_many(
        self,
        jobs: Iterable[UploadJob | None],
        *,
        resume: bool = True,
        hold_checkpoints: bool = False,
        tick: Callable[[], None] = lambda: None,
    ) -> Iterator[Outcome]:
        """Send many files at once; yield each outcome as it comes.

        jobs: pulled one at a time as slots become free; None means "none right now, ask again soon" (within 0.25 s).
        hold_checkpoints: keep those of successes until `release_checkpoints`. tick: called every 0.25 s, whatever the
        far side does.
        """

    def release_checkpoints(self, results: Iterable[TransferResult]) -> None:
        """The caller has recorded these deliveries durably: their checkpoints may be dropped."""

    def elsewhere(self) -> Elsewhere:
        """What was begun with other servers that share this journal. Raises: JournalUnavailable."""

    def discard(self, uploads: Iterable[tuple[LocalPath, RemotePath]]) -> None:
        """Give up on these uploads: what earlier attempts left there is removed later. Durable on return."""

    def download(self, job: DownloadJob, *, resume: bool = True) -> Outcome | None:
        """Fetch one file -> its outcome; None if it was cancelled before it started. See client.Client.download."""

    def download_many(
        self, jobs: Iterable[DownloadJob | None], *, resume: bool = True, tick: Callable[[], None] = lambda: None
    ) -> Iterator[Outcome]:
        """Fetch many files at once; yield each outcome as it comes. Arguments and errors: see `upload_many`."""

    def stat(self, path: bytes) -> RemoteFile | None:
        """None if the far side says that nothing is there; never a guess."""

    def read_small(self, path: bytes, most_bytes: int, *, tick: Callable[[], None] = lambda: None) -> bytes | None:
        """The first `most_bytes` + 1 bytes of a file; None if it cannot be read. tick: called while connecting."""

    def scan(
        self, paths: Sequence[bytes], leave_out: Callable[[bytes, bytes], None] | None = None
    ) -> list[list[RemoteEntry] | PermanentError]:
        """What is directly in each of these folders, sorted by name, many at once; or the error of one that cannot be
        listed: NotFound, PermissionDenied, ServerRefused, NameRefused (the server lists what is not a name).
        leave_out: called in any thread, for each of these at least once, with the folder and what is listed there and
        is not a name; the folder is then listed without it."""

    def move(self, source: bytes, dest: bytes) -> None:
        """Rename; a file at `dest` is replaced. Raises: NotFound, AlreadyExists (it cannot be replaced)."""

    def delete(self, path: bytes) -> None:
        """Delete a file. Raises: NotFound; ServerRefused for a folder."""

    def mkdir(self, path: bytes) -> None:
        """Make a folder and any missing parents. Raises: AlreadyExists or ServerRefused if a file is there."""

    def rmdir(self, path: bytes) -> None:
        """Delete an empty folder. Raises: NotFound; ServerRefused if it is not empty."""

    def cancel(self) -> None:
        """End the current operation, or else the next one, with Cancelled; parts are kept for a resume."""

    def disconnect(self) -> None:
        """Close the connections; the next operation opens new ones."""

    def close(self) -> None:
        """Disconnect, and close the journal unless it was given to us."""
