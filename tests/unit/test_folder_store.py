"""The calls of a folder's store: none does anything once it was given up, and what is answered is on the disk."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from iot.folder.place import Place
from iot.folder.store import FolderStore
from iot.transfer.errors import LinkLost, NameRefused, NoSpaceOnServer, ServerRefused
from iot.transfer.model import Span
from iot.transfer.remote import Ack, Meta, Token
from iot.transfer.terminal import human_bytes

MIB = 1024 * 1024
CALLS: dict[str, Callable[[FolderStore], object]] = {
    "connect": lambda store: store.connect(),
    "check": lambda store: store.check(),
    "begin": lambda store: store.begin(b"new", 1, Meta(b"new.part")),
    "where": lambda store: store.where(Token(b"part")),
    "write": lambda store: store.write(Token(b"part"), Span(0, 1), [b"x"]),
    "read_part": lambda store: list(store.read_part(Token(b"part"), Span(0, 1))),
    "publish": lambda store: store.publish(Token(b"part"), b"file", Meta(b""), replace=True),
    "confirm": lambda store: store.confirm(b"file"),
    "abandon": lambda store: store.abandon(Token(b"part")),
    "stat": lambda store: store.stat(b"file"),
    "read": lambda store: list(store.read(b"file", 0)),
    "list": lambda store: list(store.list(b"")),
    "move": lambda store: store.move(b"file", b"other"),
    "delete": lambda store: store.delete(b"file"),
    "mkdir": lambda store: store.mkdir(b"folder"),
    "mkdir of the folder itself": lambda store: store.mkdir(b""),
    "rmdir": lambda store: store.rmdir(b"empty"),
}


@pytest.fixture
def far(tmp_path: Path) -> Path:
    folder = tmp_path / "far"
    (folder / "empty").mkdir(parents=True)
    (folder / "part").write_bytes(b"abc")
    (folder / "file").write_bytes(b"old")
    return folder


def everything(folder: Path) -> dict[str, bytes | None]:
    return {str(path): path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}


@pytest.mark.parametrize("end", ["abort", "close"])
@pytest.mark.parametrize("call", CALLS)
def test_a_store_that_was_given_up_does_nothing_more(far: Path, call: str, end: str) -> None:
    store, before = FolderStore(Place(str(far))), everything(far)
    getattr(store, end)()
    with pytest.raises(LinkLost, match="was aborted"):
        CALLS[call](store)
    assert everything(far) == before


def test_a_write_that_is_given_up_ends_between_two_blocks(far: Path) -> None:
    store = FolderStore(Place(str(far)))

    def blocks():
        yield b"first"
        store.abort()
        yield b"second"

    with pytest.raises(LinkLost, match="was aborted"):
        store.write(Token(b"part"), Span(0, 11), blocks())
    assert (far / "part").read_bytes() == b"first"


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What makes names and bytes durable, in its order; each is done for real."""
    done: list[str] = []
    real_fsync, real_replace = os.fsync, os.replace

    def fsync(file: int) -> None:
        done.append("fsync " + os.path.basename(os.readlink(f"/proc/self/fd/{file}")))
        real_fsync(file)

    def replace(old: bytes, new: bytes, *, src_dir_fd: int, dst_dir_fd: int) -> None:
        done.append(f"{os.fsdecode(old)} -> {os.fsdecode(new)}")
        real_replace(old, new, src_dir_fd=src_dir_fd, dst_dir_fd=dst_dir_fd)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "replace", replace)
    return done


def publish(store: FolderStore) -> tuple[Ack, bool]:
    meta = Meta(b"part", mtime_s=10**9)
    return store.write(Token(b"part"), Span(0, 3), [b"new"]), store.publish(Token(b"part"), b"file", meta, replace=True)


def test_what_is_answered_is_on_the_disk_bytes_before_the_name(far: Path, steps: list[str]) -> None:
    assert publish(FolderStore(Place(str(far)))) == (Ack(3, durable=True), True)
    assert steps == ["fsync part", "fsync part", "part -> file", "fsync far"]  # the second: its time


def test_with_trust_the_system_may_take_its_time_and_nothing_is_called_durable(far: Path, steps: list[str]) -> None:
    store = FolderStore(Place(str(far)), trust=True)
    assert publish(store) == (Ack(3, durable=False), False)
    assert not store.confirm(b"file")
    assert steps == ["part -> file"]


def test_what_is_confirmed_later_is_on_the_disk_then_content_and_name(far: Path, steps: list[str]) -> None:
    store = FolderStore(Place(str(far)))
    assert store.confirm(b"file")
    assert steps == ["fsync file", "fsync far"]
    assert not store.confirm(b"missing")


def test_a_move_is_on_the_disk_the_new_name_before_the_old_one_is_gone(far: Path, steps: list[str]) -> None:
    FolderStore(Place(str(far))).move(b"file", b"deep/er/file")
    assert steps == ["fsync far", "fsync deep", "file -> file", "fsync er", "fsync far"]
    assert (far / "deep/er/file").read_bytes() == b"old"


def test_only_a_whole_new_folder_is_made_where_that_is_asked_for(far: Path) -> None:
    store = FolderStore(Place(str(far)))
    with pytest.raises(Exception, match="No such file"):
        store.move(b"file", b"deep/file", make_dirs=False)
    store.mkdir(b"a/b")
    store.mkdir(b"a/b")  # that it is there is what was asked for
    store.mkdir(b"")
    assert (far / "a/b").is_dir()
    store.rmdir(b"a/b")
    assert not (far / "a/b").exists()
    with pytest.raises(NameRefused):
        store.rmdir(b"/")


def test_a_listing_tells_files_from_folders_and_follows_no_link(far: Path) -> None:
    (far / "link").symlink_to(far / "empty")
    found = sorted(FolderStore(Place(str(far))).list(b"."), key=lambda entry: entry.name)
    assert [(entry.name, entry.is_folder, entry.is_link) for entry in found] == [
        ("empty", True, False),
        ("file", False, False),
        ("link", False, True),
        ("part", False, False),
    ]
    sizes = {entry.name: entry.file.size for entry in found}
    assert sizes["file"] == (far / "file").stat().st_size


@pytest.mark.parametrize(("size", "fits"), [(MIB, True), (MIB + 1, False), (4 * MIB, False), (3 * MIB, True)])
def test_a_large_file_is_begun_only_where_it_leaves_room_to_small_ones(far: Path, monkeypatch, size, fits) -> None:
    free = 4 * MIB if size > 2 * MIB else MIB
    space = SimpleNamespace(f_bavail=free // 4096, f_frsize=4096, f_blocks=10**6)
    monkeypatch.setattr(os, "fstatvfs", lambda _: space)
    store = FolderStore(Place(str(far)))
    if fits:
        store.begin(b"new", size, Meta(b"new.part"))
        return
    with pytest.raises(NoSpaceOnServer, match=re.escape(f"needs {human_bytes(size)}, {human_bytes(free)} free")):
        store.begin(b"new", size, Meta(b"new.part"))
    assert not (far / "new.part").exists()
    space.f_blocks = 0  # a file system that counts none
    store.begin(b"new", size, Meta(b"new.part"))


@pytest.mark.parametrize("call", ["read_part", "write", "where"])
def test_a_part_that_is_no_regular_file_is_refused(far: Path, call: str) -> None:
    (far / "part").unlink()
    (far / "part").mkdir() if call == "where" else os.mkfifo(far / "part")
    if call == "write":
        reader = os.open(far / "part", os.O_RDONLY | os.O_NONBLOCK)  # else opening it would wait for one
    with pytest.raises(ServerRefused, match="is not a regular file"):
        CALLS[call](FolderStore(Place(str(far))))
    if call == "write":
        os.close(reader)


def test_a_mount_that_cannot_be_looked_at_is_a_lost_link(far: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_: str) -> bool:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr("iot.folder.place.mount_number", lambda _: None)  # as where there is no /proc
    monkeypatch.setattr(os.path, "ismount", broken)
    with pytest.raises(LinkLost, match="Input/output error"):
        FolderStore(Place(str(far))).check()
