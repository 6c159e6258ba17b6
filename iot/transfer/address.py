"""Where to log in, as arguments of a client: what is wrong with them, one line each.

A value is repeated only where it cannot hold a password, also one that stands in the wrong place.
"""

from __future__ import annotations

from collections.abc import Iterator

__all__ = ["host_problems", "port_problems", "text_problems"]

PORT_MAX = 65535
ENDS_A_LINE = "\r\n\0"


def host_problems(key: str, host: object) -> Iterator[str]:
    if not isinstance(host, str) or not host.strip():
        yield f"{key}: must be a name or an address (got {_shown(host)})"
    elif any(char in "/@" or char.isspace() or char in ENDS_A_LINE for char in host) or host.count(":") == 1:
        yield f"{key}: must be a name or an address alone, without user, port, path or space"


def port_problems(key: str, port: object) -> Iterator[str]:
    """None is the default port."""
    if port is not None and (isinstance(port, bool) or not isinstance(port, int) or not 1 <= port <= PORT_MAX):
        yield f"{key}: must be a whole number from 1 to {PORT_MAX} (got {_shown(port)})"


def text_problems(key: str, text: object) -> Iterator[str]:
    """For a user or a password. A line end or NUL would end what a protocol takes for it."""
    if not isinstance(text, str):
        yield f"{key}: must be text (got {type(text).__name__})"
    elif any(char in ENDS_A_LINE for char in text):
        yield f"{key}: must not contain a line end or NUL"


def _shown(value: object) -> str:
    harmless = value is None or isinstance(value, (int, float)) or not str(value).strip()
    return repr(value) if harmless else type(value).__name__
