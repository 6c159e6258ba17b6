"""Where checkpoints are in the journal: an index in memory, so that none has to be written to flash."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from iot.transfer.journal.journal import Journal

__all__ = ["Places"]


class Places:
    """Which row holds the checkpoint of which transfer with one server; shared by all who use the same journal."""

    def __init__(self, journal: Journal, server: str) -> None:
        self._journal = journal
        self._server = server
        self._version: int | None = None
        self._places: dict[int, int] = {}

    def current(self) -> dict[int, int]:
        """Hash of the transfer -> number of the row; read again when another process has written."""
        version = self._journal.read("PRAGMA data_version")[0][0]
        if version != self._version:
            rows = self._journal.read("SELECT id, key FROM checkpoint WHERE server = ?", self._server)
            self._places = {row["key"]: row["id"] for row in rows}
            self._version = version
        return self._places

    @contextlib.contextmanager
    def changing(self) -> Iterator[dict[int, int | None]]:
        """Takes what a transaction has changed; where that failed, all is read again."""
        changes: dict[int, int | None] = {}
        try:
            yield changes
        except BaseException:
            self._version = None
            raise
        self._places.update({key: place for key, place in changes.items() if place is not None})
        for key in [key for key, place in changes.items() if place is None]:
            self._places.pop(key, None)
