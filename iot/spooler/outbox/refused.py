"""What lies in an outbox and is never sent: counted by reason, and each logged once.

Symlinks, fifos, sockets and devices cannot be delivered, and nothing deeper than DEPTH_MAX is searched. Whoever put
such a thing there may believe it was sent, so it counts as undelivered in the status and for `run --drain` until it is
removed or excluded by a pattern. What the configuration excludes (`exclude`, `include`, `recursive = false`) is not
counted, nor are the agent's own names and the remainders of removed files that a file system keeps.
"""

from __future__ import annotations

import logging
import stat
from collections import Counter
from collections.abc import Container, Mapping
from pathlib import Path

from iot.spooler.naming import shown

__all__ = ["DEPTH_MAX", "Refused", "kind_of_file"]

log = logging.getLogger(__name__)

DEPTH_MAX = 100
TOLD_MAX = 1000


class Refused:
    """Refused files of one outbox, by folder, as of its last listing."""

    def __init__(self, outbox: Path) -> None:
        self._outbox = outbox
        self._folders: dict[bytes, Counter[str]] = {}
        self._told: set[bytes] = set()

    @property
    def reasons(self) -> Mapping[str, int]:
        """How many there are, by reason; the most frequent first."""
        total: Counter[str] = Counter()
        for counter in self._folders.values():
            total.update(counter)
        return dict(total.most_common())

    def __contains__(self, folder: bytes) -> bool:
        """Whether something in this folder is refused."""
        return folder in self._folders

    def listed_anew(self, folder: bytes) -> None:
        """The folder is about to be listed again, or is gone: forget what was refused in it."""
        self._folders.pop(folder, None)

    def forget_all_but(self, folders: Container[bytes]) -> None:
        for folder in [folder for folder in self._folders if folder not in folders]:
            del self._folders[folder]

    def add(self, folder: bytes, path: bytes, reason: str) -> None:
        """Record that `path`, which lies in `folder`, is never sent."""
        self._folders.setdefault(folder, Counter())[reason] += 1
        self.tell(path, reason)

    def tell(self, path: bytes, reason: str) -> None:
        """Log it, once."""
        if path in self._told or len(self._told) >= TOLD_MAX:
            return
        self._told.add(path)
        log.warning("refused outbox=%s path=%s reason=%s", shown(str(self._outbox)), shown(path), shown(reason))


def kind_of_file(mode: int) -> str:
    """The kind of something that is not a regular file, in words."""
    for test, word in (
        (stat.S_ISLNK, "symlink"),
        (stat.S_ISFIFO, "fifo"),
        (stat.S_ISSOCK, "socket"),
        (stat.S_ISBLK, "block device"),
        (stat.S_ISCHR, "character device"),
    ):
        if test(mode):
            return word
    return "not a regular file"
