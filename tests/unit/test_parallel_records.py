"""What is on record of an upload at each step: no record outlives the bytes that it speaks of."""

from __future__ import annotations

import os
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from unit.faulty_store import Faults, folder_remote

from iot.folder.store import BLOCK_BYTES, FolderStore
from iot.transfer.errors import LinkLost, NoSpaceOnServer
from iot.transfer.journal.checkpoints import CHECKPOINTS, Checkpoints
from iot.transfer.journal.journal import Journal
from iot.transfer.model import Checkpoint, Direction, Failure, UploadJob

LARGE = BLOCK_BYTES + 1


@pytest.fixture
def far(tmp_path: Path) -> Path:
    folder = tmp_path / "far"
    folder.mkdir()
    return folder


def source_of(far: Path, size: int) -> Path:
    path = far.parent / "source"
    path.write_bytes(os.urandom(size))
    return path


def on_record(far: Path) -> Checkpoint | None:
    with closing(Journal(far.parent / "state", CHECKPOINTS)) as journal:
        checkpoints = Checkpoints(journal, "far", every_bytes=1, every_s=1, clock=time.monotonic)
        return checkpoints.load(Direction.UPLOAD, b"file", os.fsencode(far.parent / "source"))


@pytest.fixture
def at_write(monkeypatch: pytest.MonkeyPatch, far: Path) -> list[Checkpoint | None]:
    """What was on record on the disk before each write."""
    seen: list[Checkpoint | None] = []
    real = FolderStore.write

    def write(self: FolderStore, *arguments: Any) -> Any:
        seen.append(on_record(far))
        return real(self, *arguments)

    monkeypatch.setattr(FolderStore, "write", write)
    return seen


def upload(far: Path, faults: Faults | None = None, **settings: Any) -> Any:
    with closing(folder_remote(far, far.parent / "state", faults, **settings)) as remote:
        return remote.upload(UploadJob(far.parent / "source", "file"))


def test_a_large_file_is_on_record_before_its_first_byte_and_a_small_one_is_not(far, at_write):
    source_of(far, LARGE)
    upload(far)
    assert at_write[0] is not None
    assert at_write[0].acked_bytes == 0
    assert at_write[0].token.endswith(b".part")
    at_write.clear()
    (far / "file").unlink()
    source_of(far, LARGE - 1)
    upload(far)
    assert at_write == [None]


def test_a_part_whose_name_does_not_say_whose_it_is_is_on_record_however_small(far, at_write):
    source_of(far, 10)
    upload(far, part_name="exact")
    assert [found.token for found in at_write] == [b"file.part"]


def test_a_fresh_start_takes_the_old_record_back_before_the_first_byte(far, at_write):
    source_of(far, 9 * 1024 * 1024)
    assert isinstance(upload(far, Faults(before={("write", 2): LinkLost("cut")}), attempts=1), Failure)
    assert on_record(far).acked_bytes == 8 * 1024 * 1024
    at_write.clear()
    source_of(far, 9 * 1024 * 1024)  # another version
    os.utime(far.parent / "source", (5, 5))
    upload(far)
    assert at_write[0].acked_bytes == 0
    assert (far / "file").read_bytes() == (far.parent / "source").read_bytes()


def test_after_success_nothing_is_on_record(far):
    source_of(far, LARGE)
    upload(far)
    assert on_record(far) is None


def test_how_far_it_came_is_on_record_when_the_link_is_lost(far):
    source_of(far, 9 * 1024 * 1024)
    upload(far, Faults(before={("write", 1): LinkLost("cut")}), attempts=1)
    found = on_record(far)
    assert (found.acked_bytes, found.synced_bytes) == (4 * 1024 * 1024, 4 * 1024 * 1024)


def test_where_the_far_side_is_full_the_part_goes_so_that_smaller_files_fit(far):
    source_of(far, 9 * 1024 * 1024)
    failed = upload(far, Faults(before={("write", 1): NoSpaceOnServer("full")}))
    assert isinstance(failed.error, NoSpaceOnServer)
    assert os.listdir(far) == []
