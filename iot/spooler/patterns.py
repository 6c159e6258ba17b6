"""Include and exclude patterns: which paths in an outbox are sent; and names that tell of completeness. Pure.

A pattern must match the whole path relative to the outbox. `*` and `?` also match "/", `[...]` is a set; with the
prefix "re:" the pattern is a regular expression, which must match the whole path, too.
"""

from __future__ import annotations

import fnmatch
import posixpath
import re
from collections.abc import Callable, Sequence

__all__ = ["REGEX_MARK", "MarkerName", "check_pattern", "is_unfinished", "matcher", "wanted"]

REGEX_MARK = "re:"
UNFINISHED = (".tmp", ".part")
PLACES = ("{name}", "{stem}")
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
    if not include and not exclude:
        return lambda _: True
    included = matcher(include, ignore_case=ignore_case) if include else (lambda _: True)
    excluded = matcher(exclude, ignore_case=ignore_case)
    return lambda path: included(path) and not excluded(path)


def is_unfinished(path: str) -> bool:
    """Whether a file has a name that programs give to what they have not finished: .tmp or .part at its end, or a dot
    in front of it or of a folder that it lies in."""
    return path.lower().endswith(UNFINISHED) or any(part.startswith(".") for part in path.split("/"))


class MarkerName:
    """The name of the file that says of another, or of all in its folder, that it is complete: "{name}.done" is
    a.csv.done for a.csv, "{stem}.done" is a.done for it, and "READY" stands for all files in its folder.

    Raises: ValueError.
    """

    def __init__(self, template: str) -> None:
        place = next((place for place in PLACES if place in template), "")
        before, after = template.split(place, 1) if place else (template, "")
        if "/" in template or "\0" in template or any(place in before + after for place in PLACES):
            raise ValueError("must be a name with {name} or {stem} in it once, or without either")
        if template in ("", ".", "..") or not before + after:
            raise ValueError("must differ from the name of the file itself")
        self._place, self._before, self._after = place, before, after

    @property
    def is_of_one_file(self) -> bool:
        """Whether each file has its own."""
        return bool(self._place)

    def is_marker(self, path: str) -> bool:
        name = posixpath.basename(path)
        if not self._place:
            return name == self._before
        long_enough = len(name) > len(self._before) + len(self._after)
        return long_enough and name.startswith(self._before) and name.endswith(self._after)

    def of(self, path: str) -> str:
        """The path of the marker of a file."""
        folder, name = posixpath.split(path)
        names = {"{name}": name, "{stem}": posixpath.splitext(name)[0], "": ""}
        return posixpath.join(folder, self._before + names[self._place] + self._after)

    def file(self, path: str) -> str | None:
        """The path of the file that a marker belongs to; None where it may be any of several."""
        folder, name = posixpath.split(path)
        if self._place != "{name}":
            return None
        return posixpath.join(folder, name[len(self._before) : len(name) - len(self._after)])


def _as_regex(pattern: str) -> str:
    if pattern.startswith(REGEX_MARK):
        return pattern[len(REGEX_MARK) :]
    return fnmatch.translate(pattern)
