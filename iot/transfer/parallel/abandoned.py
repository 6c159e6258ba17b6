"""What abandoned uploads have left on the far side is removed beside other uploads; what is not ours, never.

One small bundle at a time, as a transfer among the transfers of a batch. A record is dropped when its part is gone; any
other end leaves it for a later connection.
"""

from __future__ import annotations

import itertools
import logging
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial

from iot.transfer.errors import PermanentError, is_gone
from iot.transfer.journal.checkpoints import Checkpoints
from iot.transfer.locks import Busy, TransferLocks
from iot.transfer.model import Checkpoint, Fingerprint
from iot.transfer.parallel.ready import Running
from iot.transfer.parallel.work import Desk, Work
from iot.transfer.remote import Store

__all__ = ["AbandonedParts"]

log = logging.getLogger(__name__)

BUNDLE_PARTS = 16
LEAST_URGENT = (sys.maxsize,)


class AbandonedParts:
    """Those of one far side, for one connection. age_s: seconds for which an upload has not got on.

    lock_name: the name under which an upload is locked.
    """

    def __init__(
        self,
        checkpoints: Checkpoints,
        locks: TransferLocks,
        age_s: float,
        lock_name: Callable[[Checkpoint], bytes],
        desk: Desk,
    ) -> None:
        self._checkpoints = checkpoints
        self._locks = locks
        self._age_s = age_s
        self._lock_name = lock_name
        self._desk = desk
        self._left: Iterator[Checkpoint] | None = None
        self.under_way = False

    def next_bundle(self) -> Running | None:
        """The next bundle; None while one is under way, and when nothing is left."""
        if self.under_way:
            return None
        if self._left is None:
            self._left = filter(self._is_due, self._checkpoints.abandoned_before(time.time() - self._age_s))
        bundle = list(itertools.islice(self._left, BUNDLE_PARTS))
        if not bundle:
            return None
        self.under_way = True
        return Running(_Removal(bundle, self._removed, self._over, self._desk), LEAST_URGENT)

    def _is_due(self, checkpoint: Checkpoint) -> bool:
        """An upload is abandoned when its source is gone or another version, and no other has begun since."""
        if _may_go_on(checkpoint):
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

    def _removed(self, checkpoint: Checkpoint) -> None:
        log.info("abandoned part removed path=%r", checkpoint.remote_path)
        self._checkpoints.forget(checkpoint)

    def _over(self, bundle: Sequence[Checkpoint]) -> None:
        for checkpoint in bundle:
            self._locks.release(self._lock_name(checkpoint))
        self.under_way = False


class _Removal:
    store: Store

    def __init__(
        self,
        bundle: Sequence[Checkpoint],
        removed: Callable[[Checkpoint], None],
        over: Callable[[Sequence[Checkpoint]], None],
        desk: Desk,
    ) -> None:
        self._bundle = bundle
        self._removed = removed
        self._over = over
        self._desk = desk

    def run(self) -> Work[None]:
        yield from ()  # it waits for nothing but its store
        for checkpoint in self._bundle:
            self._desk.check()
            try:
                if checkpoint.token:
                    self.store.abandon(checkpoint.token)
            except PermanentError as error:
                log.info("abandoned part not removed path=%r error=%s", checkpoint.remote_path, error)
            else:
                self._desk.post(partial(self._removed, checkpoint))

    def release(self) -> None:
        self._over(self._bundle)


def _may_go_on(checkpoint: Checkpoint) -> bool:
    try:
        now = Fingerprint.of(os.stat(checkpoint.local_path))
    except OSError as error:
        return not is_gone(error)
    return (now.size, now.mtime_ns) == (checkpoint.fingerprint.size, checkpoint.fingerprint.mtime_ns)
