"""Which paths are safe, and how names are shown. Pure."""

from __future__ import annotations

__all__ = ["UnsafeName", "check_path", "encoded", "is_plain_name", "shown"]


class UnsafeName(ValueError):
    """A path that would leave its folder, or that no file can have."""


def check_path(path: bytes) -> None:
    """Raises: UnsafeName if the path is empty or absolute, or contains ".." or NUL."""
    parts = path.split(b"/")
    if b"\0" in path or any(part in (b"", b".", b"..") for part in parts):
        raise UnsafeName(f"not a path below an outbox: {shown(path)}")


def encoded(name: str, characters: str) -> str:
    """A path with these characters, and with them "%", control characters and bytes that are not UTF-8, as %XX."""
    refused = {"%", *characters}
    return "".join(_percent(each) if each in refused or _is_odd(each) else each for each in name)


def _is_odd(character: str) -> bool:
    code = ord(character)
    return code < 0x20 or 0x7F <= code < 0xA0 or 0xDC80 <= code <= 0xDCFF


def _percent(character: str) -> str:
    return "".join(f"%{byte:02X}" for byte in character.encode("utf-8", "surrogateescape"))


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
