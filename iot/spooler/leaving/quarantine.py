"""Files that were given up, on their way into the quarantine; see records for what lies there.

The id is made from outbox, path and version; so outboxes can share a quarantine, the same name can lie there twice, and
an interrupted move is finished, not repeated.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
from collections.abc import Callable
from pathlib import Path

from iot.spooler.leaving.moving import put
from iot.spooler.leaving.records import STAGED, as_text, drop_record, is_there, write_record
from iot.spooler.leaving.removal import Item
from iot.spooler.leaving.trust import open_trusted
from iot.transfer.beneath import DIRECTORY, split

__all__ = ["Quarantine"]

RETRY_HINT = "iot-spooler quarantine retry --config FILE"
SAME_VERSION_MAX = 100


class Quarantine:
    """Where files of one outbox go when they are given up.

    folder: the quarantine, which other outboxes may share. alive: called while a file is copied.
    """

    def __init__(self, folder: Path, outbox: Path, *, alive: Callable[[], None] = lambda: None) -> None:
        self._folder = folder
        self._outbox = bytes(outbox)
        self._alive = alive
        self._root: int | None = None

    def leave(self, folder: int, private: bytes, item: Item) -> bool:
        if self._root is None:
            self._root = _opened(self._folder)
        for attempt in range(SAME_VERSION_MAX):
            number = _id(self._outbox, item, attempt)
            try:
                return self._put(self._root, number, folder, private, item)
            except FileExistsError:
                continue  # size and time are the same, the content is not
            except OSError:
                drop_record(self._root, number)
                raise
        raise FileExistsError(errno.EEXIST, "lies in quarantine already in too many versions", os.fsdecode(item.path))

    def sync(self) -> None:
        if self._root is not None:
            root, self._root = self._root, None
            try:
                os.fsync(root)
            finally:
                os.close(root)

    def _put(self, root: int, number: str, folder: int, private: bytes, item: Item) -> bool:
        name = split(item.path)[1]
        if not is_there(root, os.path.join(os.fsencode(number), name)):
            write_record(root, number, self._record(item))
        with contextlib.suppress(FileExistsError):
            os.mkdir(number, 0o700, dir_fd=root)
        there = os.open(number, DIRECTORY | os.O_NOFOLLOW, dir_fd=root)
        try:
            remains = put(folder, private, there, name, staged=_staged(name), alive=self._alive)
            os.fsync(there)
        finally:
            os.close(there)
        return remains

    def _record(self, item: Item) -> dict[str, str | int]:
        return {
            "outbox": as_text(self._outbox),
            "path": as_text(item.path),
            "bytes": item.fingerprint.size,
            "mtime_ns": item.fingerprint.mtime_ns,
            "row": item.key,
            **item.about,
            "to_send_it_again": RETRY_HINT,
        }


def _opened(folder: Path) -> int:
    root = open_trusted(folder, make=True)
    try:
        fcntl.flock(root, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(root)
        raise OSError(errno.EAGAIN, "files are being released from the quarantine") from None
    except OSError:
        pass  # a file system without locks
    return root


def _id(outbox: bytes, item: Item, number: int) -> str:
    version = b"%d\0%d\0%d" % (item.fingerprint.size, item.fingerprint.mtime_ns, number)
    return hashlib.sha256(b"\0".join((outbox, item.path, version))).hexdigest()[:16]


def _staged(name: bytes) -> bytes:
    return STAGED[name == STAGED[0]]
