"""The thread that compresses: once for each file, only what was found, and not after it was stopped."""

from __future__ import annotations

import gzip
import os
import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from unit.packing_rig import NOISE, TEXT, PackingRig

from iot.spooler.compression import packer as packers
from iot.spooler.compression.folder import KEPT_BYTES, LEAST_FREE_BYTES, Folder
from iot.spooler.compression.packer import Packer, Task
from iot.spooler.config.packed import Compression
from iot.transfer import Fingerprint


@pytest.fixture
def rig(tmp_path: Path) -> PackingRig:
    return PackingRig(tmp_path)


class Shop:
    """A packer and its folder; take() waits for what was asked."""

    def __init__(self, base: Path) -> None:
        self.box = base / "box"
        self.box.mkdir()
        self.folder = Folder(base)
        self.packer = Packer(self.folder)

    def task(self, name: str, content: bytes, *, must: bool = False) -> Task:
        path = self.box / name
        path.write_bytes(content)
        version = Fingerprint.of(path.stat())
        return Task(f"{name}.gz", self.root, os.fsencode(name), version, Compression.GZIP, must)

    def root(self) -> int:
        return os.open(self.box, os.O_RDONLY)

    def done(self, *tasks: Task) -> dict[str, Any]:
        for task in tasks:
            self.packer.ask(task)
        while self.packer.is_busy:
            threading.Event().wait(0.005)
        return self.packer.take()


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    return Shop(tmp_path)


def test_a_task_that_is_asked_twice_is_done_once(shop: Shop) -> None:
    task = shop.task("f", TEXT)
    assert list(shop.done(task, task, shop.task("g", TEXT))) == ["f.gz", "g.gz"]
    assert shop.packer.finished == 2


def test_what_has_to_be_compressed_is_whether_or_not_it_pays(shop: Shop) -> None:
    done = shop.done(shop.task("f", NOISE), shop.task("g", NOISE, must=True), shop.task("e", b"", must=True))
    assert done["f.gz"] is None
    assert gzip.decompress(Path(done["g.gz"].path).read_bytes()) == NOISE
    assert gzip.decompress(Path(done["e.gz"].path).read_bytes()) == b""


def unreadable(path: Path) -> None:
    path.unlink()


def a_link(path: Path) -> None:
    path.rename(path.with_name("real"))
    path.symlink_to("real")


def a_fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


@pytest.mark.parametrize("spoil", [unreadable, a_link, a_fifo])
def test_what_is_no_longer_the_file_that_was_found_is_not_compressed(shop: Shop, spoil: Callable[[Path], None]) -> None:
    task = shop.task("f", TEXT)
    spoil(shop.box / "f")
    assert shop.done(task) == {"f.gz": None}
    assert not shop.folder.path.exists() or os.listdir(shop.folder.path) == []


def test_it_stops_at_the_next_piece_and_leaves_nothing_behind(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    begun, may_go_on = threading.Event(), threading.Event()
    real = packers.writer

    def held(kind: Compression) -> Any:
        begun.set()
        may_go_on.wait(30)
        return real(kind)

    monkeypatch.setattr(packers, "writer", held)
    shop.packer.ask(shop.task("f", TEXT))
    assert begun.wait(30)
    [thread] = [each for each in threading.enumerate() if each.name == "packer"]
    assert thread.daemon  # a disk that hangs does not keep the agent from ending
    wait_for = shop.packer._changed.wait_for
    monkeypatch.setattr(shop.packer._changed, "wait_for", lambda over, timeout: wait_for(over, 20 * timeout))
    ending = threading.Thread(target=shop.packer.stop)
    ending.start()
    while not shop.packer._stopped:
        threading.Event().wait(0.005)
    may_go_on.set()
    ending.join(30)
    assert (ending.is_alive(), shop.packer.is_busy) == (False, False)
    assert os.listdir(shop.folder.path) == []
    shop.packer.ask(shop.task("g", TEXT))
    assert not shop.packer.is_busy


def test_what_changes_before_or_while_it_is_read_is_not_compressed(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    early, late, begun = shop.task("early", TEXT), shop.task("late", TEXT), list[Compression]()
    (shop.box / "early").write_bytes(TEXT + b"more")
    real = packers.writer

    def changing(kind: Compression) -> Any:
        begun.append(kind)
        with open(shop.box / "late", "ab") as file:
            file.write(b"more")
        return real(kind)

    monkeypatch.setattr(packers, "writer", changing)
    assert shop.done(early, late) == {"early.gz": None, "late.gz": None}
    assert len(begun) == 1
    assert os.listdir(shop.folder.path) == []


def test_a_write_that_takes_only_a_part_loses_nothing(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.write
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", lambda file, piece: real(file, piece[:7]))
        shop.done(shop.task("f", TEXT))
    assert gzip.decompress((shop.folder.path / "f.gz").read_bytes()) == TEXT


def test_what_was_not_finished_is_not_kept_over_a_restart(shop: Shop) -> None:
    shop.folder.path.mkdir()
    for name in ("0123456789abcdef.gz", "0123456789abcdef.gz.new"):
        (shop.folder.path / name).write_bytes(bytes(KEPT_BYTES))
    assert [made.name for made in shop.folder.kept(())] == ["0123456789abcdef.gz"]
    assert os.listdir(shop.folder.path) == ["0123456789abcdef.gz"]


def test_those_that_were_not_begun_when_it_stops_are_not_begun(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    may_go_on, begun = threading.Event(), list[str]()
    real = Packer._packed

    def held(packer: Packer, task: Task) -> Any:
        begun.append(task.name)
        may_go_on.wait(30)
        return real(packer, task)

    monkeypatch.setattr(Packer, "_packed", held)
    for name in ("f", "g"):
        shop.packer.ask(shop.task(name, TEXT))
    ending = threading.Thread(target=shop.packer.stop)
    ending.start()
    while not shop.packer._stopped:
        threading.Event().wait(0.005)
    may_go_on.set()
    ending.join(30)
    assert begun == ["f.gz"]


def test_where_no_thread_can_be_started_a_file_is_compressed_at_once(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(_: object) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refused)
    shop.packer.ask(shop.task("f", TEXT))
    assert (shop.packer.is_busy, list(shop.packer.take())) == (False, ["f.gz"])


# -- the folder


def test_a_link_that_somebody_has_put_there_is_no_compressed_file(shop: Shop, tmp_path: Path) -> None:
    shop.folder.path.mkdir()
    (tmp_path / "precious").write_bytes(bytes(KEPT_BYTES))
    (shop.folder.path / "0123456789abcdef.gz").symlink_to(tmp_path / "precious")
    assert shop.folder.kept(()) == []
    assert (os.listdir(shop.folder.path), (tmp_path / "precious").exists()) == ([], True)


def test_what_somebody_puts_under_the_name_of_a_new_one_is_not_written_to(
    shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    precious = tmp_path / "precious"
    precious.write_text("somebody's")
    monkeypatch.setattr(os, "unlink", lambda name, *, dir_fd: os.link(precious, shop.folder.path / name))
    with pytest.raises(FileExistsError), shop.folder.making("f.gz", 5):
        pytest.fail("it is not ours")
    assert precious.read_text() == "somebody's"


def test_the_folder_is_private_whichever_step_makes_it(tmp_path: Path) -> None:
    one, other = Folder(tmp_path / "one"), Folder(tmp_path / "other")
    for folder in (one, other):
        folder.path.parent.mkdir()
    assert one.has_room_for(0)
    with other.making("f.gz", 5):
        pass
    assert [folder.path.stat().st_mode & 0o777 for folder in (one, other)] == [0o700, 0o700]
    assert one.has_room_for(0)


@pytest.mark.parametrize(("lacking", "is_made"), [(0, True), (1, False)])
def test_there_has_to_be_room_for_the_whole_original_that_this_user_may_fill(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, lacking: int, is_made: bool
) -> None:
    """bfree is also what is kept for root."""
    room = (LEAST_FREE_BYTES + len(TEXT) - lacking) / 512
    found = SimpleNamespace(f_bavail=room, f_bfree=1 << 40, f_frsize=512, f_bsize=1 << 20)
    monkeypatch.setattr(os, "statvfs", lambda _: found)
    assert (shop.done(shop.task("f", TEXT))["f.gz"] is not None) is is_made


@pytest.mark.parametrize(("size", "is_kept"), [(KEPT_BYTES, True), (KEPT_BYTES - 1, False)])
def test_what_is_kept_over_a_restart_is_on_the_disk_before_it_has_its_name(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, size: int, is_kept: bool
) -> None:
    name, synced = "0123456789abcdef.gz", list[int]()

    def fsync(file: int) -> None:
        assert os.listdir(shop.folder.path) == [f"{name}.new"]
        synced.append(os.fstat(file).st_size)

    monkeypatch.setattr(os, "fsync", fsync)
    with shop.folder.making(name, 5) as file:
        os.write(file, bytes(size))
    assert synced == [size] * is_kept
    assert [made.name for made in shop.folder.kept(())] == [name] * is_kept


def test_what_an_earlier_run_did_not_finish_is_in_nobodys_way(shop: Shop) -> None:
    shop.folder.path.mkdir()
    (shop.folder.path / "f.gz.new").write_bytes(b"half, and longer than what comes")
    assert gzip.decompress(Path(shop.done(shop.task("f", b"x" * 5000))["f.gz"].path).read_bytes()) == b"x" * 5000
