"""Whole folders on a file system that ignores case and counts time in steps of two seconds: a real one, mounted."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from conditions import missing
from faults.lab_disk import LabDisk, cannot_mount, in_memory

from iot.folder import FolderClient


@pytest.fixture(scope="module")
def fat() -> Iterator[Path]:
    reason = cannot_mount("fat")
    if reason is not None:
        missing(reason)
    home = tempfile.TemporaryDirectory(prefix="iot-sftp-lab-", dir=in_memory())
    with home as folder, LabDisk(Path(folder) / "lab", "fat") as disk:
        yield disk.path


@pytest.fixture
def place(fat: Path, request: pytest.FixtureRequest) -> Path:
    folder = fat / request.node.name
    folder.mkdir()
    return folder


def made(root: Path, files: dict[str, bytes], mtime_s: int = 1_700_000_001) -> Path:
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
        os.utime(root / name, (mtime_s, mtime_s))
    return root


def content(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def test_the_second_of_two_names_is_refused_and_the_first_is_not_overwritten(place: Path, tmp_path: Path) -> None:
    far = made(tmp_path / "far", {"README": b"first", "readme": b"second", "D/x": b"1", "d/y": b"2", "z": b"z"})
    with FolderClient(far, state_dir=tmp_path / "state") as client:
        result = client.download_dir("/", place)
        assert content(place) == {"README": b"first", "D/x": b"1", "z": b"z"}
        assert sorted(each.step.path for each in result.failed) == ["d", "d/y", "readme"]
        assert "differs from README only in case" in str(result.failed[-1].error)


def test_a_file_that_stands_there_under_another_spelling_is_not_overwritten(place: Path, tmp_path: Path) -> None:
    far = made(tmp_path / "far", {"readme": b"new", "z": b"z"})
    made(place, {"README": b"mine"})
    with FolderClient(far, state_dir=tmp_path / "state") as client:
        result = client.sync(place, "/", direction="download", prune=True)
        assert not result.ok
        assert content(place) == {"README": b"mine", "z": b"z"}


def test_a_mirror_to_it_settles_with_a_tolerance_and_removes_nothing_that_only_changed_its_case(
    place: Path, tmp_path: Path
) -> None:
    here = made(tmp_path / "here", {"Report": b"1", "d/x": b"2"})
    made(place, {"report": b"0"})
    with FolderClient(place, state_dir=tmp_path / "state") as client:
        for _ in range(2):
            result = client.sync(here, "/", prune=True, time_tolerance_s=1)
            assert {name.lower(): data for name, data in content(place).items()} == {"report": b"1", "d/x": b"2"}
        assert [each.dest for each in result.transferred if each.dest != "/Report"] == []
