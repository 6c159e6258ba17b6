"""Make remote folders, requesting each at most once per connection."""

from __future__ import annotations

import posixpath

from iot.sftp.client.jobs.context import Context
from iot.sftp.client.pipeline.job import Work, ask, ask_all, expect_ok, expect_status
from iot.sftp.client.protocol import packets
from iot.sftp.client.protocol.packets import Attributes, Code, Reply, Request, Status
from iot.transfer.names import parents
from iot.transfer.terminal import quoted

S_IFMT = 0o170000
S_IFDIR = 0o040000


def make_parents(context: Context, path: bytes) -> Work[None]:
    """Make missing parents of `path`, outermost first. Raises: PermissionDenied, NoSpaceOnServer, ServerRefused."""
    for folder in parents(path):
        if folder not in context.folders:
            yield from make_folder(context, folder)


def create_in_folder(context: Context, path: bytes, requests: list[Request]) -> Work[list[Reply]]:
    """Send requests of which the first creates `path`, after making its missing parents -> the answers.

    A folder not yet used on this connection is requested in the same flight: no round trip is wasted whether it exists
    or not, and no later file requests it again. It is known to exist once a file was created in it; whoever needs a
    folder below it earlier requests both.
    """
    folder = posixpath.dirname(path)
    asked = folder in context.folders or folder in context.asked_folders or folder in (b"", b"/")
    if context.options.make_dirs and not asked:
        context.asked_folders.add(folder)
        folder_made, *replies = yield from ask_all([packets.mkdir(folder), *requests], context.server.in_order)
        expect_status(folder_made, f"cannot make folder {quoted(folder)}")
    else:
        replies = yield from ask_all(requests, context.server.in_order)
    made = replies[0]
    if not isinstance(made, Status):
        context.folders.add(folder)
        return replies
    if not context.options.make_dirs:
        return replies
    missing = made.code in (Code.NO_SUCH_FILE, Code.NO_SUCH_PATH)
    if missing or made.code == Code.FAILURE:
        was_made = yield from _make_missing(context, folder)
        if missing or was_made:  # another job may have made it just after our request was handled
            replies = yield from ask_all(requests, context.server.in_order)
    return replies


def _make_missing(context: Context, folder: bytes) -> Work[bool]:
    """-> whether something was made; if the folder existed, it is not what the request was missing."""
    there = yield from ask(packets.stat(folder))
    if isinstance(there, Attributes):
        return False
    context.folders.discard(folder)
    yield from make_parents(context, folder + b"/x")
    return True


def make_folder(context: Context, folder: bytes) -> Work[bool]:
    """-> whether it is new. An existing folder is fine, also if another job has just made it."""
    reply = yield from ask(packets.mkdir(folder))
    if isinstance(reply, Status) and reply.ok:
        context.folders.add(folder)
        return True
    there = yield from ask(packets.stat(folder))  # SFTP version 3 has no code for "exists"
    if isinstance(there, Attributes) and (there.mode is None or there.mode & S_IFMT == S_IFDIR):
        context.folders.add(folder)
        return False
    expect_ok(reply, f"cannot make folder {quoted(folder)}")
    return False
