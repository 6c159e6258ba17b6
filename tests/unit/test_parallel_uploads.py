"""Many uploads over stores: what each is begun with, and that it gives everything back."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from unit.faulty_store import Faults, folder_remote

from iot.transfer.errors import LinkLost
from iot.transfer.locks import Busy, TransferLocks
from iot.transfer.model import Failure, TransferResult, UploadJob
from iot.transfer.parallel import ParallelRemote, uploads
from iot.transfer.parallel.ready import TOGETHER_BYTES, Running

Make = Callable[..., ParallelRemote]


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    made: list[ParallelRemote] = []

    def make(faults: Faults | None = None, **settings: Any) -> ParallelRemote:
        made.append(folder_remote(tmp_path / "far", tmp_path / "state", faults, **settings))
        return made[-1]

    yield make
    for remote in made:
        remote.close()


def source(tmp_path: Path, name: str = "source", size: int = 1) -> Path:
    path = tmp_path / name
    with path.open("wb") as file:
        file.truncate(size)
    os.utime(path, (10**9, 10**9))
    return path


def open_files() -> int:
    return len(os.listdir("/proc/self/fd"))


def test_priority_counts_first_and_then_small_before_large(make, tmp_path, monkeypatch):
    begun: list[Any] = []

    class Noted(Running):
        def __init__(self, transfer: Any, urgency: Any = (0,), **more: Any) -> None:
            super().__init__(transfer, urgency, **more)
            begun.append((urgency, self.payload_bytes))

    monkeypatch.setattr(uploads, "Running", Noted)
    sizes = (TOGETHER_BYTES, TOGETHER_BYTES + 1, 5)
    jobs = [UploadJob(source(tmp_path, str(size), size), f"to/{size}", priority=size % 3) for size in sizes]
    list(make().upload_many(jobs))
    assert begun == [((size % 3, int(size > TOGETHER_BYTES)), size) for size in sizes]


@pytest.mark.needs("proc")
def test_a_source_is_closed_whatever_becomes_of_its_upload(make, tmp_path, monkeypatch):
    remote = make(Faults(before={("begin", 1): LinkLost("cut")}), attempts=1)
    job = UploadJob(source(tmp_path), "f")
    assert isinstance(remote.upload(job), TransferResult)
    remote.drop()
    before = open_files()
    failed = remote.upload(job)
    assert isinstance(failed, Failure)
    assert open_files() == before

    def taken(self: TransferLocks, name: bytes) -> None:
        raise Busy("is running elsewhere")

    monkeypatch.setattr(TransferLocks, "take", taken)
    refused = remote.upload(job)
    remote.drop()
    assert isinstance(refused, Failure)
    assert isinstance(refused.error, Busy), "its traceback keeps all that was not closed"
    assert open_files() == before


def test_after_its_end_an_upload_is_nobodys_and_may_be_sent_again(make, tmp_path):
    remote, job = make(), UploadJob(source(tmp_path), "f")
    for _ in range(3):
        assert isinstance(remote.upload(job), TransferResult)
    failing = make(Faults(before={("begin", 0): LinkLost("cut")}), attempts=1)
    assert isinstance(failing.upload(job), Failure)
    assert isinstance(remote.upload(job), TransferResult)


@pytest.mark.parametrize(
    ("setting", "asked", "is_kept"), [(False, False, False), (True, False, True), (False, True, True)]
)
def test_the_time_of_the_source_is_kept_by_setting_or_by_the_job(make, tmp_path, setting, asked, is_kept):
    make(keep_times=setting).upload(UploadJob(source(tmp_path), "f", keep_times=asked))
    assert ((tmp_path / "far/f").stat().st_mtime == 10**9) is is_kept


@pytest.mark.parametrize("later_s", [0, 999, 1002])
def test_a_part_whose_source_is_gone_stays_until_it_is_old_enough(make, tmp_path, monkeypatch, later_s):
    path = source(tmp_path, size=5)
    cut = make(Faults(before={("write", 0): LinkLost("cut")}), attempts=1, part_name="exact")
    assert isinstance(cut.upload(UploadJob(path, "f")), Failure)
    cut.close()
    path.unlink()
    now = time.time() + later_s
    monkeypatch.setattr(uploads, "time", SimpleNamespace(time=lambda: now))
    make(stale_part_s=1000).upload(UploadJob(source(tmp_path, "other"), "other"))
    assert {found.name for found in (tmp_path / "far").iterdir()} == (
        {"other"} if later_s > 1000 else {"other", "f.part"}
    )
