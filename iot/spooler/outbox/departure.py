"""Whether a version may leave its outbox: nobody writes to it any more, as far as that can be known."""

from __future__ import annotations

import enum
import errno
from collections.abc import Callable
from dataclasses import dataclass

from iot.spooler.outbox.lease import Answer, Leases, Writer
from iot.transfer import Fingerprint, is_gone

__all__ = ["Departure", "Stays", "Why"]


class Why(enum.Enum):
    """Why a file stays where it is.

    OPEN: somebody has it open for writing. RESTING: nobody can know that, and it has not been quiet for long enough.
    TOUCHED: its size and time are those that were sent, but it was looked at or written again: to be compared.
    """

    OPEN = "open for writing"
    RESTING = "resting"
    TOUCHED = "touched"


class Stays(Exception):
    """Raised for a file that may not leave yet."""

    def __init__(self, why: Why) -> None:
        super().__init__(why.value)
        self.why = why


@dataclass(frozen=True, slots=True)
class Departure:
    """What is asked before a file leaves.

    leases: of its outbox. rested: whether a version was quiet for so long that a guess is good enough. inodes: whether
    they last on this file system.
    """

    leases: Leases
    rested: Callable[[Fingerprint], bool]
    inodes: bool = True

    def look(self, folder: int, name: bytes) -> Answer:
        """What is there now. Raises: OSError when that cannot be known."""
        try:
            return self.leases.ask(folder, name)
        except OSError as error:
            if is_gone(error) or error.errno == errno.ENAMETOOLONG:
                return Answer(Writer.UNKNOWN, None)
            raise

    def check(self, answer: Answer, meant: Fingerprint) -> None:
        """Raises: Stays."""
        if answer.writer is Writer.SOME:
            raise Stays(Why.OPEN)
        if answer.writer is Writer.UNKNOWN and not self.rested(meant):
            raise Stays(Why.RESTING)

    def same_content(self, found: Fingerprint, meant: Fingerprint) -> bool:
        """All but ctime, which our own rename moves, and an inode that does not last."""
        inode = found.inode if self.inodes else meant.inode
        return (found.size, found.mtime_ns, inode) == (meant.size, meant.mtime_ns, meant.inode)
