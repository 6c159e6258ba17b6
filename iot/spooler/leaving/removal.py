"""Takes files out of an outbox: only the intended version, and durably.

A producer may rename a new version into place, or go on writing, at any moment. So a file that nobody writes to (see
departure) is first renamed to a private name in its own folder and examined there again; another version, or one that
was opened meanwhile, is put back without replacing anything. Then its leaver takes it, and the folders are synced once
for each batch: the target before the source, so that after a power cut the file is in at least one of them. What is to
be unlinked is handed over (see unlinking). After that the caller forgets its rows.

Every step can run twice. After the private rename the file belongs to its row: it waits there if it cannot leave (say,
because the archive is full), also after a crash. The scan puts back only what no row claims.
"""

from __future__ import annotations

import errno
import hashlib
import logging
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple, Protocol

from iot.spooler.leaving.unlinking import Unlinking
from iot.spooler.naming import shown
from iot.spooler.outbox.departure import Departure, Stays, Why
from iot.spooler.outbox.lease import Held, Writer
from iot.spooler.outbox.watches import PRIVATE_PREFIX
from iot.transfer import Fingerprint, is_gone
from iot.transfer.beneath import check_unlink_allowed, free_name, join, open_below, rename_noreplace, split

__all__ = ["Delete", "Item", "Leaver", "Outcome", "key_of", "private_names", "put_back", "recover", "take_away"]

log = logging.getLogger(__name__)
RECOVERED = b"recovered."
PRIVATE = re.compile(re.escape(PRIVATE_PREFIX) + rb"#(\d{1,18})([.~])(.+)", re.DOTALL)


class Item(NamedTuple):
    """A version of a file that is to leave the outbox. key: the caller's; about: for the quarantine's record."""

    key: int
    path: bytes
    fingerprint: Fingerprint
    about: Mapping[str, str | int] = {}


class Outcome(NamedTuple):
    """done: keys of files that have left, or whose version is no longer there. failed: keys with the error.
    stays: files that may not leave yet."""

    done: list[int]
    failed: list[tuple[int, OSError]]
    stays: list[tuple[int, Why]]


class Leaver(Protocol):
    """What is done with a file that has its private name."""

    def leave(self, folder: int, private: bytes, item: Item) -> bool:
        """Move it to its place -> whether the private name still exists, to be unlinked after a sync.

        Raises: OSError; then the file is where it was.
        """

    def sync(self) -> None:
        """Make everything moved since the last call durable. Raises: OSError."""


class Delete:
    """Removes the file."""

    def leave(self, folder: int, private: bytes, item: Item) -> bool:
        return True

    def sync(self) -> None:
        pass  # it went nowhere


def take_away(
    outbox: int, items: Iterable[Item], leaver: Leaver, departure: Departure, unlink: Callable[[Unlinking], None]
) -> Outcome:
    """Take these versions out of the open folder `outbox`, durably.

    unlink: is handed the last step of each folder, and runs it now or later. It tells of its files, the Outcome of the
    others.
    """
    outcome = Outcome([], [], [])
    for below, group in _by_folder(items).items():
        try:
            folder = open_below(outbox, below)
        except OSError as error:
            if is_gone(error):
                outcome.done.extend(item.key for item in group)  # the folder is gone, with its files
                continue
            outcome.failed.extend((item.key, error) for item in group)
            continue
        unlink(_from_folder(folder, group, leaver, departure, outcome))
    return outcome


def _by_folder(items: Iterable[Item]) -> dict[bytes, list[Item]]:
    groups: dict[bytes, list[Item]] = {}
    for item in items:
        groups.setdefault(split(item.path)[0], []).append(item)
    return groups


def _from_folder(
    folder: int, items: Sequence[Item], leaver: Leaver, departure: Departure, outcome: Outcome
) -> Unlinking:
    """-> what is left to do there, which owns the descriptor"""
    last = Unlinking(folder, {}, [])
    try:
        for item in items:
            try:
                private = _take(folder, item, departure)
                if private is not None and leaver.leave(folder, private, item):
                    last.names[item.key] = private
                else:
                    last.done.append(item.key)
            except Stays as stays:
                outcome.stays.append((item.key, stays.why))
            except OSError as error:
                outcome.failed.append((item.key, error))
        _sync(leaver, last)
    except BaseException:
        os.close(folder)
        raise
    return last


def _sync(leaver: Leaver, last: Unlinking) -> None:
    """Where the files went; otherwise none of them leaves."""
    try:
        leaver.sync()
    except OSError as error:
        last.failed += [(key, error) for key in (*last.done, *last.names)]
        last.done.clear()
        last.names.clear()


def private_names(key: int, name: bytes) -> tuple[bytes, bytes]:
    """The private names of a version: a prefix, its key and its name; and one with a hash for when that is too long.

    No two versions share one, because an earlier version may still be waiting when the next is to leave.
    """
    prefix = PRIVATE_PREFIX + b"#%d" % key
    return prefix + b"." + name, prefix + b"~" + hashlib.sha256(name).hexdigest()[:16].encode()


def key_of(private: bytes) -> int | None:
    """The key in a private name; None if the name is not one of ours."""
    match = PRIVATE.fullmatch(private)
    return int(match[1]) if match else None


def _original_name(private: bytes) -> bytes:
    match = PRIVATE.fullmatch(private)
    if match is None:  # a name of the first release, or something else with this prefix
        return private[len(PRIVATE_PREFIX) :] or RECOVERED
    return match[3] if match[2] == b"." else RECOVERED + match[1]


def _take(folder: int, item: Item, departure: Departure) -> bytes | None:
    """The private name that this version now has; None if it is gone, or another version is there.

    Raises: Stays.
    """
    name, meant = split(item.path)[1], item.fingerprint
    with departure.leases.hold(folder, name) as held:
        answer = departure.look(folder, name) if held is None else held.answer()
        if answer.fingerprint == meant:
            departure.check(answer, meant)
            private = _put_aside(folder, item.key, name)
            if held is not None and private is not None and _is_ours(folder, private, held, departure, meant):
                return private
        opened = held is not None and held.is_waited_for()
    for private in private_names(item.key, name):
        answer = departure.look(folder, private)  # also after a crash, or if it has been waiting there
        if answer.fingerprint is None:
            continue
        if opened or not departure.same_content(answer.fingerprint, meant):
            put_back(folder, private, name)
            continue
        if answer.writer is not Writer.SOME:
            check_unlink_allowed(folder, private)  # else what is copied to another disk would stay here, too
            return private
        put_back(folder, private, name)
        raise Stays(Why.OPEN)
    answer = departure.look(folder, name)
    if answer.fingerprint is not None and departure.may_be_same(answer.fingerprint, meant):
        raise Stays(Why.OPEN if answer.writer is Writer.SOME else Why.TOUCHED)
    return None


def _is_ours(folder: int, private: bytes, held: Held, departure: Departure, meant: Fingerprint) -> bool:
    """Whether what we hold has the private name, and nobody could write to it since it was examined."""
    found = held.named(folder, private)
    return found is not None and departure.same_content(found, meant) and not held.is_waited_for()


def _put_aside(folder: int, key: int, name: bytes) -> bytes | None:
    """-> the private name that whatever had this name now has, if anything had it"""
    long, short = private_names(key, name)
    try:
        return _renamed(folder, name, long)
    except OSError as error:
        if error.errno != errno.ENAMETOOLONG:
            raise
    return _renamed(folder, name, short)


def _renamed(folder: int, name: bytes, private: bytes) -> bytes | None:
    try:
        rename_noreplace(folder, name, folder, private)
    except FileNotFoundError:
        return None  # its producer has taken it away
    except FileExistsError:  # of another journal, that is lost
        put_back(folder, private, name)
        rename_noreplace(folder, name, folder, private)
    return private


def put_back(folder: int, private: bytes, name: bytes) -> bytes:
    """Give a file its name back; if the producer has reused that name, a similar one. Both will be sent."""
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
    """Put back a file that an interrupted run left under its private name and that no row claims."""
    below, private = split(path)
    folder = open_below(outbox, below)
    try:
        final = put_back(folder, private, _original_name(private))
        os.fsync(folder)
    finally:
        os.close(folder)
    log.warning("put back after an interrupted removal path=%s", shown(join(below, final)))
