"""Sees every final that appears on a server: looks at its folder many times a second, and hashes what is new."""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Final", "Watch"]

LOOK_S = 0.02
PART = ".part"


@dataclass(frozen=True, slots=True)
class Final:
    """A final as it was seen. inode: a file that was published again has another one."""

    name: str
    inode: int
    size: int
    sha256: str


class Watch:
    """Looks at `root` until it is closed. seen: every final, in the order of its appearance.

    plain: what a file of this name and content stands for. passed_over: a folder that is not looked into.
    """

    def __init__(
        self, root: Path, *, plain: Callable[[str, bytes], bytes] = lambda _, data: data, passed_over: str = ""
    ) -> None:
        self.root = root
        self._plain = plain
        self._passed_over = passed_over
        self.seen: list[Final] = []
        self._known: dict[str, tuple[int, int, int]] = {}
        self._lock = threading.Lock()
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watch", daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._end.set()
        self._thread.join()

    def names(self) -> set[str]:
        """What is there now, parts included."""
        return {str(path.relative_to(self.root)) for path in files(self.root)}

    def look(self) -> None:
        """Look now."""
        with self._lock:
            for path in files(self.root):
                self._look_at(path)

    @contextmanager
    def resting(self) -> Iterator[None]:
        """Touch nothing meanwhile: the disk is being cut. A final that is lost with the power counts as never seen."""
        with self._lock:
            yield
            for name, (inode, _, _) in list(self._known.items()):
                path = self.root / name
                if not path.exists() or path.stat().st_ino != inode:
                    del self._known[name]
                    self.seen = [final for final in self.seen if (final.name, final.inode) != (name, inode)]

    def _run(self) -> None:
        while not self._end.wait(LOOK_S):
            self.look()

    def _look_at(self, path: Path) -> None:
        if path.name.endswith(PART) or self._passed_over in path.parts:
            return
        name = str(path.relative_to(self.root))
        with suppress(OSError):  # it is being replaced this moment: the next look sees the new one
            with path.open("rb") as file:
                status = os.fstat(file.fileno())
                key = (status.st_ino, status.st_size, status.st_mtime_ns)
                if self._known.get(name) == key:
                    return
                digest = hashlib.sha256(self._plain(name, file.read())).hexdigest()
            self._known[name] = key
            self.seen.append(Final(name, status.st_ino, status.st_size, digest))


def files(root: Path) -> Iterator[Path]:
    """Every file below a folder, parts included."""
    for folder, _, names in os.walk(root):
        for name in names:
            yield Path(folder, name)
