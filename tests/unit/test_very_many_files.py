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
