"""The other direction in the laboratory: files of a server that an inbox fetches, and what may have become of them.

Whoever writes on the server does so between any two steps of the agent: a file is created, replaced, rewritten in
place, removed, or grows. A content is written once, so that it tells which version it is, and whether that was whole.
"""

from __future__ import annotations

import os
import stat
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from faults.lab_disk import tree
from faults.lab_hooks import BAD
from faults.lab_world import Clock, Removed

__all__ = ["REMOTE_NAMES", "Remotes"]

REMOTE_NAMES = ("a", "b c", "d/x", "d/e/y", "\xe4", "n" * 200, "-dash", "later.part", ".hidden")
HIDDEN = b"/.iot-inbox"
TICK_S = 1.0
"""No protocol tells more of a remote time: within one second two versions of a size are one."""


@dataclass
class Remotes:
    """source: the folder on the server. here: the local one. settle_s: of the inbox.

    whole: what lies on the server under a name. versions: what may be published under it. growing: name, content ->
    since when, until when it lay there although it was not whole. seen: what a consumer has found under a name, and as
    which inode. taken: what consumers took. judged: by a hook, which let some pass and refused others for good.
    """

    source: Path
    here: Path
    clock: Clock
    settle_s: float
    judged: bool
    whole: dict[str, bytes] = field(default_factory=dict)
    versions: dict[str, set[bytes]] = field(default_factory=lambda: defaultdict(set))
    growing: dict[tuple[str, bytes], list[float]] = field(default_factory=dict)
    seen: dict[str, tuple[bytes, int]] = field(default_factory=dict)
    taken: set[bytes] = field(default_factory=set)
    passed: set[bytes] = field(default_factory=set)
    refused: set[bytes] = field(default_factory=set)
    removed: int = 0
    published: set[bytes] = field(default_factory=set)

    # -- what is done on the server

    def put(self, name: str, size: int, *, bad: bool) -> None:
        """Renamed in, over what was there."""
        new = self.source.parent / "new"
        content = self._content(size, bad=bad)
        self._write(new, content)
        os.replace(new, self._place(name))
        self._ends(name)
        self._is_whole(name, content)

    def rewrite(self, name: str) -> None:
        """In place, in the same size."""
        if name in self.whole:
            content = self._content(len(self.whole[name]), bad=False)[: len(self.whole[name])]
            self._write(self._place(name), content)
            self._ends(name)
            self._is_whole(name, content)

    def grow(self, name: str, size: int) -> None:
        """It is begun, or gets longer, and is not whole."""
        place = self._place(name)
        before = place.read_bytes() if place.exists() else b""
        content = before + self._content(size, bad=False)
        self._write(place, content)
        self._ends(name)
        self.growing[name, content] = [self.clock.now, float("inf")]

    def finish(self, name: str, size: int) -> None:
        """With a last piece."""
        self.grow(name, size)
        content = self._place(name).read_bytes()
        del self.growing[name, content]
        self._is_whole(name, content)

    def remove(self, name: str) -> None:
        self._place(name).unlink(missing_ok=True)
        self._ends(name)

    def take(self, name: str) -> None:
        """A consumer on this device takes a file out of the inbox."""
        place = self.here / name
        if place.is_file():
            self.taken.add(place.read_bytes())
            place.unlink()
            self.seen.pop(name, None)

    # -- what must hold

    def look(self, removed: list[Removed], *, may_repeat: bool) -> None:
        """may_repeat: an answer was lost, so that a file may have been published again."""
        found = {os.fsdecode(name): each for name, each in self._published()}
        for name, (content, inode) in found.items():
            assert self._may_appear(name, content), f"{name} appeared, and was never so on the server: {content[:20]!r}"
            assert not self.judged or content in self.passed, f"{name} appeared, and no hook had let it pass"
            before = self.seen.get(name, (b"", 0))
            again = before[0] == content and before[1] != inode
            assert may_repeat or not again, f"{name} was published twice"
            self.seen[name] = content, inode
            self.published.add(content)
        for each in removed[self.removed :]:
            assert self._arrived(each), f"{each.name} was removed from the server, and is not here"
            if self.whole.get(each.name) == each.content:
                del self.whole[each.name]
        self.removed = len(removed)

    def left(self) -> list[str]:
        """What a settled inbox would have, and this one has not."""
        names = [name for name in self.whole if not name.endswith(".part") and not name.startswith(".")]
        wanted = [name for name in names if self.whole[name] not in self.refused]
        return [name for name in wanted if not self._has(name)]

    # -- inside

    def _has(self, name: str) -> bool:
        return self.seen.get(name, (b"", 0))[0] == self.whole[name] or self.whole[name] in self.taken

    def _arrived(self, each: Removed) -> bool:
        """It was here at that moment, or its consumer had taken it."""
        return each.content == each.local or each.content in self.published | self.taken

    def _may_appear(self, name: str, content: bytes) -> bool:
        """Where it settled although it was not whole, that was guessed, as it says."""
        since, until = self.growing.get((name, content), (0.0, -1.0))
        return content in self.versions[name] or min(until, self.clock.now) - since >= self.settle_s

    def _published(self) -> Iterator[tuple[bytes, tuple[bytes, int]]]:
        root = os.fsencode(self.here)
        for path, status in tree(self.here):
            if stat.S_ISREG(status.st_mode) and not path.startswith(root + HIDDEN):
                yield path[len(root) + 1 :], (Path(os.fsdecode(path)).read_bytes(), status.st_ino)

    def _is_whole(self, name: str, content: bytes) -> None:
        self.whole[name] = content
        self.versions[name].add(content)

    def _ends(self, name: str) -> None:
        """What lay there under that name does no longer."""
        self.whole.pop(name, None)
        for (other, _), span in self.growing.items():
            if other == name:
                span[1] = min(span[1], self.clock.now)

    def _content(self, size: int, *, bad: bool) -> bytes:
        return (BAD if bad else b"") + os.urandom(max(size, 8))

    def _place(self, name: str) -> Path:
        place = self.source / name
        place.parent.mkdir(parents=True, exist_ok=True)
        for folder in (place.parent, *place.parent.parents):
            if folder == self.source.parent:
                break
            folder.chmod(0o777)
        return place

    def _write(self, place: Path, content: bytes) -> None:
        self.clock.passes(TICK_S)
        place.write_bytes(content)
        place.chmod(0o666)
        os.utime(place, (self.clock.wall, self.clock.wall))
