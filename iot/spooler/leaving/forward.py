"""Chains: a delivered file goes on into another outbox, of this agent or of another.

Its path below the outbox stays. Where the next outbox still has a file of that path, which has not been delivered yet
there, ours is put beside it under another name: both are sent, and nothing is lost. A copy on another file system has a
name that no agent sends until it is whole and on the disk.
"""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Callable
from pathlib import Path

from iot.spooler.leaving.moving import Arrivals
from iot.spooler.leaving.removal import Item
from iot.spooler.naming import marked, shown
from iot.spooler.state.homes import Homes
from iot.transfer.beneath import DIRECTORY, PASSING_PREFIX, join, split

__all__ = ["Forward"]

log = logging.getLogger(__name__)

FOLDER_MODE = 0o755


class Forward:
    """Where the files of one outbox go when they are delivered.

    target: the next outbox, which must be there. outbox: the one that they leave. homes: where the next one has to be
    mounted. alive: called while a file is copied to another file system. moved: how many files have gone on.
    """

    def __init__(
        self, target: Path, outbox: Path, *, homes: Homes | None = None, alive: Callable[[], None] = lambda: None
    ) -> None:
        self.moved = 0
        self._target = target
        self._outbox = bytes(outbox)
        self._homes = homes or Homes()
        self._arrivals = Arrivals(self._opened, mode=FOLDER_MODE, other_name=_numbered, alive=alive)

    def leave(self, folder: int, private: bytes, item: Item) -> bool:
        name, remains = self._arrivals.put(folder, private, item.path, staged=_staged(self._outbox, item))
        self.moved += 1
        below, meant = split(item.path)
        if name != meant:
            log.warning(
                "forwarded beside another file path=%s as=%s to=%s",
                shown(item.path),
                shown(join(below, name)),
                shown(str(self._target)),
            )
        return remains

    def sync(self) -> None:
        self._arrivals.sync()

    def _opened(self) -> int:
        """Raises: OSError, also where the medium that it was on is no longer mounted."""
        try:
            root = os.open(self._target, DIRECTORY)
        except OSError as error:
            reason = f"cannot forward to {self._target}: {error.strerror}"
            raise OSError(error.errno, reason) from None
        try:
            self._homes.check(self._target, root)
        except OSError as error:
            os.close(root)
            raise OSError(error.errno, f"cannot forward to {self._target}: {error.strerror}") from None
        return root


def _numbered(name: bytes, number: int) -> bytes:
    """b.csv -> b-1.csv: patterns for the end of a name still match."""
    return os.fsencode(marked(os.fsdecode(name), str(number)))


def _staged(outbox: bytes, item: Item) -> bytes:
    """Of this version of this file: what an interrupted move has left there is replaced by the next, and not sent."""
    version = b"%d\0%d" % (item.fingerprint.size, item.fingerprint.mtime_ns)
    return PASSING_PREFIX + hashlib.sha256(b"\0".join((outbox, item.path, version))).hexdigest()[:16].encode()
