"""A download goes on while the disk is synced; only what is on the disk is on record, and a failed disk stays so."""

from __future__ import annotations

import errno
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from iot.transfer import sink
from iot.transfer.errors import DiskFull
from iot.transfer.landing import AHEAD, DownloadTask, Landing, publish_together
from iot.transfer.model import Checkpoint, RemoteFile
from iot.transfer.options import TransferOptions

MOST_S = 10.0


class Disk:
    """Holds every fsync until it is told to go on; `sizes` are those of the file when it was synced."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.asked, self.goes_on = threading.Semaphore(0), threading.Semaphore(0)
        self.sizes: list[int] = []
        self.error: OSError | None = None
        monkeypatch.setattr(os, "fsync", self._fsync)

    def _fsync(self, fd: int) -> None:
        self.sizes.append(os.fstat(fd).st_size)
        self.asked.release()
        assert self.goes_on.acquire(timeout=MOST_S)
        if self.error is not None:
            error, self.error = self.error, None  # the system reports it once
            raise error

    def works(self) -> None:
        self.goes_on.release(100)


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    return Disk(monkeypatch)


@pytest.fixture
def noted() -> list[int]:
    return []


@pytest.fixture
def landing(tmp_path: Path, disk: Disk, noted: list[int]) -> Iterator[Landing]:
    def note(checkpoint: Checkpoint) -> None:
        noted.append(checkpoint.acked_bytes)

    task = DownloadTask(b"/far/file", str(tmp_path / "file"))
    options = TransferOptions(owner="me", checkpoint_bytes=100, checkpoint_s=1e9)
    landing = Landing(task, options, note, task.tell, lambda: 50.0)
    landing.found(RemoteFile(1000, 1, 0o100640))
    landing.begin(None)
    yield landing
    disk.works()
    landing.sink.close()


def arrives(landing: Landing, end: int) -> None:
    landing.sink.write(landing.end, memoryview(bytes(end - landing.end)))
    landing.progressed(end)


def until(what: Callable[[], object]) -> None:
    over_at = time.monotonic() + MOST_S
    while not what():
        assert time.monotonic() < over_at
        time.sleep(0.001)


def test_what_arrives_during_a_sync_belongs_to_the_next_checkpoint(landing: Landing, disk: Disk, noted: list[int]):
    arrives(landing, 120)
    assert disk.asked.acquire(timeout=MOST_S)
    arrives(landing, 260)
    assert noted == []
    assert [thread.daemon for thread in threading.enumerate() if thread.name == "sync"] == [True]
    disk.goes_on.release()
    until(lambda: landing.progressed(260) or noted)
    assert (noted, disk.sizes) == ([120], [120])
    arrives(landing, 300)
    assert disk.asked.acquire(timeout=MOST_S)
    disk.works()
    landing.close()
    assert (noted[-1], disk.sizes) == (300, [120, 300, 300])


def test_a_disk_that_falls_far_behind_is_waited_for(landing: Landing, disk: Disk, noted: list[int]):
    arrives(landing, 100)
    arrives(landing, 99 + AHEAD * 100)
    assert noted == []
    threading.Timer(0.05, disk.works).start()
    arrives(landing, 100 + AHEAD * 100)
    assert noted == [100]


def test_bytes_that_the_disk_has_lost_are_never_on_record(landing: Landing, disk: Disk, noted: list[int]):
    disk.error = OSError(errno.ENOSPC, "no space")
    arrives(landing, 100)
    disk.works()
    with pytest.raises(DiskFull):
        until(lambda: landing.progressed(100))
    for end in (landing.save, landing.close):
        with pytest.raises(DiskFull):
            end()
    assert noted == []


def test_a_sync_waits_for_the_one_that_is_under_way_and_fails_with_it(landing: Landing, disk: Disk):
    disk.error = OSError(errno.ENOSPC, "no space")
    arrives(landing, 100)
    assert disk.asked.acquire(timeout=MOST_S)
    told: list[DiskFull] = []

    def sync() -> None:
        try:
            landing.sink.sync()
        except DiskFull as error:
            told.append(error)

    syncing = threading.Thread(target=sync)
    syncing.start()
    assert not disk.asked.acquire(timeout=0.05)
    disk.works()
    syncing.join(MOST_S)
    assert (len(told), disk.sizes) == (1, [100, 100])


def test_a_file_whose_sync_has_failed_gets_no_name(landing: Landing, disk: Disk, tmp_path: Path):
    disk.error = OSError(errno.ENOSPC, "no space")
    arrives(landing, 100)
    disk.works()
    publish_together([landing])
    assert isinstance(landing.failure, DiskFull)
    assert not (tmp_path / "file").exists()


def test_the_file_stays_open_until_its_sync_is_over(landing: Landing, disk: Disk):
    arrives(landing, 100)
    assert disk.asked.acquire(timeout=MOST_S)
    closing = threading.Thread(target=landing.throw_away)
    closing.start()
    closing.join(0.05)
    assert closing.is_alive()
    assert os.path.exists(landing.sink.part)
    disk.works()
    closing.join(MOST_S)
    assert not os.path.exists(landing.sink.part)


@pytest.mark.parametrize("lacks", ["threads", "turns"])
def test_without_a_thread_for_it_the_disk_is_waited_for(
    landing: Landing, disk: Disk, noted: list[int], monkeypatch: pytest.MonkeyPatch, lacks: str
) -> None:
    """Of a thousand small downloads over a slow link all may be due at once; and a service may not have any thread."""
    turns = threading.BoundedSemaphore(1)
    monkeypatch.setattr(sink, "BESIDE", turns)
    if lacks == "turns":
        turns.acquire()
    else:
        monkeypatch.setattr(threading.Thread, "start", refused)
    disk.works()
    arrives(landing, 120)
    assert (noted, disk.sizes) == ([120], [120])
    landing.close()
    assert noted == [120]
    monkeypatch.undo()
    assert turns.acquire(blocking=False) == (lacks == "threads"), "what was not begun takes no turn"


def refused(_: threading.Thread) -> None:
    raise RuntimeError("can't start new thread")


def test_a_sync_that_is_over_leaves_its_turn_to_others(
    landing: Landing, disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    turns = threading.BoundedSemaphore(1)
    monkeypatch.setattr(sink, "BESIDE", turns)
    disk.error = OSError(errno.EIO, "lost")
    arrives(landing, 120)
    assert not turns.acquire(blocking=False)
    disk.works()
    assert turns.acquire(timeout=MOST_S)
