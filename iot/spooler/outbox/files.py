"""The files of one outbox: which of them count, what they are called on the server, and what speaks against sending or
removing one."""

from __future__ import annotations

import os
from collections.abc import Callable

from iot.spooler.config.outboxes import AfterUpload, OutboxSettings, Ready, Zeros
from iot.spooler.decisions import Decisions
from iot.spooler.outbox.departure import Departure
from iot.spooler.outbox.mounts import FileSystem
from iot.spooler.outbox.names import name_of
from iot.spooler.outbox.place import SourceFailed
from iot.spooler.outbox.readiness import Readiness
from iot.spooler.outbox.scan import Outbox
from iot.spooler.patterns import MarkerName, is_unfinished, matcher, wanted
from iot.spooler.queue.queue import Entry
from iot.spooler.state.elapsed import Clocks
from iot.spooler.state.power_cut import PowerCut
from iot.transfer import Fingerprint

__all__ = ["OutboxFiles", "ends_in_zeros", "may_have_suffered"]

DAMAGED = "written shortly before a power cut, and ends in zeros: perhaps not all of it was written"
BLOCK_BYTES = 4096
PIECE_BYTES = 512
"""A last block that is not full counts if it is at least so long: a few zeros may well be meant."""


class OutboxFiles:
    """Answers questions about single files; which there are, the scan finds out.

    cut: the last power cut, if one is known.
    """

    def __init__(self, settings: OutboxSettings, clocks: Clocks, device_id: str) -> None:
        self.settings = settings
        self.cut: PowerCut | None = None
        self.readiness = Readiness(settings.quiet_s)
        self.decisions = Decisions(settings.label)
        self._clocks = clocks
        self._naming = settings.naming(device_id)
        self._marker = MarkerName(settings.ready_marker) if settings.ready_marker else None
        self.outbox = Outbox(
            settings.path,
            wanted=_wanted(settings, self._marker),
            clock=clocks.monotonic,
            recursive=settings.recursive,
            excluded=matcher(settings.exclude, ignore_case=settings.ignore_case),
            unwanted=lambda path: self.decisions.tell(path, _why_unwanted(settings, self._marker, path)),
        )

    @property
    def may_be_touched(self) -> bool:
        """Whether a delivered file may have to be compared, because it stays in the outbox for a while and may be
        modified there, or because a remount changes its inode: its digest is recorded then."""
        completeness = self.outbox.completeness
        guessed = completeness is None or not completeness.known
        return guessed or not self.outbox.system.inodes or self.settings.after_upload is AfterUpload.KEEP

    def source(self, entry: Entry) -> str:
        """The local path of an entry's file."""
        return os.fsdecode(os.path.join(bytes(self.settings.path), entry.path))

    def destination(self, entry: Entry) -> str:
        """The name on the server of a file that has none yet; its first attempt is about to be recorded.

        Raises: UnsafeName if it cannot have one.
        """
        return name_of(entry, self._naming)

    def alternatives(self, entry: Entry) -> tuple[str, ...]:
        """Where the file goes if another has its destination."""
        return self._naming.alternatives(entry.path, entry.destination, entry.fingerprint)

    @property
    def part_suffixes(self) -> frozenset[str]:
        return self._naming.part_suffixes

    def part_suffix(self, entry: Entry) -> str | None:
        return self._naming.temporary_suffix(entry.path)

    def suspicion(self, entry: Entry) -> str:
        """Why a file should not be sent although it is ready: what a power cut may have left of it; "" if nothing."""
        version, cut = entry.fingerprint, self.cut
        if cut is None or self.settings.zeros_after_power_cut is Zeros.SEND:
            return ""
        if not may_have_suffered(version, cut, self.outbox.system):
            return ""
        try:
            file = self.outbox.open_file(entry.path)
            try:
                suffered = ends_in_zeros(file, version.size)
            finally:
                os.close(file)
        except (OSError, SourceFailed):
            return ""  # the upload finds out
        return DAMAGED if suffered else ""

    def departure(self, *, rested: bool) -> Departure:
        """The checks before a file leaves this outbox, which is open. rested: the file has been watched for hold_s."""
        assert self.outbox.leases is not None
        now, wall, hold_s = self._clocks.monotonic(), self._clocks.wall(), self.settings.hold_s
        return Departure(
            self.outbox.leases,
            lambda version: rested or self.readiness.rested(version, now, wall, hold_s),
            self.outbox.system,
        )


def _wanted(settings: OutboxSettings, marker: MarkerName | None) -> Callable[[str], bool]:
    chosen = wanted(settings.include, settings.exclude, ignore_case=settings.ignore_case)
    if settings.ready is Ready.RENAMED:
        return lambda path: not is_unfinished(path) and chosen(path)
    if marker is not None:
        return lambda path: not marker.is_marker(path) and chosen(path)
    return chosen


def _why_unwanted(settings: OutboxSettings, marker: MarkerName | None, path: bytes) -> str:
    name = os.fsdecode(path)
    if settings.ready is Ready.RENAMED and is_unfinished(name):
        return 'not sent, a name of what is not finished, by ready = "renamed"'
    if marker is not None and marker.is_marker(name):
        return "not sent, a marker"
    return "not sent, by the patterns include and exclude"


# -- what a power cut leaves: blocks that were never written


def may_have_suffered(version: Fingerprint, cut: PowerCut, system: FileSystem) -> bool:
    """Whether it was written shortly before the cut, as far as its times tell."""
    changed_ns = max(version.mtime_ns, version.ctime_ns) if system.times else version.mtime_ns
    return cut.from_s <= changed_ns / 1e9 <= cut.to_s


def ends_in_zeros(file: int, size: int) -> bool:
    """Whether the last block of an open file, or the last two, are zeros. At most two blocks are read.

    Raises: OSError.
    """
    last = max(size - 1, 0) // BLOCK_BYTES * BLOCK_BYTES
    tail = os.pread(file, size - last, last)
    if not tail or tail.count(0) != len(tail):
        return False
    if not last or len(tail) >= PIECE_BYTES:
        return True
    block = os.pread(file, BLOCK_BYTES, last - BLOCK_BYTES)
    return block.count(0) == len(block)
