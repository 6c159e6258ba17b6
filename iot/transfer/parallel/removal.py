"""Removes abandoned parts, as one of the transfers of a batch."""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from functools import partial

from iot.transfer.abandoned_parts import AbandonedParts
from iot.transfer.errors import PermanentError
from iot.transfer.model import Checkpoint
from iot.transfer.parallel.ready import Running
from iot.transfer.parallel.work import Desk, Work
from iot.transfer.remote import Store

__all__ = ["next_removal"]

log = logging.getLogger(__name__)

LEAST_URGENT = (sys.maxsize,)


def next_removal(parts: AbandonedParts, desk: Desk) -> Running | None:
    """The next bundle; None while one is in progress, or if nothing is left."""
    bundle = parts.next_bundle()
    return Running(_Removal(bundle, parts, desk), LEAST_URGENT) if bundle else None


class _Removal:
    store: Store

    def __init__(self, bundle: Sequence[Checkpoint], parts: AbandonedParts, desk: Desk) -> None:
        self._bundle = bundle
        self._parts = parts
        self._desk = desk

    def run(self) -> Work[None]:
        yield from ()  # it only ever waits for its store
        for checkpoint in self._bundle:
            self._desk.check()
            try:
                if checkpoint.token:
                    self.store.abandon(checkpoint.token)
            except PermanentError as error:
                log.info("abandoned part not removed path=%r error=%s", checkpoint.remote_path, error)
            else:
                self._desk.post(partial(self._parts.removed, checkpoint))

    def release(self) -> None:
        self._parts.over(self._bundle)
