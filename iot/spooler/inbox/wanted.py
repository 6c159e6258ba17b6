"""Which of the files that a look has found are to be fetched now. No input or output.

A file is fetched once two looks, settle_s apart, have found the same size and time, or once its checksum file lies
beside it. One that failed waits for its next try.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Mapping
from typing import NamedTuple

from iot.spooler.config.inboxes import Checksum
from iot.spooler.inbox.listing import SIDECAR
from iot.spooler.inbox.records import version_of
from iot.spooler.patterns import Match
from iot.transfer import RemoteFile

__all__ = ["Candidate", "Settling", "candidates", "clashes"]


class Candidate(NamedTuple):
    """A remote file as it was seen. checksum: the version of its checksum file; "" where it needs none."""

    path: str
    file: RemoteFile
    checksum: str

    @property
    def version(self) -> str:
        return version_of(self.file)


def candidates(
    files: Mapping[str, RemoteFile], wanted: Match, checksum: Checksum
) -> tuple[list[Candidate], dict[str, str]]:
    """Those that the settings ask for, and why others are not fetched now."""
    found, waiting = [], {}
    for path, file in sorted(files.items()):
        if checksum is not Checksum.OFF and path.endswith(SIDECAR):
            continue
        if not wanted(path):
            continue
        beside = version_of(files.get(path + SIDECAR)) if checksum is not Checksum.OFF else ""
        if checksum is not Checksum.OFF and not beside:
            missing = checksum is Checksum.REQUIRE
            waiting[path] = f"error: {SIDECAR} is missing" if missing else f"waits for its {SIDECAR}"
            continue
        found.append(Candidate(path, file, beside))
    return found, waiting


def clashes(paths: list[str]) -> dict[str, str]:
    """Each path that is another one's where names that differ in case, or in how they are composed, are one."""
    first: dict[str, str] = {}
    return {path: other for path in paths if (other := first.setdefault(_key(path), path)) != path}


def _key(path: str) -> str:
    return unicodedata.normalize("NFC", path).casefold()


class Settling:
    """settle_s: for so long a file must not change. clock: seconds, monotonic."""

    def __init__(self, settle_s: float, clock: Callable[[], float]) -> None:
        self._settle_s = settle_s
        self._now = clock
        self._seen: dict[str, tuple[str, float]] = {}

    def is_settled(self, candidate: Candidate) -> bool:
        if candidate.checksum or not self._settle_s:
            return True
        now = self._now()
        version, since = self._seen.get(candidate.path, ("", now))
        if version != candidate.version:
            self._seen[candidate.path] = candidate.version, now
            return False
        return now - since >= self._settle_s

    def unsettle(self, path: str) -> None:
        """It has changed since it was seen."""
        self._seen.pop(path, None)

    def keep_only(self, paths: set[str]) -> None:
        """Of these, whatever is seen is watched on."""
        self._seen = {path: seen for path, seen in self._seen.items() if path in paths}

    def look_at(self) -> float:
        """When the next one may be settled; infinity if none is watched."""
        now = self._now()
        moments = (since + self._settle_s for _, since in self._seen.values())
        return min((moment for moment in moments if moment > now), default=float("inf"))
