"""Getting files out of an outbox: only the version that was meant, and durably.

A producer may rename a new version into place at any moment, or go on writing. So a file whose writers are gone (see
departure) is first renamed to a private name in its own folder, where nobody else comes by it, and looked at there once
more; another version, or one that was opened meanwhile, is put back without replacing. Then its leaver takes it, and
the folders are synced once for each batch: the one it went to before the one it left, so that no power cut finds it in
neither. The caller forgets its rows after that.

Every step can run twice. From the private rename on the file belongs to its row: when it cannot leave (an archive that
is full) it waits there, and so does one that a crash left there. The scan puts back only what no row claims.
"""

from __future__ import annotations

import errno
import hashlib
import logging
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple, Protocol

from iot.spooler.naming import shown
from iot.spooler.outbox.departure import Departure, Stays, Why
from iot.spooler.outbox.lease import Writer
from iot.spooler.outbox.scan import PRIVATE_PREFIX
from iot.transfer import Fingerprint, is_gone
from iot.transfer.beneath import free_name, join, open_below, rename_noreplace, split

__all__ = ["Delete", "Item", "Leaver", "Outcome", "key_of", "private_names", "put_back", "recover", "take_away"]

log = logging.getLogger(__name__)
RECOVERED = b"recovered."
PRIVATE = re.compile(re.escape(PRIVATE_PREFIX) + rb"#(\d{1,18})([.~])(.+)", re.DOTALL)


class Item(NamedTuple):
    """A version of a file that is to leave the outbox; key: the caller's own; about: for the quarantine's record."""

    key: int
    path: bytes
    fingerprint: Fingerprint
    about: Mapping[str, str | int] = {}


class Outcome(NamedTuple):
    """done: keys of files that are gone, moved, or another version by now. failed: what could not be done, with why.
    stays: files that may not leave yet."""

    done: list[int]
    failed: list[tuple[int, OSError]]
    stays: list[tuple[int, Why]]


class Leaver(Protocol):
    """What is done with a file that was put under its private name."""

    def leave(self, folder: int, private: bytes, item: Item) -> bool:
        """Bring it where it goes; whether the private name is still there and is to be unlinked after a sync.

        Raises: OSError; then the file is where it was.
        """

    def sync(self) -> None:
        """Make durable what arrived since the last call. Raises: OSError."""


class Delete:
    """The file is removed."""

    def leave(self, folder: int, private: bytes, item: Item) -> bool:
        return True

    def sync(self) -> None:
        pass  # it went nowhere


def take_away(outbox: int, items: Iterable[Item], leaver: Leaver, departure: Departure) -> Outcome:
    """Get these versions out of the open folder `outbox`, durably."""
    outcome = Outcome([], [], [])
    for below, group in _by_folder(items).items():
        try:
            folder = open_below(outbox, below)
        except OSError as error:
            if is_gone(error):
                outcome.done.extend(item.key for item in group)  # the folder went, and the files with it
                continue
            outcome.failed.extend((item.key, error) for item in group)
            continue
        try:
            _from_folder(folder, group, leaver, departure, outcome)
        finally:
            os.close(folder)
    return outcome


def _by_folder(items: Iterable[Item]) -> dict[bytes, list[Item]]:
    groups: dict[bytes, list[Item]] = {}
    for item in items:
        groups.setdefault(split(item.path)[0], []).append(item)
    return groups


def _from_folder(folder: int, items: Sequence[Item], leaver: Leaver, departure: Departure, outcome: Outcome) -> None:
    done: list[int] = []
    left: list[tuple[int, bytes]] = []
    for item in items:
        try:
            private = _take(folder, item, departure)
            if private is not None and leaver.leave(folder, private, item):
                left.append((item.key, private))
            else:
                done.append(item.key)
        except Stays as stays:
            outcome.stays.append((item.key, stays.why))
        except OSError as error:
            outcome.failed.append((item.key, error))
    try:
        leaver.sync()
        _unlink_all(folder, left, done, outcome)
        os.fsync(folder)
        outcome.done.extend(done)
    except OSError as error:  # nothing is durable
        outcome.failed.extend((key, error) for key in dict.fromkeys([*done, *(key for key, _ in left)]))


def _unlink_all(folder: int, left: Sequence[tuple[int, bytes]], done: list[int], outcome: Outcome) -> None:
    for key, private in left:
        try:
            os.unlink(private, dir_fd=folder)
        except FileNotFoundError:
            pass  # somebody was faster
        except OSError as error:
            outcome.failed.append((key, error))
            continue
        done.append(key)


def private_names(key: int, name: bytes) -> tuple[bytes, bytes]:
    """Where a version is put out of the way, its key and name behind a prefix; and where that is too long, with a hash.

    No two versions share one: an earlier one may still wait there when the next is to leave.
    """
    prefix = PRIVATE_PREFIX + b"#%d" % key
    return prefix + b"." + name, prefix + b"~" + hashlib.sha256(name).hexdigest()[:16].encode()


def key_of(private: bytes) -> int | None:
    """The key in a private name; None when it is none of ours."""
    match = PRIVATE.fullmatch(private)
    return int(match[1]) if match else None


def _original_name(private: bytes) -> bytes:
    match = PRIVATE.fullmatch(private)
    if match is None:  # as the first release called it, or something else that begins so
        return private[len(PRIVATE_PREFIX) :] or RECOVERED
    return match[3] if match[2] == b"." else RECOVERED + match[1]


def _take(folder: int, item: Item, departure: Departure) -> bytes | None:
    """The private name under which this version now is; None when it is gone, or another version is there.

    Raises: Stays.
    """
    name, meant = split(item.path)[1], item.fingerprint
    with departure.leases.hold(folder, name) as is_being_opened:
        answer = departure.look(folder, name)
        if answer.fingerprint == meant:
            departure.check(answer, meant)
            _put_aside(folder, item.key, name)
        opened = is_being_opened()
    for private in private_names(item.key, name):
        answer = departure.look(folder, private)  # also after a crash, or when it has waited there
        if answer.fingerprint is None:
            continue
        if opened or not departure.same_content(answer.fingerprint, meant):
            put_back(folder, private, name)
            continue
        if answer.writer is not Writer.SOME:
            return private
        put_back(folder, private, name)
        raise Stays(Why.OPEN)
    answer = departure.look(folder, name)
    if answer.fingerprint is not None and departure.same_content(answer.fingerprint, meant):
        raise Stays(Why.OPEN if answer.writer is Writer.SOME else Why.TOUCHED)
    return None


def _put_aside(folder: int, key: int, name: bytes) -> None:
    long, short = private_names(key, name)
    for private in (long, short):
        try:
            rename_noreplace(folder, name, folder, private)
        except FileNotFoundError:
            pass  # its producer has taken it away
        except FileExistsError:  # of another journal, that is lost
            put_back(folder, private, name)
            rename_noreplace(folder, name, folder, private)
        except OSError as error:
            if error.errno != errno.ENAMETOOLONG or private is short:
                raise
            continue
        return


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
    folder = open_below(outbox, below)
    try:
        final = put_back(folder, private, _original_name(private))
        os.fsync(folder)
    finally:
        os.close(folder)
    log.warning("put back after an interrupted removal path=%s", shown(join(below, final)))
