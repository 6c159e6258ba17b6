"""What the quarantine keeps beside each file: where it came from, so that it goes back exactly there.

    <quarantine>/<id>/<name>    the producer's file and nothing else: whatever its name, nothing can collide with it
    <quarantine>/<id>.json      its outbox, path, destination, attempts and the reason

The record is on the disk before the file comes and leaves after it.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from iot.spooler.leaving.moving import CREATE, READ
from iot.spooler.leaving.removal import private_names
from iot.transfer.beneath import open_below, opener, split

__all__ = ["ID", "STAGED", "Record", "as_text", "drop_record", "ids_in", "is_there", "read_record", "write_record"]

ID = re.compile("[0-9a-f]{16}")
RECORD = ".json"
RECORD_MAX = 64 * 1024
STAGED = (b".iot-copy", b".iot-copy.1")
UNREADABLE = ("", 0)


class Record(NamedTuple):
    """What is kept of a file: bytes of names as JSON text with surrogate escapes.

    private: its names in the outbox while it is on its way out. leaving: a whole copy lies in its outbox. all: what is
    kept for people, too.
    """

    outbox: bytes
    path: bytes
    private: tuple[bytes, ...]
    leaving: bool
    all: Mapping[str, Any]


def ids_in(root: int) -> list[str]:
    """Of all files of the open quarantine, in the order in which they came: the newest version of a name last."""

    def came(number: str) -> tuple[str, int, str]:
        try:
            values = read_record(root, number).all
        except OSError:
            return *UNREADABLE, number  # said by whoever works on it
        row = values.get("row")
        return str(values.get("at", "")), row if isinstance(row, int) else 0, number

    with os.scandir(root) as entries:
        names = {entry.name.removesuffix(RECORD) for entry in entries}
    return sorted((name for name in names if ID.fullmatch(name)), key=came)


def write_record(root: int, number: str, record: Mapping[str, Any]) -> None:
    fresh = number + RECORD + ".new"
    with contextlib.suppress(FileNotFoundError):
        os.unlink(fresh, dir_fd=root)
    with open(fresh, "w", encoding="ascii", opener=opener(root, CREATE)) as file:
        json.dump(record, file, indent=1)
        file.flush()
        os.fsync(file.fileno())
    os.rename(fresh, number + RECORD, src_dir_fd=root, dst_dir_fd=root)


def read_record(root: int, number: str) -> Record:
    """Raises: FileNotFoundError; OSError saying what is wrong with it."""
    with open(number + RECORD, "rb", opener=opener(root, READ)) as file:
        content = file.read(RECORD_MAX)
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


def drop_record(root: int, number: str) -> bool:
    """Remove folder and record of an id; whether both are gone. A folder that holds a file stays, and its record."""
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


def is_there(folder: int, name: bytes) -> bool:
    try:
        os.stat(name, dir_fd=folder, follow_symlinks=False)
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.ENAMETOOLONG):
            raise
        return False
    return True


def as_text(name: bytes) -> str:
    return name.decode("utf-8", "surrogateescape")
