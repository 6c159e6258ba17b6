"""Where each setting came from: a line of the TOML file, a variable of the environment, a credential.

tomllib tells no lines. So the file is read again up to some line, by the same parser, until the line is found at which
a setting appears: no second reader has to know what TOML is. That happens only where something is wrong.
"""

from __future__ import annotations

import bisect
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from iot.spooler.naming import shown

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

__all__ = ["Contradiction", "Origins", "Place", "Setting"]

Place = tuple[str | int, ...]
Setting = tuple[Place, str]
"""A key and its value, as it may be shown."""


class Contradiction(NamedTuple):
    """settings: the keys that do not go together."""

    settings: tuple[Setting, ...]
    reason: str


class Origins:
    """path: the TOML file. text: its content. others: what the environment or a credential has set.

    kept: of settings from which some of several tables were left out, the number in the file of each that is there.
    """

    def __init__(
        self,
        path: Path | None,
        text: str,
        others: Mapping[Place, str],
        kept: Mapping[str, Sequence[int]] | None = None,
    ) -> None:
        self._file = shown(str(path)) if path else "the environment"
        self._text = text
        self._others = others
        self._kept = kept or {}
        self._lines = _Lines(text)

    def without(self, kept: Mapping[str, Sequence[int]]) -> Origins:
        """The same for settings that hold only these of the tables with such a name."""
        origins = Origins(None, self._text, self._others, kept)
        origins._file, origins._lines = self._file, self._lines
        return origins

    def of(self, place: Place) -> str:
        """In words; of a table, where its innermost part that was set as one came from."""
        place = self._as_given(place)
        ways = (place[:end] for end in range(len(place), 0, -1))
        inside = (origin for way, origin in self._others.items() if way[: len(place)] == place)
        return next((self._others[way] for way in ways if way in self._others), next(inside, self._line(place)))

    def key(self, place: Place) -> str:
        """As a key of the configuration is written: outbox[0].path."""
        parts = (f"[{part}]" if isinstance(part, int) else f".{part}" for part in self._as_given(place))
        return "".join(parts).removeprefix(".")

    def _as_given(self, place: Place) -> Place:
        match place:
            case (str(table), int(number), *rest) if table in self._kept:
                return table, self._kept[table][number], *rest
        return place

    def _line(self, place: Place) -> str:
        line = self._lines.of(place)
        return self._file if line is None else f"{self._file}:{line}"


class _Lines:
    def __init__(self, text: str) -> None:
        self._lines = text.split("\n")
        self._read: dict[int, Any] = {}

    def of(self, place: Place) -> int | None:
        """The first line of a setting; of one that is not there, of the innermost table around it."""
        whole = len(self._lines)
        there = next((place[:end] for end in range(len(place), 0, -1) if self._holds(whole, place[:end])), None)
        if there is None:
            return None
        last = bisect.bisect_left(range(whole + 1), True, key=lambda count: self._holds(count, there))
        return self._readable(last - 1)[0] + 1

    def _holds(self, count: int, place: Place) -> bool:
        here = self._readable(count)[1]
        try:
            for part in place:
                here = here[part]
        except (LookupError, TypeError):
            return False
        return True

    def _readable(self, count: int) -> tuple[int, Any]:
        """So many lines, or fewer where they would end within a value -> how many, and what they set."""
        while True:
            if count not in self._read:
                try:
                    self._read[count] = tomllib.loads("\n".join(self._lines[:count]) + "\n")
                except (ValueError, RecursionError):
                    self._read[count] = None
            if self._read[count] is not None:
                return count, self._read[count]
            count -= 1
