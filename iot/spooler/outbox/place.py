"""Where an outbox is: its folder is opened, claimed for this agent, and known again by its mount point.

An outbox whose disk is missing is unmounted, not empty: that is SourceFailed, as anything is that keeps its content
from being known.
"""

from __future__ import annotations

import itertools
import logging
import os
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from iot.spooler.naming import shown
from iot.spooler.outbox.lease import Answer, Completeness, Leases, Writer
from iot.spooler.outbox.mounts import FileSystem, file_system
from iot.spooler.state.homes import Homes
from iot.spooler.state.lock import AlreadyRunning, OutboxClaim
from iot.transfer import Fingerprint, is_gone
from iot.transfer.beneath import DIRECTORY, open_below, split

__all__ = ["Found", "OutboxTaken", "Place", "SourceFailed", "completeness_of", "open_file"]

log = logging.getLogger(__name__)

LOOKED_AT = 100
READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK


class SourceFailed(Exception):
    """The outbox cannot be read, so its content is unknown."""


class OutboxTaken(SourceFailed):
    """Another agent has claimed it; pid: its process, 0 when unknown."""

    def __init__(self, words: str, pid: int) -> None:
        super().__init__(words)
        self.pid = pid


class Found(NamedTuple):
    path: bytes
    fingerprint: Fingerprint


class Place:
    """The folder of an outbox.

    homes: where it has to be mounted. leases, system: leases and file system of the device that it is on. moved: it is
    another folder than before, which whoever reads this clears.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.homes = Homes()
        self.system = FileSystem()
        self.leases: Leases | None = None
        self.moved = False
        self._home: tuple[int, int] | None = None
        self._claimed: OutboxClaim | None = None

    def open(self) -> int:
        """A descriptor of the folder, for the caller to close. Raises: SourceFailed (also when it is not mounted)."""
        try:
            root = os.open(self.path, DIRECTORY)
        except OSError as error:
            raise self._failed(error) from error
        try:
            self._check_device(root)
        except BaseException:
            os.close(root)
            raise
        return root

    def is_home(self) -> bool:
        """Whether the folder with this path is still the one that was opened; True if none was."""
        if self._home is None:
            return True
        try:
            status = os.stat(self.path)
        except OSError:
            return False
        return (status.st_dev, status.st_ino) == self._home

    def look(self, path: bytes) -> Fingerprint | None:
        """The present version of a file; None if there is no such regular file. Raises: SourceFailed."""
        status = self._status(path)
        return Fingerprint.of(status) if status is not None and stat.S_ISREG(status.st_mode) else None

    def open_file(self, path: bytes) -> int:
        """A descriptor for reading, for the caller to close. Raises: SourceFailed, OSError."""
        root = self.open()
        try:
            return open_file(root, path)
        finally:
            os.close(root)

    def ask(self, files: Sequence[Found]) -> Iterator[tuple[Found, Answer | None]]:
        """Whether each of these files is open for writing, and the version examined; None: it cannot be examined.

        Cheapest when the files are sorted by folder. Raises: SourceFailed.
        """
        root = self.open()
        here: int | None = None
        opened = b""
        try:
            for found in files:
                folder, name = split(found.path)
                try:
                    if here is not None and folder != opened:
                        os.close(here)
                        here = None
                    if here is None:
                        here, opened = open_below(root, folder), folder
                    assert self.leases is not None
                    answer = self.leases.ask(here, name)
                except OSError as error:
                    yield found, Answer(Writer.UNKNOWN, None) if is_gone(error) else None
                else:
                    yield found, answer
        finally:
            if here is not None:
                os.close(here)
            os.close(root)

    @property
    def completeness(self) -> Completeness | None:
        """Whether the completeness of files is known here or guessed; None before the outbox was first opened."""
        return self.leases.completeness if self.leases is not None else None

    def release(self) -> None:
        """Release the claim, so that another agent can have the outbox."""
        if self._claimed is not None:
            self._claimed.release()
            self._claimed = None

    # -- inside

    def _status(self, path: bytes) -> os.stat_result | None:
        """Of whatever has this name, itself and not where it leads; None if nothing has. Raises: SourceFailed."""
        folder, name = split(path)
        root = self.open()
        try:
            here = open_below(root, folder)
            try:
                return os.stat(name, dir_fd=here, follow_symlinks=False)
            finally:
                os.close(here)
        except OSError as error:
            if not is_gone(error):
                raise self._failed(error, path) from error
            return None
        finally:
            os.close(root)

    def _failed(self, error: OSError, below: bytes = b"") -> SourceFailed:
        place = os.path.join(bytes(self.path), below) if below else bytes(self.path)
        return SourceFailed(f"outbox {shown(place)}: {error.strerror}")

    def _check_device(self, root: int) -> None:
        """The folder must be on its mount; a new device there means a remount."""
        status = os.fstat(root)
        identity = status.st_dev, status.st_ino
        if self._home == identity:
            return
        try:
            self.homes.check(self.path, root)
        except OSError as error:
            self.release()  # so that the old file system can be unmounted
            raise self._failed(error) from error
        if self._home is not None:
            log.warning("outbox is now another folder path=%s device=%d inode=%d", shown(str(self.path)), *identity)
            self.moved = True
        self._claim(root)
        self.system = file_system(root)
        self.leases = Leases(root)
        self._home = identity

    def _claim(self, root: int) -> None:
        self.release()
        try:
            self._claimed = OutboxClaim(root, self.path)
        except AlreadyRunning as error:
            raise OutboxTaken(str(error), error.pid) from None
        if not self._claimed.counts_everywhere:
            log.warning(
                "folder cannot be locked: an agent in another container would not be seen path=%s",
                shown(str(self.path)),
            )


def open_file(root: int, path: bytes) -> int:
    """The same below an open folder. Raises: OSError."""
    folder, name = split(path)
    here = open_below(root, folder)
    try:
        return os.open(name, READ, dir_fd=here)
    finally:
        os.close(here)


def completeness_of(path: Path) -> str:
    """What an agent of this user could know in this outbox, in words, judged by the files in it if there are any."""
    try:
        root = os.open(path, DIRECTORY)
        try:
            leases = Leases(root)
            with os.scandir(root) as entries:
                files = (entry for entry in entries if entry.is_file(follow_symlinks=False))
                for entry in itertools.islice(files, LOOKED_AT):
                    leases.ask(root, os.fsencode(entry.name))
        finally:
            os.close(root)
    except OSError as error:
        return f"unknown: {error.strerror}"
    return str(leases.completeness)
