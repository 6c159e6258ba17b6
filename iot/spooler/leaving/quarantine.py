"""Files that were given up, each with a record of where it came from, so that it can be put back exactly there.

    <quarantine>/<id>/<name>    the producer's file and nothing else: whatever its name, nothing can collide with it
    <quarantine>/<id>.json      its outbox, path, destination, attempts and the reason

The id is derived from outbox, path and version; so outboxes can share a quarantine, it can hold the same name twice,
and an interrupted move is finished, not repeated. The record is on the disk before the file arrives, and leaves after
it.

A release survives a crash at any step: the agent can never find the file while the quarantine still has it, so the file
is sent once more, never twice. On one file system a rename does that. Across two:

    copied to the outbox as .iot-back.<id>, which nobody sends     a crash: the quarantine has it, it is copied again
    the record says that it is leaving                             the same
    unlinked in the quarantine                                     the copy is the file; the next `retry` continues
    renamed to its name in the outbox                              the agent sends it; the next `retry` finds nothing
    the record is removed
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import logging
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

from iot.spooler.leaving.moving import copy_whole, put
from iot.spooler.leaving.removal import Item, private_names
from iot.spooler.leaving.trust import open_trusted
from iot.spooler.naming import shown
from iot.transfer.beneath import DIRECTORY, PASSING_PREFIX, make_below, open_below, rename_noreplace, split

__all__ = ["ID", "Quarantine", "release"]

log = logging.getLogger(__name__)

ID = re.compile("[0-9a-f]{16}")
RECORD = ".json"
RECORD_MAX = 64 * 1024
STAGED = (b".iot-copy", b".iot-copy.1")
RETRY_HINT = "iot-spooler retry --config FILE"
SAME_VERSION_MAX = 100


class Record(NamedTuple):
    """The record of a file; names are bytes, as JSON text with surrogate escapes.

    private: its private names in the outbox while it was leaving. leaving: a complete copy is in its outbox. all: the
    whole record, with what is meant for people.
    """

    outbox: bytes
    path: bytes
    private: tuple[bytes, ...]
    leaving: bool
    all: Mapping[str, Any]


class Quarantine:
    """Where files of one outbox go when they are given up.

    folder: the quarantine, which other outboxes may share. alive: called while a file is copied.
    """

    def __init__(self, folder: Path, outbox: Path, *, alive: Callable[[], None] = lambda: None) -> None:
        self._folder = folder
        self._outbox = bytes(outbox)
        self._alive = alive
        self._root: int | None = None

    def leave(self, folder: int, private: bytes, item: Item) -> bool:
        if self._root is None:
            self._root = _opened(self._folder)
        for attempt in range(SAME_VERSION_MAX):
            number = _id(self._outbox, item, attempt)
            try:
                return self._put(self._root, number, folder, private, item)
            except FileExistsError:
                continue  # size and time are the same, the content is not
            except OSError:
                _drop(self._root, number)
                raise
        raise FileExistsError(errno.EEXIST, "lies in quarantine already in too many versions", os.fsdecode(item.path))

    def sync(self) -> None:
        if self._root is not None:
            root, self._root = self._root, None
            try:
                os.fsync(root)
            finally:
                os.close(root)

    def _put(self, root: int, number: str, folder: int, private: bytes, item: Item) -> bool:
        name = split(item.path)[1]
        if not _is_there(root, os.path.join(os.fsencode(number), name)):
            _write_record(root, number, self._record(item))
        with contextlib.suppress(FileExistsError):
            os.mkdir(number, 0o700, dir_fd=root)
        there = os.open(number, DIRECTORY | os.O_NOFOLLOW, dir_fd=root)
        try:
            remains = put(folder, private, there, name, staged=_staged(name), alive=self._alive)
            os.fsync(there)
        finally:
            os.close(there)
        return remains

    def _record(self, item: Item) -> dict[str, str | int]:
        return {
            "outbox": _text(self._outbox),
            "path": _text(item.path),
            "bytes": item.fingerprint.size,
            "mtime_ns": item.fingerprint.mtime_ns,
            "row": item.key,
            **item.about,
            "to_send_it_again": RETRY_HINT,
        }


def release(
    quarantines: Iterable[Path], outboxes: Iterable[Path], delivered: Mapping[str, int] | None = None
) -> tuple[int, int]:
    """Move every file back to where it came from -> how many were moved, how many could not be.

    A file stays if a newer one has taken its place, if something was delivered to its destination since, or if its
    outbox is no longer one of `outboxes`.

    delivered: time of the last delivery to a destination, by the wall clock in whole seconds.
    """
    known = {bytes(outbox) for outbox in outboxes}
    moved = stuck = 0
    for folder in sorted(set(quarantines)):
        try:
            root = open_trusted(folder)
        except FileNotFoundError:
            continue
        except OSError as error:
            log.error("cannot open the quarantine error=%s", shown(str(error)))
            stuck += 1
            continue
        try:
            outcomes = [_release(root, number, known, delivered or {}) for number in _oldest_first(root)]
            moved += outcomes.count(True)
            stuck += outcomes.count(False)
        finally:
            os.close(root)
    return moved, stuck


def _oldest_first(root: int) -> list[str]:
    """The ids in the order in which their files arrived, so that the newest version of a name comes last."""

    def came(number: str) -> tuple[str, int, str]:
        try:
            values = _read_record(root, number).all
        except OSError:
            return "", 0, number  # the release reports it
        row = values.get("row")
        return str(values.get("at", "")), row if isinstance(row, int) else 0, number

    with os.scandir(root) as entries:
        names = {entry.name.removesuffix(RECORD) for entry in entries}
    return sorted((name for name in names if ID.fullmatch(name)), key=came)


def _release(root: int, number: str, outboxes: set[bytes], delivered: Mapping[str, int]) -> bool | None:
    """Whether the file of this id was put back; None if there is none (an interrupted move)."""
    path = number
    with _locked(root):
        try:
            record = _read_record(root, number)
            path = shown(record.path)
            if record.outbox not in outboxes:
                raise OSError(errno.EINVAL, f"its outbox {shown(record.outbox)} is not in this configuration")
            if _is_outdated(record, delivered):
                raise OSError(errno.EINVAL, f"a newer version was delivered since; take {number} out of the quarantine")
            return _put_back(root, number, record)
        except FileNotFoundError:
            if _drop(root, number):
                return None
            return _stays(path, "its record or its file is missing; move what is there by hand")
        except FileExistsError:
            return _stays(path, "its place is taken by another file; take that away, then retry")
        except OSError as error:
            return _stays(path, error.strerror or str(error))


def _is_outdated(record: Record, delivered: Mapping[str, int]) -> bool:
    """Whether something newer was delivered since. A record without a date counts as the newest."""
    at = delivered.get(str(record.all.get("destination")))
    try:
        return at is not None and at >= datetime.fromisoformat(str(record.all.get("at"))).timestamp()
    except ValueError:
        return False


def _put_back(root: int, number: str, record: Record) -> bool:
    below, name = split(record.path)
    here = open_below(root, os.fsencode(number))
    try:
        there = _outbox_folder(record.outbox, below)
        try:
            if any(_is_there(there, private) for private in record.private):
                raise OSError(errno.EBUSY, "its agent was interrupted while it moved it here; start the agent first")
            _carry(root, number, record, here, there, name)
            os.fsync(there)
        finally:
            os.close(there)
        os.fsync(here)
    finally:
        os.close(here)
    _drop(root, number)
    os.fsync(root)
    return True


def _carry(root: int, number: str, record: Record, here: int, there: int, name: bytes) -> None:
    """Move it from its folder in the quarantine, `here`, to that in the outbox, `there`, by the steps above.

    Raises: FileNotFoundError when there is no file; FileExistsError when its place is taken; OSError.
    """
    staged = PASSING_PREFIX + os.fsencode(number)
    if _is_there(here, name) or not record.leaving:
        try:
            rename_noreplace(here, name, there, name)
            return
        except FileNotFoundError:
            with contextlib.suppress(OSError):
                os.unlink(staged, dir_fd=there)  # perhaps an incomplete copy whose original was removed
            raise
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
        if _is_there(there, name):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), os.fsdecode(name))
        copy_whole(here, name, there, staged)
        os.fsync(there)
        _write_record(root, number, {**record.all, "leaving": True})
        os.fsync(root)
        os.unlink(name, dir_fd=here)
        os.fsync(here)
    with contextlib.suppress(FileNotFoundError):  # it has its name already, or had it and was sent
        rename_noreplace(there, staged, there, name)


def _outbox_folder(outbox: bytes, below: bytes) -> int:
    root = os.open(outbox, DIRECTORY)
    try:
        return make_below(root, below)
    finally:
        os.close(root)


def _stays(path: str, reason: str) -> bool:
    log.error("cannot release path=%s reason=%s", path, shown(reason))
    return False


@contextlib.contextmanager
def _locked(root: int) -> Iterator[None]:
    """Keeps agents from quarantining files meanwhile, which could be mistaken for interrupted moves."""
    with contextlib.suppress(OSError):  # a file system without locks: as safe as an operator who waits
        fcntl.flock(root, fcntl.LOCK_EX)
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            fcntl.flock(root, fcntl.LOCK_UN)


def _opened(folder: Path) -> int:
    root = open_trusted(folder, make=True)
    try:
        fcntl.flock(root, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(root)
        raise OSError(errno.EAGAIN, "files are being released from the quarantine") from None
    except OSError:
        pass  # a file system without locks
    return root


def _drop(root: int, number: str) -> bool:
    """Remove folder and record of an id -> whether both are gone. A folder that holds a file stays, with its record."""
    try:
        here = open_below(root, os.fsencode(number))
    except FileNotFoundError:
        pass
    else:
        for staged in STAGED:
            with contextlib.suppress(OSError):
                os.unlink(staged, dir_fd=here)
        os.close(here)
        try:
            os.rmdir(number, dir_fd=root)
        except OSError:
            return False
    with contextlib.suppress(FileNotFoundError):
        os.unlink(number + RECORD, dir_fd=root)
    return True


def _id(outbox: bytes, item: Item, number: int) -> str:
    version = b"%d\0%d\0%d" % (item.fingerprint.size, item.fingerprint.mtime_ns, number)
    return hashlib.sha256(b"\0".join((outbox, item.path, version))).hexdigest()[:16]


def _is_there(folder: int, name: bytes) -> bool:
    try:
        os.stat(name, dir_fd=folder, follow_symlinks=False)
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.ENAMETOOLONG):
            raise
        return False
    return True


def _staged(name: bytes) -> bytes:
    return STAGED[name == STAGED[0]]


def _text(name: bytes) -> str:
    return name.decode("utf-8", "surrogateescape")


def _write_record(root: int, number: str, record: Mapping[str, Any]) -> None:
    fresh = number + RECORD + ".new"
    with contextlib.suppress(FileNotFoundError):
        os.unlink(fresh, dir_fd=root)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    with open(os.open(fresh, flags, 0o600, dir_fd=root), "w", encoding="ascii") as file:
        json.dump(record, file, indent=1)
        file.flush()
        os.fsync(file.fileno())
    os.rename(fresh, number + RECORD, src_dir_fd=root, dst_dir_fd=root)


def _read_record(root: int, number: str) -> Record:
    """Raises: FileNotFoundError; OSError saying what is wrong with it."""
    flags = os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC
    with open(os.open(number + RECORD, flags, dir_fd=root), "rb") as file:
        content = file.read(RECORD_MAX + 1)
    try:
        values = json.loads(content)
        outbox, path, row = _name(values["outbox"]), _name(values["path"]), values.get("row")
        private = private_names(row, split(path)[1]) if isinstance(row, int) else ()
        record = Record(outbox, path, private, values.get("leaving") is True, values)
    except (ValueError, TypeError, KeyError, AttributeError):
        raise OSError(errno.EINVAL, f"its record {number}{RECORD} is damaged") from None
    if any(part in (b"", b".", b"..") for part in record.path.split(b"/")) or b"\0" in record.outbox + record.path:
        raise OSError(errno.EINVAL, f"its record {number}{RECORD} names no path below an outbox")
    return record


def _name(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")
