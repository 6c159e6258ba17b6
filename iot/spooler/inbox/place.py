"""The local folder of an inbox, and the hidden folder in it where files wait for their names.

The hidden folder is on the same file system, so a name is given by one rename; it belongs to the agent alone. What was
fetched is sealed: kept there under a name made of its path and its SHA-256, so that a newer version of the same file,
which may be fetched at any moment, never takes the place of one that is being judged.
Everything is done relative to open folders, and no symlink is followed: neither a name from the server nor a link that
somebody has put there leads out of the inbox.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import stat
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from iot.spooler.naming import check_path
from iot.spooler.outbox.scan import ARRIVING
from iot.spooler.state.homes import Homes
from iot.transfer.beneath import DIRECTORY, make_below, open_below, rename_noreplace, split, sync

__all__ = ["HIDDEN", "Content", "Place", "Untrusted"]

HIDDEN = ARRIVING
BLOCK = 1024 * 1024
READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK
SEAL = b"="
"""Between path and digest in a hidden name."""


class Content(NamedTuple):
    """The very bytes that wait for this name, whatever else is fetched for it. sha256: in hex."""

    path: bytes
    sha256: str

    @property
    def hidden_name(self) -> bytes:
        return _key(self.path) + SEAL + self.sha256[:32].encode()


class Untrusted(PermissionError):
    """Somebody else could exchange what the agent has fetched, before it gets its name."""


class Here(NamedTuple):
    """A regular file of the inbox."""

    size: int
    mtime_s: int


class Place:
    """folder: must exist: it is never made. homes: where it has to be mounted.

    judged: what is fetched is judged by a hook, and nobody else may be able to exchange it meanwhile. Every method may
    raise OSError.
    """

    def __init__(self, folder: Path, *, judged: bool, homes: Homes | None = None) -> None:
        self._path = folder
        self._homes = homes or Homes()
        self._folder = os.fsencode(folder)
        self._judged = judged

    def prepare(self) -> None:
        """Make the hidden folder. Raises: Untrusted."""
        with self._opened() as (root, hidden):
            status, above = os.fstat(hidden), os.fstat(root)
        if status.st_uid != os.geteuid() or status.st_mode & 0o022:
            raise Untrusted(errno.EPERM, f"{os.fsdecode(HIDDEN)} in it is not the agent's own folder; remove it")
        others_write = above.st_uid not in (0, os.geteuid()) or above.st_mode & 0o022
        if self._judged and others_write and not above.st_mode & stat.S_ISVTX:
            raise Untrusted(
                errno.EPERM, "other users may write to it, and could exchange what before_publish judges; chmod +t"
            )

    def ignores_case(self) -> bool:
        """Whether its file system takes names for one that differ in case."""
        return os.path.lexists(os.path.join(self._folder, HIDDEN.upper()))

    def fetching_path(self, path: bytes) -> str:
        """Where the bytes of a file arrive, whatever its name and its version are."""
        return os.fsdecode(os.path.join(self._folder, HIDDEN, _key(path)))

    def sealed_path(self, content: Content) -> str:
        return os.fsdecode(os.path.join(self._folder, HIDDEN, content.hidden_name))

    def seal(self, contents: Sequence[Content]) -> dict[bytes, OSError]:
        """What has arrived for these paths is this content from now on, durably -> those that failed, by path.

        May be done twice.
        """
        failed: dict[bytes, OSError] = {}
        with self._opened() as (_, hidden):
            for each in contents:
                try:
                    os.rename(_key(each.path), each.hidden_name, src_dir_fd=hidden, dst_dir_fd=hidden)
                except OSError as error:
                    if not (isinstance(error, FileNotFoundError) and self.is_waiting(each)):
                        failed[each.path] = error
            sync(hidden)
        return failed

    def is_waiting(self, content: Content) -> bool:
        with self._opened() as (_, hidden):
            try:
                os.stat(content.hidden_name, dir_fd=hidden, follow_symlinks=False)
            except FileNotFoundError:
                return False
        return True

    def publish(self, contents: Sequence[Content], *, replace: bool = True) -> dict[bytes, OSError]:
        """Give these their names, durably -> those that could not get it, by path.

        replace: what has the name; else that is a FileExistsError.

        The folders of the names are synced before the hidden one, so that a power cut never loses a file.
        """
        failed: dict[bytes, OSError] = {}
        with self._opened() as (root, hidden):
            for folder in sorted({split(each.path)[0] for each in contents}):
                mine = [each for each in contents if split(each.path)[0] == folder]
                try:
                    failed.update(_publish_in(root, folder, hidden, mine, replace=replace))
                except OSError as error:
                    failed.update((each.path, error) for each in mine)
            sync(hidden)
        return failed

    def here(self, path: bytes) -> Here | None:
        """What has this name now; None if that is not a regular file."""
        with self._folder_of(path) as (folder, name):
            if folder is None:
                return None
            try:
                status = os.stat(name, dir_fd=folder, follow_symlinks=False)
            except FileNotFoundError:
                return None
        return Here(status.st_size, int(status.st_mtime)) if stat.S_ISREG(status.st_mode) else None

    def digest(self, path: bytes) -> str:
        """The SHA-256 of what has this name."""
        digest = hashlib.sha256()
        with self._folder_of(path) as (folder, name):
            if folder is None:
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
            file = os.open(name, READ, dir_fd=folder)
            try:
                while block := os.read(file, BLOCK):
                    digest.update(block)
            finally:
                os.close(file)
        return digest.hexdigest()

    def confirm(self, content: Content) -> None:
        """What has its name is this content already: make that durable, and drop what waits."""
        with self._folder_of(content.path) as (folder, name):
            if folder is not None:
                file = os.open(name, READ, dir_fd=folder)
                try:
                    sync(file)
                finally:
                    os.close(file)
                sync(folder)
        self.discard(content)

    def discard(self, content: Content) -> None:
        """This content is not wanted."""
        with self._opened() as (_, hidden), contextlib.suppress(FileNotFoundError):
            os.unlink(content.hidden_name, dir_fd=hidden)

    def clean(self, arriving: Sequence[bytes], waiting: Collection[Content]) -> None:
        """Remove from the hidden folder what neither arrives for one of these paths nor is one of these contents."""
        kept = {each.hidden_name for each in waiting}
        begun = tuple(map(_key, arriving))
        with self._opened() as (_, hidden):
            for name in map(os.fsencode, os.listdir(hidden)):
                if name not in kept and (SEAL in name or not name.startswith(begun)):
                    os.unlink(name, dir_fd=hidden)

    # -- inside

    def _open(self) -> int:
        root = os.open(self._folder, DIRECTORY)
        try:
            self._homes.check(self._path, root)
        except OSError:
            os.close(root)
            raise
        return root

    @contextlib.contextmanager
    def _opened(self) -> Iterator[tuple[int, int]]:
        """The folder, and the hidden one in it, which is made where it is missing."""
        root = self._open()
        try:
            hidden = make_below(root, HIDDEN, 0o700)
            try:
                yield root, hidden
            finally:
                os.close(hidden)
        finally:
            os.close(root)

    @contextlib.contextmanager
    def _folder_of(self, path: bytes) -> Iterator[tuple[int | None, bytes]]:
        check_path(path)
        below, name = split(path)
        root = self._open()
        try:
            folder = open_below(root, below)
        except (FileNotFoundError, NotADirectoryError):
            yield None, name
            return
        finally:
            os.close(root)
        try:
            yield folder, name
        finally:
            os.close(folder)


def _key(path: bytes) -> bytes:
    return hashlib.sha256(path).hexdigest()[:32].encode()


def _publish_in(
    root: int, below: bytes, hidden: int, contents: Sequence[Content], *, replace: bool
) -> dict[bytes, OSError]:
    """Raises: OSError, if none of them is certain to have its name."""
    failed: dict[bytes, OSError] = {}
    for each in contents:
        check_path(each.path)
    folder = make_below(root, below)
    try:
        for each in contents:
            name = split(each.path)[1]
            try:
                if replace:
                    _keep_mode(hidden, each.hidden_name, folder, name)
                    os.rename(each.hidden_name, name, src_dir_fd=hidden, dst_dir_fd=folder)
                else:
                    rename_noreplace(hidden, each.hidden_name, folder, name)
            except OSError as error:
                failed[each.path] = error
        sync(folder)
    finally:
        os.close(folder)
    return failed


def _keep_mode(hidden: int, waiting: bytes, folder: int, name: bytes) -> None:
    """A file that is replaced hands on its rights: a private one stays private."""
    with contextlib.suppress(FileNotFoundError):
        status = os.stat(name, dir_fd=folder, follow_symlinks=False)
        if stat.S_ISREG(status.st_mode):
            os.chmod(waiting, stat.S_IMODE(status.st_mode) & 0o777, dir_fd=hidden)
