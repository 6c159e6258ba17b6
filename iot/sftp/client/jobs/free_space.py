"""Space on the server's disk: asked for before a large file begins, and when a refusal may mean that there is none.

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
"""Files beyond this ask before they begin; smaller ones find out by a refusal."""
SPARE_BYTES = 1024 * 1024
"""What a large file leaves to small ones."""
SLACK_BYTES = 64 * 1024
"""A disk so full refuses for want of space, whatever it says: its own bookkeeping needs some."""


@dataclass(frozen=True, slots=True)
class SpaceQuestion:
    """How much is free for a large part, beside those that asked before it.

    requests: the question, if the server can answer it; it may share a flight with the opening. others_bytes: what each
    earlier part still needed when it was asked. What they have written by the time the answer is looked at was not
    written yet when the server counted.
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
        """Raises: NoSpaceOnServer when the rest of the file does not fit beside what the others still need."""
        found = _free(context, told)
        if found is None:
            return
        others_bytes = sum(needed for other, needed in self.others_bytes.items() if other in context.large)
        free_bytes = max(0, found[0] - others_bytes)
        if free_bytes < state.size - state.acked + (0 if state.acked else SPARE_BYTES):
            del context.large[self.part]
            raise _no_space(name, state, free_bytes)


def full(context: Context, part: bytes, name: str, state: PartState) -> Work[NoSpaceOnServer | None]:
    """Servers say FAILURE for a full disk as for anything else: the error to tell if it is that, else None."""
    if not context.server.tells_free_space:
        return None
    found = _free(context, (yield from ask(packets.statvfs(posixpath.dirname(part) or b"."))))
    if found is None:
        return None
    free_bytes, free_inodes = found
    if free_inodes == 0 and not state.acked:
        return NoSpaceOnServer(f"no room on the server for {name}: no inode is free; waiting for room")
    return _no_space(name, state, free_bytes) if free_bytes < state.size - state.acked + SLACK_BYTES else None


def _no_space(name: str, state: PartState, free_bytes: int) -> NoSpaceOnServer:
    """What the part holds counts as free: it is dropped."""
    needed, free = human_bytes(state.size), human_bytes(free_bytes + state.acked)
    return NoSpaceOnServer(f"no room on the server for {name}: needs {needed}, {free} free; waiting for room")


def _free(context: Context, told: Reply) -> tuple[int, int | None] | None:
    """Bytes and inodes; None where the server does not tell."""
    found = understood(told, parsing.parse_free_space)
    if found is None and not (isinstance(told, Status) and told.code != Code.OP_UNSUPPORTED):
        context.server.forget_extension(b"statvfs@openssh.com")
    return found
