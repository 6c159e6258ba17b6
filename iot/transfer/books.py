"""The journal's part of one remote: its checkpoints and the locks of its transfers, opened on first use."""

from __future__ import annotations

import logging
import time
from pathlib import Path

from iot.transfer.errors import JournalUnavailable, LocalStateError
from iot.transfer.journal.checkpoints import CHECKPOINTS, Checkpoints
from iot.transfer.journal.journal import Journal, default_state_dir
from iot.transfer.locks import TransferLocks

__all__ = ["Books"]

log = logging.getLogger(__name__)


class Books:
    """server: whose checkpoints, e.g. user@host:port. journal: shared with others; without it one is opened in
    state_dir, or in the default state directory, or in memory where that cannot be written."""

    def __init__(
        self, server: str, journal: Journal | None, state_dir: Path | None, *, every_bytes: int, every_s: float
    ) -> None:
        self._server = server
        self._journal = journal
        self._owned = journal is None
        self._state_dir = state_dir
        self._every_bytes = every_bytes
        self._every_s = every_s
        self._opened: tuple[Journal, Checkpoints, TransferLocks] | None = None

    @property
    def owner(self) -> str:
        return self._open()[0].owner

    @property
    def checkpoints(self) -> Checkpoints:
        return self._open()[1]

    @property
    def locks(self) -> TransferLocks:
        return self._open()[2]

    @property
    def journal(self) -> Journal:
        return self._open()[0]

    def flush(self) -> None:
        """Drop now what was settled."""
        if self._opened is not None:
            try:
                self._opened[1].flush()
            except LocalStateError as error:  # a checkpoint too many does no harm
                log.warning("settled checkpoints stay in the journal: %s", error)

    def close(self) -> None:
        """Close the journal unless it was given to us."""
        self.flush()
        if self._opened is None:
            return
        journal, _, locks = self._opened
        locks.close()
        if self._owned:
            journal.close()
            self._journal = None
        self._opened = None

    def _open(self) -> tuple[Journal, Checkpoints, TransferLocks]:
        if self._opened is None:
            if self._journal is None:
                self._journal = self._open_journal()
            elif not self._owned:
                self._journal.register(CHECKPOINTS)
            journal = self._journal
            checkpoints = Checkpoints(
                journal, self._server, every_bytes=self._every_bytes, every_s=self._every_s, clock=time.monotonic
            )
            self._opened = journal, checkpoints, TransferLocks(journal.state_dir)
        return self._opened

    def _open_journal(self) -> Journal:
        if self._state_dir is not None:
            return Journal(self._state_dir, CHECKPOINTS)
        try:
            return Journal(default_state_dir(), CHECKPOINTS)
        except JournalUnavailable as error:
            log.warning("no journal, a resume will not survive this process: %s", error)
            return Journal(None, CHECKPOINTS)
