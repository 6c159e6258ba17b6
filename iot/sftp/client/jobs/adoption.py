"""A beginning of the file that another program has left on the server: compared with the source, and taken over.

It is renamed to the name of our part, so that from then on nothing tells it from a part of our own. Before that a
checkpoint says so: after a crash in between, that name is not there, and the upload looks for the beginning again.
"""

from __future__ import annotations

import logging
import stat
from collections.abc import Callable

from iot.sftp.client.jobs.context import Context
from iot.sftp.client.jobs.look import look, look_at_link
from iot.sftp.client.jobs.part_file import PartFile
from iot.sftp.client.jobs.proof import begins_alike
from iot.sftp.client.pipeline.job import Barrier, Work, ask, expect_status
from iot.sftp.client.protocol import packets
from iot.transfer.errors import PermanentError
from iot.transfer.model import Checkpoint
from iot.transfer.source import Source
from iot.transfer.terminal import quoted

__all__ = ["adopt"]

log = logging.getLogger(__name__)


def adopt(
    context: Context, file: PartFile, source: Source, partial: bytes, checkpoint: Callable[[int], Checkpoint]
) -> Work[int]:
    """Take the file `partial` over as the part -> how many of its bytes stand; 0 if it was left alone.

    checkpoint: that of an upload of which so many bytes have been answered.
    """
    try:
        size = yield from _alike_bytes(context, source, partial)
        if not size:
            return 0
        file.claim(partial)
        yield Barrier(checkpoint(size))
        if file.path != partial and not (yield from _renamed(partial, file.path)):
            return 0
        there = yield from look(file.path)
    except PermanentError as error:
        log.info("partial file left alone path=%s reason=%s", quoted(partial), error)
        return 0
    log.info("partial file taken over path=%s bytes=%d", quoted(partial), size)
    return size if there is not None and there.size in (None, size) else 0


def _alike_bytes(context: Context, source: Source, partial: bytes) -> Work[int]:
    """The size of the file, if it is a regular one and a beginning of the source; otherwise 0."""
    there = yield from look_at_link(partial)
    if there is None or (there.mode is not None and not stat.S_ISREG(there.mode)):
        return 0
    size = there.size or 0
    if not 0 < size <= source.fingerprint.size:
        return 0
    if (yield from begins_alike(context, partial, source, size)):
        return size
    log.info("partial file left alone path=%s reason=%s", quoted(partial), "its content differs")
    return 0


def _renamed(partial: bytes, part: bytes) -> Work[bool]:
    doing = f"cannot take over {quoted(partial)}"
    renamed = expect_status((yield from ask(packets.rename(partial, part))), doing)
    if renamed.ok:
        return True
    yield from ask(packets.remove(part))  # left by an earlier attempt: the name says that it is ours
    renamed = expect_status((yield from ask(packets.rename(partial, part))), doing)
    if not renamed.ok:
        raise renamed.error(doing)
    return True
