"""Deletes or moves a file on the server that has been taken, if it is still the one that was taken."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from typing import Protocol

from iot.spooler.inbox.listing import SIDECAR, Lister, remote_join
from iot.spooler.inbox.records import FileState, Record, Records, version_of
from iot.spooler.inbox.retries import Retries
from iot.spooler.naming import shown
from iot.transfer import NotFound, PermanentError, RemoteFile

__all__ = ["Removals", "Remover", "remove"]

log = logging.getLogger(__name__)


class Remover(Lister, Protocol):
    def delete(self, path: str) -> None: ...

    def move(self, source: str, dest: str) -> None: ...


class Removals:
    """What is published here and still lies on the server.

    label: of the inbox. source: its remote folder. move_to: where its files go; "" to delete them.
    """

    def __init__(self, label: str, source: str, move_to: str, records: Records, retries: Retries) -> None:
        self._label = label
        self._source = source
        self._move_to = move_to
        self._records = records
        self._retries = retries

    def owed(self) -> list[Record]:
        return self._records.of(FileState.PUBLISHED)

    def is_due(self, now: float) -> bool:
        return self.next_at() <= now

    def next_at(self) -> float:
        """When the next one may be tried, monotonic; infinity if there is none."""
        return min((self._retries.again_at(each.path) for each in self.owed()), default=float("inf"))

    def run(self, remote: Remover, now: float, tick: Callable[[], None]) -> None:
        """Raises: TransientError, AuthenticationError, Cancelled, DiskFull, JournalUnavailable."""
        for record in [each for each in self.owed() if self._retries.again_at(each.path) <= now]:
            path = os.fsdecode(record.path)
            target = remote_join(self._move_to, path) if self._move_to else ""
            try:
                said = remove(remote, remote_join(self._source, path), target, record)
            except PermanentError as error:
                self._retries.put_off(record.path, f"it is fetched, but cannot be removed from the server: {error}")
            else:
                self._retries.forget(record.path)
                self._records.write([record._replace(state=FileState.TAKEN)])
                log.info("%s inbox=%s path=%s", said, shown(self._label), shown(path))
            tick()


def remove(remote: Remover, path: str, target: str, record: Record) -> str:
    """-> what was done, in words. target: where to; "" to delete it.

    Between the last look at it and its removal a file may still change: no protocol can exclude that.

    Raises: PermanentError; TransientError, AuthenticationError, Cancelled.
    """
    found = _looked_at(remote, path)
    if found is None:
        return "no longer on the server"
    if record.mtime_s is None:
        raise PermanentError("the server tells no times, so whether it has changed since is not known")
    if (found.size, found.mtime_s) != (record.size, record.mtime_s):
        return "left on the server, it has changed since"
    _away(remote, path, target)
    if record.checksum and version_of(_looked_at(remote, path + SIDECAR)) == record.checksum:
        _away(remote, path + SIDECAR, target and target + SIDECAR)
    return "moved on the server" if target else "deleted on the server"


def _away(remote: Remover, path: str, target: str) -> None:
    try:
        if target:
            remote.move(path, target)
        else:
            remote.delete(path)
    except NotFound:
        pass  # an earlier attempt did it, and its answer was lost


def _looked_at(remote: Remover, path: str) -> RemoteFile | None:
    try:
        return remote.stat(path)
    except NotFound:
        return None
