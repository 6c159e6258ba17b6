"""Whether a version may leave its outbox: as far as can be known, nobody writes to it any more."""

from __future__ import annotations

import enum
import errno
from collections.abc import Callable
from dataclasses import dataclass

from iot.spooler.outbox.lease import Answer, Leases, Writer
from iot.spooler.outbox.mounts import ORDINARY, FileSystem
from iot.transfer import Fingerprint, is_gone

__all__ = ["Departure", "Stays", "Why"]


class Why(enum.Enum):
    """Why a file stays where it is.

    OPEN: it is open for writing. RESTING: that cannot be known here, and it has not been quiet for long enough.
    TOUCHED: size and time are those that were sent, but something else changed: its content must be compared.
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
    """The checks before a file leaves.

    leases, system: of its outbox. rested: whether a version has been quiet for long enough to trust a guess.
    """

    leases: Leases
    rested: Callable[[Fingerprint], bool]
    system: FileSystem = ORDINARY

    def look(self, folder: int, name: bytes) -> Answer:
        """The version that is there now. Raises: OSError when that cannot be known."""
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
        """Compares all but ctime, which our own rename changes, and unstable inode numbers."""
        inode = found.inode if self.system.inodes else meant.inode
        return found.looks_like(meant) and inode == meant.inode

    def may_be_same(self, found: Fingerprint, meant: Fingerprint) -> bool:
        """Whether the content has to be compared before this version is taken for another one."""
        return self.same_content(found, meant) or self.system.redated(found, meant)
