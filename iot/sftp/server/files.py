"""Answers SFTP requests from a folder, for the embedded server.

Names are bytes throughout. A path is resolved below the folder, never above it, and a symlink on the way is refused.
To simulate faults, subclass `SFTPSession` and override a request (`on_close`), an answer (`answer`) or what is
announced (`extensions`, `max_handles`).
"""

from __future__ import annotations

import contextlib
import os
import posixpath
import stat
import struct
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import count, islice

from paramiko import Message

from iot.sftp.server.protocol import (
    ATTRS,
    BAD_MESSAGE,
    DATA,
    EOF,
    EXTENDED_REPLY,
    FAILURE,
    HANDLE,
    MAX_DATA,
    MAX_PACKET,
    NAME,
    OK,
    PERMISSION_DENIED,
    Reply,
    RequestHandler,
    RequestRefused,
    status,
    text,
)

__all__ = ["Changes", "OpenFile", "OpenFolder", "SFTPSession"]

SIZE, OWNER, MODE, TIMES = 1, 2, 4, 8
READ_FLAG, WRITE_FLAG = 1, 2
OPEN_FLAGS = {4: os.O_APPEND, 8: os.O_CREAT, 16: os.O_TRUNC, 32: os.O_EXCL}
NAMES_PER_REPLY = 100


@dataclass
class OpenFile:
    descriptor: int
    path: bytes
    append: bool = False
    writable: bool = False


@dataclass
class OpenFolder:
    entries: Iterator[tuple[bytes, os.stat_result]]


@dataclass(frozen=True)
class Changes:
    """The attributes that a client wants to set; None where it does not."""

    size: int | None = None
    owner: tuple[int, int] | None = None
    mode: int | None = None
    times: tuple[int, int] | None = None

    @classmethod
    def read(cls, message: Message) -> Changes:
        flags = message.get_int()
        return cls(
            size=message.get_int64() if flags & SIZE else None,
            owner=(message.get_int(), message.get_int()) if flags & OWNER else None,
            mode=message.get_int() & 0o7777 if flags & MODE else None,
            times=(message.get_int(), message.get_int()) if flags & TIMES else None,
        )

    def apply(self, target: int | bytes) -> None:
        if self.size is not None:
            os.truncate(target, self.size)
        if self.owner is not None:
            os.chown(target, *self.owner)
        if self.mode is not None:
            os.chmod(target, self.mode)
        if self.times is not None:
            os.utime(target, self.times)


def long_name(name: bytes, found: os.stat_result) -> bytes:
    try:
        date = time.strftime("%b %d %Y", time.localtime(found.st_mtime))
    except (OverflowError, ValueError, OSError):  # a year that the C library cannot name; the attributes count
        date = "?"
    line = f"{stat.filemode(found.st_mode)} {found.st_nlink} {found.st_uid} {found.st_gid} {found.st_size} {date} "
    return line.encode() + name


def open_flags(asked: int) -> int:
    both = asked & READ_FLAG and asked & WRITE_FLAG
    flags = os.O_RDWR if both else os.O_WRONLY if asked & WRITE_FLAG else os.O_RDONLY
    for bit, flag in OPEN_FLAGS.items():
        flags |= flag if asked & bit else 0
    return flags | os.O_NOFOLLOW | os.O_NONBLOCK


class SFTPSession(RequestHandler):
    """One client's channel.

    root: the folder, as a real path in bytes.
    send: puts bytes on the channel.
    """

    extensions: Mapping[bytes, bytes] = {
        b"posix-rename@openssh.com": b"1",
        b"fsync@openssh.com": b"1",
        b"hardlink@openssh.com": b"1",
        b"limits@openssh.com": b"1",
        b"statvfs@openssh.com": b"2",
        b"fstatvfs@openssh.com": b"2",
    }
    max_handles = 500

    def __init__(self, root: bytes, send: Callable[[bytes], None]) -> None:
        super().__init__(send)
        self.root = root
        self.handles: dict[bytes, OpenFile | OpenFolder] = {}
        self._names = (struct.pack(">I", number) for number in count())

    def close(self) -> None:
        for handle in list(self.handles.values()):
            if isinstance(handle, OpenFile):
                os.close(handle.descriptor)
        self.handles.clear()

    # --- paths and handles

    def remote(self, path: bytes) -> bytes:
        """The path as the client sees it: absolute, with the folder as "/"; ".." stops there."""
        if b"\0" in path:
            raise RequestRefused(BAD_MESSAGE, "a name with a zero byte")
        return posixpath.normpath(b"/" + path.lstrip(b"/"))

    def local(self, path: bytes, *, itself: bool = False) -> bytes:
        """The path on disk. itself: the last component may be a symlink, because it is not followed."""
        local = os.path.normpath(os.path.join(self.root, self.remote(path).lstrip(b"/")))
        way = os.path.dirname(local) if itself and local != self.root else local
        if os.path.realpath(way) != way:
            raise RequestRefused(PERMISSION_DENIED, "a symlink on the way")
        return local

    def entry(self, path: bytes) -> bytes:
        """Like local, for paths that may be renamed or removed: anything but the root."""
        local = self.local(path, itself=True)
        if local == self.root:
            raise RequestRefused(PERMISSION_DENIED, "this is the root")
        return local

    def add_handle(self, handle: OpenFile | OpenFolder) -> Reply:
        name = next(self._names)
        self.handles[name] = handle
        return HANDLE, text(name)

    def check_handles(self) -> None:
        if len(self.handles) >= self.max_handles:
            raise RequestRefused(FAILURE, "too many open handles")

    def file(self, message: Message) -> OpenFile:
        handle = self.handles.get(message.get_binary())
        if not isinstance(handle, OpenFile):
            raise RequestRefused(FAILURE, "no such handle")
        return handle

    def attributes(self, found: os.stat_result) -> bytes:
        flags = SIZE | OWNER | MODE | TIMES
        times = int(found.st_atime) & 0xFFFFFFFF, int(found.st_mtime) & 0xFFFFFFFF
        return struct.pack(">IQ5I", flags, found.st_size, found.st_uid, found.st_gid, found.st_mode, *times)

    # --- files

    def on_open(self, message: Message) -> Reply:
        path, asked, changes = message.get_binary(), message.get_int(), Changes.read(message)
        self.check_handles()
        local = self.local(path)
        flags = open_flags(asked)
        descriptor = os.open(local, flags, 0o666 if changes.mode is None else changes.mode)
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            raise RequestRefused(FAILURE, "not a regular file")
        return self.add_handle(OpenFile(descriptor, local, bool(flags & os.O_APPEND), bool(asked & WRITE_FLAG)))

    def on_close(self, message: Message) -> Reply:
        handle = self.handles.pop(message.get_binary(), None)
        if handle is None:
            raise RequestRefused(FAILURE, "no such handle")
        if isinstance(handle, OpenFile):
            os.close(handle.descriptor)
        return status(OK)

    def on_read(self, message: Message) -> Reply:
        file, offset, length = self.file(message), message.get_int64(), message.get_int()
        data = os.pread(file.descriptor, min(length, MAX_DATA), offset)
        return (DATA, text(data)) if data else status(EOF, "End of file")

    def on_write(self, message: Message) -> Reply:
        file, offset, data = self.file(message), message.get_int64(), memoryview(message.get_binary())
        while data:
            written = os.write(file.descriptor, data) if file.append else os.pwrite(file.descriptor, data, offset)
            data, offset = data[written:], offset + written
        return status(OK)

    def on_fsync(self, message: Message) -> Reply:
        os.fsync(self.file(message).descriptor)
        return status(OK)

    def on_stat(self, message: Message) -> Reply:
        return ATTRS, self.attributes(os.stat(self.local(message.get_binary())))

    def on_lstat(self, message: Message) -> Reply:
        return ATTRS, self.attributes(os.lstat(self.local(message.get_binary(), itself=True)))

    def on_fstat(self, message: Message) -> Reply:
        return ATTRS, self.attributes(os.fstat(self.file(message).descriptor))

    def on_setstat(self, message: Message) -> Reply:
        path, changes = message.get_binary(), Changes.read(message)
        changes.apply(self.local(path))
        return status(OK)

    def on_fsetstat(self, message: Message) -> Reply:
        file, changes = self.file(message), Changes.read(message)
        changes.apply(file.descriptor)
        return status(OK)

    # --- names and folders

    def on_opendir(self, message: Message) -> Reply:
        local = self.local(message.get_binary())
        self.check_handles()
        return self.add_handle(OpenFolder(self.entries(local, os.listdir(local))))

    def entries(self, folder: bytes, names: list[bytes]) -> Iterator[tuple[bytes, os.stat_result]]:
        for name in (b".", b".."):
            yield name, os.lstat(folder)
        for name in names:
            with contextlib.suppress(FileNotFoundError):  # it was removed since the folder was opened
                yield name, os.lstat(os.path.join(folder, name))

    def on_readdir(self, message: Message) -> Reply:
        handle = self.handles.get(message.get_binary())
        if not isinstance(handle, OpenFolder):
            raise RequestRefused(FAILURE, "no such handle")
        found = list(islice(handle.entries, NAMES_PER_REPLY))
        rows = (text(name) + text(long_name(name, item)) + self.attributes(item) for name, item in found)
        return (NAME, struct.pack(">I", len(found)) + b"".join(rows)) if found else status(EOF, "End of file")

    def on_remove(self, message: Message) -> Reply:
        os.unlink(self.entry(message.get_binary()))
        return status(OK)

    def on_mkdir(self, message: Message) -> Reply:
        path, changes = message.get_binary(), Changes.read(message)
        os.mkdir(self.entry(path), 0o777 if changes.mode is None else changes.mode)
        return status(OK)

    def on_rmdir(self, message: Message) -> Reply:
        os.rmdir(self.entry(message.get_binary()))
        return status(OK)

    def on_realpath(self, message: Message) -> Reply:
        path = text(self.remote(message.get_binary()))
        return NAME, struct.pack(">I", 1) + path + path + struct.pack(">I", 0)

    def on_rename(self, message: Message) -> Reply:
        source, target = self.entry(message.get_binary()), self.entry(message.get_binary())
        if os.path.lexists(target):
            raise RequestRefused(FAILURE, "the target exists")
        os.rename(source, target)
        return status(OK)

    def on_readlink(self, message: Message) -> Reply:
        target = text(os.readlink(self.local(message.get_binary(), itself=True)))
        return NAME, struct.pack(">I", 1) + target + target + struct.pack(">I", 0)

    def on_symlink(self, message: Message) -> Reply:
        raise RequestRefused(PERMISSION_DENIED, "symlinks are not supported")

    # --- extensions

    def on_posix_rename(self, message: Message) -> Reply:
        source, target = self.entry(message.get_binary()), self.entry(message.get_binary())
        os.replace(source, target)
        return status(OK)

    def on_hardlink(self, message: Message) -> Reply:
        source, target = self.entry(message.get_binary()), self.entry(message.get_binary())
        os.link(source, target, follow_symlinks=False)
        return status(OK)

    def on_limits(self, message: Message) -> Reply:
        return EXTENDED_REPLY, struct.pack(">4Q", MAX_PACKET, MAX_DATA, MAX_DATA, self.max_handles)

    def on_statvfs(self, message: Message) -> Reply:
        return self._space(os.statvfs(self.local(message.get_binary())))

    def on_fstatvfs(self, message: Message) -> Reply:
        return self._space(os.fstatvfs(self.file(message).descriptor))

    def _space(self, found: os.statvfs_result) -> Reply:
        blocks = found.f_bsize, found.f_frsize, found.f_blocks, found.f_bfree, found.f_bavail
        inodes = found.f_files, found.f_ffree, found.f_favail
        return EXTENDED_REPLY, struct.pack(">11Q", *blocks, *inodes, 0, 0, found.f_namemax)
