"""What this server can do: what it announced, what its limits are, and what it was learned to refuse."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum

from iot.sftp.client.wire import packets, parsing
from iot.sftp.client.wire.job import Work, ask
from iot.sftp.client.wire.packets import Extended

SAFE_DATA_BYTES = 32 * 1024
SAFE_SLOTS = 64


class Refusal(str, Enum):
    """What a server may refuse although the protocol has it; learned from its answers."""

    RESUME = "resume"  # opening an existing part without truncation, or writing at an offset
    READ_BACK = "read-back"  # reading what was uploaded (write-only drop box)
    RENAME = "rename"
    FSYNC = "fsync"
    POSIX_RENAME = "posix-rename"
    CHECK_FILE = "check-file"


@dataclass(slots=True)
class Server:
    """One server, as far as it is known.

    banner, host_key: who it is. extensions: names from its VERSION packet.
    max_read, max_write: payload bytes of one request. max_handles: open files at once.
    on_refusal: told when something new is learned.
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
        """Whether it handles requests strictly one after the other, so that dependent ones may share a flight."""
        return "OpenSSH" in self.banner

    @property
    def can_fsync(self) -> bool:
        return b"fsync@openssh.com" in self.extensions and Refusal.FSYNC not in self.refused

    @property
    def can_replace(self) -> bool:
        """Whether a rename over an existing file is one step."""
        return b"posix-rename@openssh.com" in self.extensions and Refusal.POSIX_RENAME not in self.refused

    @property
    def tells_free_space(self) -> bool:
        return b"statvfs@openssh.com" in self.extensions

    def refuses(self, what: Refusal) -> bool:
        return what in self.refused

    def learn(self, what: Refusal) -> None:
        if what not in self.refused:
            self.refused.add(what)
            self.on_refusal(what)


def ask_limits(server: Server) -> Work[None]:
    """Ask for the limits where the server can tell them (limits@openssh.com); else the safe ones stay."""
    if b"limits@openssh.com" not in server.extensions:
        return
    reply = yield from ask(packets.limits())
    if not isinstance(reply, Extended):
        return
    _, read_bytes, write_bytes, handles = parsing.parse_limits(reply.value)
    server.max_read = read_bytes or server.max_read
    server.max_write = write_bytes or server.max_write
    server.max_handles = handles or server.max_handles
