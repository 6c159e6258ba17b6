"""Producers of every kind over real outbox folders, who remember what they wrote.

A version of a file is complete while nobody has it open for writing. `wanted` is what must not get lost: the complete
versions that their producer has neither changed nor taken back. Every content is written once, so that content tells
which version it is, wherever it lies; only that of an empty file tells nothing (a full disk leaves those).
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import stat
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from faults.lab_disk import tree
from faults.lab_files import NAMES, OPEN, File, all_of, is_removed, next_file_time, opened
from faults.lab_world import Clock, User, as_root, as_user

__all__ = ["Producers"]

TICK_S = 0.01  # file times move in steps of a few milliseconds
FAT_TICK_S = 2.5  # and there of two seconds

TOO_LONG = 230
"""The agent's private name for one of so many bytes may hold no more than a hash of it."""
NUMBERED = re.compile(rb"\.\d+$")
PRIVATE = re.compile(rb"(?<![^/])\.iot-sent\.(#\d+\.)?")


class Handle(NamedTuple):
    """A file that its producer keeps open; written_at: when last while it had a name, on the laboratory's clock."""

    descriptor: int
    written_at: float


@dataclass
class Producers:
    """boxes: their outboxes. aside: a folder on the same file system. folder_mode: of the folders that they make.

    wanted: content -> the name it was written under. versions: what may be published under a name. passing: what a file
    held while its producer paused with it open. touched: how often a content was given another time, mode or owner.
    linked: how many names it was given beside its own. incidents: kills and lost journals so far. born: how many there
    had been when a content was written.
    """

    boxes: list[Path]
    aside: Path
    user: User
    clock: Clock
    is_fat: bool = False
    folder_mode: int = 0o755
    foreign: set[tuple[int, int]] = field(default_factory=set)
    wanted: dict[bytes, File] = field(default_factory=dict)
    versions: dict[File, set[bytes]] = field(default_factory=dict)
    passing: dict[File, set[bytes]] = field(default_factory=dict)
    touched: Counter[bytes] = field(default_factory=Counter)
    linked: Counter[bytes] = field(default_factory=Counter)
    incidents: int = 0
    born: dict[bytes, int] = field(default_factory=dict)
    handles: dict[File, Handle] = field(default_factory=dict)

    # -- what they do

    def write(self, file: File, size: int) -> None:
        """Open, write, close: in place where the file is there already."""
        with self._acting():
            self._change(file, lambda _: os.urandom(size), os.O_CREAT)

    def rename_in(self, file: File, size: int) -> None:
        with self._acting():
            new = os.fsencode(self.aside / "new")
            with opened(new, os.O_CREAT | os.O_TRUNC) as descriptor:
                content = self._fill(descriptor, os.urandom(size))
            place = self._place(file)
            before = self._content(place)
            os.replace(new, place)
            self._replaced(file, before)
            self._complete(file, content)

    def append(self, file: File, size: int) -> None:
        with self._acting():
            self._change(file, lambda before: before + os.urandom(size))

    def rewrite(self, file: File, *, old_time: bool) -> None:
        """In place and in the same size; old_time: as if nothing had happened, of which FAT keeps no trace at all."""
        with self._acting():
            place = self._place(file)
            before = os.stat(place, follow_symlinks=False)
            self._change(file, lambda old: os.urandom(len(old)))
            if old_time and not self.is_fat:
                os.utime(place, ns=(before.st_atime_ns, before.st_mtime_ns), follow_symlinks=False)

    def truncate(self, file: File) -> None:
        with self._acting():
            self._change(file, lambda before: before[: len(before) // 2] + os.urandom(8))

    def open(self, file: File, size: int) -> None:
        """Begin a file, or go on with one, and keep it open."""
        if file in self.handles:
            return
        with self._acting():
            descriptor = os.open(self._place(file), OPEN | os.O_CREAT, 0o644)
            if self._is_foreign(descriptor):
                os.close(descriptor)
                return
            self.handles[file] = Handle(descriptor, self.clock.now)
            self._changed(file, descriptor)  # on a full disk it stays as it is
            self._write_on(file, size)

    def write_on(self, file: File, size: int) -> None:
        """Write to a file that is kept open, wherever it lies by now."""
        if file in self.handles:
            with self._acting():
                self._write_on(file, size)

    def close(self, file: File) -> bool:
        """-> whether the file was there to the end, under whatever name"""
        handle = self.handles.pop(file, None)
        if handle is None:
            return True
        content = all_of(handle.descriptor)
        there = not is_removed(handle.descriptor)
        os.close(handle.descriptor)
        if there:
            self._complete(file, content)
        return there

    def rename(self, file: File, to: bytes) -> None:
        with self._acting():
            target = File(file.box, to)
            source, place = self._place(file), self._place(target)
            content, before = self._content(source), self._content(place)
            if content is None or source == place:
                return
            os.rename(source, place)
            if before != content:
                self._replaced(target, before)
            self._moved(file, target)
            for known in (self.versions, self.passing):
                if any(content in contents for contents in known.values()):
                    known[target].add(content)  # it may have been put back under the name that it had

    def hard_link(self, file: File, to: bytes) -> None:
        with self._acting():
            content = self._content(self._place(file))
            if content is None or file in self.handles:
                return
            os.link(self._place(file), self._place(File(file.box, to)), follow_symlinks=False)
            self.linked[content] += 1
            self.versions.setdefault(File(file.box, to), set()).add(content)

    def delete(self, file: File) -> None:
        with self._acting():
            place = self._place(file)
            before, links = self._content(place), os.lstat(place).st_nlink
            os.unlink(place)
            self._replaced(file, before if links == 1 else None)

    def plant_link(self, file: File, target: bytes) -> None:
        with self._acting():
            os.symlink(target, self._place(file))

    def link_in(self, file: File, foreign: Path) -> None:
        """A hard link of somebody else's file."""
        with self._acting():
            os.link(foreign, self._place(file))
            content = foreign.read_bytes()
            self.linked[content] += 1
            self.versions.setdefault(file, set()).add(content)

    def swap_folder(self, box: int, folder: bytes, target: bytes) -> None:
        """Rename a folder with all that is in it, and put a link in its place."""
        with self._acting():
            here = os.fsencode(self.boxes[box])
            away = folder + b"-%d" % round(self.clock.now * 1e6)
            if os.path.islink(here + b"/" + folder):
                return
            os.rename(here + b"/" + folder, here + b"/" + away)
            for known in {*self.versions, *self.passing}:
                if known.box == box and known.path.startswith(folder + b"/"):
                    self._moved(known, File(box, away + known.path[len(folder) :]))
            os.symlink(target, here + b"/" + folder)

    def date(self, file: File, seconds: int) -> None:
        nanoseconds = seconds * 10**9 + 5
        self._touch(file, lambda place: os.utime(place, ns=(nanoseconds, nanoseconds)))

    def chmod(self, file: File, mode: int) -> None:
        self._touch(file, lambda place: os.chmod(place, mode))

    def chown(self, file: File, user: User) -> None:
        self._touch(file, lambda place: os.chown(place, *user), as_root=True)

    # -- what they know

    def wrote(self, file: File, content: bytes) -> bool:
        """Whether this was a complete version of that name, or of one that it may have been put back beside."""
        return any(content in self.versions.get(name, ()) for name in self._names(file))

    def paused_at(self, file: File, content: bytes) -> bool:
        return any(content in self.passing.get(name, ()) for name in self._names(file))

    def _names(self, file: File) -> Iterator[File]:
        """A file that is put back beside a newer one gets a number, and one with a private name loses the prefix."""
        folder, slash, name = file.path.rpartition(b"/")
        for plain in (name, NUMBERED.sub(b"", name)):
            yield File(file.box, folder + slash + plain)
            yield File(file.box, folder + slash + b".iot-sent." + plain)
            yield File(file.box, folder + slash + b".iot-sent.#1." + plain)
        if name.startswith(b"recovered."):
            hidden = (File(file.box, other) for other in NAMES if b"~" in other or len(other) > TOO_LONG)
            yield from (other for other in hidden if other.path.rpartition(b"/")[0] == folder)

    # -- inside

    @contextlib.contextmanager
    def _acting(self, *, as_root: bool = False) -> Iterator[None]:
        """As that user; what the file system does not allow, or has no name or room for, is not done."""
        self.clock.passes(FAT_TICK_S if self.is_fat else TICK_S)
        next_file_time()
        with contextlib.suppress(OSError), contextlib.nullcontext() if as_root else as_user(self.user):
            yield

    def _change(self, file: File, new: Callable[[bytes], bytes], flags: int = 0) -> None:
        """In place; on a full disk it is what came of it."""
        with opened(self._place(file), flags) as descriptor:
            if self._is_foreign(descriptor):
                return
            before = all_of(descriptor)
            self._met(before)
            self.wanted.pop(before, None)
            try:
                self._fill(descriptor, new(before))
            finally:
                self._changed(file, descriptor)

    def _write_on(self, file: File, size: int) -> None:
        descriptor, written_at = self.handles[file]
        before = all_of(descriptor)
        self._met(before)
        self.wanted.pop(before, None)
        self.handles[file] = Handle(descriptor, written_at if is_removed(descriptor) else self.clock.now)
        try:
            os.pwrite(descriptor, os.urandom(size), len(before))
        finally:
            self._stamp(descriptor)
            self._changed(file, descriptor)

    def _changed(self, file: File, descriptor: int) -> None:
        """Every name of this file has another content now, complete unless somebody has it open."""
        content = all_of(descriptor)
        self.born.setdefault(content, self.incidents)
        identity = os.fstat(descriptor)
        with as_root():
            names = {file, *self._links(identity)}
        is_open = any(os.path.samestat(os.fstat(handle.descriptor), identity) for handle in self.handles.values())
        for name in names:
            (self.passing if is_open else self.versions).setdefault(name, set()).add(content)
        if not is_open:
            self.wanted[content] = file
        self.linked[content] += max(identity.st_nlink - 1, 0)

    def _complete(self, file: File, content: bytes) -> None:
        self.born.setdefault(content, self.incidents)
        self.wanted[content] = file
        self.versions.setdefault(file, set()).add(content)

    def _replaced(self, file: File, before: bytes | None) -> None:
        """Its producer put something else in its place, or nothing."""
        if before is None:
            return
        self.wanted.pop(before, None)
        for name, (descriptor, _) in list(self.handles.items()):
            if is_removed(descriptor) and (name == file or before == all_of(descriptor) != b""):
                os.close(self.handles.pop(name).descriptor)  # put back under that name, it may be kept open as another

    def _moved(self, file: File, to: File) -> None:
        for known in (self.versions, self.passing):
            known.setdefault(to, set()).update(known.get(file, ()))
        if file in self.handles and to not in self.handles:
            self.handles[to] = self.handles.pop(file)

    def _touch(self, file: File, act: Callable[[bytes], None], *, as_root: bool = False) -> None:
        place = os.fsencode(self.boxes[file.box]) + b"/" + file.path
        with contextlib.suppress(OSError):
            status = os.lstat(place)
            if not stat.S_ISREG(status.st_mode) or (status.st_dev, status.st_ino) in self.foreign:
                return
            self.touched[Path(os.fsdecode(place)).read_bytes()] += 1
            with self._acting(as_root=as_root):
                act(place)

    def _place(self, file: File) -> bytes:
        """Where it is, its folders made; a link that was planted in their place goes first."""
        here = os.fsencode(self.boxes[file.box])
        *folders, name = file.path.split(b"/")
        for folder in folders:
            here += b"/" + folder
            if os.path.islink(here):
                os.unlink(here)
            if not os.path.isdir(here):
                os.mkdir(here)
                os.chmod(here, self.folder_mode)
        return here + b"/" + name

    def _content(self, place: bytes) -> bytes | None:
        """What lies there; None when that is no file."""
        try:
            with opened(place, 0) as descriptor:
                content = all_of(descriptor)
        except FileNotFoundError:
            return None
        self._met(content)
        return content

    def _met(self, content: bytes) -> None:
        known = any(content in contents for kind in (self.versions, self.passing) for contents in kind.values())
        assert known or not content, f"a file that no producer wrote lies in an outbox: {content[:20]!r}"

    def _links(self, identity: os.stat_result) -> Iterator[File]:
        """Every name of a file, those that the agent gave it included, and those that it would be put back under."""
        if self.is_fat:
            return  # no links, and no inodes that last
        for box, folder in enumerate(self.boxes):
            for path, status in tree(folder):
                if os.path.samestat(status, identity):
                    name = os.path.relpath(path, os.fsencode(folder))
                    yield File(box, name)
                    yield File(box, PRIVATE.sub(b"", name))

    def _is_foreign(self, descriptor: int) -> bool:
        status = os.fstat(descriptor)
        return (status.st_dev, status.st_ino) in self.foreign

    def _fill(self, descriptor: int, content: bytes) -> bytes:
        try:
            if os.pwrite(descriptor, content, 0) < len(content):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            os.ftruncate(descriptor, len(content))
        finally:
            self._stamp(descriptor)
        return content

    def _stamp(self, descriptor: int) -> None:
        """The laboratory's time runs ahead of ours; also on a full disk, where nothing but an empty file came of it."""
        at = round(self.clock.wall * 1e9)
        os.utime(descriptor, ns=(at, at))
