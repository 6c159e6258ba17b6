"""What lies in an outbox and is never sent: counted by reason, and logged once each.

A symlink, a fifo, a socket or a device is no file that could be delivered, and deeper than DEPTH_MAX nothing is looked
for. Whoever put it there may take it for sent; so it counts as not delivered in the status and for `run --drain`, until
it is taken away or excluded by a pattern. What the configuration excludes is nobody's loss, and not counted: `exclude`,
`include`, `recursive = false`. Neither are the agent's own names and what a file system keeps of a removed file.
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
    """Of one outbox, folder by folder, as they were last listed."""

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

    def listed_anew(self, folder: bytes) -> None:
        """What is refused in this folder is about to be told again; or the folder is gone."""
        self._folders.pop(folder, None)

    def forget_all_but(self, folders: Container[bytes]) -> None:
        for folder in [folder for folder in self._folders if folder not in folders]:
            del self._folders[folder]

    def add(self, folder: bytes, path: bytes, reason: str) -> None:
        """`path`, which lies in `folder`, is not sent."""
        self._folders.setdefault(folder, Counter())[reason] += 1
        self.tell(path, reason)

    def tell(self, path: bytes, reason: str) -> None:
        """Log it, once."""
        if path in self._told or len(self._told) >= TOLD_MAX:
            return
        self._told.add(path)
        log.warning("refused outbox=%s path=%s reason=%s", shown(str(self._outbox)), shown(path), shown(reason))


def kind_of_file(mode: int) -> str:
    """In a word, of what is no regular file."""
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
