"""Templates: texts with fields in braces, which are filled in for each file. Pure.

{device_id} {outbox}    from the configuration
{date} {mtime}          UTC time at which the file was last modified; {date:%Y/%m/%d} and {mtime:%H%M%S} format it
{boot_id}               8 hex digits that are another number after each boot of this device
{seq}                   number of the file in the journal, 10 digits; {seq:4} has at least 4
{hash8}                 the first 8 hex digits of the SHA-256 of its content
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import NamedTuple

__all__ = ["VARYING", "Facts", "Template"]

FIELD = re.compile(r"\{([^{}:]*)(?::([^{}]*))?\}")
DIRECTIVE = re.compile(r"%(.?)", re.DOTALL)
CONSTANT = ("device_id", "outbox")
VARYING = "\0"
"""In a text whose constant fields are filled in: here is a field that differs between files. No path has this
character."""
EPOCH = datetime(1970, 1, 1)  # noqa: DTZ001  UTC throughout
FIRST_S, LAST_S = -62_135_596_800, 253_402_300_799
"""The ends of the years 1 and 9999."""
SEQ_DIGITS = 10
SEQ_DIGITS_MAX = 19

DIRECTIVES: Mapping[str, Callable[[datetime], str]] = {
    "Y": lambda time: f"{time.year:04}",
    "y": lambda time: f"{time.year % 100:02}",
    "m": lambda time: f"{time.month:02}",
    "d": lambda time: f"{time.day:02}",
    "H": lambda time: f"{time.hour:02}",
    "M": lambda time: f"{time.minute:02}",
    "S": lambda time: f"{time.second:02}",
    "j": lambda time: f"{time.timetuple().tm_yday:03}",
    "G": lambda time: f"{time.isocalendar()[0]:04}",
    "V": lambda time: f"{time.isocalendar()[1]:02}",
    "s": lambda time: str(int((time - EPOCH).total_seconds())),
    "%": lambda _: "%",
}
"""Those of strftime that depend neither on the language nor on the system."""
DEFAULT_FORMATS = {"date": "%Y-%m-%d", "mtime": "%Y%m%dT%H%M%SZ"}
FIELDS = (*CONSTANT, *DEFAULT_FORMATS, "boot_id", "seq", "hash8")


class Facts(NamedTuple):
    """What a template can say of a file. seq: its number in the journal. boot_id, hash8: 8 hex digits."""

    mtime_ns: int
    seq: int = 0
    boot_id: str = "0" * 8
    hash8: str = "0" * 8


class Template:
    """text: as it was written. Raises: ValueError saying what is wrong with it."""

    def __init__(self, text: str) -> None:
        self.text = text
        for name, spec in FIELD.findall(text):
            _check_field(name, spec)
        rest = FIELD.sub("", text)
        if "{" in rest or "}" in rest:
            raise ValueError("unpaired { or }")
        if "\0" in text or ".." in self.filled(Facts(0), device_id="x", outbox="x").split("/"):
            raise ValueError('must not contain ".." or a NUL')

    @property
    def fields(self) -> set[str]:
        """The names of its fields."""
        return {name for name, _ in FIELD.findall(self.text)}

    @property
    def is_simple(self) -> bool:
        """Whether its fields are the constant ones and {date} only."""
        return all(name in CONSTANT or (name == "date" and not spec) for name, spec in FIELD.findall(self.text))

    def rule(self, *, device_id: str, outbox: str) -> str:
        """With the constant fields filled in; {date} is VARYING, other fields follow one."""
        constant = {"device_id": device_id, "outbox": outbox}

        def value(match: re.Match[str]) -> str:
            field = VARYING if match[0] == "{date}" else VARYING + match[0]
            return constant.get(match[1], field)

        return FIELD.sub(value, self.text)

    def filled(self, facts: Facts, *, device_id: str, outbox: str) -> str:
        constant = {"device_id": device_id, "outbox": outbox}
        return FIELD.sub(lambda match: constant.get(match[1]) or _value(match[1], match[2] or "", facts), self.text)


def _check_field(name: str, spec: str) -> None:
    if name not in FIELDS:
        raise ValueError(f"unknown {{{name}}}; known are " + ", ".join(f"{{{known}}}" for known in FIELDS))
    if not spec:
        return
    field = f"{{{name}:{spec}}}"
    if name in DEFAULT_FORMATS:
        unknown = [letter for letter in DIRECTIVE.findall(spec) if letter not in DIRECTIVES]
        if unknown:
            known = " ".join(f"%{each}" for each in DIRECTIVES)
            raise ValueError(f"{field}: unknown %{unknown[0]}; known are {known}")
    elif name != "seq":
        raise ValueError(f"{field}: {{{name}}} takes no format")
    elif not spec.isdecimal() or not spec.isascii() or not 1 <= int(spec) <= SEQ_DIGITS_MAX:
        raise ValueError(f"{field}: the format is the least number of digits, 1 to {SEQ_DIGITS_MAX}")


def _value(name: str, spec: str, facts: Facts) -> str:
    if name == "seq":
        return f"{facts.seq:0{int(spec or SEQ_DIGITS)}}"
    if name in DEFAULT_FORMATS:
        time = _time(facts.mtime_ns)
        return DIRECTIVE.sub(lambda match: DIRECTIVES[match[1]](time), spec or DEFAULT_FORMATS[name])
    return facts.hash8 if name == "hash8" else facts.boot_id


def _time(mtime_ns: int) -> datetime:
    """The nearest time whose year has four digits."""
    return EPOCH + timedelta(seconds=min(max(mtime_ns // 10**9, FIRST_S), LAST_S))
