"""The power cut is a true one: what was not synced is gone, what was is there, and nothing stays behind."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from faults.powercut import PowerCutDisk

MIB = 1 << 20
DIES_MOUNTED = """
import sys, time
from pathlib import Path
from faults.powercut import PowerCutDisk
disk = PowerCutDisk(Path(sys.argv[1]), size_mib=16)
disk.mount()
print("mounted", flush=True)
time.sleep(60)
"""

pytestmark = pytest.mark.needs("loop-mounts")


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[PowerCutDisk]:
    with PowerCutDisk(tmp_path / "device", size_mib=64) as mounted:
        yield mounted


def write(path: Path, data: bytes, *, sync: bool) -> None:
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        if sync:
            os.fsync(file.fileno())


def sync_folder(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    os.fsync(descriptor)
    os.close(descriptor)


def test_only_what_was_synced_survives(disk: PowerCutDisk) -> None:
    write(disk.path / "synced", b"x" * MIB, sync=True)
    sync_folder(disk.path)
    write(disk.path / "unsynced", b"y" * MIB, sync=False)
    disk.cut()
    with pytest.raises(OSError, match="Input/output error"):
        write(disk.path / "later", b"z", sync=True)
    disk.remount()
    assert (disk.path / "synced").read_bytes() == b"x" * MIB
    assert not (disk.path / "later").exists()
    assert not (disk.path / "unsynced").exists() or (disk.path / "unsynced").read_bytes() != b"y" * MIB


def test_a_rename_is_lost_until_something_is_synced_after_it(disk: PowerCutDisk) -> None:
    for name, after in (("lost", False), ("kept", True)):
        write(disk.path / f"{name}.part", b"content", sync=True)
        sync_folder(disk.path)
        os.rename(disk.path / f"{name}.part", disk.path / name)
        if after:
            sync_folder(disk.path)
        disk.cut()
        disk.remount()
        assert (disk.path / name).exists() == after


def test_a_cycle_is_quick(disk: PowerCutDisk) -> None:
    begin = time.monotonic()
    for number in range(10):
        write(disk.path / "file", bytes([number]) * MIB, sync=True)
        disk.cut()
        disk.remount()
        assert (disk.path / "file").read_bytes() == bytes([number]) * MIB
    assert disk.cuts == 10
    assert time.monotonic() - begin < 30


def test_written_bytes_are_counted_at_the_device(disk: PowerCutDisk) -> None:
    before = disk.written_bytes()
    write(disk.path / "file", os.urandom(4 * MIB), sync=True)
    assert 4 * MIB <= disk.written_bytes() - before < 5 * MIB


def test_a_process_that_is_still_there_is_named(disk: PowerCutDisk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("faults.powercut.UNMOUNT_S", 0.1)
    with (disk.path / "held").open("wb"), pytest.raises(OSError, match=f"used by .*{os.getpid()}"):
        disk.remount()


def test_nothing_is_mounted_after_its_process_was_killed(tmp_path: Path) -> None:
    tests = str(Path(__file__).parents[1])
    command = [sys.executable, "-c", DIES_MOUNTED, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": tests}) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "mounted\n"
        assert str(tmp_path / "image") in backing_files()
        assert str(tmp_path) not in Path("/proc/self/mounts").read_text()
        child.kill()
    end = time.monotonic() + 10
    while str(tmp_path / "image") in backing_files() and time.monotonic() < end:
        time.sleep(0.02)
    assert str(tmp_path / "image") not in backing_files()


def backing_files() -> list[str]:
    return [path.read_text().strip() for path in Path("/sys/block").glob("loop*/loop/backing_file")]
