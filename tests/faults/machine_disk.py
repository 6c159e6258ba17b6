"""A server whose disk forgets in a crash what no fsync has brought to it: sizes go back, renames are undone.

disk = ForgetfulDisk(tmp_path / "backup")
server = EmbeddedServer(root, session=disk.session)
...
server.stop()
disk.crash(root)
server.start()
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from paramiko import Message

from iot.sftp.server.files import READ_FLAG, SFTPSession
from iot.sftp.server.protocol import PERMISSION_DENIED, Reply, RequestRefused

__all__ = ["ForgetfulDisk"]


class Renamed(NamedTuple):
    source: bytes
    target: bytes
    inode: int
    before: bytes | None


@dataclass
class ForgetfulDisk:
    """backup: a folder on the server's file system. refused: names of files that the server does not take.

    published: every path that a file was renamed to, with its content at that moment.
    """

    backup: Path

    def __post_init__(self) -> None:
        self.refused: set[bytes] = set()
        self.published: list[tuple[bytes, bytes]] = []
        self._kept_bytes: dict[int, int] = {}
        self._renamed: list[Renamed] = []
        self._count = 0
        self.backup.mkdir(parents=True, exist_ok=True)

    def session(self, root: bytes, send: Callable[[bytes], None]) -> SFTPSession:
        return Session(root, send, self)

    def writes(self, descriptor: int) -> None:
        """What is there now is what a crash leaves, unless an earlier crash would leave less."""
        found = os.fstat(descriptor)
        self._kept_bytes.setdefault(found.st_ino, found.st_size)

    def syncs(self, descriptor: int) -> None:
        """The content of this file, and with the file system's journal every name."""
        self._kept_bytes.pop(os.fstat(descriptor).st_ino, None)
        for renamed in self._renamed:
            if renamed.before is not None:
                os.unlink(renamed.before)
        self._renamed.clear()

    def renames(self, source: bytes, target: bytes) -> None:
        before = None
        if os.path.lexists(target):
            self._count += 1
            before = os.fsencode(self.backup / str(self._count))
            os.link(target, before)
        self.published.append((target, Path(os.fsdecode(source)).read_bytes()))
        self._renamed.append(Renamed(source, target, os.lstat(source).st_ino, before))

    def crash(self, root: Path) -> None:
        """Call while the server is stopped."""
        for source, target, inode, before in reversed(self._renamed):
            with contextlib.suppress(FileNotFoundError):  # it was removed since
                if os.lstat(target).st_ino == inode:
                    os.rename(target, source)
            if before is not None:
                os.replace(before, target)
        self._renamed.clear()
        for path in root.rglob("*"):
            kept = self._kept_bytes.get(path.stat().st_ino)
            if kept is not None and path.is_file() and path.stat().st_size > kept:
                os.truncate(path, kept)
        self._kept_bytes.clear()


class Session(SFTPSession):
    def __init__(self, root: bytes, send: Callable[[bytes], None], disk: ForgetfulDisk) -> None:
        super().__init__(root, send)
        self.disk = disk

    def on_open(self, message: Message) -> Reply:
        peek = Message(message.get_remainder())
        path, flags = peek.get_binary(), peek.get_int()
        name = os.path.basename(path)
        if flags != READ_FLAG and any(name.startswith(refused) for refused in self.disk.refused):
            raise RequestRefused(PERMISSION_DENIED, "this name is not taken here")
        return super().on_open(message)

    def on_write(self, message: Message) -> Reply:
        self.disk.writes(self.file(Message(message.get_remainder())).descriptor)
        return super().on_write(message)

    def on_fsync(self, message: Message) -> Reply:
        self.disk.syncs(self.file(Message(message.get_remainder())).descriptor)
        return super().on_fsync(message)

    def on_posix_rename(self, message: Message) -> Reply:
        peek = Message(message.get_remainder())
        source, target = self.entry(peek.get_binary()), self.entry(peek.get_binary())
        if os.path.lexists(source):
            self.disk.renames(source, target)
        return super().on_posix_rename(message)
