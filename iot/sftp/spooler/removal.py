"""Getting files out of an outbox: only the version that was meant, and durably.

A producer may rename a new version into place at any moment. So a file is first renamed to a private name in its own
folder, looked at there, and only then unlinked or moved; another version is put back without replacing. The folders
are synced once for each batch; the caller forgets its rows after that. Every step can run twice: a file that a crash
left under its private name is found again from its row, or by the scan.
"""

from __future__ import annotations

import enum
import errno
import hashlib
import logging
import os
import shutil
import stat
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

from iot.sftp.client import Fingerprint
from iot.sftp.spooler.folders import (
    DIRECTORY,
    directory,
    free_name,
    join,
    make_below,
    open_below,
    rename_noreplace,
    split,
)
from iot.sftp.spooler.naming import shown
from iot.sftp.spooler.outbox import PRIVATE_PREFIX

__all__ = ["Delete", "Item", "Leaver", "MoveTo", "Taken", "private_name", "put_back", "recover", "take_away"]

log = logging.getLogger(__name__)
NAME_MAX = 255
RECOVERED = b"recovered."


class Item(NamedTuple):
    """A version of a file that is to leave the outbox; key: the caller's own; note: text for a reason file."""

    key: int
    path: bytes
    fingerprint: Fingerprint
    note: str = ""


class Taken(enum.Enum):
    TAKEN = enum.auto()
    ABSENT = enum.auto()
    CHANGED = enum.auto()


class Leaver(Protocol):
    """What is done with a file that was put under its private name."""

    def leave(self, folder: int, private: bytes, item: Item) -> None: ...

    def sync(self) -> None: ...


class Delete:
    """The file is removed."""

    def leave(self, folder: int, private: bytes, item: Item) -> None:
        os.unlink(private, dir_fd=folder)

    def sync(self) -> None:
        pass  # the folder it left is synced by take_away


class MoveTo:
    """The file moves below another folder, its tree preserved; a name that is taken there gets a number.

    reasons: write the item's note beside it as <name>.reason.txt.
    """

    def __init__(self, target: Path, *, reasons: bool = False) -> None:
        self._target = target
        self._reasons = reasons
        self._touched: set[bytes] = set()

    def leave(self, folder: int, private: bytes, item: Item) -> None:
        below, name = split(item.path)
        self._target.mkdir(parents=True, exist_ok=True, mode=0o755)
        root = os.open(self._target, DIRECTORY)
        try:
            there = make_below(root, below)
        finally:
            os.close(root)
        try:
            final = _move_to_free(folder, private, there, name)
            self._touched.add(below)
            if self._reasons:
                _write_reason(there, final, item.note)
        finally:
            os.close(there)

    def sync(self) -> None:
        for below in self._touched:
            with directory(os.fsencode(self._target), below) as there:
                os.fsync(there)
        self._touched.clear()


def take_away(outbox: int, items: Iterable[Item], leaver: Leaver) -> tuple[list[int], list[tuple[int, OSError]]]:
    """Get these versions out of the open folder `outbox`, durably.

    Returns the keys that are done (gone, moved, or another version by now) and those that could not be done, with why.
    """
    done: list[int] = []
    failed: list[tuple[int, OSError]] = []
    for below, group in _by_folder(items).items():
        try:
            gone, stuck = _from_folder(outbox, below, group, leaver)
        except (FileNotFoundError, NotADirectoryError):
            done += [item.key for item in group]  # the folder went, and the files with it
            continue
        except OSError as error:
            failed += [(item.key, error) for item in group]
            continue
        done += gone
        failed += stuck
    leaver.sync()
    return done, failed


def _by_folder(items: Iterable[Item]) -> dict[bytes, list[Item]]:
    groups: dict[bytes, list[Item]] = {}
    for item in items:
        groups.setdefault(split(item.path)[0], []).append(item)
    return groups


def _from_folder(
    outbox: int, below: bytes, items: Sequence[Item], leaver: Leaver
) -> tuple[list[int], list[tuple[int, OSError]]]:
    done: list[int] = []
    failed: list[tuple[int, OSError]] = []
    folder = open_below(outbox, below)
    try:
        for item in items:
            try:
                _leave(folder, item, leaver)
                done.append(item.key)
            except OSError as error:
                failed.append((item.key, error))
        os.fsync(folder)
    finally:
        os.close(folder)
    return done, failed


def _leave(folder: int, item: Item, leaver: Leaver) -> None:
    name = split(item.path)[1]
    taken, private = _take(folder, name, item.fingerprint)
    if taken is not Taken.TAKEN:
        return
    try:
        leaver.leave(folder, private, item)
    except OSError:
        put_back(folder, private, name)
        raise


def private_name(name: bytes, *, short: bool = False) -> bytes:
    """Where a file is put out of the way: its own name behind a prefix, a hash of it where that is too long."""
    if short or len(PRIVATE_PREFIX) + len(name) > NAME_MAX:
        return PRIVATE_PREFIX + b"~" + hashlib.sha256(name).hexdigest()[:16].encode()
    return PRIVATE_PREFIX + name


def _take(folder: int, name: bytes, fingerprint: Fingerprint) -> tuple[Taken, bytes]:
    private = private_name(name)
    if _version(folder, name) == fingerprint:
        try:
            rename_noreplace(folder, name, folder, private)
        except FileNotFoundError:
            return Taken.ABSENT, private
        except OSError as error:
            if error.errno != errno.ENAMETOOLONG:
                raise
            private = private_name(name, short=True)
            rename_noreplace(folder, name, folder, private)
    else:
        found = _version(folder, private)  # a crash came after the rename
        if found is None or not _same_content(found, fingerprint):
            return (Taken.ABSENT if _version(folder, name) is None else Taken.CHANGED), private
    found = _version(folder, private)
    if found is not None and _same_content(found, fingerprint):
        return Taken.TAKEN, private
    if found is not None:
        put_back(folder, private, name)
    return Taken.CHANGED, private


def _version(folder: int, name: bytes) -> Fingerprint | None:
    try:
        status = os.stat(name, dir_fd=folder, follow_symlinks=False)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENAMETOOLONG, errno.ENOTDIR):
            return None
        raise
    return Fingerprint.of(status) if stat.S_ISREG(status.st_mode) else None


def _same_content(found: Fingerprint, meant: Fingerprint) -> bool:
    """All but ctime: our own rename has moved that."""
    return (found.size, found.mtime_ns, found.inode) == (meant.size, meant.mtime_ns, meant.inode)


def put_back(folder: int, private: bytes, name: bytes) -> bytes:
    """Give a file its name back; where the producer has made another meanwhile, one beside it. Both will be sent."""
    for number in range(1000):
        target = free_name(name, number)
        try:
            rename_noreplace(folder, private, folder, target)
        except FileExistsError:
            continue
        except FileNotFoundError:
            return target  # its producer has taken it away
        if number:
            log.warning("kept beside a newer version name=%s as=%s", shown(name), shown(target))
        return target
    raise FileExistsError(errno.EEXIST, "no free name beside it", os.fsdecode(name))


def recover(outbox: int, path: bytes) -> None:
    """Put back a file that an interrupted run left under its private name, and that no row claims."""
    below, private = split(path)
    rest = private[len(PRIVATE_PREFIX) :]
    name = RECOVERED + rest[1:] if rest.startswith(b"~") or not rest else rest
    folder = open_below(outbox, below)
    try:
        final = put_back(folder, private, name)
        os.fsync(folder)
    finally:
        os.close(folder)
    log.warning("put back after an interrupted removal path=%s", shown(join(below, final)))


def _move_to_free(folder: int, private: bytes, there: int, name: bytes) -> bytes:
    for number in range(100_000):
        target = free_name(name, number)
        try:
            rename_noreplace(folder, private, there, target)
            return target
        except FileExistsError:
            continue
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
            _copy_across(folder, private, there)
            rename_noreplace(there, private, there, target)
            os.unlink(private, dir_fd=folder)
            return target
    raise FileExistsError(errno.EEXIST, "no free name", os.fsdecode(name))


def _copy_across(folder: int, private: bytes, there: int) -> None:
    """Copy to another file system, durable before the original goes."""
    source = os.open(private, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
    with open(source, "rb") as reader:
        target = os.open(
            private, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644, dir_fd=there
        )
        with open(target, "wb") as writer:
            shutil.copyfileobj(reader, writer, 1024 * 1024)
            writer.flush()
            status = os.fstat(reader.fileno())
            os.utime(writer.fileno(), ns=(status.st_atime_ns, status.st_mtime_ns))
            os.fsync(writer.fileno())


def _write_reason(there: int, name: bytes, note: str) -> None:
    target = free_name(name, 0, b".reason.txt")
    try:
        file = os.open(
            target, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644, dir_fd=there
        )
        with open(file, "wb") as writer:
            writer.write(note.encode("utf-8", "backslashreplace"))
            writer.flush()
            os.fsync(writer.fileno())
    except OSError as error:
        log.warning("no reason file name=%s error=%s", shown(name), shown(str(error)))  # the log has the reason too
