"""Which paths are safe, and how names are shown. Pure."""

from __future__ import annotations

__all__ = ["UnsafeName", "check_path", "is_plain_name", "shown"]


class UnsafeName(ValueError):
    """A path that would leave its folder, or that no file can have."""


def check_path(path: bytes) -> None:
    """Raises: UnsafeName if the path is empty or absolute, or contains ".." or NUL."""
    parts = path.split(b"/")
    if b"\0" in path or any(part in (b"", b".", b"..") for part in parts):
        raise UnsafeName(f"not a path below an outbox: {shown(path)}")


def is_plain_name(name: str) -> bool:
    """Whether it is a single, ordinary component of a path."""
    return name not in ("", ".", "..") and "/" not in name and "\0" not in name


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
