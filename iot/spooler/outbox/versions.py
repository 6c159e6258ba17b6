"""Which versions of files are new to the queue, and what is recorded of one that is."""

from __future__ import annotations

import logging

from iot.spooler.config.outboxes import OutboxSettings
from iot.spooler.naming import UnsafeName, check_path, shown
from iot.spooler.outbox.place import Found, Place
from iot.spooler.patterns import matcher
from iot.spooler.queue.policy import State
from iot.spooler.queue.queue import Known, NewEntry, Queue
from iot.transfer import Fingerprint

__all__ = ["URGENT", "Versions"]

log = logging.getLogger(__name__)

URGENT = 0


class Versions:
    """Of one outbox, whose number in the queue is `outbox`.

    check_all: every version that is found may have been delivered already: the journal was lost, for one.
    """

    def __init__(
        self, settings: OutboxSettings, queue: Queue, outbox: int, place: Place, *, small_file_bytes: int
    ) -> None:
        self.check_all = False
        self._settings = settings
        self._queue = queue
        self._outbox = outbox
        self._place = place
        self._small_bytes = small_file_bytes
        self._urgent = matcher(settings.urgent, ignore_case=settings.ignore_case)

    def is_known(self, before: Known, found: Fingerprint) -> bool:
        """Where inode numbers are unstable, a kept file is compared by size and time: a remount sends nothing."""
        was, system = before.fingerprint, self._place.system
        if before.state is State.KEPT and not system.inodes:
            return was == found._replace(inode=was.inode, ctime_ns=found.ctime_ns if system.times else was.ctime_ns)
        return was == found

    def was_guessed_wrong(self, found: Found, before: Known | None) -> bool:
        """Whether its producer went on writing to a delivered file whose completeness was only a guess."""
        if before is None or before.state is not State.DELIVERED or before.fingerprint.inode != found.fingerprint.inode:
            return False
        completeness = self._place.completeness
        return completeness is None or not completeness.known

    def entries(self, path: bytes, version: Fingerprint, before: Known | None, wall: float) -> list[NewEntry]:
        """-> one entry, or none if its name is refused"""
        settings = self._settings
        try:
            check_path(path)
        except UnsafeName as error:
            log.warning("refused path=%s reason=%s", shown(path), shown(str(error)))
            return []
        entry = NewEntry(
            outbox=self._outbox,
            path=path,
            fingerprint=version,
            large=version.size > self._small_bytes,
            priority=URGENT if self._urgent(path.decode("utf-8", "surrogateescape")) else settings.priority,
            rank=settings.order.rank(path, version),
            first_seen=wall,
            check_final=self._may_stand(before, version),
            sent_before=self._queue.sent_before(before) if before and self._only_touched(before, version) else None,
        )
        return [entry]

    def _may_stand(self, before: Known | None, version: Fingerprint) -> bool:
        """Whether an earlier delivery of this version may be on the server already."""
        return self.check_all or (before is None and self._queue.lost_rows) or self._only_touched(before, version)

    def _only_touched(self, before: Known | None, version: Fingerprint) -> bool:
        """Size and time are those of the delivered version, but change time or inode differ: somebody changed its mode,
        owner or links, the medium was put in again, or it was rewritten and its time restored. The content decides: it
        is compared with the digest of what was delivered, if known, else with the file on the server. Until that is
        done, every version that takes the place of one still to be compared is to be compared as well."""
        if before is None or (before.state not in (State.KEPT, State.DELIVERED) and not before.check_final):
            return False
        return self._place.system.may_be_same(version, before.fingerprint)
