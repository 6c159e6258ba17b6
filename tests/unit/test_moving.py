"""A copy to another file system that fails half-way: what is half, or unwanted, stays nowhere."""

import errno
import os
import tempfile
from pathlib import Path

import pytest
from conditions import missing
from quarantined import quarantined
from unit.removing import taken

from iot.sftp.client import Fingerprint
from iot.spooler.leaving import moving
from iot.spooler.leaving.archive import Archive
from iot.spooler.leaving.quarantine import Quarantine
from iot.spooler.leaving.release import release
from iot.spooler.leaving.removal import Item

CONTENT = os.urandom(3_000_000)


@pytest.fixture
def box(tmp_path):
    folder = tmp_path / "box"
    folder.mkdir()
    (folder / "f").write_bytes(CONTENT)
    return folder


@pytest.fixture
def other_disk(tmp_path):
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        if os.stat(folder).st_dev == os.stat(tmp_path).st_dev:
            missing("/dev/shm is on the same file system")
        yield Path(folder)


def contents(folder):
    """Of all that is called like the file, or like a copy of it that is not whole yet."""
    return [path.read_bytes() for path in folder.rglob("*") if path.is_file() and path.suffix != ".json"]


def take(box, leaver):
    root = os.open(box, os.O_RDONLY)
    try:
        return taken(root, [Item(1, b"f", Fingerprint.of(os.stat(box / "f")), {"reason": "because"})], leaver)
    finally:
        os.close(root)


def no_room(patch):
    def half(writer, piece):
        writer.write(memoryview(piece)[: len(piece) // 2])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    patch.setattr(moving, "_write", half)


def no_times(code):
    def refuse(*_arguments, **_keywords):
        raise OSError(code, os.strerror(code))

    return lambda patch: patch.setattr(os, "utime", refuse)


def no_sync(patch):
    write, broken = moving._write, []

    def noted(writer, piece):
        write(writer, piece)
        broken.append(writer.fileno())

    def sync(descriptor, sync=os.fsync):
        if descriptor in broken:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        sync(descriptor)

    patch.setattr(moving, "_write", noted)
    patch.setattr(os, "fsync", sync)


def rewritten(patch):
    attributes = moving._copy_attributes

    def and_then_its_producer_writes(status, target):
        attributes(status, target)
        for path in map(Path, map(os.path.realpath, Path("/proc/self/fd").iterdir())):
            if path.name.endswith("f") and path.is_file():  # perhaps under its private name
                path.write_bytes(b"longer" + CONTENT)

    patch.setattr(moving, "_copy_attributes", and_then_its_producer_writes)


FAILURES = {"no room": no_room, "an error of times": no_times(errno.EIO), "no sync": no_sync, "a rewrite": rewritten}


@pytest.mark.parametrize("failure", FAILURES)
def test_a_release_that_fails_half_way_leaves_no_half_copy_in_the_outbox(failure, box, other_disk, monkeypatch):
    """It would be one more file, and count against the space, for as long as nobody retries."""
    folder = other_disk / "quarantine"
    assert take(box, Quarantine(folder, box)) == ([1], [])
    with monkeypatch.context() as patch:
        FAILURES[failure](patch)
        assert release([folder], [box]) == (0, 1)
    assert contents(box) == []
    (kept,) = quarantined(folder)
    assert kept.content == (b"longer" if failure == "a rewrite" else b"") + CONTENT
    assert release([folder], [box]) == (1, 0)
    assert contents(box) == [kept.content]


@pytest.mark.parametrize("failure", FAILURES)
def test_a_file_that_fails_to_leave_half_way_has_no_half_copy_in_the_archive(failure, box, other_disk, monkeypatch):
    archive = other_disk / "archive"
    with monkeypatch.context() as patch:
        FAILURES[failure](patch)
        done, failed = take(box, Archive(archive))
    assert (done, len(failed)) == ([], 1)
    assert contents(archive) == []
    assert len(contents(box)) == 1


@pytest.mark.parametrize("code", [errno.EPERM, errno.EACCES])
def test_a_folder_in_which_only_its_owner_sets_times_takes_and_gives_back_files(code, box, other_disk, monkeypatch):
    """FAT and shares that belong to another user: the times are lost there, and nothing else."""
    no_times(code)(monkeypatch)
    folder = other_disk / "quarantine"
    assert take(box, Quarantine(folder, box)) == ([1], [])
    assert (contents(box), contents(folder)) == ([], [CONTENT])
    assert release([folder], [box]) == (1, 0)
    assert (contents(box), contents(folder)) == ([CONTENT], [])
    archive = other_disk / "archive"
    assert take(box, Archive(archive)) == ([1], [])
    assert (contents(box), contents(archive)) == ([], [CONTENT])
