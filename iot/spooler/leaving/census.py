"""Counts the files in quarantine."""

from __future__ import annotations

import itertools
import logging
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from iot.spooler.leaving.records import ID
from iot.spooler.leaving.trust import open_trusted
from iot.spooler.naming import shown

__all__ = ["Census"]

log = logging.getLogger(__name__)

COUNT_AT_ONCE = 1000


class Census:
    """Counts the files in these quarantines, in small steps.

    files: as of the last complete count. failed: why the number is unknown.
    """

    def __init__(self, folders: Iterable[Path]) -> None:
        self.files = 0
        self.failed: str | None = None
        self._folders = sorted(set(folders))
        self._counting: Iterator[None] | None = None

    def begin(self) -> None:
        """Start a new count."""
        self._counting = self._count()

    def step(self) -> bool:
        """Continue the count -> whether there is more to do."""
        if self._counting is None:
            return False
        try:
            next(self._counting)
        except StopIteration:
            self._counting = self.failed = None
            return False
        except OSError as error:
            if self.failed is None:
                log.error("cannot look into the quarantine error=%s", shown(str(error)))
            self._counting, self.failed = None, f"quarantine: {error}"
            return False
        return True

    def finish(self) -> None:
        while self.step():
            pass

    def _count(self) -> Iterator[None]:
        files = 0
        for folder in self._folders:
            try:
                root = open_trusted(folder)
            except FileNotFoundError:
                continue
            try:
                with os.scandir(root) as entries:
                    while some := list(itertools.islice(entries, COUNT_AT_ONCE)):
                        files += sum(ID.fullmatch(entry.name) is not None for entry in some)
                        yield
            finally:
                os.close(root)
        self.files = files
