"""What a remote can do."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from iot.transfer.remote_commands import Verb

__all__ = ["Capabilities", "Publish", "Resume"]


class Resume(enum.Enum):
    """NONE: an interrupted upload starts over. OFFSET: it resumes at an offset. PARTS: it resumes part by part."""

    NONE = "none"
    OFFSET = "offset"
    PARTS = "parts"


class Publish(enum.Enum):
    """How the file gets its name.

    RENAME: the part is renamed. COMMIT: a separate call assembles the parts. LAST_BYTE: the write that completes the
    file; it is held back until the source has been checked again. SERVER: the far side, in its own time.
    """

    RENAME = "rename"
    COMMIT = "commit"
    LAST_BYTE = "last byte"
    SERVER = "server"


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What this remote can really do, not the common minimum of all remotes. Some of it is known only after `connect`.

    replaces: `publish` replaces an existing file atomically; there is never a moment without a file.
    creates_only: the far side itself refuses `publish(replace=False)` if the destination exists, without a race.
    durable: an answered write and an answered publish survive a power loss of the far side.
    reads_back: a part can be read before it is published.
    named_tokens: the same upload always starts with the same token, so a crash between `begin` and its checkpoint
        leaves nothing behind that cannot be found again.
    hashes: the algorithms that the far side computes itself, by hashlib's names, best first.
    write_bytes: maximum size of one `write`; None: one write carries everything that is left.
    write_multiple: the size of every write but the last is a multiple of this.
    block_bytes: maximum size of a block in the body of a write.
    connections: maximum number of stores in use at the same time.
    token_life_s: how long an unused token stays valid; None: for ever.
    keeps_times: `publish` can copy the source's modification time.
    commands: those that the far side can carry out.
    """

    resume: Resume
    publish: Publish
    replaces: bool = True
    creates_only: bool = False
    durable: bool = False
    reads_back: bool = True
    named_tokens: bool = True
    hashes: tuple[str, ...] = ()
    write_bytes: int | None = None
    write_multiple: int = 1
    block_bytes: int = 256 * 1024
    connections: int = 4
    token_life_s: float | None = None
    keeps_times: bool = False
    commands: frozenset[Verb] = frozenset(Verb)
