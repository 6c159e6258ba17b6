"""An outbox with very many files, in a reduced size; tests/bench/many_files.py measures the full one."""

from __future__ import annotations

import os
import tracemalloc
from collections.abc import Sequence
from pathlib import Path

import pytest
from unit.finding import Rig

from iot.spooler.outbox.scan import BATCH
from iot.spooler.queue.queue import NewEntry, Queue
from iot.transfer import DiskFull

FILES = 20_000
MOST_BYTES = 4 * 1024 * 1024
"""Most of it are the names that are sorted at a time: it does not grow with the number of files."""


def test_memory_and_steps_stay_small_however_many_files_there_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "box").mkdir()
    for number in range(FILES):
        file = os.open(tmp_path / "box" / f"reading-{number:06}", os.O_CREAT | os.O_WRONLY)
        os.utime(file, (10**9, 10**9))
        os.close(file)
    taken: list[int] = []
    real = Queue.add

    def add(queue: Queue, entries: Sequence[NewEntry]) -> None:
        taken.append(len(entries))
        real(queue, entries)

    monkeypatch.setattr(Queue, "add", add)
    tracemalloc.start()
    try:
        rig = Rig(tmp_path)
        for _ in range(2):
            rig.intake.wake()
            rig.run()
        most_bytes = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    rig.close()
    assert most_bytes < MOST_BYTES
    assert (sum(taken), max(taken)) == (FILES, BATCH)


def looked_up(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> int:
    """How many files the queue is asked for in a whole scan."""
    asked: list[int] = []
    real = Queue.known

    def known(queue: Queue, outbox: int, paths: Sequence[bytes]) -> object:
        asked.append(len(paths))
        return real(queue, outbox, paths)

    with monkeypatch.context() as patches:
        patches.setattr(Queue, "known", known)
        rig.intake.wake()
        rig.run()
    return sum(asked)


def put_old(path: Path) -> None:
    path.write_bytes(b"content")
    os.utime(path, (10**9, 10**9))


def test_files_that_the_first_scan_has_queued_are_not_looked_up_by_the_later_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "box").mkdir()
    for number in range(BATCH + 3):
        put_old(tmp_path / "box" / f"f{number:04}")
    rig = Rig(tmp_path)
    assert looked_up(rig, monkeypatch) == 0
    put_old(rig.box / "f0001")  # a new version
    put_old(rig.box / "g")
    rig.run()
    assert len(rig.names()) == BATCH + 4
    assert looked_up(rig, monkeypatch) == BATCH + 4
    assert looked_up(rig, monkeypatch) == 0
    rig.close()


def test_what_a_full_disk_kept_from_the_queue_is_found_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "box").mkdir()
    for number in range(100):
        put_old(tmp_path / "box" / f"f{number:02}")
    real = Queue.add

    def add(queue: Queue, entries: Sequence[NewEntry]) -> None:
        if len(entries) > 20:
            raise DiskFull("no space left")
        real(queue, entries)

    with monkeypatch.context() as patches:
        patches.setattr(Queue, "add", add)
        rig = Rig(tmp_path)
    assert 0 < len(rig.names()) < 100
    rig.work(60)
    assert len(rig.names()) == 100
    rig.close()
