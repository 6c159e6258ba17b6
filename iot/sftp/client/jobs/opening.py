"""Open a remote file for reading, one among many."""

from __future__ import annotations

from iot.sftp.client.jobs.context import Context
from iot.sftp.client.pipeline.job import Work, ask, expect_handle
from iot.sftp.client.protocol import packets
from iot.sftp.client.protocol.packets import Code, Flag, Status
from iot.transfer.errors import ServerBusy

__all__ = ["open_to_read"]


def open_to_read(context: Context, path: bytes, doing: str) -> Work[bytes]:
    """-> the handle, which is in `context.handles` until the caller has closed it. doing: for messages.

    Raises: NotFound, PermissionDenied, ServerRefused; ServerBusy if the reason may be that too many files are open.
    """
    alone = not context.handles  # now: by the time of the answer the others may be closed
    opening = b"opening " + path
    context.handles.add(opening)
    try:
        reply = yield from ask(packets.open_file(path, Flag.READ))
    finally:
        context.handles.discard(opening)
    if isinstance(reply, Status) and reply.code == Code.FAILURE and not alone:
        raise ServerBusy(f"{doing} while others are open")
    handle = expect_handle(reply, doing)
    context.handles.add(handle)
    return handle
