"""The environment of commands that the configuration names: a way to the server, a condition, a generator of codes."""

from __future__ import annotations

import os

__all__ = ["environment"]

OURS = ("SFTP_", "IOT_SPOOLER_")
PASSWORDS = "PASS"
"""In the name of every setting that is a password or a passphrase."""


def environment(**more: str) -> dict[str, str]:
    """Our own, without the secrets that may be in it."""
    kept = {name: value for name, value in os.environ.items() if not (name.startswith(OURS) and PASSWORDS in name)}
    return kept | more
