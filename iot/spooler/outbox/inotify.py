"""inotify(7) through the C library: the kernel tells which names in a folder change.

It tells of changes made through this kernel and this file system only. Events can be lost (the queue overflows), and
watches can run out, so it is a reason to look and never the truth about what is there.

Source: inotify(7), inotify_add_watch(2), linux/inotify.h.
"""

from __future__ import annotations

import ctypes
import errno
import functools
import os
import struct
import sys
from collections.abc import Iterator
from typing import Any, NamedTuple

__all__ = [
    "CLOSED",
    "CREATED",
    "DELETED",
    "FOLDER",
    "FOLDER_DELETED",
    "FOLDER_MOVED",
    "MOVED_FROM",
    "MOVED_TO",
    "OVERFLOW",
    "UNMOUNTED",
    "UNWATCHED",
    "Inotify",
    "Note",
]

CLOSED = 0x8
"""A file that was open for writing was closed by its last holder."""
MOVED_FROM = 0x40
MOVED_TO = 0x80
CREATED = 0x100
DELETED = 0x200
FOLDER_DELETED = 0x400
FOLDER_MOVED = 0x800
UNMOUNTED = 0x2000
OVERFLOW = 0x4000
UNWATCHED = 0x8000
FOLDER = 0x40000000
"""Set beside the others when the name is that of a folder."""
ONLY_FOLDERS = 0x01000000
NOT_UNLINKED = 0x04000000
"""No events of files that have no name any more."""
WATCHED = CLOSED | MOVED_FROM | MOVED_TO | CREATED | DELETED | FOLDER_DELETED | FOLDER_MOVED
"""Not IN_MODIFY, the only sign of truncate(2): it would wake the agent at each write of every producer."""
HEADER = struct.Struct("iIII")
READ_BYTES = 64 * 1024


class Note(NamedTuple):
    """What happened to `name` in the folder with this watch; without a name, to the folder itself.

    move: the same number in both notes of one rename, else 0.
    """

    watch: int
    what: int
    name: bytes
    move: int = 0

    def ends(self, other: Note) -> bool:
        """Whether both are of one rename within a folder."""
        return self.move == other.move != 0 and self.watch == other.watch


class Inotify:
    """One queue of events, open until `close`. descriptor: readable while there are some.

    Raises: OSError (EMFILE: no more of them for this user; ENOSYS: not this system).
    """

    def __init__(self) -> None:
        calls = _calls()
        if calls is None:
            raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
        self._add, self._remove = calls.inotify_add_watch, calls.inotify_rm_watch
        self.descriptor = _checked(calls.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC))

    def watch(self, folder: int) -> int:
        """The number of the watch of an open folder: the same one as before if it is watched already.

        Raises: OSError (ENOSPC: no more watches for this user; ENOENT: /proc is not mounted).
        """
        mask = WATCHED | ONLY_FOLDERS | NOT_UNLINKED
        return _checked(self._add(self.descriptor, b"/proc/self/fd/%d" % folder, mask))

    def unwatch(self, watch: int) -> None:
        """A watch that the kernel has ended already is ignored."""
        self._remove(self.descriptor, watch)

    def read(self) -> Iterator[Note]:
        """One portion of the events that are there; none when the queue is empty."""
        try:
            portion = os.read(self.descriptor, READ_BYTES)
        except BlockingIOError:
            return
        at = 0
        while at < len(portion):
            watch, what, move, length = HEADER.unpack_from(portion, at)
            at += HEADER.size + length
            yield Note(watch, what, portion[at - length : at].rstrip(b"\0"), move)

    def close(self) -> None:
        os.close(self.descriptor)


def _checked(result: int) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result


@functools.cache
def _calls() -> Any:
    """The C library; None where it has no inotify."""
    if sys.platform != "linux":
        return None
    library = ctypes.CDLL(None, use_errno=True)
    if not hasattr(library, "inotify_init1"):
        return None
    library.inotify_init1.argtypes = (ctypes.c_int,)
    library.inotify_add_watch.argtypes = (ctypes.c_int, ctypes.c_char_p, ctypes.c_uint32)
    library.inotify_rm_watch.argtypes = (ctypes.c_int, ctypes.c_int)
    return library
