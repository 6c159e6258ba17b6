"""Stores for the tests of parallel.py: a real folder whose calls fail on request; a far side with upload sessions."""

from __future__ import annotations

import itertools
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from iot.folder.place import Place
from iot.folder.store import FolderStore
from iot.transfer.errors import AlreadyExists, LinkLost, NotFound
from iot.transfer.model import Evidence, RemoteEntry, RemoteFile, Span
from iot.transfer.parallel import ParallelRemote
from iot.transfer.remote import (
    Ack,
    Capabilities,
    Gone,
    Meta,
    Offset,
    Publish,
    Published,
    Resume,
    Standing,
    Store,
    Token,
)
from iot.transfer.settings import TransferSettings

__all__ = ["CALLS", "Faults", "SessionSide", "folder_remote", "remote_of"]

CALLS = ("connect", "begin", "write", "where", "publish")
"""What every upload needs."""


@dataclass
class Faults:
    """What goes wrong, and what was called, over all stores of one remote.

    before, after: (call, how many of that name came before it) -> what is raised before, or after, it is done.
    hang: calls that block until they are aborted; deaf: not even then.
    """

    before: dict[tuple[str, int], BaseException] = field(default_factory=dict)
    after: dict[tuple[str, int], BaseException] = field(default_factory=dict)
    hang: set[tuple[str, int]] = field(default_factory=set)
    deaf: set[tuple[str, int]] = field(default_factory=set)
    answer: dict[str, Callable[[Any], Any]] = field(default_factory=dict)
    capabilities: dict[str, Any] = field(default_factory=dict)
    calls: list[str] = field(default_factory=list)
    stores: list[FaultyStore] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    lock: threading.Lock = field(default_factory=threading.Lock)
    hanging: threading.Event = field(default_factory=threading.Event)

    def number(self, name: str) -> int:
        with self.lock:
            self.calls.append(name)
            self.counts[name] += 1
            return self.counts[name] - 1


class FaultyStore:
    """A store whose calls go wrong as `faults` says."""

    def __init__(self, store: Store, faults: Faults) -> None:
        self._store = store
        self._faults = faults
        self._aborted = threading.Event()
        faults.stores.append(self)

    @property
    def capabilities(self) -> Capabilities:
        return replace(self._store.capabilities, **self._faults.capabilities)

    def abort(self) -> None:
        self._aborted.set()
        self._store.abort()

    def close(self) -> None:
        self._store.close()

    def __getattr__(self, name: str) -> Any:
        def call(*arguments: Any, **keywords: Any) -> Any:
            faults, number = self._faults, self._faults.number(name)
            key = (name, number)
            if key in faults.hang or key in faults.deaf:
                faults.hanging.set()
                self._aborted.wait(30.0)
                if key in faults.deaf:
                    threading.Event().wait(5.0)
                raise LinkLost("aborted")
            if key in faults.before:
                raise faults.before[key]
            result = getattr(self._store, name)(*arguments, **keywords)
            if key in faults.after:
                raise faults.after[key]
            return faults.answer.get(name, lambda same: same)(result)

        return call


def remote_of(
    make: Callable[[], Store], state: Path | None, faults: Faults | None = None, journal: Any = None, **settings: Any
) -> ParallelRemote:
    told = faults or Faults()
    values = {"backoff_s": 0.0, "state_dir": state, "attempts": 3, **settings}
    return ParallelRemote(lambda: FaultyStore(make(), told), "far", TransferSettings(**values), journal)


def folder_remote(root: Path, state: Path | None, faults: Faults | None = None, **settings: Any) -> ParallelRemote:
    """A remote whose far side is a folder."""
    root.mkdir(exist_ok=True)
    connections = settings.pop("connections", 4)
    trust = settings.get("server_durability") == "trust"
    place = Place(str(root))
    return remote_of(lambda: FolderStore(place, trust=trust, connections=connections), state, faults, **settings)


@dataclass
class SessionSide:
    """A far side with upload sessions: a token that it issues, and a last byte that publishes."""

    files: dict[bytes, bytes] = field(default_factory=dict)
    sessions: dict[bytes, tuple[bytes, int, bytearray]] = field(default_factory=dict)
    done: set[bytes] = field(default_factory=set)
    numbers: Iterator[int] = field(default_factory=lambda: itertools.count(1))
    multiple: int = 1

    def store(self) -> SessionStore:
        return SessionStore(self)


class SessionStore:
    def __init__(self, side: SessionSide) -> None:
        self._side = side
        self.capabilities = Capabilities(
            resume=Resume.OFFSET,
            publish=Publish.LAST_BYTE,
            named_tokens=False,
            reads_back=False,
            write_bytes=4 * side.multiple if side.multiple > 1 else None,
            write_multiple=side.multiple,
            block_bytes=1024,
            connections=2,
        )

    def connect(self) -> None: ...

    def check(self) -> None: ...

    def abort(self) -> None: ...

    def close(self) -> None: ...

    def begin(self, dest: bytes, size: int, meta: Meta) -> Token:
        token = b"session-%d" % next(self._side.numbers)
        self._side.sessions[token] = (dest, size, bytearray())
        return Token(token)

    def where(self, token: Token) -> Standing:
        if token in self._side.done:
            return Published()
        session = self._side.sessions.get(token)
        return Offset(len(session[2])) if session is not None else Gone()

    def write(self, token: Token, span: Span, body: Iterable[bytes]) -> Ack:
        if token not in self._side.sessions:
            raise NotFound("no such session")
        dest, size, content = self._side.sessions[token]
        del content[span.start :]
        for block in body:
            content += block
        if len(content) == size:
            self._side.files[dest] = bytes(content)
            del self._side.sessions[token]
            self._side.done.add(bytes(token))
        else:
            assert span.length % self._side.multiple == 0
        return Ack(span.end, durable=True)

    def read_part(self, token: Token, span: Span) -> Iterator[bytes]:
        raise NotImplementedError

    def verify(self, token: Token, digests: Mapping[str, str]) -> Evidence | None:
        return None

    def publish(self, token: Token, dest: bytes, meta: Meta, *, replace: bool) -> bool:
        if token not in self._side.done:
            raise AlreadyExists("not complete")
        return True

    def confirm(self, dest: bytes) -> bool:
        return True

    def abandon(self, token: Token) -> None:
        self._side.sessions.pop(token, None)

    def stat(self, path: bytes) -> RemoteFile | None:
        content = self._side.files.get(path)
        return RemoteFile(len(content)) if content is not None else None

    def read(self, path: bytes, offset: int) -> Iterator[bytes]:
        content = self._side.files[path][offset:]
        for start in range(0, len(content), 1024):
            yield content[start : start + 1024]

    def digest(self, path: bytes, algorithm: str) -> str | None:
        return None

    def list(self, path: bytes) -> Iterator[RemoteEntry]:
        yield from ()

    def move(self, source: bytes, dest: bytes, *, make_dirs: bool = True) -> None: ...

    def delete(self, path: bytes) -> None: ...

    def mkdir(self, path: bytes) -> None: ...

    def rmdir(self, path: bytes) -> None: ...
