"""What happens where another file has a name on the server, and which names are tried instead. Pure.

The other names follow from the file and its version alone, so that every attempt tries the same: a file that was
published under one of them is found there again, and no clock and no restart gives it a second name.
"""

from __future__ import annotations

import hashlib
from enum import Enum

from iot.spooler.naming.template import Facts, Template
from iot.transfer import IfExists

__all__ = ["Collision", "marked", "other_names", "stamp", "unique_digits"]

STAMP = Template("{mtime}")
UNIQUE_DIGITS = 8
NAME_MAX_BYTES = 255


class Collision(str, Enum):
    OVERWRITE = "overwrite"
    SKIP = "skip"
    FAIL = "fail"
    TIMESTAMP = "timestamp"
    TIMESTAMP_ALWAYS = "timestamp-always"
    UNIQUE = "unique"

    @property
    def if_exists(self) -> IfExists:
        """What a transfer has to do."""
        return IF_EXISTS.get(self, IfExists.RENAME)


IF_EXISTS = {
    Collision.OVERWRITE: IfExists.OVERWRITE,
    Collision.SKIP: IfExists.SKIP,
    Collision.FAIL: IfExists.FAIL,
}


def stamp(mtime_ns: int) -> str:
    return STAMP.filled(Facts(mtime_ns), device_id="", outbox="")


def unique_digits(*identity: object) -> str:
    """8 hex digits that hardly any other identity has."""
    text = "\0".join(map(str, identity)).encode("utf-8", "surrogateescape")
    return hashlib.sha256(text).hexdigest()[:UNIQUE_DIGITS]


def other_names(destination: str, collision: Collision, mtime_ns: int, digits: str) -> tuple[str, ...]:
    """collision: one that has a file renamed. digits: see unique_digits."""
    if collision is Collision.TIMESTAMP:
        time = stamp(mtime_ns)
        return marked(destination, time), marked(destination, f"{time}-{digits}")
    return (marked(destination, digits),)


def marked(path: str, mark: str) -> str:
    """a/b.csv -> a/b-MARK.csv. A name that gets too long loses the end of its stem."""
    folder, slash, name = path.rpartition("/")
    stem, dot, ending = name.rpartition(".")
    if not stem:  # no ending, or only a dot in front
        stem, dot, ending = name, "", ""
    tail = f"-{mark}{dot}{ending}"
    while stem and _bytes(stem + tail) > NAME_MAX_BYTES:
        stem = stem[:-1]
    return folder + slash + stem + tail


def _bytes(name: str) -> int:
    return len(name.encode("utf-8", "surrogateescape"))
