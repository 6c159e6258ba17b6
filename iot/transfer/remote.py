"""What a remote is: a place that files are sent to and fetched from, whatever the protocol.

Remote   what the facade, the command line and the spooler ask of it. SFTP implements it with its own pipeline.
Store    what a protocol whose library blocks implements instead: one connection's worth of plain calls.
         parallel.py makes a Remote of it.

What is true of a store
    - The token is all the state that an upload has. One that was issued on one connection is valid on any other, and in
      a later process, for `Capabilities.token_life_s`.
    - It is used by one thread at a time. `abort` alone may be called by another, at any moment.
    - Every call returns, or raises an error of iot.transfer, within the store's own deadlines: foreign exceptions
      (OSError, ftplib.Error, http.client.HTTPException, ssl.SSLError ...) are translated at the store's edge, with the
      cause kept. It never retries: the caller does.
    - Any call may raise LinkLost or Timeout (then the connection is abandoned), ServerBusy (the connection is still
      good), AuthenticationError, PermissionDenied, NameRefused or ServerRefused. Other errors are listed with the call.
    - Unknown is never "gone": a file, part or token is missing only when the far side says so.
    - Paths are bytes, with slashes, as the user wrote them. They are relative to the login folder unless they begin
      with a slash. Sizes, offsets and spans are bytes.
"""

from __future__ import annotations

import enum
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import BinaryIO, Protocol, TypeAlias

from iot.transfer.model import Evidence, Failure, ProgressCallback, RemoteFile, Span, Token, TransferResult, UploadJob

__all__ = [
    "Ack",
    "Capabilities",
    "Entry",
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
KIB = 1024


class Resume(enum.Enum):
    """NONE: an upload that was interrupted starts over. OFFSET: it goes on at an offset. PARTS: part by part."""

    NONE = "none"
    OFFSET = "offset"
    PARTS = "parts"


class Publish(enum.Enum):
    """What gives the file its name.

    RENAME: the part is renamed. COMMIT: a call of its own puts the parts together. LAST_BYTE: the write that completes
    it, which is held back until the source was looked at again. SERVER: the far side, in its own time.
    """

    RENAME = "rename"
    COMMIT = "commit"
    LAST_BYTE = "last byte"
    SERVER = "server"


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What this remote can really do, not the least that all of them can. Some of it is known only after `connect`.

    replaces: `publish` takes the place of an existing file in one step; there is no moment without a file.
    creates_only: `publish(replace=False)` is refused by the far side itself where something stands, without a race.
    durable: an answered write, and an answered publish, survive the far side's power loss.
    reads_back: a part can be read before it is published.
    named_tokens: the same upload always begins with the same token, so that a crash between `begin` and its checkpoint
        leaves nothing that is not found again.
    hashes: what the far side computes itself, by hashlib's names, best first.
    write_bytes: one `write` carries at most so many; None: all that is left is one write.
    write_multiple: every write but the last is a multiple of it.
    block_bytes: the body of a write comes in blocks of at most so many.
    connections: so many stores may be used side by side.
    token_life_s: how long a token is good without being used; None: for ever.
    keeps_times, keeps_mode: `publish` can give the file the source's modification time, or permission bits.
    """

    resume: Resume
    publish: Publish
    replaces: bool = True
    creates_only: bool = False
    durable: bool = False
    reads_back: bool = True
    named_tokens: bool = True
    hashes: tuple[str, ...] = ()
    write_bytes: int | None = None
    write_multiple: int = 1
    block_bytes: int = 256 * KIB
    connections: int = 4
    token_life_s: float | None = None
    keeps_times: bool = False
    keeps_mode: bool = False


@dataclass(frozen=True, slots=True)
class Meta:
    """What goes with an upload beside its bytes.

    part: the name under which it may travel, in the folder of the destination. It says whose it is: what stands there
        is ours, and may be removed. Stores without part names leave it unread.
    mtime_s, mode: what the file is to keep, best effort; None: nothing to be kept.
    make_dirs: folders of the destination that are missing are made.
    """

    part: bytes
    mtime_s: int | None = None
    mode: int | None = None
    make_dirs: bool = True


# -- where an upload stands


@dataclass(frozen=True, slots=True)
class Offset:
    """The far side holds the bytes [0, end), as it says."""

    end: int


@dataclass(frozen=True, slots=True)
class Parts:
    """The far side holds these spans, in order, as it says."""

    spans: tuple[Span, ...]


@dataclass(frozen=True, slots=True)
class Gone:
    """The far side does not know the token any more: a fresh start, without a strike against the file."""


@dataclass(frozen=True, slots=True)
class Published:
    """The far side says that this upload is complete and has its name. The name is then looked at, and proven."""


Standing: TypeAlias = Offset | Parts | Gone | Published


@dataclass(frozen=True, slots=True)
class Ack:
    """The answer to a write.

    end: the far side has confirmed the bytes of the span up to here; what is behind it is sent again.
    durable: they are on the far side's disk, as far as it can be known.
    """

    end: int
    durable: bool = False


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of a listing. name: without any folder; whoever reads it refuses one with a slash."""

    name: bytes
    is_folder: bool


class Store(Protocol):
    """One connection to the far side; made without connecting. See the head of this file for what holds for all calls.

    An upload in the order of its calls, each of which may be the last one that a device lives to see:

        begin -> write ... -> where (its size) -> verify or read_part, as the settings ask -> publish
        where -> read_part (suspect spans) -> write ...            a later attempt, on another connection
        abandon                                                    it will not be tried again, or starts over
    """

    @property
    def capabilities(self) -> Capabilities:
        """Before `connect`: what the protocol can do at best."""

    # -- the connection

    def connect(self) -> None:
        """Connect and log in; called once, before any other call.

        Raises: LinkLost, Timeout, ServerBusy (too many connections), AuthenticationError and its kinds,
            ConfigurationError.
        """

    def check(self) -> None:
        """One real round trip, with a deadline: the connection is alive, and is kept from being taken for idle."""

    def abort(self) -> None:
        """End whatever runs, from any thread: the call under way raises LinkLost within a second, every later one at
        once. Takes no lock, never blocks, may be called twice, also while `connect` runs."""

    def close(self) -> None:
        """Say goodbye if that takes no time, and free everything. Never raises; may be called twice."""

    # -- uploads

    def begin(self, dest: bytes, size: int, meta: Meta) -> Token:
        """Prepare an upload of `size` bytes -> its token, which is journaled before the first byte where the token
        could not be found again.

        A part that an earlier attempt has left under the same name is removed and made anew, never emptied: what a
        lost connection still has on its way to the old one cannot reach the new one.

        Raises: NoSpaceOnServer when the far side reports too little space; NotFound (no folder, and make_dirs off).
        """

    def where(self, token: Token) -> Standing:
        """How much the far side holds. What it says is believed as far as acknowledgements are durable.

        An object under the token's name that is no regular file (a folder, a link) raises ServerRefused.
        """

    def write(self, token: Token, span: Span, body: Iterable[bytes]) -> Ack:
        """Put the bytes of `span` at its place: exactly span.length bytes, in blocks that are never empty.

        span.start is 0, or where the far side stands (`where`, or an earlier Ack), or before that: then the
        bytes there are replaced. Never by appending: the same write done twice leaves the same bytes. What the part
        holds behind the span afterwards is not relied upon.

        `body` is read once, in this thread; what it raises (SourceChanged, Cancelled ...) passes through unchanged,
        after the store has ended the transfer in such a way that the connection is good for the next call or raises
        LinkLost there. A write of length 0 (an empty file) leaves a part of size 0.

        Raises: NoSpaceOnServer; Gone is no error here but NotFound; Unsupported when the far side refuses to go on
            at an offset: the upload starts over.
        """

    def read_part(self, token: Token, span: Span) -> Iterator[bytes]:
        """The bytes of a span of the part, in blocks, before it is published; fewer where the part ends earlier.

        Whoever reads may stop in the middle and close the iterator: the connection is good for the next call then.

        Raises: NotFound; Unsupported or PermissionDenied where parts cannot be read.
        """

    def verify(self, token: Token, digests: Mapping[str, str]) -> Evidence | None:
        """Let the far side compute a hash of the whole part, and compare -> what the proof rests on.

        digests: algorithm -> lower-case hex digest; those of `Capabilities.hashes` that the caller has computed. None
        where the far side cannot after all (asked for and refused): the caller reads back then.

        Raises: ProofFailed when they differ.
        """

    def publish(self, token: Token, dest: bytes, meta: Meta, *, replace: bool) -> bool:
        """Give the complete part its name, in one step -> whether content and name survive the far side's power loss.

        replace: a file at `dest` is replaced; else it is AlreadyExists, and stays as it is. Times and mode of `meta`
        are kept best effort: a refusal of them is not an error. The answer may be lost: the caller then asks `where`,
        looks at `dest` and compares.

        Raises: AlreadyExists, also where the far side cannot replace; NotFound when the part is gone; ProofFailed when
            the far side's own check failed; NoSpaceOnServer.
        """

    def confirm(self, dest: bytes) -> bool:
        """Bring what an earlier attempt has published to the far side's disk -> whether content and name are there;
        False where that cannot be asked for, and for a file that is gone."""

    def abandon(self, token: Token) -> None:
        """Remove what the far side holds of this upload. One that is gone is fine. A published file is not touched."""

    # -- downloads and paths

    def stat(self, path: bytes) -> RemoteFile | None:
        """None where the far side says that there is nothing. `mode` holds at least the bits of the kind (folder,
        regular file) where the far side reports that much; `mtime_s` is UTC."""

    def read(self, path: bytes, offset: int) -> Iterator[bytes]:
        """A file's bytes from an offset to its end, in blocks; the iterator ends only at the far side's end of file.

        Whoever reads may stop in the middle and close the iterator, as with `read_part`. An offset at the end gives
        nothing; one behind it also gives nothing, or raises ServerRefused.

        Raises: NotFound; Unsupported where reading cannot begin at an offset: the caller starts at 0.
        """

    def digest(self, path: bytes, algorithm: str) -> str | None:
        """The far side's own hash of a published file, as lower-case hex; None where it offers none.

        Raises: NotFound.
        """

    def list(self, path: bytes) -> Iterator[Entry]:
        """What is in a folder, without "." and "..", in any order; links as what they lead to.

        Raises: NotFound, also where `path` is no folder.
        """

    def move(self, source: bytes, dest: bytes, *, make_dirs: bool = True) -> None:
        """Rename a file or folder; a file at `dest` is replaced in one step where `Capabilities.replaces`.

        Raises: NotFound, AlreadyExists (it cannot be replaced).
        """

    def delete(self, path: bytes) -> None:
        """Delete a file. Raises: NotFound; ServerRefused for a folder."""

    def mkdir(self, path: bytes) -> None:
        """Make a folder and the missing ones above it; one that is there is fine. Raises: AlreadyExists (a file)."""

    def rmdir(self, path: bytes) -> None:
        """Delete an empty folder. Raises: NotFound, ServerRefused (not empty, no folder)."""


class Remote(Protocol):
    """A place, with its connections, journal and retries: what a facade and the spooler work with.

    One operation runs at a time. `cancel` may be called from any thread or signal handler. Errors are those of
    iot.transfer; a lost link is met with new connections, as often as the settings say.
    """

    @property
    def capabilities(self) -> Capabilities: ...

    def connect(self) -> None:
        """Connect now instead of on first use. Raises: TransientError, AuthenticationError, ConfigurationError."""

    def is_connected(self) -> bool:
        """Whether the far side answers on the present connection. Raises: TransientError ..."""

    def upload(self, job: UploadJob, *, resume: bool = True, sha256: bool = False) -> Outcome | None:
        """Send one file -> its outcome; None when it was cancelled before it began."""

    def upload_many(
        self,
        jobs: Iterable[UploadJob | None],
        *,
        hold_checkpoints: bool = False,
        tick: Callable[[], None] = lambda: None,
    ) -> Iterator[Outcome]:
        """Send many files at once; yield each outcome as it comes.

        jobs: pulled one at a time as there is room; None means "none right now, ask again soon" (within 0.25 s).
        hold_checkpoints: keep those of successes until `settle`. tick: called at least every 0.25 s, whatever the far
        side does.

        Raises: AuthenticationError, TransientError (cannot connect), LocalStateError, ConfigurationError.
        """

    def settle(self, results: Iterable[TransferResult]) -> None:
        """That these are delivered is on record elsewhere, durably: their checkpoints may go."""

    def discard(self, uploads: Iterable[tuple[str, str]]) -> None:
        """These uploads (source, destination) will not be tried again: what an attempt has left there is removed,
        beside later uploads. Durable when it returns."""

    def download(
        self,
        source: bytes,
        dest: str | os.PathLike[str] | BinaryIO,
        progress: ProgressCallback | None = None,
        *,
        resume: bool = True,
        sha256: bool | str = False,
    ) -> TransferResult:
        """Fetch one file: part, proof, fsync, rename.

        Raises: TransientError, NotFound, SourceChanged, ProofFailed, LocalStateError ...
        """

    def stat(self, path: bytes) -> RemoteFile | None:
        """None where the far side says that there is nothing; never a guess."""

    def list(self, path: bytes, *, folders: bool) -> list[bytes]:
        """Paths of the files, or folders, right below a folder, sorted. Raises: NotFound, NameRefused ..."""

    def move(self, source: bytes, dest: bytes) -> None:
        """Rename; a file at `dest` is replaced. Raises: NotFound, AlreadyExists (it cannot be replaced)."""

    def delete(self, path: bytes) -> None:
        """Delete a file. Raises: NotFound, ServerRefused (a folder)."""

    def mkdir(self, path: bytes) -> None:
        """Make a folder and the missing ones above it."""

    def rmdir(self, path: bytes) -> None:
        """Delete an empty folder. Raises: NotFound, ServerRefused (not empty) ..."""

    def cancel(self) -> None:
        """End the operation under way, or else the next one, with Cancelled; parts are kept for a resume."""

    def disconnect(self) -> None:
        """Close the connections; the next operation opens new ones."""

    def close(self) -> None:
        """Disconnect, and close the journal unless it was given to us."""
