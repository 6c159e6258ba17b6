"""Whether the device has gone down without a word, and which files may have suffered from it.

What a program has written and the system not yet, reads as zeros after a power cut on common file systems, though size
and time are those of the whole file. The agent records under which boot it runs, and that it was stopped: another boot
and no stop means a cut (or a crash of the system). When that was is not recorded, since an agent at rest writes
nothing: it was after the last sign of life from before this boot, in the state directory or in the logs of the system.

One write at a start and one at a stop; nothing in between.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from iot.spooler.naming import shown
from iot.spooler.state.elapsed import Moment, observe

__all__ = ["SIGNS", "PowerCut", "running"]

log = logging.getLogger(__name__)

NAME = "boot.json"
SIGNS = Path("/var/log"), Path("/var/lib/systemd/timesync/clock")
WINDOW_S = 300.0
"""How long the system may keep written data to itself: 30 s by default, some minutes where it saves power."""
BEHIND_S = 3600.0
"""If the clock stands before the cut: what was changed in so many seconds after the last sign of life is suspect."""
OURS = frozenset({NAME, NAME + ".new", "lock"})
"""Written by this start already."""


class PowerCut(NamedTuple):
    """Files that were last changed between these times (wall clock, seconds) were written shortly before it."""

    from_s: float
    to_s: float


@contextlib.contextmanager
def running(state_dir: Path, moment: Moment | None = None, signs: Sequence[Path] = SIGNS) -> Iterator[PowerCut | None]:
    """Record that an agent runs, for the length of a with-block -> the last cut. To be entered before the journal.

    moment: now, if not as the clocks say. signs: files, and folders of files, that tell of the time before this boot.
    An error of the disk is logged and nothing else: then a cut is not noticed.
    """
    moment = moment or observe()
    before = _read(state_dir)
    cut = _cut_of(before)
    if moment.boot and before.get("boot") not in (None, moment.boot) and not before.get("stopped"):
        cut = _new_cut(state_dir, moment, signs)
        log.warning("the system went down without a stop files_from=%.0f files_to=%.0f", *cut)
    record = {"boot": moment.boot, "stopped": False, "cut": cut}
    if {**before, "cut": cut} != record:
        _write(state_dir, record)
    yield cut
    _write(state_dir, {**record, "stopped": True})


def _new_cut(state_dir: Path, moment: Moment, signs: Iterable[Path]) -> PowerCut:
    booted_s = moment.wall_s - moment.since_boot_s
    times = [*_times(state_dir), *(time for sign in signs for time in _times(sign))]
    last_s = max((time for time in times if time <= booted_s), default=max(_times(state_dir), default=booted_s))
    return PowerCut(last_s - WINDOW_S, moment.wall_s if moment.wall_s > last_s else last_s + BEHIND_S)


def _times(place: Path) -> list[float]:
    """Of a file, or of the files in a folder."""
    try:
        if not place.is_dir():
            return [place.stat().st_mtime]
        with os.scandir(place) as entries:
            return [entry.stat(follow_symlinks=False).st_mtime for entry in entries if entry.name not in OURS]
    except OSError:
        return []


def _read(state_dir: Path) -> dict[str, Any]:
    try:
        found = json.loads((state_dir / NAME).read_bytes())
    except (OSError, ValueError):
        return {}  # the first start, or a damaged record: no cut is known
    return found if isinstance(found, dict) else {}


def _cut_of(record: dict[str, Any]) -> PowerCut | None:
    try:
        return PowerCut(*map(float, record["cut"]))
    except (KeyError, TypeError, ValueError):
        return None


def _write(state_dir: Path, record: dict[str, Any]) -> None:
    fresh = state_dir / (NAME + ".new")
    try:
        with open(fresh, "w", encoding="ascii") as file:
            json.dump(record, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(fresh, state_dir / NAME)
    except OSError as error:
        log.warning("cannot record the boot error=%s", shown(str(error)))
