"""One transfer at a time per destination, across all processes that share a state directory.

A byte range of a lock file represents one transfer. The kernel releases it when its process dies, so there is nothing
to clean up. To set one, the kernel walks over all that are set in the same file, which for a thousand transfers takes a
twelfth of their CPU: so they are spread over several files. Without byte-range locks (Windows), only the transfers of
this process exclude each other.
"""

from __future__ import annotations

import errno
import os
import struct
import threading
import zlib
from pathlib import Path

from iot.transfer.errors import TransientError
from iot.transfer.terminal import quoted

try:
    import fcntl

    BYTE_RANGES = hasattr(fcntl, "F_OFD_SETLK")
except ImportError:  # Windows
    BYTE_RANGES = False

LOCK_NAMES = ("transfers.lock", *(f"transfers.{number}.lock" for number in range(1, 8)))


class Busy(TransientError):
    """Another transfer to the same destination is under way."""


class TransferLocks:
    """state_dir None: only the transfers of this object exclude each other."""

    def __init__(self, state_dir: Path | None) -> None:
        self._held: set[bytes] = set()
        self._guard = threading.Lock()
        self._files: list[int] = []
        if state_dir is not None and BYTE_RANGES:
            self._open(state_dir)

    def take(self, name: bytes) -> None:
        """Raises: Busy if another transfer has the lock."""
        with self._guard:
            if name in self._held or not self._set(name, "lock"):
                raise Busy(f"another transfer to {quoted(name)} is running; wait until it ends")
            self._held.add(name)

    def release(self, name: bytes) -> None:
        with self._guard:
            if name in self._held:
                self._held.remove(name)
                self._set(name, "unlock")

    def close(self) -> None:
        while self._files:
            os.close(self._files.pop())

    def _open(self, state_dir: Path) -> None:
        try:
            for name in LOCK_NAMES:
                self._files.append(os.open(state_dir / name, os.O_RDWR | os.O_CREAT, 0o600))
        except BaseException:
            self.close()
            raise

    def _set(self, name: bytes, what: str) -> bool:
        if not self._files:
            return True
        kind = fcntl.F_WRLCK if what == "lock" else fcntl.F_UNLCK
        start = zlib.crc32(name) << 16 | zlib.adler32(name) & 0xFFFF
        request = struct.pack("hhqqi4x", kind, os.SEEK_SET, start, 1, 0)  # struct flock
        try:
            fcntl.fcntl(self._files[(start >> 16) % len(self._files)], fcntl.F_OFD_SETLK, request)
        except OSError as error:
            if error.errno in (errno.EAGAIN, errno.EACCES):
                return False
            raise
        return True
