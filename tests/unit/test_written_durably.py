"""A file that takes the place of an earlier one is on the disk before it gets its name: a power cut leaves one or the
other, and never an empty one."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from iot.spooler.budget import tombstones
from iot.spooler.compression.folder import KEPT_BYTES, Folder
from iot.spooler.gates.orders import Command, Order, Orders
from iot.spooler.state import homes


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is synced, by its size where it is a file, and renamed, in order; each is done for real."""
    done: list[str] = []
    real_sync, real_rename, real_replace = os.fsync, os.rename, os.replace

    def sync(file: int) -> None:
        real_sync(file)
        place = Path(os.readlink(f"/proc/self/fd/{file}"))
        done.append("folder" if place.is_dir() else f"{place.stat().st_size} bytes")

    def named(real: Callable[..., None]) -> Callable[..., None]:
        def rename(*names: str, **folders: int) -> None:
            real(*names, **folders)
            done.append("name")

        return rename

    monkeypatch.setattr(os, "fsync", sync)
    monkeypatch.setattr(os, "rename", named(real_rename))
    monkeypatch.setattr(os, "replace", named(real_replace))
    return done


def test_where_folders_are_mounted(tmp_path: Path, steps: list[str]) -> None:
    homes._write(tmp_path / "mounts.json", {"/a": "/b"})
    assert steps == ["12 bytes", "name", "folder"]


def test_orders_which_count_only_once_they_are_on_the_disk(
    tmp_path: Path, steps: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    orders = Orders(tmp_path, {1: Path("/out")})
    (tmp_path / "orders.new").write_text("left by a power cut")
    orders.take(Command.SUSPEND, [1])
    size = (tmp_path / "orders.json").stat().st_size
    assert steps == [f"{size} bytes", "name", "folder"]

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "rename", full)
    with pytest.raises(OSError, match="No space"):
        orders.take(Command.STOP, [1])
    assert orders.order(1) is Order.SUSPENDED
    assert Orders(tmp_path, {1: Path("/out")}).order(1) is Order.SUSPENDED


def test_a_list_of_dropped_files(tmp_path: Path, steps: list[str]) -> None:
    folder = os.open(tmp_path, os.O_RDONLY)
    try:
        tombstones._put(folder, "a.jsonl", b"{}\n")
    finally:
        os.close(folder)
    assert steps == ["3 bytes", "name", "folder"]


@pytest.mark.parametrize("size", [KEPT_BYTES - 1, KEPT_BYTES])
def test_a_compressed_file_that_is_kept_over_a_restart(tmp_path: Path, steps: list[str], size: int) -> None:
    with Folder(tmp_path).making("a.gz", 5 * 10**9) as target:
        os.write(target, bytes(size))
    assert steps == [f"{size} bytes", "name"][size < KEPT_BYTES :]
    assert (tmp_path / "compressed/a.gz").stat().st_mtime_ns == 5 * 10**9


def test_what_has_an_order_is_flushed_no_more_and_is_stopped_once(tmp_path: Path) -> None:
    orders, told = Orders(tmp_path, {1: Path("/out"), 2: Path("/other")}), list[object]()
    gates = SimpleNamespace(end_flush=told.append)
    boxes = [
        SimpleNamespace(number=number, stopped=False, start=lambda: None, stop=lambda: told.append("stop"))
        for number in (1, 2)
    ]
    orders.take(Command.STOP, [1])
    orders.follow(boxes, gates)  # type: ignore[arg-type]
    boxes[0].stopped = True
    orders.follow(boxes, gates)  # type: ignore[arg-type]
    assert told == [1, "stop", 1]
