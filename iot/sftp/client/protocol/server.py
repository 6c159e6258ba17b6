"""What this server supports: what it announced, its limits, and what it is known to refuse."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from typing import TypeVar

from iot.sftp.client.protocol.packets import Extended, Reply
from iot.transfer.errors import ProtocolError

T = TypeVar("T")
SAFE_DATA_BYTES = 32 * 1024
SAFE_SLOTS = 64
HARDLINK = b"hardlink@openssh.com"


class Refusal(str, Enum):
    """Operations that some servers refuse although the protocol has them; learned from their answers."""

    RESUME = "resume"  # opening an existing part without truncation, or writing at an offset
    WRITE_CREATE = "write-create"  # opening with WRITE|CREATE: servers that map flags to fopen modes need READ|WRITE
    READ_BACK = "read-back"  # reading what was uploaded (write-only drop box)
    FSYNC = "fsync"
    POSIX_RENAME = "posix-rename"
    CHECK_FILE = "check-file"


@dataclass(slots=True)
class Server:
    """What is known about one server.

    banner, host_key: its identity. extensions: from its VERSION packet, available with the first answer.
    max_read, max_write: payload bytes per request. max_handles: maximum number of open files.
    on_refusal: called when a new refusal is learned.
    """

    banner: str
    host_key: str
    extensions: dict[bytes, bytes]
    max_read: int = SAFE_DATA_BYTES
    max_write: int = SAFE_DATA_BYTES
    max_handles: int = SAFE_SLOTS
    refused: set[Refusal] = field(default_factory=set)
    on_refusal: Callable[[Refusal], None] = field(default=lambda _: None)

    @property
    def in_order(self) -> bool:
        """Whether it handles requests strictly in order, so that dependent ones may share a flight."""
        return handles_in_order(self.banner)

    @property
    def can_fsync(self) -> bool:
        return b"fsync@openssh.com" in self.extensions and Refusal.FSYNC not in self.refused

    @property
    def can_replace(self) -> bool:
        """Whether it can atomically rename over an existing file."""
        return b"posix-rename@openssh.com" in self.extensions and Refusal.POSIX_RENAME not in self.refused

    @property
    def can_link(self) -> bool:
        """Whether it makes hard links."""
        return HARDLINK in self.extensions

    @property
    def tells_free_space(self) -> bool:
        """Whether to ask. With OpenSSH, which answers, the first files begin before VERSION has come."""
        return b"statvfs@openssh.com" in self.extensions or (self.in_order and not self.extensions)

    def refuses(self, what: Refusal) -> bool:
        return what in self.refused

    def forget_extension(self, name: bytes) -> None:
        """It is announced but not usable: do not ask again on this connection."""
        self.extensions.pop(name, None)

    def learn(self, what: Refusal) -> None:
        if what not in self.refused:
            self.refused.add(what)
            self.on_refusal(what)


def handles_in_order(banner: str) -> bool:
    """See Server.in_order."""
    return "OpenSSH" in banner


def understood(reply: Reply, parse: Callable[[bytes], T]) -> T | None:
    """The answer of an optional extension: None if it was refused or is invalid.

    The rules of the protocol itself are enforced, but an unreadable answer to an optional request is ignored and does
    not break the link.
    """
    if not isinstance(reply, Extended):
        return None
    try:
        return parse(reply.value)
    except ProtocolError:
        return None
