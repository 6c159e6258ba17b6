"""Free space on the server: checked before a large file starts, and after a refusal that may mean a full disk.

Source: statvfs@openssh.com, OpenSSH PROTOCOL 4.4.
"""

from __future__ import annotations

import posixpath
from dataclasses import dataclass

from iot.sftp.client.jobs.context import Context
from iot.sftp.client.pipeline.job import Work, ask
from iot.sftp.client.protocol import packets, parsing
from iot.sftp.client.protocol.packets import Code, Reply, Request, Status
from iot.sftp.client.protocol.server import understood
from iot.transfer.errors import NoSpaceOnServer
from iot.transfer.terminal import human_bytes
from iot.transfer.window import PartState

__all__ = ["LARGE_BYTES", "SpaceQuestion", "full"]

LARGE_BYTES = 1024 * 1024
"""Files larger than this check before they start; smaller ones rely on a refusal."""
SPARE_BYTES = 1024 * 1024
"""What a large file leaves free for small ones."""
SLACK_BYTES = 64 * 1024
"""With less than this, a refusal means a full disk, whatever its text: the file system's metadata needs some."""


@dataclass(frozen=True, slots=True)
class SpaceQuestion:
    """How much is free for a large part, beside the parts that asked before it.

    requests: what to send, if the server can answer it; it may share a flight with the open. others_bytes: what each
    earlier part still needed when this was sent. Bytes they have written by the time the answer is read were not on the
    disk when the server counted.
    """

    requests: list[Request]
    part: bytes
    others_bytes: dict[bytes, int]

    @classmethod
    def about(cls, context: Context, part: bytes, state: PartState) -> SpaceQuestion:
        if not context.server.tells_free_space:
            return cls([], part, {})
        others = {other: it.size - it.acked for other, it in context.large.items() if other != part}
        context.large[part] = state
        return cls([packets.statvfs(part)], part, others)

    def check(self, context: Context, name: str, state: PartState, told: Reply) -> None:
        """Raises: NoSpaceOnServer when the rest of the file does not fit beside what other large files still need."""
        found = _free(context, told)
        if found is None:
            return
        others_bytes = sum(needed for other, needed in self.others_bytes.items() if other in context.large)
        free_bytes = max(0, found[0] - others_bytes)
        if free_bytes < state.size - state.acked + (0 if state.acked else SPARE_BYTES):
            del context.large[self.part]
            raise _no_space(name, state, free_bytes)


def full(context: Context, part: bytes, name: str, state: PartState) -> Work[NoSpaceOnServer | None]:
    """Servers report a full disk as a plain FAILURE: the error to raise if that is the reason, else None."""
    if not context.server.tells_free_space:
        return None
    found = _free(context, (yield from ask(packets.statvfs(posixpath.dirname(part) or b"."))))
    if found is None:
        return None
    free_bytes, free_inodes = found
    if free_inodes == 0 and not state.acked:
        return NoSpaceOnServer(f"no space on the server for {name}: no free inode")
    return _no_space(name, state, free_bytes) if free_bytes < state.size - state.acked + SLACK_BYTES else None


def _no_space(name: str, state: PartState, free_bytes: int) -> NoSpaceOnServer:
    """The part's own bytes count as free, because it is removed."""
    needed, free = human_bytes(state.size), human_bytes(free_bytes + state.acked)
    return NoSpaceOnServer(f"no space on the server for {name}: needs {needed}, {free} free")


def _free(context: Context, told: Reply) -> tuple[int, int | None] | None:
    """Free bytes and inodes; None where the server does not report them."""
    found = understood(told, parsing.parse_free_space)
    if found is None and not (isinstance(told, Status) and told.code != Code.OP_UNSUPPORTED):
        context.server.forget_extension(b"statvfs@openssh.com")
    return found
