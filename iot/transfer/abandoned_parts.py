"""Our own parts of abandoned uploads are removed after a day, alongside uploads; other parts are never touched.

This module decides which; the remote removes them. It works on one small bundle at a time, and neither waits for
uploads nor makes them wait. A record is dropped when the far side says that its part is gone; otherwise it stays for
a later connection.
"""

from __future__ import annotations

import itertools
import logging
import os
from collections.abc import Callable, Iterable

from iot.transfer.errors import is_gone
from iot.transfer.journal.checkpoints import Checkpoints
from iot.transfer.locks import Busy, TransferLocks
from iot.transfer.model import Checkpoint, Direction, Fingerprint, LocalPath, RemotePath, Token
from iot.transfer.names import part_name, remote_path
from iot.transfer.options import TransferOptions

__all__ = ["AbandonedParts", "abandoned"]

log = logging.getLogger(__name__)

BUNDLE_PARTS = 16


class AbandonedParts:
    """The abandoned parts on one far side, for one connection. old: uploads that have made no progress for long.

    lock_name: the name under which an upload is locked. removing: the names of those being removed.
    """

    def __init__(
        self,
        checkpoints: Checkpoints,
        locks: TransferLocks,
        old: Iterable[Checkpoint],
        lock_name: Callable[[Checkpoint], bytes],
    ) -> None:
        self.removing: set[bytes] = set()
        self._checkpoints = checkpoints
        self._locks = locks
        self._lock_name = lock_name
        self._left = filter(self._is_due, old)

    def next_bundle(self) -> list[Checkpoint]:
        """The next ones, locked until `over`; none while a bundle is in progress, or if nothing is left."""
        if self.removing:
            return []
        bundle = list(itertools.islice(self._left, BUNDLE_PARTS))
        self.removing.update(map(self._lock_name, bundle))
        return bundle

    def removed(self, checkpoint: Checkpoint) -> None:
        """The far side says that the part is gone."""
        log.info("abandoned part removed path=%r", checkpoint.remote_path)
        self._checkpoints.forget(checkpoint)

    def over(self, bundle: Iterable[Checkpoint]) -> None:
        """The bundle is done, whatever the result."""
        for checkpoint in bundle:
            self._locks.release(self._lock_name(checkpoint))
        self.removing.clear()

    def _is_due(self, checkpoint: Checkpoint) -> bool:
        """An upload counts as abandoned if its source is gone or has changed, and it was not started again since."""
        if _may_go_on(checkpoint):
            return False
        if checkpoint.token == checkpoint.remote_path:  # direct_write: the final file, perhaps another one by now
            self._checkpoints.forget(checkpoint)
            return False
        try:
            self._locks.take(self._lock_name(checkpoint))
        except Busy:
            return False
        key = (checkpoint.direction, checkpoint.remote_path, checkpoint.local_path)
        if self._checkpoints.load(*key) == checkpoint:
            return True
        self._locks.release(self._lock_name(checkpoint))
        return False


def abandoned(source: LocalPath, dest: RemotePath, options: TransferOptions) -> Checkpoint:
    """The record of an upload that is given up, and of which a part may be on the far side."""
    remote, local = remote_path(dest, "dest"), os.fsencode(os.path.abspath(source))
    part = remote if options.direct_write else part_name(remote, local, options.owner, options.part_suffix)
    return Checkpoint(Direction.UPLOAD, remote, local, Token(part), Fingerprint(0, 0))


def _may_go_on(checkpoint: Checkpoint) -> bool:
    try:
        now = Fingerprint.of(os.stat(checkpoint.local_path))
    except OSError as error:
        return not is_gone(error)
    return now.looks_like(checkpoint.fingerprint)
