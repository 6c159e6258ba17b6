"""The place of the agent's journal: the state directory, or memory while a full disk has no room for it.

If the outboxes are on the full disk, only deliveries free space, and an agent that waited for space would wait for
ever. So it works with a journal in memory then. Nothing is lost, because a file leaves its outbox only after the server
has it; but transfers that a crash interrupts meanwhile start over.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable

from iot.spooler.config.outboxes import AfterUpload
from iot.spooler.config.settings import Settings
from iot.spooler.naming import shown
from iot.spooler.queue.deliveries import DELIVERIES
from iot.spooler.queue.queue import QUEUE_SCHEMA
from iot.transfer import DiskFull, Journal, LocalStateError

__all__ = ["JournalLocation"]

log = logging.getLogger(__name__)

LOOK_EVERY_S = 5.0


class JournalLocation:
    """clock: monotonic seconds. journal: the current one.

    Raises: DiskFull if deliveries would free no space, JournalUnavailable.
    """

    def __init__(self, settings: Settings, clock: Callable[[], float]) -> None:
        self._settings = settings
        self._clock = clock
        self._look_at = float("inf")
        self._found: Journal | None = None
        self.journal = self._open()

    def has_room_again(self) -> bool:
        """Whether a full disk has room for the journal again; checked every few seconds."""
        if self._found is None and self._clock() >= self._look_at:
            self._look_at = self._clock() + LOOK_EVERY_S
            try:
                self._found = Journal(self._settings.state_dir, QUEUE_SCHEMA, DELIVERIES)
            except LocalStateError:
                return False  # not yet
        return self._found is not None

    def move(self) -> None:
        """Switch to the journal on the disk, if there is room again."""
        if self._found is None:
            return
        self.journal.close()
        self.journal, self._found = self._found, None
        self._look_at = float("inf")
        log.info("journal is on the disk again path=%s", shown(str(self._settings.state_dir)))

    def close(self) -> None:
        self.move()
        self.journal.close()

    def _open(self) -> Journal:
        try:
            return Journal(self._settings.state_dir, QUEUE_SCHEMA, DELIVERIES)
        except DiskFull as error:
            if not _deliveries_make_room(self._settings):
                raise
            log.error("no space for the journal: kept in memory until deliveries free some error=%s", shown(str(error)))
        self._look_at = self._clock() + LOOK_EVERY_S
        return Journal(None, QUEUE_SCHEMA, DELIVERIES)


def _deliveries_make_room(settings: Settings) -> bool:
    """Whether removing a file from its outbox frees space on the disk of the state directory."""
    try:
        disk = os.stat(settings.state_dir).st_dev
        leaving = [outbox for outbox in settings.outbox if outbox.enabled and outbox.after_upload is AfterUpload.DELETE]
        return any(os.stat(outbox.path).st_dev == disk for outbox in leaving)
    except OSError:
        return False
