"""Which folders of a configuration get into each other's way: every contradiction is reported, none is left to chance.

Folders are compared as they are written and with all symlinks resolved.
"""

from __future__ import annotations

import itertools
import os
from collections import Counter
from pathlib import Path
from typing import NamedTuple

from iot.spooler.config.settings import AfterUpload, OutboxSettings, Settings

__all__ = ["contradictions"]


class Role(NamedTuple):
    """A folder and what it is for. key: its setting."""

    kind: str
    key: str
    path: Path
    outbox: OutboxSettings | None = None


def contradictions(settings: Settings) -> list[str]:
    """One line for each pair of folders that must not be as they are, and for each name that is not one outbox's."""
    found = []
    for one, other in itertools.combinations(_roles(settings), 2):
        reason = _reason(settings, one, other)
        if reason is not None:
            found.append(f"{one.key} = {str(one.path)!r} and {other.key} = {str(other.path)!r}: {reason}")
    for label, number in Counter(outbox.label for outbox in settings.outbox).items():
        if number > 1:
            found.append(f"outbox: {number} are called {label!r}: give each its own name")
    return found


def _roles(settings: Settings) -> list[Role]:
    roles = [Role("state", "state_dir", settings.state_dir)]
    for number, outbox in enumerate(settings.outbox):
        key = f"outbox[{number}]"
        roles.append(Role("outbox", f"{key}.path", outbox.path, outbox))
        if outbox.after_upload is AfterUpload.ARCHIVE or outbox.archive is not None:
            roles.append(Role("archive", f"{key}.archive", settings.archive_of(outbox), outbox))
        roles.append(Role("quarantine", f"{key}.quarantine", settings.quarantine_of(outbox), outbox))
    return roles


def _reason(settings: Settings, one: Role, other: Role) -> str | None:
    """Why these two cannot be so; `one` comes before `other` in the list of roles."""
    equal, nested = _relation(one.path, other.path)
    kinds = {one.kind, other.kind}
    if not equal and not nested:
        return None
    if kinds == {"outbox"}:
        return "one lies within the other: every file would be sent twice"
    if "outbox" in kinds:
        return "one lies within the other: an outbox must hold nothing but what is to be sent"
    if "state" in kinds:
        return None if _has_its_place(settings, other) else "the state directory holds nothing but the agent's state"
    if kinds == {"archive", "quarantine"}:
        return "one lies within the other: what was never delivered would be deleted by age"
    return "one lies within the other" if nested else _shared(one, other)


def _shared(one: Role, other: Role) -> str | None:
    """Why two outboxes cannot share this folder."""
    if one.kind == "quarantine" or _limits(one) == _limits(other):
        return None
    return "outboxes that share an archive must set the same archive_max_age_s and archive_max_bytes"


def _has_its_place(settings: Settings, role: Role) -> bool:
    """Archives and quarantines may lie in the state directory where they do by default."""
    place = settings.default_archive if role.kind == "archive" else settings.default_quarantine
    return all(way == base or base in way.parents for way, base in zip(_ways(role.path), _ways(place), strict=True))


def _relation(one: Path, other: Path) -> tuple[bool, bool]:
    """Whether they are the same folder, and whether one lies within the other."""
    pairs = list(zip(_ways(one), _ways(other), strict=True))
    equal = any(mine == theirs for mine, theirs in pairs)
    nested = any(mine in theirs.parents or theirs in mine.parents for mine, theirs in pairs)
    return equal, nested and not equal


def _ways(path: Path) -> tuple[Path, Path]:
    """As it is written, and as it really is."""
    return Path(os.path.normpath(path)), Path(os.path.realpath(path))


def _limits(role: Role) -> tuple[float | None, int | None]:
    assert role.outbox is not None
    return role.outbox.archive_max_age_s, role.outbox.archive_max_bytes
