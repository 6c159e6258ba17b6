"""Maps a path in an outbox to a path on the server, and makes names safe to display. Pure.

Paths in an outbox are bytes, separated by "/"; on the server side they are str with surrogateescape, so that every
byte of a name is kept.
"""

from __future__ import annotations

import re
from datetime import date

__all__ = [
    "TEMPLATES",
    "UnsafeName",
    "check_path",
    "check_template",
    "destination_for",
    "is_plain_name",
    "rule_for",
    "shown",
]

TEMPLATES = ("device_id", "outbox", "date")
PLACEHOLDER = re.compile(r"\{([^{}]*)\}")
DAY = "\0"
"""Stands for the day in a rule: the one character that no path can contain."""
EPOCH_DAY = date(1970, 1, 1).toordinal()
DAY_NS = 86_400 * 10**9


class UnsafeName(ValueError):
    """A path that would leave its folder, or that no file can have."""


def check_template(template: str) -> None:
    """Check the template of a destination. Raises: ValueError saying what is wrong with it."""
    unknown = [name for name in PLACEHOLDER.findall(template) if name not in TEMPLATES]
    if unknown:
        raise ValueError(f"unknown {{{unknown[0]}}}; known are " + ", ".join(f"{{{name}}}" for name in TEMPLATES))
    if "{" in PLACEHOLDER.sub("", template) or "}" in PLACEHOLDER.sub("", template):
        raise ValueError("unpaired { or }")
    if "\0" in template or ".." in template.split("/"):
        raise ValueError('must not contain ".." or a NUL')


def rule_for(template: str, *, device_id: str, outbox: str) -> str:
    """The template with everything filled in that is the same for all files; attempts are recorded with this rule."""
    values = {"device_id": device_id, "outbox": outbox, "date": DAY}
    return PLACEHOLDER.sub(lambda match: values[match.group(1)], template)


def destination_for(path: bytes, rule: str, mtime_ns: int) -> str:
    """The remote path of a file: the rule's folder, then its unchanged path in the outbox.

    {date} is the UTC day of the file's modification time, so that every attempt has the same destination.

    Raises: UnsafeName, see check_path.
    """
    check_path(path)
    base = rule.replace(DAY, _day(mtime_ns)) if DAY in rule else rule
    return _join(base, path.decode("utf-8", "surrogateescape"))


def check_path(path: bytes) -> None:
    """Raises: UnsafeName if the path is empty or absolute, or contains ".." or NUL."""
    parts = path.split(b"/")
    if b"\0" in path or any(part in (b"", b".", b"..") for part in parts):
        raise UnsafeName(f"not a path below an outbox: {shown(path)}")


def is_plain_name(name: str) -> bool:
    """Whether it is a single, ordinary component of a path."""
    return name not in ("", ".", "..") and "/" not in name and "\0" not in name


def _join(base: str, path: str) -> str:
    if base in ("", "."):
        return path
    return f"{base.rstrip('/')}/{path}"


def _day(mtime_ns: int) -> str:
    """The nearest day with a year of four digits."""
    return date.fromordinal(min(max(EPOCH_DAY + mtime_ns // DAY_NS, 1), date.max.toordinal())).isoformat()


def shown(name: bytes | str) -> str:
    """A name for logs and terminals: one word without control characters; bytes that are not UTF-8 become \\xNN."""
    text = name.decode("utf-8", "surrogateescape") if isinstance(name, bytes) else name
    plain = text.isprintable() and '"' not in text and "\\" not in text
    body = text if plain else "".join(map(_visible, text))
    return f'"{body}"' if body != text or not body or " " in body or "=" in body else body


def _visible(character: str) -> str:
    code = ord(character)
    if 0xDC80 <= code <= 0xDCFF:
        return f"\\x{code - 0xDC00:02x}"
    if character in '"\\':
        return "\\" + character
    if character.isprintable():
        return character
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
