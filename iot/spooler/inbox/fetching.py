"""The files of an inbox that are to be fetched, and those that are on their way."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from iot.spooler.inbox.listing import remote_join
from iot.spooler.inbox.place import Place
from iot.spooler.inbox.wanted import Candidate
from iot.spooler.naming import shown
from iot.transfer import DownloadJob, Progress

__all__ = ["Fetching"]


class _InFlight(NamedTuple):
    candidate: Candidate
    done_bytes: int


class Fetching:
    """number: of the inbox: the first word of the keys of its jobs. source: its remote folder."""

    def __init__(self, number: int, source: str, place: Place) -> None:
        self._number = number
        self._source = source
        self._place = place
        self._pending: dict[str, Candidate] = {}
        self._in_flight: dict[str, _InFlight] = {}

    def __len__(self) -> int:
        """How many are to be fetched, those on their way included."""
        return len(self._pending)

    def want(self, candidates: Iterable[Candidate]) -> None:
        """These, and no others."""
        self._pending = {each.path: each for each in candidates}

    def next_job(self, suspended: Callable[[], bool]) -> DownloadJob | None:
        """The next file to fetch; None if there is none."""
        path = next((path for path in self._pending if path not in self._in_flight), None)
        if path is None:
            return None
        candidate = self._pending[path]
        self._in_flight[path] = _InFlight(candidate, 0)
        return DownloadJob(
            remote_join(self._source, path),
            self._place.fetching_path(os.fsencode(path)),
            key=(self._number, path),
            progress=lambda progress: self._progressed(path, progress),
            sha256=True,
            keep_times=True,
            sidecar=bool(candidate.checksum),
            suspended=suspended,
        )

    def ended(self, path: str) -> Candidate:
        """It is no longer on its way -> what was to be fetched."""
        return self._in_flight.pop(path).candidate

    def done(self, candidate: Candidate) -> None:
        """It is not to be fetched any more."""
        del self._pending[candidate.path]

    def abandon(self) -> None:
        """The run is over: what has not ended goes on in the next one."""
        self._in_flight.clear()

    def figures(self) -> list[dict[str, Any]]:
        """Of those on their way, for the status."""
        return [
            {
                "path": shown(path),
                "bytes": each.candidate.file.size or 0,
                "done_bytes": each.done_bytes,
                "percent": each.done_bytes * 100 // each.candidate.file.size if each.candidate.file.size else 0,
            }
            for path, each in self._in_flight.items()
        ]

    def _progressed(self, path: str, progress: Progress) -> None:
        if path in self._in_flight:
            self._in_flight[path] = self._in_flight[path]._replace(done_bytes=progress.done_bytes)
