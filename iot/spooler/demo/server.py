"""The demo's server: the embedded one, which records every write that arrives."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from iot.sftp.server import EmbeddedServer

__all__ = ["Writes", "watched_server"]


@dataclass(slots=True)
class Writes:
    """What the server was asked to write.

    payload_bytes: content that arrived, repeats included. starts: for every handle, part and offset of its first write.
    """

    payload_bytes: int = 0
    starts: list[tuple[str, int]] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def resumed(self, dest: str) -> list[int]:
        """The offsets above 0 at which uploads to the parts of `dest` resumed."""
        return [offset for path, offset in self.starts if path.startswith(f"{dest}.") and offset > 0]


def watched_server(root: Path) -> tuple[EmbeddedServer, Writes]:
    """An embedded server for the folder `root`, with fresh keys and a random password, and its record of writes."""
    server = EmbeddedServer(root)
    writes = Writes()
    plain = server.session

    def watched(folder: bytes, send: Any) -> Any:
        session = plain(folder, send)
        _watch(session, writes, server.root)
        return session

    server.session = watched
    return server, writes


def _watch(session: Any, writes: Writes, root: str) -> None:
    answer = session.on_write
    known: set[bytes] = set()

    def on_write(message: Any) -> Any:
        at = message.packet.tell()
        handle, offset, length = message.get_binary(), message.get_int64(), message.get_int()
        message.packet.seek(at)
        path = Path(session.file(message).path.decode("utf-8", "surrogateescape"))
        message.packet.seek(at)
        with writes.lock:
            writes.payload_bytes += length
            if handle not in known:
                known.add(handle)
                writes.starts.append((str(path.relative_to(root)), offset))
        return answer(message)

    session.on_write = on_write
