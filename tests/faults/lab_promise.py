"""What holds in every life of the laboratory, whatever producers, operators, servers and disks do."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import sqlite3
import stat
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from faults.lab_disk import tree
from faults.lab_files import File
from faults.lab_hooks import REFUSES
from faults.lab_setup import PULLS

__all__ = ["WINDOW_H", "Promise", "content_of"]

WINDOW_H, GRACE_S = 6, 30.0
"""Windows open and close every so many hours; a jump of the clock is noticed within so many seconds."""
PRIVATE = b"/.iot-sent."
BESIDE = re.compile(rb"-\d+(?=(\.[^./]*)?$)")
"""The number that a name gets in the next outbox where another file has it."""
SWAPPED = re.compile(rb"^d-\d{9,}/")
"""The folder of a swap, with what had come into it."""
NAME_MAX = 255
LIST = "-dropped-"
"""In the names of the lists of what was dropped, and in no other."""


class Promise:
    """For the machine, which has all that it looks at."""

    def _look(self) -> None:
        self._hear_the_hooks()
        self.look_at_the_server()
        self._look_at_the_inbox()
        self._look_at_the_dropped()
        copies = self._copies()
        for content, file in self.producers.wanted.items():
            assert content in copies or content in self.delivered or self._was_dropped(content), f"{file} is lost"
        for content, count in copies.items():
            most = 1 + self.producers.linked[content] + self._excused(content)
            assert count <= most or not content, f"there are {count} copies of one file"
        assert self._outside() == self.before, "somebody else's files were touched"

    def look_at_the_server(self) -> None:
        for dest, content, wall in self.server.published[self.seen :]:
            if LIST in dest:
                continue  # _look_at_the_dropped reads it
            assert self._in_window(wall), f"{dest} was sent outside its window"
            file = self._whose(dest)
            good = self.producers.wrote(file, content) or (self.policy == "chain" and self._came_on(file, content))
            if not good and not self.known:
                good = self.producers.paused_at(file, content)  # complete is guessed there, and was not
            passed = self.policy != "hooks" or content in self.passed or not content
            assert passed, f"{dest} was published, and no hook let it pass"
            assert good, f"{dest} was published, and no producer wrote that: {content[:20]!r}"
            # another inode is another file: it is compared at its present destination
            place = File(file.box, os.fsencode(dest)) if self.disk.kind == "fat" else file
            self._look_at_the_batch(content)
            self.sent[place, content] += 1
            # of two names of one file, sending the first changes the time of change of the second
            most = 1 + self._excused(content) + self.producers.touched[content] + self.producers.linked[content]
            times = self.sent[place, content]
            assert times <= most or not content, f"{dest} was sent {times} times"
        self.seen = len(self.server.published)

    def _look_at_the_batch(self, marker: bytes) -> None:
        """A marker comes last: the files that were written before it, and still are as they were, were sent before."""
        files, messes = self.batches.get(marker, (set(), -1))
        if messes != self.messes or self.disk.kind == "fat":
            return
        so_far = [content for _, content, _ in self.server.published]
        before = set(so_far[: so_far.index(marker)])
        left = (files & self.producers.wanted.keys()) - before - self._in_quarantine()
        assert not left, f"not sent before their marker: {[self.producers.wanted[content] for content in left]}"

    def _in_quarantine(self) -> set[bytes]:
        places = [*(box / ".quarantine" for box in self.boxes), self.state / "quarantine", self.life / "quarantine"]
        places.append(self.here / "quarantine")
        return {content_of(path, status) for place in places for path, status in tree(place)}

    def _hear_the_hooks(self) -> None:
        for each in self.server.judged[self.heard :]:
            if each.hook == "before" and not each.code:
                self.passed.add(each.content or b"")
            elif each.hook == "before_publish" and not each.code:
                self.remotes.passed.add(each.content or b"")
            elif each.hook == "before_publish" and each.code == REFUSES:
                self.remotes.refused.add(each.content or b"")
        self.heard = len(self.server.judged)

    def _look_at_the_inbox(self) -> None:
        if self.policy in PULLS:
            self.remotes.look(self.server.removed, may_repeat=self.producers.incidents > self.incidents_seen)
            self.incidents_seen = self.producers.incidents

    @property
    def delivered(self) -> set[bytes]:
        return {content for _, content, _ in self.server.published}

    def _look_at_the_dropped(self) -> None:
        """What the journal and the lists, sent or not, say was dropped: only what may be."""
        for box, line in {*self._listed(), *self._tombstones()}:
            told = json.loads(line)
            file = File(box, os.fsencode(told["path"]))
            assert b"x" not in file.path, f"{file} was dropped, and was to be preserved"
            self.dropped.add((file, int(told["bytes"])))

    def _listed(self) -> Iterator[tuple[int, bytes]]:
        """The lines of all lists of dropped files, each with the outbox that it is about."""
        lists = [(Path(dest).name, content) for dest, content, _ in self.server.published if LIST in dest]
        lists += [(path.name, path.read_bytes()) for path in (self.state / "dropped").glob(f"*/*{LIST}*")]
        for name, content in lists:
            box = next(number for number, path in enumerate(self.boxes) if name.startswith(path.name))
            yield from ((box, line) for line in content.splitlines())

    def _tombstones(self) -> Iterator[tuple[int, bytes]]:
        """Of the journal: a copy, since a database that is looked at may be changed by that."""
        if "budget" not in self.settings or not (self.state / "journal.db").exists():
            return
        with tempfile.TemporaryDirectory() as folder, contextlib.suppress(sqlite3.DatabaseError):
            for path in self.state.glob("journal.db*"):
                shutil.copy(path, folder)
            with contextlib.closing(sqlite3.connect(Path(folder) / "journal.db")) as db:
                rows = db.execute("SELECT path, line FROM tombstone JOIN outbox ON outbox.id = tombstone.outbox")
                yield from [(self.boxes.index(Path(os.fsdecode(path))), bytes(line)) for path, line in rows]

    def _was_dropped(self, content: bytes) -> bool:
        return any(size == len(content) and self.producers.wrote(file, content) for file, size in self.dropped)

    def _in_window(self, wall: float) -> bool:
        if "schedule" not in self.settings:
            return True
        return any(moment // 3600 // WINDOW_H % 2 == 1 for moment in (wall, wall - GRACE_S))

    def _came_on(self, file: File, content: bytes) -> bool:
        """Whether it was sent from the first outbox before: there under this name, or under one that was taken here."""
        earlier = [dest for dest, sent, _ in self.server.published if sent == content and dest.startswith("/up0-")]
        paths = {os.fsencode(dest.lstrip("/").partition("/")[2]) for dest in earlier}
        names = {file.path, SWAPPED.sub(b"d/", file.path)}
        plain = {BESIDE.sub(b"", name) for name in names}
        beginnings = any(path.startswith(tuple(plain)) for path in paths)
        cut = beginnings and len(file.path.rpartition(b"/")[2]) == NAME_MAX
        return file.box == 1 and (cut or bool(paths & (names | plain)))

    def _excused(self, content: bytes) -> int:
        """How often an answer may have been lost since it was written."""
        return self.producers.incidents - self.producers.born.get(content, 0)

    def _whose(self, dest: str) -> File:
        base, _, path = dest.lstrip("/").partition("/")
        box, _, edit = base.removeprefix("up").partition("-")
        late = int(edit) != self.destinations[int(box)]
        assert not late or dest in self.begun_before, f"{dest} was sent to where it should not go any more"
        return File(int(box), os.fsencode(path))

    def _copies(self) -> Counter[bytes]:
        """Every regular file in an outbox, in quarantine or in an archive, by its content."""
        places = {*self.boxes, self.state, *(Path(place.strip('"')) for place in self._places.values())}
        found: Counter[bytes] = Counter()
        for place in places:
            for path, status in tree(place):
                if stat.S_ISREG(status.st_mode) and status.st_size <= 1 << 18 and b"journal." not in path:
                    found[Path(os.fsdecode(path)).read_bytes()] += 1
        return found

    def _outside(self) -> dict[bytes, tuple[object, ...]]:
        return {
            path: (status.st_mode, status.st_uid, status.st_gid, status.st_mtime_ns, content_of(path, status))
            for path, status in tree(self.outside)
        }

    # -- what is still to go

    def _left(self) -> list[File]:
        """What is neither on the server nor in quarantine; a private name that the agent cannot rename is not sent."""
        left = set().union(*(self._left_in(number) for number in range(len(self.boxes))))
        if not self.may_rename:  # nor can it take out what was dropped
            left = {content for content in left if not self._was_dropped(content)}
        return [file for content, file in self.producers.wanted.items() if content in left]

    def _left_in(self, number: int) -> set[bytes]:
        """What lies in an outbox and was not sent from there."""
        box = self.boxes[number]
        hidden = tuple(os.fsencode(box / name) for name in (".quarantine", ".archive"))
        files = [(path, status) for path, status in tree(box) if stat.S_ISREG(status.st_mode)]
        waiting = [(path, status) for path, status in files if self.may_rename or PRIVATE not in path]
        contents = {content_of(path, status) for path, status in waiting if not path.startswith(hidden)}
        sent = self.server.published
        return contents - {content for dest, content, _ in sent if dest.startswith(f"/up{number}-")}


def content_of(path: bytes, status: os.stat_result) -> bytes:
    """What a file holds, or where a link leads."""
    try:
        if stat.S_ISLNK(status.st_mode):
            return os.readlink(path)
        return Path(os.fsdecode(path)).read_bytes() if stat.S_ISREG(status.st_mode) else b""
    except FileNotFoundError:
        return b""
