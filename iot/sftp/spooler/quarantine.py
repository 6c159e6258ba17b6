"""What is in quarantine, and back from there: every file to the place it came from, never over a newer one."""

from __future__ import annotations

import logging
import os
from pathlib import Path

from iot.sftp.spooler.folders import DIRECTORY, directory, make_below, rename_noreplace
from iot.sftp.spooler.naming import shown

__all__ = ["count", "release"]

log = logging.getLogger(__name__)
REASON = b".reason.txt"


def count(quarantine: Path) -> int:
    """How many files lie there; 0 where there is no such folder."""
    return sum(not name.endswith(REASON) for _, _, names in os.walk(bytes(quarantine)) for name in names)


def release(quarantine: Path, outbox: Path) -> tuple[int, int]:
    """Move every file back into the outbox; how many were moved, how many could not be.

    A file whose place is taken by a newer one stays where it is.
    """
    moved = stuck = 0
    for root, _, names in os.walk(bytes(quarantine)):
        below = os.path.relpath(root, bytes(quarantine))
        for name in names:
            if name.endswith(REASON):
                continue
            if _release(quarantine, outbox, b"" if below == b"." else below, name):
                moved += 1
            else:
                stuck += 1
    return moved, stuck


def _release(quarantine: Path, outbox: Path, below: bytes, name: bytes) -> bool:
    try:
        root = os.open(outbox, DIRECTORY)
        try:
            there = make_below(root, below)
        finally:
            os.close(root)
        try:
            with directory(bytes(quarantine), below) as here:
                rename_noreplace(here, name, there, name)
                _drop_reason(here, name)
                os.fsync(there)
                os.fsync(here)
        finally:
            os.close(there)
    except OSError as error:
        log.error("cannot release path=%s error=%s", shown(os.path.join(below, name)), shown(str(error.strerror)))
        return False
    return True


def _drop_reason(here: int, name: bytes) -> None:
    try:
        os.unlink((name[: 255 - len(REASON)]) + REASON, dir_fd=here)
    except FileNotFoundError:
        pass  # the disk was full when it was to be written
