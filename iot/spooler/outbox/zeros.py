"""Whether a file ends as a power cut leaves files: in blocks that were never written."""

from __future__ import annotations

import os

from iot.spooler.outbox.mounts import FileSystem
from iot.spooler.state.power_cut import PowerCut
from iot.transfer import Fingerprint

__all__ = ["ends_in_zeros", "may_have_suffered"]

BLOCK_BYTES = 4096
PIECE_BYTES = 512
"""A last block that is not full counts if it is at least so long: a few zeros may well be meant."""


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
