"""What an operator does with quarantined files: look at them, send them again, drop them.

A release is exact over a crash at any step: at no moment can the agent find the file while the quarantine still has it,
so it is sent once more, never twice. On one file system that is a rename. On two:

    copied to the outbox as .iot-back.<id>, which nobody sends     a crash: the quarantine has it, the copy is made anew
    the record says that it is leaving                             the same
    unlinked in the quarantine                                     the copy is the file; the next `retry` goes on
    renamed to its name in the outbox                              the agent sends it; the next `retry` finds nothing
    the record is removed
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import logging
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import NamedTuple, TypeAlias

from iot.spooler.leaving.moving import copy_whole
from iot.spooler.leaving.records import Record, drop_record, ids_in, is_there, read_record, write_record
from iot.spooler.leaving.trust import open_trusted
from iot.spooler.naming import shown
from iot.spooler.patterns import matcher
from iot.transfer.beneath import DIRECTORY, PASSING_PREFIX, make_below, open_below, rename_noreplace, split

__all__ = ["QuarantineBusy", "Quarantined", "drop", "everything", "listed", "matching", "release"]

log = logging.getLogger(__name__)

LOCK_WAIT_S = 5.0
LOCK_PAUSE_S = 0.05


class QuarantineBusy(Exception):
    """An agent does not let go of the quarantine."""


class Quarantined(NamedTuple):
    """A file that was given up. at: when, ISO 8601, as its record says."""

    id: str
    outbox: str
    path: str
    destination: str
    bytes: int
    attempts: int
    at: str
    reason: str


Wanted: TypeAlias = Callable[[Quarantined], bool]


def everything(_: Quarantined) -> bool:
    return True


def matching(pattern: str) -> Wanted:
    """By id; by the path below the outbox, or with the outbox in front, as the patterns of `include`."""
    matches = matcher([pattern])

    def wanted(file: Quarantined) -> bool:
        return file.id == pattern or matches(file.path) or matches(os.path.join(file.outbox, file.path))

    return wanted


def listed(quarantines: Iterable[Path], wanted: Wanted = everything) -> tuple[list[Quarantined], int]:
    """What lies there, in the order in which it came, and how much could not be looked at."""
    found: list[Quarantined] = []
    failed = 0
    for root in _opened(quarantines):
        if root is None:
            failed += 1
            continue
        for number in ids_in(root):
            try:
                file = _known(number, read_record(root, number))
            except FileNotFoundError:
                continue  # it is being moved
            except OSError as error:
                log.error("cannot read id=%s reason=%s", number, shown(error.strerror or str(error)))
                failed += 1
                continue
            if wanted(file):
                found.append(file)
    return found, failed


def drop(quarantines: Iterable[Path], wanted: Wanted) -> tuple[int, int]:
    """Remove files for ever; how many were removed, how many could not be."""
    return _counted(quarantines, lambda root, number: _dropped(root, number, wanted))


def release(
    quarantines: Iterable[Path],
    outboxes: Iterable[Path],
    delivered: Mapping[str, int] | None = None,
    wanted: Wanted = everything,
) -> tuple[int, int]:
    """Move files back to where they came from; how many were moved, how many could not be.

    A file stays when its place is taken by a newer one, when something was delivered to its destination since, or when
    its outbox is none of `outboxes` any more.

    delivered: when a destination was last delivered to, by the wall clock in whole seconds.
    """
    known = {bytes(outbox) for outbox in outboxes}
    return _counted(quarantines, lambda root, number: _release(root, number, known, delivered or {}, wanted))


def _counted(quarantines: Iterable[Path], act: Callable[[int, str], bool | None]) -> tuple[int, int]:
    """How many files `act` was done to, and how many it could not be; a quarantine that cannot be opened is one."""
    outcomes: list[bool | None] = []
    for root in _opened(quarantines):
        outcomes += [False] if root is None else [act(root, number) for number in ids_in(root)]
    return outcomes.count(True), outcomes.count(False)


def _opened(quarantines: Iterable[Path]) -> Iterator[int | None]:
    """Each once, open as long as it is looked at; None for one that cannot be opened, which is said."""
    for folder in sorted(set(quarantines)):
        try:
            root = open_trusted(folder)
        except FileNotFoundError:
            continue
        except OSError as error:
            log.error("cannot open the quarantine error=%s", shown(str(error)))
            yield None
            continue
        try:
            yield root
        finally:
            os.close(root)


def _known(number: str, record: Record) -> Quarantined:
    def whole(key: str) -> int:
        value = record.all.get(key)
        return value if isinstance(value, int) else 0

    names = os.fsdecode(record.outbox), os.fsdecode(record.path)
    words = (str(record.all.get(key, "")) for key in ("at", "reason"))
    destination = str(record.all.get("destination", ""))
    return Quarantined(number, *names, destination, whole("bytes"), whole("attempts"), *words)


def _handled(
    root: int,
    number: str,
    wanted: Wanted,
    act: Callable[[Record], bool],
    failed: Callable[[str, OSError], bool | None],
) -> bool | None:
    """What `act` says of the file of this id, or `failed` of its path and the error; None when it is not meant."""
    path = number
    with _locked(root):
        try:
            record = read_record(root, number)
            path = shown(record.path)
            return act(record) if wanted(_known(number, record)) else None
        except OSError as error:
            return failed(path, error)


def _dropped(root: int, number: str, wanted: Wanted) -> bool | None:
    """Whether the file of this id is gone; None when it is none of those that are meant."""

    def act(record: Record) -> bool:
        if record.leaving:
            raise OSError(errno.EBUSY, "it is on its way back; `quarantine retry` finishes that")
        _unlink(root, number, split(record.path)[1])
        drop_record(root, number)
        os.fsync(root)
        return True

    def failed(path: str, error: OSError) -> bool | None:
        if isinstance(error, FileNotFoundError):
            return None  # it is being moved
        log.error("cannot drop path=%s reason=%s", path, shown(error.strerror or str(error)))
        return False

    return _handled(root, number, wanted, act, failed)


def _unlink(root: int, number: str, name: bytes) -> None:
    """The file goes before its record: a crash between them leaves a record without a file, which `retry` removes."""
    here = open_below(root, os.fsencode(number))
    try:
        os.unlink(name, dir_fd=here)
        os.fsync(here)
    finally:
        os.close(here)


def _release(root: int, number: str, outboxes: set[bytes], delivered: Mapping[str, int], wanted: Wanted) -> bool | None:
    """Whether the file of this id went back; None when none is meant, or there is none (an interrupted move)."""

    def act(record: Record) -> bool:
        if record.outbox not in outboxes:
            raise OSError(errno.EINVAL, f"its outbox {shown(record.outbox)} is not in this configuration")
        if _is_outdated(record, delivered):
            raise OSError(errno.EINVAL, f"a newer version was delivered since; take {number} out of the quarantine")
        return _put_back(root, number, record)

    def failed(path: str, error: OSError) -> bool | None:
        if isinstance(error, FileNotFoundError):
            if drop_record(root, number):
                return None
            return _stays(path, "its record or its file is missing; move what is there by hand")
        if isinstance(error, FileExistsError):
            return _stays(path, "its place is taken by another file; take that away, then retry")
        return _stays(path, error.strerror or str(error))

    return _handled(root, number, wanted, act, failed)


def _is_outdated(record: Record, delivered: Mapping[str, int]) -> bool:
    """Whether it would replace what came later. A record without a date is believed to be the newest."""
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
            if any(is_there(there, private) for private in record.private):
                raise OSError(errno.EBUSY, "its agent was interrupted while it moved it here; start the agent first")
            _carry(root, number, record, here, there, name)
            os.fsync(there)
        finally:
            os.close(there)
        os.fsync(here)
    finally:
        os.close(here)
    drop_record(root, number)
    os.fsync(root)
    return True


def _carry(root: int, number: str, record: Record, here: int, there: int, name: bytes) -> None:
    """From its folder in the quarantine, `here`, into that in the outbox, `there`: the steps above.

    Raises: FileNotFoundError when there is no file; FileExistsError when its place is taken; OSError.
    """
    staged = PASSING_PREFIX + os.fsencode(number)
    if is_there(here, name) or not record.leaving:
        try:
            rename_noreplace(here, name, there, name)
            return
        except FileNotFoundError:
            with contextlib.suppress(OSError):
                os.unlink(staged, dir_fd=there)  # perhaps a part of a copy whose original was taken away
            raise
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
        if is_there(there, name):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), os.fsdecode(name))
        copy_whole(here, name, there, staged)
        os.fsync(there)
        write_record(root, number, {**record.all, "leaving": True})
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
    """An agent waits meanwhile: what it brings in between could be taken for an interrupted move.

    Raises: QuarantineBusy if an agent keeps it for long: its disk may hang.
    """
    end_s = time.monotonic() + LOCK_WAIT_S
    while True:
        try:
            fcntl.flock(root, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > end_s:
                raise QuarantineBusy("an agent is moving files into the quarantine; try again later") from None
            time.sleep(LOCK_PAUSE_S)
            continue
        except OSError:
            pass  # a file system without locks: as safe as an operator who waits
        break
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            fcntl.flock(root, fcntl.LOCK_UN)
