"""Open a remote file or folder, one among many.

Servers report that no more handles are left as a plain FAILURE. So while others are open, a FAILURE is a busy server,
not a refusal: fewer are opened at a time then, until one is asked for alone.
"""

from __future__ import annotations

from iot.sftp.client.jobs.context import Context
from iot.sftp.client.pipeline.job import Work, ask, expect_handle
from iot.sftp.client.protocol import packets
from iot.sftp.client.protocol.packets import Code, Flag, Request, Status
from iot.transfer.errors import ServerBusy

__all__ = ["open_one", "open_to_read"]


def open_to_read(context: Context, path: bytes, doing: str) -> Work[bytes]:
    """As `open_one`, a file for reading."""
    return (yield from open_one(context, packets.open_file(path, Flag.READ), path, doing))


def open_one(context: Context, request: Request, path: bytes, doing: str) -> Work[bytes]:
    """-> the handle, which is in `context.handles` until the caller has closed it. doing: for messages.

    Raises: NotFound, PermissionDenied, ServerRefused; ServerBusy if the reason may be that too many are open.
    """
    alone = not context.handles  # now: by the time of the answer the others may be closed
    opening = b"opening " + path
    context.handles.add(opening)
    try:
        reply = yield from ask(request)
    finally:
        context.handles.discard(opening)
    if isinstance(reply, Status) and reply.code == Code.FAILURE and not alone:
        raise ServerBusy(f"{doing} while others are open")
    handle = expect_handle(reply, doing)
    context.handles.add(handle)
    return handle
