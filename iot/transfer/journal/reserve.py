"""Disk space for the journal: a reserve for emergencies, and blocks allocated ahead so that commits write less."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import logging
import os
import secrets
import shutil
import time
from pathlib import Path

__all__ = ["FULL_ERRNOS", "RESERVE_BYTES", "RESERVE_NAME", "Reserve", "is_full", "lay_out"]

log = logging.getLogger(__name__)

RESERVE_NAME = "journal.reserve"
RESERVE_BYTES = 512 * 1024
FULL_BELOW_BYTES = 128 * 1024
AGAIN_S = 60.0
PROBE_BYTES = 64 * 1024
FULL_ERRNOS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class Reserve:
    """A file that only occupies space: deleted when the disk is full, so that deliveries can still be recorded.

    folder: the state directory; None: there is no reserve.
    """

    def __init__(self, folder: Path | None) -> None:
        self._path = folder / RESERVE_NAME if folder is not None else None
        self._again_at = float("inf")

    def keep(self) -> None:
        """Create it unless it exists; if there is no space for it, carry on without."""
        if self._path is None:
            return
        self._again_at = float("inf")
        try:
            if not self._path.exists() or self._path.stat().st_size != RESERVE_BYTES:
                _fill(self._path)
        except OSError as error:
            with contextlib.suppress(OSError):  # it does not exist, or cannot be deleted either
                self._path.unlink()
            self._again_at = time.monotonic() + AGAIN_S
            log.warning("no space for the journal's reserve path=%s error=%s", self._path, error)

    def give_up(self) -> bool:
        """-> whether there was one."""
        if self._path is None or not self._path.exists():
            return False
        self._path.unlink()
        self._again_at = time.monotonic() + AGAIN_S
        log.error("disk full: journal's reserve deleted path=%s", self._path)
        return True

    def tend(self) -> None:
        """Called now and then after it was deleted: create it again once twice as much space is free."""
        if self._path is None or time.monotonic() < self._again_at:
            return
        self._again_at = time.monotonic() + AGAIN_S
        if shutil.disk_usage(self._path.parent).free > 2 * RESERVE_BYTES:
            self.keep()


def _fill(path: Path) -> None:
    with open(path, "wb") as file:
        if not lay_out(file.fileno(), RESERVE_BYTES):
            file.write(secrets.token_bytes(RESERVE_BYTES))  # random, so that a file system cannot compress it


def lay_out(file: int, size: int) -> bool:
    """Allocate `size` bytes for the open file without writing them; False if that is not possible.

    Not posix_fallocate: where the file system lacks support, the C library writes zeros instead.
    """
    try:
        call = ctypes.CDLL(None, use_errno=True).fallocate64
    except (OSError, AttributeError, TypeError):  # not Linux: the last of them is Windows'
        return False
    call.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)
    return bool(call(file, 0, 0, size) == 0)


def is_full(error: BaseException, folder: Path | None) -> bool:
    """SQLite has an error code for a full disk, but does not use it when it extends the -wal and -shm."""
    text = str(error)
    if "full" in text or getattr(error, "errno", None) in FULL_ERRNOS:
        return True
    if folder is None or not ("I/O" in text or "unable to open" in text):
        return False
    with contextlib.suppress(OSError):  # a disk that cannot even answer that is not just full
        return shutil.disk_usage(folder).free < FULL_BELOW_BYTES or _is_limited(folder)
    return False


def _is_limited(folder: Path) -> bool:
    """Whether a quota or a process limit refuses space that the disk still has."""
    probe = folder / f"{RESERVE_NAME}.probe"
    try:
        file = os.open(probe, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            if os.pwrite(file, bytes(PROBE_BYTES), 0) < PROBE_BYTES:
                return True
            os.fsync(file)
        finally:
            os.close(file)
    except OSError as error:
        return error.errno in FULL_ERRNOS
    finally:
        with contextlib.suppress(OSError):
            probe.unlink()
    return False
