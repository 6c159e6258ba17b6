"""Names of files here: patterns that no shell has expanded, and how a file is called where it arrives."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterable

__all__ = ["base_name", "expand_local", "first_twice"]


def expand_local(words: Iterable[str]) -> list[str]:
    """Patterns that no shell has expanded; a name that is there as it is written is no pattern."""
    found: list[str] = []
    for word in words:
        names = [] if os.path.lexists(word) else sorted(glob.glob(word))
        found += [name for name in names or [word] if name not in found]
    return found


def base_name(path: str) -> str:
    """Under which a file or folder arrives in a folder; empty for "." and "..", whose content arrives there."""
    name = os.path.basename(path.rstrip(f"{os.sep}/"))
    return "" if name in (os.curdir, os.pardir) else name


def first_twice(names: Iterable[str]) -> str | None:
    """The first that comes a second time."""
    seen: set[str] = set()
    for name in names:
        if name in seen:
            return name
        seen.add(name)
    return None
