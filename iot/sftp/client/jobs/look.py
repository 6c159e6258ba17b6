"""STAT for one or several paths."""

from __future__ import annotations

from iot.sftp.client.pipeline.job import Work, ask, ask_at_once, expect_attributes
from iot.sftp.client.protocol import packets
from iot.sftp.client.protocol.packets import Attributes, Code, Reply, Status
from iot.transfer.model import RemoteFile
from iot.transfer.terminal import quoted

__all__ = ["close_and_look", "look", "look_at_link", "look_at_once", "stands"]


def look(path: bytes) -> Work[RemoteFile | None]:
    """STAT; None if there is no such file. Raises: PermissionDenied, ServerRefused."""
    return (yield from look_at_once([path]))[0]


def look_at_link(path: bytes) -> Work[RemoteFile | None]:
    """LSTAT: of a link itself."""
    return _found(path, (yield from ask(packets.lstat(path))))


def stands(path: bytes) -> Work[bool]:
    """Whether anything has this name, be it a link that leads nowhere: some servers do not know LSTAT."""
    replies = yield from ask_at_once([packets.stat(path), packets.lstat(path)])
    return any(isinstance(reply, Attributes) for reply in replies) or _found(path, replies[0]) is not None


def look_at_once(paths: list[bytes]) -> Work[list[RemoteFile | None]]:
    """STAT several paths in one flight."""
    replies = yield from ask_at_once([packets.stat(path) for path in paths])
    return [_found(path, reply) for path, reply in zip(paths, replies, strict=True)]


def close_and_look(handle: bytes, path: bytes) -> Work[RemoteFile | None]:
    """CLOSE what was only read, whatever the answer, and STAT, in one flight."""
    _, found = yield from ask_at_once([packets.close(handle), packets.stat(path)])
    return _found(path, found)


def _found(path: bytes, reply: Reply) -> RemoteFile | None:
    if isinstance(reply, Status) and reply.code in (Code.NO_SUCH_FILE, Code.NO_SUCH_PATH):
        return None
    found = expect_attributes(reply, f"cannot stat {quoted(path)}")
    return RemoteFile(found.size, found.mtime_s, found.mode)
