"""A remote's part of the journal: its checkpoints and the locks of its transfers, opened on first use."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from iot.transfer.errors import ConfigurationError, JournalUnavailable, LocalStateError
from iot.transfer.journal.checkpoints import CHECKPOINTS, Checkpoints, Key
from iot.transfer.journal.elsewhere import Elsewhere
from iot.transfer.journal.journal import Journal, Schema, default_state_dir
from iot.transfer.locks import TransferLocks
from iot.transfer.model import TransferResult
from iot.transfer.settings import TransferSettings

__all__ = ["Books"]

log = logging.getLogger(__name__)


class Books:
    """server: whose checkpoints, e.g. user@host:port. journal: a shared one; if None, one is opened in the settings'
    state_dir, or in the default state directory, or in memory if that is not writable.
    schemas: others that are kept in that journal.
    """

    def __init__(self, server: str, journal: Journal | None, settings: TransferSettings, *schemas: Schema) -> None:
        if journal is not None and not isinstance(journal, Journal):
            raise ConfigurationError(
                f"journal: must be a Journal (got {type(journal).__name__}); its folder is the option state_dir"
            )
        self._server = server
        self._schemas = (CHECKPOINTS, *schemas)
        self._journal = journal
        self._owned = journal is None
        self._settings = settings
        self._opened: tuple[Journal, Checkpoints, TransferLocks] | None = None

    @property
    def is_open(self) -> bool:
        return self._opened is not None

    @property
    def journal(self) -> Journal:
        return self.open()[0]

    @property
    def checkpoints(self) -> Checkpoints:
        return self.open()[1]

    @property
    def locks(self) -> TransferLocks:
        return self.open()[2]

    def elsewhere(self, key_of: Callable[[TransferResult], Key]) -> Elsewhere:
        """What this journal has begun with other servers."""
        return Elsewhere(self.journal, self._server, key_of)

    def flush(self) -> None:
        """Drop the settled checkpoints now."""
        if self._opened is not None:
            try:
                self._opened[1].flush()
            except LocalStateError as error:  # a leftover checkpoint is harmless
                log.warning("checkpoints of delivered files not dropped: %s", error)

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

    def open(self) -> tuple[Journal, Checkpoints, TransferLocks]:
        if self._opened is None:
            if self._journal is None:
                self._journal = self._open_journal()
            elif not self._owned:
                for schema in self._schemas:
                    self._journal.register(schema)
            journal = self._journal
            checkpoints = Checkpoints(
                journal,
                self._server,
                every_bytes=self._settings.checkpoint_bytes,
                every_s=self._settings.checkpoint_s,
                clock=time.monotonic,
            )
            self._opened = journal, checkpoints, TransferLocks(journal.state_dir)
        return self._opened

    def _open_journal(self) -> Journal:
        if self._settings.state_dir is not None:
            return Journal(self._settings.state_dir, *self._schemas)
        try:
            return Journal(default_state_dir(), *self._schemas)
        except JournalUnavailable as error:
            log.warning("no journal, so transfers cannot be resumed by a later process: %s", error)
            return Journal(None, *self._schemas)
