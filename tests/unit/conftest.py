"""What every unit test holds the product to, whatever else it is about."""

from __future__ import annotations

import gc
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from unit.finding import Rig

from iot.spooler.queue.queue import QUEUE_SCHEMA
from iot.transfer import Journal

HANDLES = Path("/proc/self/fd")
THREADS_END_S = 6.0
"""A thread of the product that was told to end may have a file open for a moment."""


@pytest.fixture(autouse=True)
def no_folder_or_file_stays_open(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[None]:
    """An agent runs for months: a descriptor that is lost at each file ends it. Linux tells which are open."""
    if not HANDLES.exists() or request.node.get_closest_marker("crashes"):
        yield
        return
    base = str(tmp_path_factory.getbasetemp())
    before = _open_below(base)
    yield
    over_at = time.monotonic() + THREADS_END_S
    while (left := _open_below(base) - before) and time.monotonic() < over_at:
        gc.collect()  # an object that nobody holds any more may still have its file open
        time.sleep(0.05)
    assert not left, f"still open: {sorted(left)}"


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    """A journal with the room of the queue."""
    journal = Journal(tmp_path / "state", QUEUE_SCHEMA)
    yield journal
    journal.close()


@pytest.fixture
def watched(tmp_path: Path) -> Iterator[Rig]:
    """An outbox with the kernel's real events, on a clock of the test's own."""
    rig = Rig(tmp_path)
    yield rig
    rig.close()


def _open_below(base: str) -> set[tuple[str, str]]:
    found = set()
    for handle in os.listdir(HANDLES):
        try:
            place = os.readlink(HANDLES / handle)
        except OSError:
            continue  # the one that lists them
        if place.startswith(base):
            found.add((handle, place))
    return found


class _AtOnce:
    """A thread that has ended by the time it is started."""

    def __init__(self, target: Callable[[], None], **_: Any) -> None:
        self.start = target

    def is_alive(self) -> bool:
        return False

    def join(self) -> None:
        pass  # it has ended


@pytest.fixture
def disk_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a download syncs beside what arrives is on the disk at once, so that its checkpoints can be counted."""
    monkeypatch.setattr("iot.transfer.sink.Thread", _AtOnce)
