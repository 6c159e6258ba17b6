"""The archive of an outbox: delivered files with their folders, kept within limits of age and size.

    <archive>/2026-11-21.000012/sub/file

Files go into numbered folders ("bundles"); a new one is begun after CROWD files or some time. The numbers give the
order of arrival, whatever the clocks say, so the limits need no walk through everything: the oldest files are in the
first bundle, and the size of each is known after counting it once. Nothing else in the archive is ever touched.
"""

from __future__ import annotations

import json
import logging
import os
import re
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from iot.spooler.leaving.moving import READ, Arrivals
from iot.spooler.leaving.removal import Item
from iot.spooler.leaving.trust import FOLDER_MODE, open_trusted
from iot.spooler.naming import shown
from iot.spooler.state.elapsed import Moment, Odometer, observe
from iot.transfer import is_gone
from iot.transfer.beneath import free_name, join, open_below, opener, split

__all__ = ["Archive"]

log = logging.getLogger(__name__)

CROWD = 1024
DAY_S = 86400.0
HELD_S = 60.0
STATE = ".state.json"
NONE_OPEN = ("", 0.0)
STAGED = b".iot-copy."
BUNDLE = re.compile(r"\d{4}-\d{2}-\d{2}\.(\d{6,})")


@dataclass(slots=True)
class Bundle:
    """One numbered folder. last_s: arrival of its last file, on the archive's own clock; bytes, files: once counted."""

    name: str
    last_s: float
    opened_s: float = 0.0
    bytes: int = 0
    files: int = 0
    counted: bool = False


class Archive:
    """Where delivered files go.

    max_age_s: seconds since archiving; a file may be kept longer if the device was off or its clock was wrong, but not
        shorter. max_bytes: of all files together, the oldest go first. None: no limit.
    alive: called while a file is copied from another file system. look: reads the clocks.
    """

    def __init__(
        self,
        folder: Path,
        *,
        max_age_s: float | None = None,
        max_bytes: int | None = None,
        alive: Callable[[], None] = lambda: None,
        look: Callable[[], Moment] = observe,
    ) -> None:
        self._folder = folder
        self._max_age_s = max_age_s
        self._max_bytes = max_bytes
        self._odometer = Odometer(look)
        self._arrivals = Arrivals(
            lambda: open_trusted(folder, make=True), mode=FOLDER_MODE, other_name=free_name, alive=alive
        )
        self._bundles: deque[Bundle] | None = None
        self._open: Bundle | None = None
        self._total = 0
        self._kept = False
        self._work: Iterator[None] | None = None
        self._held_until = float("-inf")

    # -- files come

    def leave(self, folder: int, private: bytes, item: Item) -> bool:
        bundle = self._bundle(self._arrivals.root())
        path = join(os.fsencode(bundle.name), item.path)
        _, remains = self._arrivals.put(folder, private, path, staged=STAGED + private[:200])
        bundle.files += 1
        bundle.bytes += item.fingerprint.size
        bundle.last_s = self._odometer.now_s()
        self._total += item.fingerprint.size
        return remains

    def sync(self) -> None:
        self._arrivals.sync()

    def _bundle(self, root: int) -> Bundle:
        bundles = self._known(root)
        now_s = self._odometer.now_s()
        longest_s = DAY_S if self._max_age_s is None else min(DAY_S, self._max_age_s / 10)
        if self._open and (self._open.files >= CROWD or now_s - self._open.opened_s >= longest_s):
            self._open = None
        if self._open is not None and not self._kept:
            self._save(root)
        if self._open is None:
            number = _number(bundles[-1].name) + 1 if bundles else 1
            day = time.strftime("%Y-%m-%d", time.gmtime(max(self._odometer.moment.wall_s, 0)))
            self._open = Bundle(f"{day}.{number:06d}", now_s, now_s, counted=True)
            bundles.append(self._open)
            self._save(root)
        return self._open

    # -- files go

    def tidy(self, budget_s: float) -> None:
        """Remove what exceeds the limits, for about so many seconds; the next call continues."""
        if self._max_age_s is None and self._max_bytes is None:
            return
        end = time.monotonic() + budget_s
        if self._work is None:
            if time.monotonic() < self._held_until or not self._something_to_do():
                return
            self._work = self._remove_beyond()
        try:
            for _ in self._work:
                if time.monotonic() >= end:
                    return
        except OSError as error:
            log.warning("cannot tidy archive=%s error=%s", shown(str(self._folder)), shown(str(error)))
            self._held_until = time.monotonic() + HELD_S
        self._work = None

    def _something_to_do(self) -> bool:
        if self._bundles is None:
            return True
        return any(not bundle.counted for bundle in self._bundles) or self._beyond()

    def _beyond(self) -> bool:
        if not self._bundles:
            return False
        return (self._max_bytes is not None and self._total > self._max_bytes) or self._expired(self._bundles[0])

    def _expired(self, bundle: Bundle) -> bool:
        return self._max_age_s is not None and self._odometer.now_s() - bundle.last_s > self._max_age_s

    def _remove_beyond(self) -> Iterator[None]:
        with self._opened() as root:
            if root is None:
                return
            bundles = self._known(root)
            for bundle in list(bundles):
                if not bundle.counted:
                    yield from self._count(root, bundle)
                while self._beyond():
                    yield from self._empty(root, bundles[0])
            self._save(root)

    @contextmanager
    def _opened(self) -> Iterator[int | None]:
        try:
            root = open_trusted(self._folder)
        except FileNotFoundError:
            self._bundles = deque()
            yield None  # nothing was archived yet
            return
        try:
            yield root
        finally:
            os.close(root)

    def _count(self, root: int, bundle: Bundle) -> Iterator[None]:
        self._total -= bundle.bytes
        bundle.files = bundle.bytes = 0  # an error may have ended an earlier count
        for _, size, _ in _files(root, os.fsencode(bundle.name)):
            bundle.files += 1
            bundle.bytes += size
            self._total += size
            if bundle is not self._open:  # this one at once: no file arrives in between
                yield
        bundle.counted = True

    def _empty(self, root: int, bundle: Bundle) -> Iterator[None]:
        """Remove its files, oldest first, until the limits are met; finally the bundle itself, unless others have come
        meanwhile."""
        found, came = [], bundle.files
        for file in _files(root, os.fsencode(bundle.name)):
            found.append(file)
            if bundle is not self._open:  # as in _count
                yield
        there = sum(size for _, size, _ in found)
        self._total += there - bundle.bytes  # somebody else may have taken files away
        bundle.bytes = there
        removed = 0
        for _, size, path in sorted(found):
            if not self._beyond():
                break
            _unlink(root, path)
            self._total -= size
            bundle.bytes -= size
            removed += 1
            yield
        else:
            if bundle.files == came:
                self._drop(root, bundle)
        log.info("archive tidied folder=%s removed=%d bytes=%d", shown(str(self._folder)), removed, self._total)

    def _drop(self, root: int, bundle: Bundle) -> None:
        assert self._bundles is not None
        if bundle is self._open:
            self._open = None
        self._bundles.remove(bundle)
        _remove_folders(root, os.fsencode(bundle.name))

    # -- what is known of the bundles

    def _known(self, root: int) -> deque[Bundle]:
        if self._bundles is None:
            ends, opened = self._restore(root)
            with os.scandir(root) as entries:
                names = [entry.name for entry in entries if BUNDLE.fullmatch(entry.name)]
            now_s = self._odometer.now_s()
            lasts = {name: min(ends.get(name, now_s), now_s) for name in sorted(names, key=_number)}
            self._bundles = deque(Bundle(name, last_s, last_s) for name, last_s in lasts.items())
            self._reopen(opened)
        return self._bundles

    def _reopen(self, opened: tuple[str, float]) -> None:
        """Continue with the last bundle: a copy made before a crash is found in it."""
        assert self._bundles is not None
        if self._bundles:
            self._open = self._bundles[-1]
            if self._open.name == opened[0]:
                self._open.opened_s = min(opened[1], self._open.opened_s)

    def _restore(self, root: int) -> tuple[dict[str, float], tuple[str, float]]:
        """Set the archive's clock -> when the last file came into each bundle, as far as known, and which bundle has
        been open since when."""
        try:
            with open(STATE, "rb", opener=opener(root, READ)) as file:
                state = json.load(file)
            boot, since_boot_s, wall_s, synchronised = state["moment"]
            moment = Moment(str(boot), float(since_boot_s), float(wall_s), synchronised is True)
            ends = {str(name): float(end_s) for name, end_s in state["ends"].items()}
            opened = str(state["open"][0]), float(state["open"][1])
            self._odometer.restore(float(state["clock_s"]), moment)
        except (OSError, ValueError, TypeError, KeyError, IndexError, AttributeError):
            return {}, NONE_OPEN  # everything counts as new, and is kept longer
        return ends, opened

    def _save(self, root: int) -> None:
        """Not synced: if it is lost, files are kept longer. The open bundle is left out: more files will come."""
        ends = {bundle.name: bundle.last_s for bundle in self._bundles or () if bundle is not self._open}
        opened = (self._open.name, self._open.opened_s) if self._open else NONE_OPEN
        clock_s = self._odometer.now_s()
        state = {"clock_s": clock_s, "moment": list(self._odometer.moment), "ends": ends, "open": opened}
        self._kept = True
        try:
            flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW
            with open(f"{STATE}.new", "w", encoding="utf-8", opener=opener(root, flags)) as file:
                json.dump(state, file)
            os.rename(f"{STATE}.new", STATE, src_dir_fd=root, dst_dir_fd=root)
        except OSError as error:
            log.warning("cannot save archive state folder=%s error=%s", shown(str(self._folder)), shown(str(error)))


def _number(name: str) -> int:
    match = BUNDLE.fullmatch(name)
    assert match is not None
    return int(match.group(1))


def _files(root: int, path: bytes) -> Iterator[tuple[int, int, bytes]]:
    """Ctime, bytes and path below root of everything in the folder `path` that is not a folder. What vanishes meanwhile
    is left out; no symlink is followed."""
    try:
        here = open_below(root, path)
    except OSError as error:
        if is_gone(error):
            return
        raise
    deeper = []
    try:
        with os.scandir(here) as entries:
            for entry in entries:
                inner = join(path, os.fsencode(entry.name))
                if entry.is_dir(follow_symlinks=False):
                    deeper.append(inner)
                    continue
                with suppress(FileNotFoundError):
                    status = entry.stat(follow_symlinks=False)
                    yield status.st_ctime_ns, status.st_size, inner
    finally:
        os.close(here)
    for inner in deeper:
        yield from _files(root, inner)


def _unlink(root: int, path: bytes) -> None:
    folder, name = split(path)
    try:
        here = open_below(root, folder)
        try:
            os.unlink(name, dir_fd=here)
        finally:
            os.close(here)
    except OSError as error:
        if not is_gone(error):  # else somebody has taken it away
            raise


def _remove_folders(root: int, path: bytes) -> None:
    """Remove a tree of empty folders, except those that are no longer empty."""
    folder, name = split(path)
    with suppress(OSError):
        here = open_below(root, path)
        try:
            with os.scandir(here) as entries:
                inner = [os.fsencode(entry.name) for entry in entries if entry.is_dir(follow_symlinks=False)]
        finally:
            os.close(here)
        for each in inner:
            _remove_folders(root, join(path, each))
        above = open_below(root, folder)
        try:
            os.rmdir(name, dir_fd=above)
        finally:
            os.close(above)
