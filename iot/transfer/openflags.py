"""Flags of open(2), of which not every system has each."""

from __future__ import annotations

import os

__all__ = ["open_flags"]


def open_flags(*names: str) -> int:
    """All of these that this system has."""
    found = 0
    for name in names:
        found |= getattr(os, name, 0)
    return found
