"""The file `<file>.sha256` in the format of sha256sum. Pure."""

from __future__ import annotations

import posixpath
import re

__all__ = ["MOST_BYTES", "checksum_line", "sha256_alone", "sha256_listed"]

MOST_BYTES = 64 * 1024
LINE = re.compile(rb"(?P<escaped>\\?)(?P<digest>[0-9a-fA-F]{64})(?: [ *](?P<name>.+))?")
TAGGED = re.compile(rb"(?P<escaped>\\?)SHA256 \((?P<name>.+)\) = (?P<digest>[0-9a-fA-F]{64})")


def sha256_listed(content: bytes, name: bytes) -> str | None:
    """The digest that a checksum file lists for `name`; a line without a name counts if it is the only one."""
    lines = [line.rstrip(b"\r") for line in content.split(b"\n") if line.strip()]
    for line in lines:
        match = LINE.fullmatch(line) or TAGGED.fullmatch(line)
        if match is None:
            continue
        listed = match["name"]
        if listed is None and len(lines) > 1:
            continue
        if listed is None or posixpath.basename(_plain(listed, escaped=bool(match["escaped"]))) == name:
            return match["digest"].decode().lower()
    return None


def sha256_alone(content: bytes, name: bytes) -> str | None:
    """The digest of a checksum file that lists `name` and nothing else, as ours do; None for any other."""
    lines = [line for line in content.split(b"\n") if line.strip()]
    return sha256_listed(content, name) if len(lines) == 1 else None


def _plain(name: bytes, *, escaped: bool) -> bytes:
    if not escaped:
        return name
    meant = {b"\\\\": b"\\", b"\\n": b"\n", b"\\r": b"\r"}
    return re.sub(rb"\\[\\nr]", lambda found: meant[found[0]], name)


def checksum_line(digest: str, name: bytes) -> bytes:
    """A line in the format of sha256sum; a name with a line break or a backslash is marked and escaped."""
    if b"\n" in name or b"\\" in name:
        return b"\\" + digest.encode() + b"  " + name.replace(b"\\", b"\\\\").replace(b"\n", b"\\n") + b"\n"
    return digest.encode() + b"  " + name + b"\n"
