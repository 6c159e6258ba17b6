"""What `check --connect` does: log in, and try at each destination all that a delivery needs, under a scratch name.

Only what every remote offers is used, so that the lines mean the same for each kind of server. Nothing of the agent's
own is touched: not its journal, no part of a file, and folders that had to be made are removed again.
"""

from __future__ import annotations

import contextlib
import encodings.idna  # noqa: F401  getaddrinfo wants it, when root's rights may be gone already
import enum
import io
import os
import posixpath
import secrets
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from typing import BinaryIO, NamedTuple, Protocol

from iot.spooler.config.settings import Settings
from iot.spooler.naming import Facts, shown
from iot.transfer import (
    AuthenticationError,
    ConfigurationError,
    CredentialsInvalid,
    LoginRefused,
    NoSpaceOnServer,
    NotFound,
    PermanentError,
    RemoteEntry,
    SourceUnreadable,
    TransferError,
    TransferResult,
    TransientError,
    human_bytes,
)

__all__ = ["Came", "Remote", "Step", "destinations", "sources", "tried"]

WHOLE, HALF = 512 * 1024, 256 * 1024


class Remote(Protocol):
    """What a trial asks of a client, whatever the protocol behind it."""

    def connect(self) -> None: ...

    def upload(self, source: BinaryIO, dest: str) -> TransferResult: ...

    def exists(self, path: str) -> bool: ...

    def scan(self, path: str) -> list[RemoteEntry]: ...

    def list(self, path: str, file_pattern: str | None = None) -> list[str]: ...

    def delete(self, path: str) -> None: ...

    def rmdir(self, path: str) -> None: ...


class Came(enum.Enum):
    """NO: the server does not offer it, and the agent does without. LATER: it may come right by itself."""

    GOOD = "ok"
    NO = "no"
    FAILED = "FAILED"
    LATER = "FAILED, now"
    NOT_TRIED = "not tried"


class Step(NamedTuple):
    """name: what was tried; of a destination, the destination, and came is None. means: for the deliveries."""

    name: str
    came: Came | None
    means: str


class Destination(NamedTuple):
    """scratch: the path of the file that is sent. outboxes: the names of those that deliver there."""

    scratch: str
    outboxes: tuple[str, ...]


class _Content(io.BytesIO):
    """A file in memory; a reading that goes beyond `ends` fails, as if the disk did."""

    def __init__(self, content: bytes, name: str, ends: int | None = None) -> None:
        super().__init__(content)
        self.name = name
        self._ends = ends

    def read(self, size: int | None = -1, /) -> bytes:
        if self._ends is not None and self.tell() + (size or 0) > self._ends:
            raise OSError("interrupted on purpose")
        return super().read(size)


def destinations(settings: Settings, now_ns: int) -> list[Destination]:
    """Each folder on the server once, with a name in it that no consumer takes: it begins with a dot, and ends as
    parts do."""
    name = f".iot-spooler-check.{secrets.token_hex(4)}.part"
    found: dict[str, list[str]] = {}
    for outbox in settings.outbox:
        if outbox.enabled:
            scratch = outbox.naming(settings.device_id).place(name, Facts(now_ns))
            found.setdefault(scratch, []).append(outbox.label)
    return [Destination(scratch, tuple(outboxes)) for scratch, outboxes in found.items()]


def sources(settings: Settings) -> list[tuple[str, str]]:
    """Each folder that is fetched from, and the name of its inbox."""
    enabled = (inbox for inbox in settings.inbox if inbox.enabled)
    return [(inbox.source_of(settings.device_id), inbox.label) for inbox in enabled]


def tried(
    remote: Remote, identity: str, wanted: Sequence[Destination], fetched: Sequence[tuple[str, str]] = ()
) -> Iterator[Step]:
    """Every step as it was done. identity: what the server proves itself by; "" where it does not. fetched: see
    `sources`."""
    connected = yield from _connect(remote, identity)
    for destination in wanted:
        outboxes = f"of outbox {', '.join(map(shown, destination.outboxes))}"
        yield Step(f"destination {shown(posixpath.dirname(destination.scratch) or '.')}", None, outboxes)
        if connected:
            yield from _try_at(remote, destination.scratch)
        else:
            yield Step("write", Came.NOT_TRIED, "")
    for source, label in fetched:
        yield Step(f"source {shown(source)}", None, f"of inbox {shown(label)}")
        yield _try_source(remote, source) if connected else Step("list", Came.NOT_TRIED, "")


def _try_source(remote: Remote, source: str) -> Step:
    """Nothing is fetched or changed there."""
    try:
        count = len(remote.scan(source))
    except TransferError as error:
        return _failure("list", error, "nothing would be fetched")
    return Step("list", Came.GOOD, f"the folder can be listed, and holds {count} names")


def _connect(remote: Remote, identity: str) -> Generator[Step, None, bool]:
    """The steps of a login; returns whether it succeeded."""
    steps = {"reach": "the server answers", identity: "it is the one that is trusted", "login": "the server lets us in"}
    steps.pop("", None)
    began = time.monotonic()
    try:
        remote.connect()
    except TransferError as error:
        yield from _until(steps, error, identity)
        return False
    steps["login"] += f", after {time.monotonic() - began:.2f} s"
    for name, means in steps.items():
        yield Step(name, Came.GOOD, means)
    return True


def _until(steps: Mapping[str, str], error: TransferError, identity: str) -> Iterator[Step]:
    """What went well, what did not, and what was not come to."""
    failed = _failed_step(error, identity)
    unsent = isinstance(error, CredentialsInvalid)  # found before anything is sent
    before = Came.NOT_TRIED if unsent else Came.GOOD
    seen = False
    for name, means in steps.items():
        if name == failed:
            yield _failure(name, error, "the agent would hold the server: nothing is sent until this is fixed")
            seen = True
        else:
            yield Step(name, Came.NOT_TRIED if seen else before, means if before is Came.GOOD and not seen else "")


def _failed_step(error: TransferError, identity: str) -> str:
    if isinstance(error, (LoginRefused, CredentialsInvalid, ConfigurationError)):
        return "login"
    return identity if isinstance(error, AuthenticationError) and identity else "reach"


def _failure(name: str, error: TransferError, means: str) -> Step:
    if isinstance(error, TransientError):
        return Step(name, Came.LATER, f"{error}; the agent tries again and again, and files wait")
    if isinstance(error, NoSpaceOnServer):
        means = "the agent would keep files that do not fit, and try them again"
    return Step(name, Came.FAILED, f"{error}; {means}")


def _try_at(remote: Remote, scratch: str) -> Iterator[Step]:
    made = _missing_folders(remote, scratch)
    stands = lost = False
    deleted: Step | None = None
    try:
        for name, work in (("write", _write), ("resume", _resume), ("rename", _rename)):
            try:
                steps = work(remote, scratch)
            except TransferError as error:
                lost = isinstance(error, TransientError)
                yield _failure(name, error, "files would fail like this, and go to quarantine")
                break
            stands = True
            yield from steps
        if stands and not lost:
            stands, deleted = False, _delete(remote, scratch)
            yield deleted
    except BaseException:  # whoever asked has stopped
        _clean(remote, scratch, made, stands=stands)
        raise
    left = [scratch, *made] if lost else _clean(remote, scratch, made, stands=stands)
    if left and (deleted is None or deleted.came is Came.GOOD):  # else that has said it
        means = f"what this check made may still be there, also with an ending: {', '.join(map(shown, left))}"
        yield Step("clean up", Came.LATER, f"{means}; remove it by hand")


def _missing_folders(remote: Remote, scratch: str) -> list[str]:
    """The deepest first."""
    found = []
    folder = posixpath.dirname(scratch)
    with contextlib.suppress(TransferError):  # the write says it
        while folder.strip("/") and not remote.exists(folder):
            found.append(folder)
            folder = posixpath.dirname(folder)
    return found


def _write(remote: Remote, scratch: str) -> list[Step]:
    result = remote.upload(_Content(b"scratch\n", scratch), scratch)
    written = Step("write", Came.GOOD, "a file was sent, proven and given its name")
    if result.durable:
        return [written, Step("fsync", Came.GOOD, "the server confirms that a file is on its disk")]
    means = "the server confirms no disk: a file leaves its outbox only publish_grace_s after it was sent"
    return [written, Step("fsync", Came.NO, means)]


def _resume(remote: Remote, scratch: str) -> list[Step]:
    content = os.urandom(WHOLE)
    with contextlib.suppress(SourceUnreadable):
        remote.upload(_Content(content, scratch, HALF), scratch)
    result = remote.upload(_Content(content, scratch), scratch)
    if result.resumed_at:
        where = human_bytes(result.resumed_at)
        return [Step("resume", Came.GOOD, f"an upload that was broken off has gone on at {where}")]
    return [Step("resume", Came.NO, "an upload that is broken off starts over")]


def _rename(remote: Remote, scratch: str) -> list[Step]:
    remote.upload(_Content(b"another\n", scratch), scratch)
    return [Step("rename", Came.GOOD, "a file that was there already has been replaced")]


def _delete(remote: Remote, scratch: str) -> Step:
    try:
        remote.delete(scratch)
    except TransferError as error:
        means = f"{scratch} is left there, and so are parts of files that are given up"
        return Step("delete", Came.FAILED, f"{error}; {means}")
    return Step("delete", Came.GOOD, "nothing of this check is left there")


def _clean(remote: Remote, scratch: str, made: Sequence[str], *, stands: bool) -> list[str]:
    """What a step that failed has left -> what could not be removed."""
    left = []

    def removed(work: Callable[[str], object], path: str) -> None:
        try:
            work(path)
        except NotFound:
            pass  # it was never made
        except TransferError:
            left.append(path)

    if stands:
        removed(remote.delete, scratch)
    try:
        for part in remote.list(posixpath.dirname(scratch) or ".", posixpath.basename(scratch)):
            removed(remote.delete, part)
    except PermanentError:
        pass  # the folder may not be there, or not be listed
    except TransferError:
        left.append(scratch)
    for folder in made:
        removed(remote.rmdir, folder)
    return list(dict.fromkeys(left))
