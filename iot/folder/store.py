"""The calls of a Store, on the files of a folder.

An answered write is on disk (fsync), and so is a published name (fsync of its folder), unless `trust` leaves that to
the system. Parts are created with O_EXCL, never through a link. Publishing without replacing uses renameat2(2) with
RENAME_NOREPLACE, or link(2) where that is not available.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping

from iot.folder.place import Place, parts_of, translated
from iot.transfer.beneath import rename_noreplace, sync
from iot.transfer.errors import AlreadyExists, LinkLost, NameRefused, NoSpaceOnServer, NotFound, ServerRefused
from iot.transfer.model import Evidence, RemoteEntry, RemoteFile, Span
from iot.transfer.names import path_text
from iot.transfer.remote import Ack, Capabilities, Gone, Meta, Offset, Publish, Resume, Standing, Token
from iot.transfer.terminal import human_bytes, quoted

__all__ = ["FolderStore"]

WRITE_BYTES = 4 * 1024 * 1024
BLOCK_BYTES = 1024 * 1024
SPARE_BYTES = 1024 * 1024
"""What a large file leaves free for small ones."""
CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
WRITE = os.O_WRONLY | os.O_NOFOLLOW
TOUCH = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK
READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK


class FolderStore:
    """trust: content and names count without being synced to disk. See remote.Store for the contract of each call."""

    def __init__(self, place: Place, *, trust: bool = False, connections: int = 4) -> None:
        self._place = place
        self._trust = trust
        self._aborted = False
        self.capabilities = Capabilities(
            resume=Resume.OFFSET,
            publish=Publish.RENAME,
            creates_only=True,
            durable=not trust,
            write_bytes=WRITE_BYTES,
            block_bytes=BLOCK_BYTES,
            connections=connections,
            keeps_times=True,
        )

    # -- the connection

    def connect(self) -> None:
        self.check()

    def check(self) -> None:
        self._check_aborted()
        self._place.check()

    def abort(self) -> None:
        self._aborted = True

    def close(self) -> None:
        self._aborted = True

    def _check_aborted(self) -> None:
        if self._aborted:
            raise LinkLost(f"{self._place.path} was aborted")

    # -- uploads

    def begin(self, dest: bytes, size: int, meta: Meta) -> Token:
        self._check_aborted()
        parts_of(dest)  # refuse a bad name before anything is made
        name = _name(meta.part)
        with self._place.parent(meta.part, make=meta.make_dirs) as folder:
            with contextlib.suppress(FileNotFoundError):  # left by an earlier attempt: the name says that it is ours
                os.unlink(name, dir_fd=folder)
            _check_room(folder, size)
            os.close(os.open(name, CREATE, 0o666, dir_fd=folder))
        return Token(meta.part)

    def where(self, token: Token) -> Standing:
        found = self._look(token)
        if found is None:
            return Gone()
        if not stat.S_ISREG(found.st_mode):
            raise ServerRefused(f"the part {quoted(token)} is not a regular file")
        return Offset(found.st_size)

    def write(self, token: Token, span: Span, body: Iterable[bytes]) -> Ack:
        with self._opened(token, WRITE) as file:
            at = span.start
            for block in body:
                self._check_aborted()
                with translated(token):
                    _write_all(file, block, at)
                at += len(block)
            with translated(token):
                return Ack(at, durable=not self._trust and sync(file))

    def read_part(self, token: Token, span: Span) -> Iterator[bytes]:
        return self._read(token, span.start, span.end)

    def verify(self, token: Token, digests: Mapping[str, str]) -> Evidence | None:
        return None  # a hash would have to read the file back as well

    def publish(self, token: Token, dest: bytes, meta: Meta, *, replace: bool) -> bool:
        self._check_aborted()
        (_, part), (_, name) = parts_of(token), parts_of(dest)
        self._keep(token, meta)
        with self._place.parent(token) as here, self._place.parent(dest) as there:
            if replace:
                _refuse_folder(there, name, dest)
                os.replace(part, name, src_dir_fd=here, dst_dir_fd=there)
            else:
                rename_noreplace(here, part, there, name)
            return not self._trust and sync(there)

    def confirm(self, dest: bytes) -> bool:
        if self._trust or self._look(dest) is None:
            return False
        with self._opened(dest, READ) as file, translated(dest):
            synced = sync(file)
        with self._place.parent(dest) as folder:
            return sync(folder) and synced

    def abandon(self, token: Token) -> None:
        with contextlib.suppress(NotFound):
            self.delete(token)

    # -- downloads and paths

    def stat(self, path: bytes) -> RemoteFile | None:
        found = self._look(path)
        return _file(found) if found is not None else None

    def read(self, path: bytes, offset: int) -> Iterator[bytes]:
        return self._read(path, offset, None)

    def digest(self, path: bytes, algorithm: str) -> str | None:
        return None

    def list(self, path: bytes) -> Iterator[RemoteEntry]:
        self._check_aborted()
        with self._place.folder(_whole(path)) as folder, os.scandir(folder) as found:
            for entry in found:
                with contextlib.suppress(FileNotFoundError):  # deleted meanwhile
                    told = entry.stat(follow_symlinks=False)
                    yield RemoteEntry(path_text(os.fsencode(entry.name)), _file(told), entry.is_symlink())

    def move(self, source: bytes, dest: bytes, *, make_dirs: bool = True) -> None:
        self._check_aborted()
        (_, old), (_, new) = parts_of(source), parts_of(dest)
        with self._place.parent(source) as here:
            os.stat(old, dir_fd=here, follow_symlinks=False)  # make no folders for a missing source
            with self._place.parent(dest, make=make_dirs) as there:
                os.replace(old, new, src_dir_fd=here, dst_dir_fd=there)
                sync(there)
            sync(here)

    def delete(self, path: bytes) -> None:
        self._check_aborted()
        with self._place.parent(path) as folder:
            _refuse_folder(folder, parts_of(path)[1], path)
            os.unlink(parts_of(path)[1], dir_fd=folder)

    def mkdir(self, path: bytes) -> None:
        self._check_aborted()
        found = self._look(path) if _whole(path) else None
        if found is not None and not stat.S_ISDIR(found.st_mode):
            raise AlreadyExists(f"{quoted(path)} exists but is not a folder")
        with self._place.folder(_whole(path), make=True):
            pass  # just made

    def rmdir(self, path: bytes) -> None:
        self._check_aborted()
        found = self._look(path)
        if found is not None and not stat.S_ISDIR(found.st_mode):
            raise ServerRefused(f"{quoted(path)} is not a folder")
        with self._place.parent(path) as folder:
            os.rmdir(_name(path), dir_fd=folder)

    def chmod(self, path: bytes, mode: int) -> None:
        self._change(path, lambda name, folder: os.chmod(name, mode, dir_fd=folder))

    def touch(self, path: bytes, mtime_s: int) -> None:
        if self._look(path) is None:
            with self._place.parent(path, make=True) as folder:
                os.close(os.open(_name(path), TOUCH, 0o666, dir_fd=folder))
        self._change(path, lambda name, folder: os.utime(name, (mtime_s, mtime_s), dir_fd=folder))

    def _change(self, path: bytes, change: Callable[[bytes, int], None]) -> None:
        """A link is not followed: it could lead out of the folder."""
        found = self._look(path)
        if found is not None and not (stat.S_ISREG(found.st_mode) or stat.S_ISDIR(found.st_mode)):
            raise ServerRefused(f"{quoted(path)} is neither a file nor a folder")
        with self._place.parent(path) as folder:
            change(_name(path), folder)

    # -- inside

    def _look(self, path: bytes) -> os.stat_result | None:
        """Its status, without following a link; None if it does not exist."""
        self._check_aborted()
        name = parts_of(path)[1] or b"."
        try:
            with self._place.parent(path) as folder:
                return os.stat(name, dir_fd=folder, follow_symlinks=False)
        except NotFound:
            return None

    @contextlib.contextmanager
    def _opened(self, path: bytes, flags: int) -> Iterator[int]:
        self._check_aborted()
        with self._place.parent(path) as folder:
            file = os.open(_name(path), flags, dir_fd=folder)
        try:
            with translated(path):
                if not stat.S_ISREG(os.fstat(file).st_mode):
                    raise ServerRefused(f"{quoted(path)} is not a regular file")
            yield file
        finally:
            os.close(file)

    def _read(self, path: bytes, start: int, end: int | None) -> Iterator[bytes]:
        with self._opened(path, READ) as file:
            at = start
            while end is None or at < end:
                self._check_aborted()
                with translated(path):
                    block = os.pread(file, BLOCK_BYTES if end is None else min(BLOCK_BYTES, end - at), at)
                if not block:
                    return
                yield block
                at += len(block)

    def _keep(self, token: Token, meta: Meta) -> None:
        """Set times and mode, best effort: FAT has no modes."""
        if meta.mtime_s is None and meta.mode is None:
            return
        with self._opened(token, WRITE) as file:
            with contextlib.suppress(OSError):
                if meta.mode is not None:
                    os.fchmod(file, meta.mode & 0o777)
                if meta.mtime_s is not None:
                    os.utime(file, (meta.mtime_s, meta.mtime_s))
            if not self._trust:
                with translated(token):
                    sync(file)


def _file(status: os.stat_result) -> RemoteFile:
    return RemoteFile(status.st_size, status.st_mtime_ns // 10**9, status.st_mode)


def _name(path: bytes) -> bytes:
    """Raises: NameRefused for the base folder itself."""
    name = parts_of(path)[1]
    if not name:
        raise NameRefused(f"{quoted(path)} is the folder itself")
    return name


def _whole(path: bytes) -> bytes:
    folder, name = parts_of(path)
    return folder + b"/" + name if folder else name


def _refuse_folder(folder: int, name: bytes, path: bytes) -> None:
    """Error codes differ between systems, and an empty folder can only be replaced by a folder."""
    with contextlib.suppress(FileNotFoundError):
        if stat.S_ISDIR(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode):
            raise ServerRefused(f"{quoted(path)} is a folder")


def _check_room(folder: int, size: int) -> None:
    if size <= SPARE_BYTES:
        return
    space = os.fstatvfs(folder)
    free = space.f_bavail * space.f_frsize
    if space.f_blocks and free < size + SPARE_BYTES:
        raise NoSpaceOnServer(f"no space on the server: needs {human_bytes(size)}, {human_bytes(free)} free")


def _write_all(file: int, block: bytes, at: int) -> None:
    rest = memoryview(block)
    while rest:
        count = os.pwrite(file, rest, at)
        rest, at = rest[count:], at + count
