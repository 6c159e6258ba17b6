"""Parts of ours whose upload was given up are removed after a day, beside the uploads; parts of others never.

One small bundle at a time, as a job among the jobs of a batch: it waits for nobody, and nobody waits for it. A record
is dropped when its part is gone, as the server says; any other end leaves it for a later connection.
"""

from __future__ import annotations

import itertools
import logging
import os
import sys
import time
from collections.abc import Iterator, Sequence

from iot.sftp.client.pipeline.job import Job, Linger, Work, ask_at_once
from iot.sftp.client.protocol import packets
from iot.sftp.client.protocol.packets import Code, Reply, Status
from iot.transfer.errors import is_gone
from iot.transfer.journal.checkpoints import Checkpoints
from iot.transfer.locks import Busy, TransferLocks
from iot.transfer.model import Checkpoint, Direction, Fingerprint, Token
from iot.transfer.names import part_name, remote_path
from iot.transfer.options import TransferOptions

__all__ = ["AbandonedParts", "abandoned"]

log = logging.getLogger(__name__)

BUNDLE_PARTS = 16
LOOK_AGAIN_S = 0.05
LEAST_URGENT = (sys.maxsize,)


class AbandonedParts:
    """Those of one server, for one connection. age_s: seconds for which an upload has not got on."""

    def __init__(self, checkpoints: Checkpoints, locks: TransferLocks, age_s: float) -> None:
        self._checkpoints = checkpoints
        self._locks = locks
        self._age_s = age_s
        self._left: Iterator[Checkpoint] | None = None
        self._removing: set[bytes] = set()

    def next_job(self) -> Job[None] | None:
        """The next bundle; None while one is under way, and when nothing is left."""
        if self._removing:
            return None
        if self._left is None:
            self._left = filter(self._is_due, self._checkpoints.abandoned_before(time.time() - self._age_s))
        bundle = list(itertools.islice(self._left, BUNDLE_PARTS))
        if not bundle:
            return None
        self._removing.update(checkpoint.token for checkpoint in bundle)
        return Job(self._remove(bundle), LEAST_URGENT)

    def wait_for(self, part: bytes) -> Work[None]:
        """An upload that begins a part anew lets the removal of the old one end first."""
        while part in self._removing:
            yield Linger(LOOK_AGAIN_S)

    def _is_due(self, checkpoint: Checkpoint) -> bool:
        """An upload is given up when its source is gone or another version, and no other has begun since."""
        if _may_go_on(checkpoint):
            return False
        if checkpoint.token == checkpoint.remote_path:  # direct_write: a final, and perhaps another one by now
            self._checkpoints.forget(checkpoint)
            return False
        try:
            self._locks.take(checkpoint.token)
        except Busy:
            return False
        key = (checkpoint.direction, checkpoint.remote_path, checkpoint.local_path)
        if self._checkpoints.load(*key) == checkpoint:
            return True
        self._locks.release(checkpoint.token)
        return False

    def _remove(self, bundle: Sequence[Checkpoint]) -> Work[None]:
        try:
            replies = yield from ask_at_once([packets.remove(checkpoint.token) for checkpoint in bundle])
            for checkpoint, reply in zip(bundle, replies, strict=True):
                self._book(checkpoint, reply)
        finally:
            for checkpoint in bundle:
                self._locks.release(checkpoint.token)
            self._removing.clear()

    def _book(self, checkpoint: Checkpoint, reply: Reply) -> None:
        if isinstance(reply, Status) and (reply.ok or reply.code == Code.NO_SUCH_FILE):
            log.info("abandoned part removed part=%r", bytes(checkpoint.token))
            self._checkpoints.forget(checkpoint)
        else:
            log.info("abandoned part not removed part=%r answer=%r", bytes(checkpoint.token), reply)


def abandoned(source: str, dest: str, options: TransferOptions) -> Checkpoint:
    """The record of an upload that will not be tried again, of which a part may be on the server."""
    remote, local = remote_path(dest), os.fsencode(os.path.abspath(source))
    part = remote if options.direct_write else part_name(remote, local, options.owner, options.part_suffix)
    return Checkpoint(Direction.UPLOAD, remote, local, Token(part), Fingerprint(0, 0))


def _may_go_on(checkpoint: Checkpoint) -> bool:
    try:
        now = Fingerprint.of(os.stat(checkpoint.local_path))
    except OSError as error:
        return not is_gone(error)
    return (now.size, now.mtime_ns) == (checkpoint.fingerprint.size, checkpoint.fingerprint.mtime_ns)
