"""Make remote folders, each asked for at most once on a connection."""

from __future__ import annotations

from iot.sftp.client.transfer.context import Context
from iot.sftp.client.transfer.names import parents
from iot.sftp.client.wire import packets
from iot.sftp.client.wire.job import Work, ask, expect_ok
from iot.sftp.client.wire.packets import Attributes, Status

S_IFMT = 0o170000
S_IFDIR = 0o040000


def make_parents(context: Context, path: bytes) -> Work[None]:
    """Make the folders above `path` that are missing, outermost first. Raises: PermissionDenied, ServerRefused ..."""
    for folder in parents(path):
        if folder not in context.folders:
            yield from make_folder(context, folder)


def make_folder(context: Context, folder: bytes) -> Work[bool]:
    """-> whether it is new. One that is there already is fine, also when another job made it meanwhile."""
    reply = yield from ask(packets.mkdir(folder))
    if isinstance(reply, Status) and reply.ok:
        context.folders.add(folder)
        return True
    there = yield from ask(packets.stat(folder))  # servers have no word of their own for "there already"
    if isinstance(there, Attributes) and (there.mode is None or there.mode & S_IFMT == S_IFDIR):
        context.folders.add(folder)
        return False
    expect_ok(reply, f"cannot make folder {folder!r}")
    return False
