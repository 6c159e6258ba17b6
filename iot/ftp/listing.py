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
KINDS = {
    b"-": stat.S_IFREG,
    b"d": stat.S_IFDIR,
    b"b": stat.S_IFBLK,
    b"c": stat.S_IFCHR,
    b"p": stat.S_IFIFO,
    b"s": stat.S_IFSOCK,
    b"D": stat.S_IFCHR,
}
"""File types by the first letter of a line; a link is missing: its target is unknown."""


@dataclass(frozen=True, slots=True)
class Listed:
    """One name. file: mode holds at least the file type; None for a link, whose target the listing does not reveal."""

    name: bytes
    file: RemoteFile
    is_link: bool = False


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
            is_link = _is_link(known)
            entries.append(Listed(name, RemoteFile(None) if is_link else _file(known), is_link))
    return Listing(tuple(entries), tuple(unread))


def parse_list(lines: Iterable[bytes]) -> Listing:
    entries, unread = [], []
    for line in lines:
        if unix := UNIX.fullmatch(line):
            kind, size, name = unix.groups()
            name = name.partition(b" -> ")[0] if kind == b"l" else name
            file = RemoteFile(int(size) if kind == b"-" else None, None, KINDS.get(kind))
            entries.append(Listed(name, file, kind == b"l"))
        elif dos := DOS.fullmatch(line):
            is_file = dos[1].isdigit()
            file = RemoteFile(int(dos[1]) if is_file else None, None, KINDS[b"-" if is_file else b"d"])
            entries.append(Listed(dos[2], file))
        elif line.strip() and not re.fullmatch(rb"total\s+\d+\s*", line):
            unread.append(line)
    return Listing(tuple(entry for entry in entries if entry.name not in (b".", b"..")), tuple(unread))


def facts_of(facts: bytes) -> dict[bytes, bytes]:
    """`type=file;Size=3;` -> {b"type": b"file", b"size": b"3"}"""
    pairs = (fact.partition(b"=") for fact in facts.split(b";") if b"=" in fact)
    return {name.strip().lower(): value for name, _, value in pairs}


def parse_facts(facts: bytes) -> RemoteFile:
    """The facts of one file. mode: the file type, and the permission bits if UNIX.mode reports them."""
    return _file(facts_of(facts))


def _file(known: dict[bytes, bytes]) -> RemoteFile:
    kind = _kind(known)
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


def _kind(facts: dict[bytes, bytes]) -> int:
    """The file type bits; 0 for a link, or if nothing says so."""
    kind = facts.get(b"type", b"").lower()
    if kind in FOLDERS:
        return stat.S_IFDIR
    if not kind or _is_link(facts):
        return 0
    return stat.S_IFCHR if kind.startswith(b"os.unix=") else stat.S_IFREG


def _is_link(facts: dict[bytes, bytes]) -> bool:
    return facts.get(b"type", b"").lower().startswith((b"os.unix=s", b"os.unix=l"))


def _number(text: bytes | None) -> int | None:
    return int(text) if text is not None and re.fullmatch(rb"\d{1,19}", text) else None
