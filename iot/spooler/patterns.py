"""Include and exclude patterns: which paths in an outbox are sent. Pure.

A pattern must match the whole path relative to the outbox. `*` and `?` also match "/", `[...]` is a set; with the
prefix "re:" the pattern is a regular expression, which must match the whole path, too.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Callable, Sequence

__all__ = ["check_pattern", "matcher", "wanted"]

REGEX_MARK = "re:"
Match = Callable[[str], bool]


def check_pattern(pattern: str) -> None:
    """Raises: ValueError if the pattern is invalid."""
    try:
        re.compile(_as_regex(pattern))
    except re.error as error:
        raise ValueError(f"not a regular expression: {error}") from None


def matcher(patterns: Sequence[str], *, ignore_case: bool = False) -> Match:
    """A function that says whether any of the patterns matches a path. Without patterns nothing matches."""
    if not patterns:
        return lambda _: False
    flags = re.DOTALL | (re.IGNORECASE if ignore_case else 0)
    compiled = [re.compile(_as_regex(pattern), flags) for pattern in patterns]
    return lambda path: any(regex.fullmatch(path) for regex in compiled)


def wanted(include: Sequence[str], exclude: Sequence[str], *, ignore_case: bool = False) -> Match:
    """A function that says whether to send a path: included and not excluded. Without `include` all are included."""
    included = matcher(include, ignore_case=ignore_case) if include else (lambda _: True)
    excluded = matcher(exclude, ignore_case=ignore_case)
    return lambda path: included(path) and not excluded(path)


def _as_regex(pattern: str) -> str:
    if pattern.startswith(REGEX_MARK):
        return pattern[len(REGEX_MARK) :]
    return fnmatch.translate(pattern)
