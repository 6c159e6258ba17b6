"""Deletes or moves a file on the server that has been taken, if it is still the one that was taken."""

from __future__ import annotations

from typing import Protocol

from iot.spooler.inbox.listing import SIDECAR, Lister
from iot.spooler.inbox.records import Record, version_of
from iot.transfer import NotFound, PermanentError, RemoteFile

__all__ = ["Remover", "remove"]


class Remover(Lister, Protocol):
    def delete(self, path: str) -> None: ...

    def move(self, source: str, dest: str) -> None: ...


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
