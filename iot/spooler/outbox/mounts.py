"""Weaknesses of file systems: other machines may write to them, inode numbers may change, and a removed file that is
still open may live on under another name.

Determined with fstatfs(2). An unlisted type is treated as an ordinary local file system.
"""

from __future__ import annotations

import ctypes
import functools
import re
from collections.abc import Callable
from typing import NamedTuple

from iot.transfer import Fingerprint

__all__ = ["FileSystem", "file_system"]

STATFS_BYTES = 256
"""Larger than struct statfs on any platform."""


class FileSystem(NamedTuple):
    """shared: other machines may write there, unseen by this kernel. inodes: inode numbers survive a remount. times:
    change times are distinct from modification times and survive a remount. silly: names under which a removed or
    replaced file is kept while it is open ("silly rename"). stacked: it shows the files of another file system, which
    may be changed there."""

    name: str = ""
    shared: bool = False
    inodes: bool = True
    times: bool = True
    silly: re.Pattern[bytes] | None = None
    stacked: bool = False

    def may_be_same(self, found: Fingerprint, known: Fingerprint) -> bool:
        """Whether these may have the same content although they differ: then it has to be compared."""
        return found.looks_like(known) or self.redated(found, known)

    def redated(self, found: Fingerprint, known: Fingerprint) -> bool:
        """Whether only a remount may have changed the modification time, because FAT cannot hold it: the clock of a
        device may stand at 1970."""
        first_s, end_s = FAT_TIMES_S
        return not self.inodes and found.size == known.size and not first_s <= known.mtime_ns // 10**9 < end_s

    def is_removed(self, name: bytes) -> bool:
        """Whether this is the remainder of a removed file, kept until it is closed."""
        return self.silly is not None and self.silly.fullmatch(name) is not None


FAT_TIMES_S = 315_532_800, 4_354_819_200
"""From 1980 until before 2108."""
FAT = FileSystem(inodes=False, times=False)
SILLY_FUSE = re.compile(rb"\.fuse_hidden[0-9a-f]{16}")
SILLY_NFS = re.compile(rb"\.nfs[0-9a-f]{24}")
SILLY_SMB = re.compile(rb"\.__smbfile_silly[0-9a-f]+")
"""libfuse lib/fuse.c hide_node, Linux fs/nfs/unlink.c nfs_sillyrename, fs/smb/client/dir.c cifs_silly_fullpath."""
KNOWN = {
    0x4D44: FAT._replace(name="vfat"),
    0x2011BAB0: FAT._replace(name="exfat"),
    0x65735546: FileSystem("fuse", shared=True, inodes=False, silly=SILLY_FUSE),
    0x6969: FileSystem("nfs", shared=True, silly=SILLY_NFS),
    0x517B: FileSystem("smb", shared=True, silly=SILLY_SMB),
    0xFF534D42: FileSystem("cifs", shared=True, silly=SILLY_SMB),
    0xFE534D42: FileSystem("smb3", shared=True, silly=SILLY_SMB),
    0x01021997: FileSystem("9p", shared=True),
    0x00C36400: FileSystem("ceph", shared=True),
    0x5346414F: FileSystem("afs", shared=True),
    0x6B414653: FileSystem("afs", shared=True),
    0x73757245: FileSystem("coda", shared=True),
    0x7461636F: FileSystem("ocfs2", shared=True),
    0x01161970: FileSystem("gfs2", shared=True),
    0x786F4256: FileSystem("vboxsf", shared=True),
    0x794C7630: FileSystem("overlay", stacked=True),
    0x0000F15F: FileSystem("ecryptfs", stacked=True),
}
"""Magic numbers from linux/magic.h and from the file systems' own sources."""
ORDINARY = FileSystem()


def file_system(descriptor: int) -> FileSystem:
    """The file system of an open file or folder; an ordinary one if it cannot be determined."""
    call = _fstatfs()
    buffer = ctypes.create_string_buffer(STATFS_BYTES)
    if call is None or call(descriptor, buffer) != 0:
        return ORDINARY
    number = ctypes.c_long.from_buffer(buffer).value & 0xFFFFFFFF
    return KNOWN.get(number, ORDINARY)


@functools.cache
def _fstatfs() -> Callable[[int, ctypes.Array[ctypes.c_char]], int] | None:
    try:
        call = ctypes.CDLL(None, use_errno=True).fstatfs
    except (OSError, AttributeError):
        return None  # not Linux
    call.argtypes = (ctypes.c_int, ctypes.c_void_p)
    call.restype = ctypes.c_int

    def fstatfs(descriptor: int, buffer: ctypes.Array[ctypes.c_char]) -> int:
        return int(call(descriptor, buffer))

    return fstatfs
