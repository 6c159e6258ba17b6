"""Servers that misbehave, each in one way: the embedded server with one method or two replaced.

    with Misbehaving(tmp_path / "root", FailsWrite) as server:
        ...
        assert server.hits      # the misbehaviour did happen
        server.active = False   # from here on it behaves

MISBEHAVIOURS at the end lists them all.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable, Mapping

from paramiko import Message
from servers.misbehaving_answers import (
    DropsIdle,
    Garbage,
    Late,
    LateClose,
    LateExtensions,
    NewHostKey,
    OutOfOrder,
    OverLongPacket,
    StopsReading,
    Twice,
    UnknownId,
)
from servers.quirks import KIB, Misbehaving, Quirk, ahead

from iot.sftp.server.files import OpenFile, SFTPSession
from iot.sftp.server.protocol import (
    EXTENDED_REPLY,
    FAILURE,
    OP_UNSUPPORTED,
    PERMISSION_DENIED,
    ProtocolBroken,
    Reply,
    RequestRefused,
)

__all__ = ["MISBEHAVIOURS", "Misbehaving", "Quirk"]

READ_FLAG, WRITE_FLAG, TRUNCATE_FLAG = 1, 2, 16


class RefusesOpenWithoutTruncate(Quirk):
    """As object stores do: an existing file is not opened for writing unless it is emptied."""

    code = OP_UNSUPPORTED

    def on_open(self, message: Message) -> Reply:
        peek = ahead(message)
        path, asked = peek.get_binary(), peek.get_int()
        if asked & WRITE_FLAG and not asked & TRUNCATE_FLAG and os.path.lexists(self.local(path)):
            self.refuse(self.code, "no writing into an existing file")
        return super().on_open(message)


class RefusesOpenWithFailure(RefusesOpenWithoutTruncate):
    """The same, told as a plain failure."""

    code = FAILURE


class RefusesRename(Quirk):
    """No rename of either kind, although posix-rename is announced."""

    code = PERMISSION_DENIED

    def on_rename(self, message: Message) -> Reply:
        self.refuse(self.code, "no renames here")
        return super().on_rename(message)

    def on_posix_rename(self, message: Message) -> Reply:
        self.refuse(self.code, "no renames here")
        return super().on_posix_rename(message)


class RefusesRenameOverExisting(Quirk):
    """posix-rename is announced but does not replace."""

    def on_posix_rename(self, message: Message) -> Reply:
        peek = ahead(message)
        peek.get_binary()
        if os.path.lexists(self.local(peek.get_binary(), itself=True)):
            self.refuse(FAILURE, "the target exists")
        return super().on_posix_rename(message)


class WithoutExtension(Quirk):
    without: tuple[bytes, ...] = ()

    @property
    def extensions(self) -> Mapping[bytes, bytes]:  # type: ignore[override]
        hidden = self.without if self.hit() else ()
        return {name: data for name, data in SFTPSession.extensions.items() if name not in hidden}


class NoPosixRename(WithoutExtension):
    without = (b"posix-rename@openssh.com",)


class NoFsync(WithoutExtension):
    without = (b"fsync@openssh.com",)


class NoExtensions(WithoutExtension):
    without = tuple(SFTPSession.extensions)


class NoStatSize(Quirk):
    """Attributes come without a size."""

    def attributes(self, found: os.stat_result) -> bytes:
        if not self.hit():
            return super().attributes(found)
        return struct.pack(">I3I", 4 | 8, found.st_mode, int(found.st_atime), int(found.st_mtime))


class FourHandles(WithoutExtension):
    """At most four open handles, and no word of it before the fifth is refused."""

    without = (b"limits@openssh.com",)
    max_handles = 4

    def check_handles(self) -> None:
        if len(self.handles) >= self.max_handles:
            self.refuse(FAILURE, "too many open handles")


class WriteOnly(Quirk):
    """A drop box: what was written cannot be read."""

    def on_open(self, message: Message) -> Reply:
        peek = ahead(message)
        peek.get_binary()
        if peek.get_int() & READ_FLAG:
            self.refuse(PERMISSION_DENIED, "this is a drop box")
        return super().on_open(message)


class FailsClose(Quirk):
    """The data is lost at CLOSE, as with a full quota that is looked at late; the file is emptied."""

    def on_close(self, message: Message) -> Reply:
        handle = self.handles.get(ahead(message).get_binary())
        reply = super().on_close(message)
        if isinstance(handle, OpenFile) and handle.writable and self.hit():
            os.truncate(handle.path, 0)
            raise RequestRefused(FAILURE, "could not be stored")
        return reply


class FailsWrite(Quirk):
    """One WRITE fails, the others are taken: a hole, for a client that does not wait for every answer."""

    which = 40

    def on_write(self, message: Message) -> Reply:
        if self.count() == self.which:
            self.refuse(FAILURE, "this block was not written")
        return super().on_write(message)


class GarbledExtras(FailsWrite):
    """What the extensions that only help answer is cut short; and a WRITE fails, so that free space is asked for."""

    which = 0

    def garbled(self, message: Message) -> Reply:
        if not self.hit():
            raise RequestRefused(FAILURE, "not now")
        return EXTENDED_REPLY, b"\0\0\0\x20garbled"

    on_limits = on_statvfs = on_fstatvfs = garbled

    def on_unknown(self, message: Message) -> Reply:
        return self.garbled(message)


class DiskFull(Quirk):
    """`room` bytes fit; the write that does not is written in part and refused, and statvfs tells."""

    room = 256 * KIB

    def used(self) -> int:
        folders = os.walk(self.root)
        return sum(os.lstat(os.path.join(folder, name)).st_size for folder, _, names in folders for name in names)

    def on_write(self, message: Message) -> Reply:
        peek = ahead(message)
        file, offset, data = self.file(peek), peek.get_int64(), peek.get_binary()
        growth = offset + len(data) - os.fstat(file.descriptor).st_size
        left = self.room - self.used()
        if growth > left and self.hit():
            os.pwrite(file.descriptor, data[: len(data) - growth + left], offset)
            raise RequestRefused(FAILURE, "Failure")
        return super().on_write(message)

    def _space(self, found: os.statvfs_result) -> Reply:
        kind, data = super()._space(found)
        values = list(struct.unpack(">11Q", data))
        if self.server.active:
            values[3:5] = [0, 0]
        return kind, struct.pack(">11Q", *values)


class Crash(Quirk):
    """After `after` bytes of writes the server goes down once; what was not fsynced may be damaged."""

    after = 1024 * KIB
    damaged = 64 * KIB

    def __init__(self, root: bytes, send: Callable[[bytes], None], server: Misbehaving) -> None:
        super().__init__(root, send, server)
        self.synced: dict[bytes, int] = {}

    def on_fsync(self, message: Message) -> Reply:
        file = self.file(ahead(message))
        reply = super().on_fsync(message)
        self.synced[file.path] = os.fstat(file.descriptor).st_size
        return reply

    def on_write(self, message: Message) -> Reply:
        peek = ahead(message)
        file = self.file(peek)
        peek.get_int64()
        reply = super().on_write(message)
        self.server.counted += len(peek.get_binary())
        if self.server.counted >= self.after and not self.server.hits and self.hit():
            self.flush()
            size = os.fstat(file.descriptor).st_size
            self.damage(file.descriptor, max(self.synced.get(file.path, 0), size - self.damaged))
            self.server.drop_connections()
            raise ProtocolBroken("crashed")
        return reply

    def damage(self, descriptor: int, start: int) -> None:
        """What a power loss did to the bytes from start on."""


class LosesTail(Crash):
    def damage(self, descriptor: int, start: int) -> None:
        os.ftruncate(descriptor, start)


class ZeroFills(Crash):
    """The size stays, a block reads as zeros."""

    def damage(self, descriptor: int, start: int) -> None:
        length = os.fstat(descriptor).st_size - start
        os.pwrite(descriptor, bytes(length), start)


class MovesAway(Quirk):
    """A consumer takes every file the moment it has its final name; it stands in `.taken` then."""

    def taken(self, message: Message, rename: Callable[[Message], Reply]) -> Reply:
        peek = ahead(message)
        peek.get_binary()
        target = self.local(peek.get_binary(), itself=True)
        reply = rename(message)
        if self.hit():
            folder = os.path.join(self.root, b".taken")
            os.makedirs(folder, exist_ok=True)
            os.replace(target, os.path.join(folder, os.path.basename(target)))
        return reply

    def on_rename(self, message: Message) -> Reply:
        return self.taken(message, super().on_rename)

    def on_posix_rename(self, message: Message) -> Reply:
        return self.taken(message, super().on_posix_rename)


MISBEHAVIOURS: dict[str, type[Quirk]] = {
    "refuses an open without truncation (status 8)": RefusesOpenWithoutTruncate,
    "refuses an open without truncation (status 4)": RefusesOpenWithFailure,
    "refuses rename": RefusesRename,
    "refuses rename over an existing file": RefusesRenameOverExisting,
    "has no posix-rename": NoPosixRename,
    "has no fsync": NoFsync,
    "has no extension at all": NoExtensions,
    "tells no size": NoStatSize,
    "fails CLOSE": FailsClose,
    "fails the 40th WRITE": FailsWrite,
    "writes short when the disk is full": DiskFull,
    "answers its extensions with garbage": GarbledExtras,
    "answers out of order": OutOfOrder,
    "answers late": Late,
    "answers twice": Twice,
    "answers an id never asked": UnknownId,
    "sends garbage": Garbage,
    "sends an over-long packet": OverLongPacket,
    "has four handles": FourHandles,
    "drops idle connections": DropsIdle,
    "loses the tail in a crash": LosesTail,
    "zero-fills a block in a crash": ZeroFills,
    "moves the file away when it is complete": MovesAway,
    "answers CLOSE after three times the link's deadline": LateClose,
    "answers fsync, rename and hash late": LateExtensions,
    "stops reading while alive": StopsReading,
    "refuses reads": WriteOnly,
    "presents another host key the second time": NewHostKey,
}
