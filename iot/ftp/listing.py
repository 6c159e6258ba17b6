"""What a server reports about files: facts (RFC 3659), and the two common forms of LIST. Pure.

A name is bytes, exactly as sent: nothing is stripped. Unreadable lines are returned as such, because "not in a listing
that was only partly understood" does not mean "does not exist".
"""

from __future__ import annotations

import calendar
import re
import stat
from collections.abc import Iterable
from dataclasses import dataclass

from iot.transfer.model import RemoteFile

__all__ = ["Listed", "Listing", "facts_of", "parse_facts", "parse_list", "parse_mlsd", "time_of"]

UNIX = re.compile(
    rb"([-dlbcpsD])[-rwxsStTlL]{9}[.+@]?\s+\d+\s+\S+\s+\S+\s+(?:\d+,\s*)?(\d+)\s+"  # kind, links, owner, group, size
    rb"(?:[A-Za-z]{3}\s+\d{1,2}|\d{1,2}\s+[A-Za-z]{3}|\d{4}-\d\d-\d\d)\s+(?:\d{1,2}:\d\d(?::\d\d)?|\d{4}) (.+)",
    re.DOTALL,
)
DOS = re.compile(rb"\d\d-\d\d-\d{2,4}\s+\d{1,2}:\d\d(?:[AP]M)?\s+(<DIR>|<JUNCTION>|\d+)\s+(.+)", re.DOTALL)
FOLDERS = (b"dir", b"cdir", b"pdir")


@dataclass(frozen=True, slots=True)
class Listed:
    """One name. is_folder: None for a link whose target the listing does not reveal."""

    name: bytes
    is_folder: bool | None
    size: int | None = None


@dataclass(frozen=True, slots=True)
class Listing:
    """unread: lines in no known format."""

    entries: tuple[Listed, ...]
    unread: tuple[bytes, ...] = ()


def parse_mlsd(lines: Iterable[bytes]) -> Listing:
    entries, unread = [], []
    for line in lines:
        facts, separator, name = line.partition(b" ")
        known = facts_of(facts)
        if not separator or not name or (facts and not facts.endswith(b";")):
            unread.append(line)
        elif known.get(b"type", b"").lower() not in (b"cdir", b"pdir"):
            entries.append(Listed(name, _is_folder(known), _number(known.get(b"size"))))
    return Listing(tuple(entries), tuple(unread))


def parse_list(lines: Iterable[bytes]) -> Listing:
    entries, unread = [], []
    for line in lines:
        if unix := UNIX.fullmatch(line):
            kind, size, name = unix.groups()
            name = name.partition(b" -> ")[0] if kind == b"l" else name
            entries.append(Listed(name, None if kind == b"l" else kind == b"d", int(size) if kind == b"-" else None))
        elif dos := DOS.fullmatch(line):
            entries.append(Listed(dos[2], not dos[1].isdigit(), int(dos[1]) if dos[1].isdigit() else None))
        elif line.strip() and not re.fullmatch(rb"total\s+\d+\s*", line):
            unread.append(line)
    return Listing(tuple(entry for entry in entries if entry.name not in (b".", b"..")), tuple(unread))


def facts_of(facts: bytes) -> dict[bytes, bytes]:
    """`type=file;Size=3;` -> {b"type": b"file", b"size": b"3"}"""
    pairs = (fact.partition(b"=") for fact in facts.split(b";") if b"=" in fact)
    return {name.strip().lower(): value for name, _, value in pairs}


def parse_facts(facts: bytes) -> RemoteFile:
    """The facts of one file. mode: the file type, and the permission bits if UNIX.mode reports them."""
    known = facts_of(facts)
    is_folder = _is_folder(known)
    kind = 0 if is_folder is None else stat.S_IFDIR if is_folder else stat.S_IFREG
    bits = known.get(b"unix.mode", b"")
    if kind and re.fullmatch(rb"[0-7]{1,5}", bits):
        kind |= int(bits, 8) & 0o7777
    return RemoteFile(_number(known.get(b"size")), time_of(known.get(b"modify", b"")), kind or None)


def time_of(text: bytes) -> int | None:
    """`YYYYMMDDHHMMSS[.sss]`, UTC -> seconds since 1970; None if invalid."""
    found = re.match(rb"(\d{4})(\d\d)(\d\d)(\d\d)(\d\d)(\d\d)(?:\.\d+)?$", text.strip())
    if found is None:
        return None
    year, month, day, hour, minute, second = (int(part) for part in found.groups())
    try:
        return calendar.timegm((year, month, day, hour, minute, second))
    except ValueError:  # no such date
        return None


def _is_folder(facts: dict[bytes, bytes]) -> bool | None:
    kind = facts.get(b"type", b"").lower()
    if kind in FOLDERS:
        return True
    return None if not kind or kind.startswith(b"os.unix=s") else False


def _number(text: bytes | None) -> int | None:
    return int(text) if text is not None and re.fullmatch(rb"\d{1,19}", text) else None
