"""A server that misbehaves in one way: the embedded server with one method or two replaced."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from paramiko import Message
from servers.embedded import Embedded

from iot.sftp.server.files import SFTPSession
from iot.sftp.server.protocol import RequestRefused

__all__ = ["KIB", "Misbehaving", "Quirk", "ahead"]

KIB = 1024


class Misbehaving(Embedded):
    """An embedded server whose sessions are of one quirk.

    options: set on the quirk, instead of its class attributes.
    """

    name = "misbehaving"

    def __init__(self, root: Path, quirk: type[Quirk], **options: Any) -> None:
        self.quirk = type(quirk.__name__, (quirk,), options)
        super().__init__(root, session=lambda folder, send: self.quirk(folder, send, self))
        self.active = True
        self.hits = 0
        self.counted = 0

    def __repr__(self) -> str:
        return f"{self.quirk.__name__} at {self.host}:{self.port}"


class Quirk(SFTPSession):
    """What the quirks share: the server that they belong to; counts on it outlive a session."""

    def __init__(self, root: bytes, send: Callable[[bytes], None], server: Misbehaving) -> None:
        super().__init__(root, send)
        self.server = server
        self.closed = False

    def hit(self) -> bool:
        """Whether to misbehave now; counted."""
        self.server.hits += self.server.active
        return self.server.active

    def refuse(self, code: int, reason: str) -> None:
        if self.hit():
            raise RequestRefused(code, reason)

    def count(self) -> int:
        self.server.counted += 1
        return self.server.counted

    def close(self) -> None:
        self.closed = True
        super().close()


def ahead(message: Message) -> Message:
    """The rest of a message, to be read without taking it from the one who will answer it."""
    return Message(message.get_remainder())
