"""What a folder's store does to files and folders: exactly what was asked for, to nothing but what was named."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from iot.folder import store as module
from iot.folder.place import Place
from iot.folder.store import FolderStore
from iot.transfer.errors import AlreadyExists, LinkLost, NameRefused, NotFound, ServerRefused
from iot.transfer.model import RemoteFile, Span
from iot.transfer.remote import Ack, Gone, Meta, Offset, Publish, Resume, Token

PART = Token(b"part")


@pytest.fixture
def far(tmp_path: Path) -> Path:
    folder = tmp_path / "far"
    (folder / "sub").mkdir(parents=True)
    (folder / "part").write_bytes(b"0123456789")
    (folder / "file").write_bytes(b"old")
    (folder / "link").symlink_to("file")
    return folder


@pytest.fixture
def store(far: Path) -> FolderStore:
    return FolderStore(Place(str(far)))


@pytest.fixture
def no_mask() -> Iterator[None]:
    before = os.umask(0)
    yield
    os.umask(before)


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


def test_what_a_folder_can_is_told(far: Path) -> None:
    found = FolderStore(Place(str(far))).capabilities
    assert (found.resume, found.publish, found.creates_only, found.durable) == (
        Resume.OFFSET, Publish.RENAME, True, True,
    )  # fmt: skip
    assert (found.connections, found.keeps_times, found.hashes) == (4, True, ())
    assert (found.write_bytes, found.block_bytes) == (module.WRITE_BYTES, module.BLOCK_BYTES)
    trusting = FolderStore(Place(str(far)), trust=True, connections=7).capabilities
    assert (trusting.durable, trusting.connections) == (False, 7)


WRITE, MAKE = os.O_WRONLY | os.O_NOFOLLOW, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW


@pytest.mark.parametrize(
    ("call", "flags"),
    [
        (lambda store: store.begin(b"new", 1, Meta(b"new.part")), MAKE | os.O_EXCL),
        (lambda store: store.write(PART, Span(0, 1), [b"x"]), WRITE),
        (lambda store: store.touch(b"new", 5), MAKE | os.O_NONBLOCK),
        (lambda store: list(store.read(b"file", 0)), os.O_NOFOLLOW | os.O_NONBLOCK),
    ],
)
def test_no_file_is_opened_through_a_link_or_waited_for(
    store: FolderStore, monkeypatch: pytest.MonkeyPatch, call: Callable[[FolderStore], None], flags: int
) -> None:
    opened: list[int] = []
    real = os.open

    def note(path: bytes, given: int, *more: int, dir_fd: int | None = None) -> int:
        if not given & os.O_DIRECTORY:
            opened.append(given)
        return real(path, given, *more, dir_fd=dir_fd)

    monkeypatch.setattr(os, "open", note)
    call(store)
    assert opened == [flags]


# -- parts


def test_an_upload_begins_with_an_empty_part_of_the_usual_mode(store: FolderStore, far: Path, no_mask: None) -> None:
    assert store.begin(b"new", 1, Meta(b"part")) == PART
    assert (far / "part").read_bytes() == b""
    assert mode_of(far / "part") == 0o666
    assert store.begin(b"new/er", 1, Meta(b"deep/er/part")) == b"deep/er/part"
    assert (far / "deep/er/part").read_bytes() == b""


def test_a_wrong_destination_is_refused_before_anything_is_made(store: FolderStore, far: Path) -> None:
    before = sorted(os.listdir(far))
    with pytest.raises(NameRefused):
        store.begin(b"../out", 1, Meta(b"deep/part"))
    with pytest.raises(NameRefused, match="is the folder itself"):
        store.begin(b"new", 1, Meta(b"/"))
    with pytest.raises(NotFound):
        store.begin(b"deep/new", 1, Meta(b"deep/part", make_dirs=False))
    assert sorted(os.listdir(far)) == before


def test_where_a_part_stands_is_its_size(store: FolderStore, far: Path) -> None:
    assert store.where(PART) == Offset(10)
    assert store.where(Token(b"gone")) == Gone()
    for name in ("link", "sub"):
        with pytest.raises(ServerRefused, match=f"the part '{name}' is not a regular file"):
            store.where(Token(name.encode()))


def test_a_write_lands_where_it_belongs_however_little_the_disk_takes(
    store: FolderStore, far: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda file, data, at: real(file, bytes(data)[:2], at))
    assert store.write(PART, Span(3, 9), [b"abc", b"", b"def"]) == Ack(9, durable=True)
    assert (far / "part").read_bytes() == b"012abcdef9"


def test_what_the_file_system_cannot_sync_is_not_called_durable(
    store: FolderStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "sync", lambda _: False)
    assert store.write(PART, Span(0, 1), [b"x"]) == Ack(1, durable=False)
    assert not store.publish(PART, b"new", Meta(b""), replace=False)
    assert not store.confirm(b"new")


@pytest.mark.parametrize("synced", [(True, False), (False, True)])
def test_a_file_is_confirmed_by_its_content_and_its_name(
    store: FolderStore, monkeypatch: pytest.MonkeyPatch, synced: tuple[bool, bool]
) -> None:
    answers = iter(synced)
    monkeypatch.setattr(module, "sync", lambda _: next(answers))
    assert store.confirm(b"file") is False


def test_a_part_is_read_back_in_blocks_up_to_where_it_was_asked(
    store: FolderStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "BLOCK_BYTES", 4)
    assert list(store.read_part(PART, Span(1, 9))) == [b"1234", b"5678"]
    assert list(store.read_part(PART, Span(1, 6))) == [b"1234", b"5"]
    assert list(store.read_part(PART, Span(8, 99))) == [b"89"]
    assert list(store.read_part(PART, Span(3, 3))) == []
    assert list(store.read(b"part", 5)) == [b"5678", b"9"]
    reading = store.read(b"part", 0)
    assert next(reading) == b"0123"
    store.abort()
    with pytest.raises(LinkLost):
        next(reading)


# -- times and modes


def test_only_what_is_to_be_kept_is_set(store: FolderStore, far: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.utime(far / "part", (5, 5))
    (far / "part").chmod(0o600)
    synced: list[int] = []
    monkeypatch.setattr(module, "sync", lambda file: synced.append(file) or True)
    store._keep(PART, Meta(b""))
    assert synced == []
    store._keep(PART, Meta(b"", mode=0o100640))
    assert (mode_of(far / "part"), (far / "part").stat().st_mtime) == (0o640, 5)
    store._keep(PART, Meta(b"", mtime_s=7))
    assert (mode_of(far / "part"), (far / "part").stat().st_mtime) == (0o640, 7)
    assert len(synced) == 2
    FolderStore(Place(str(far)), trust=True)._keep(PART, Meta(b"", mode=0o4600, mtime_s=9))
    assert (mode_of(far / "part"), (far / "part").stat().st_mtime, len(synced)) == (0o600, 9, 2)


def test_a_file_system_without_modes_is_no_error(store: FolderStore, far: Path, monkeypatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "fchmod", refuse)
    assert store.publish(PART, b"new", Meta(b"", mode=0o600), replace=True)
    assert (far / "new").read_bytes() == b"0123456789"


def test_touch_makes_a_file_or_sets_the_time_of_one(store: FolderStore, far: Path, no_mask: None) -> None:
    store.touch(b"deep/new", 10**9)
    new = far / "deep/new"
    assert (new.stat().st_atime, new.stat().st_mtime, mode_of(new), new.stat().st_size) == (10**9, 10**9, 0o666, 0)
    store.touch(b"file", 5)
    assert ((far / "file").read_bytes(), (far / "file").stat().st_mtime) == (b"old", 5)
    store.touch(b"sub", 6)
    assert (far / "sub").stat().st_mtime == 6


def test_chmod_is_of_a_file_or_a_folder(store: FolderStore, far: Path) -> None:
    store.chmod(b"file", 0o4711)
    store.chmod(b"sub", 0o700)
    assert (mode_of(far / "file"), mode_of(far / "sub")) == (0o4711, 0o700)
    with pytest.raises(NotFound):
        store.chmod(b"gone", 0o600)
    with pytest.raises(NameRefused):
        store.chmod(b"/", 0o600)


@pytest.mark.parametrize("call", [lambda store: store.chmod(b"link", 0o600), lambda store: store.touch(b"link", 5)])
def test_a_link_is_not_changed_and_neither_is_what_it_leads_to(
    store: FolderStore, far: Path, call: Callable[[FolderStore], None]
) -> None:
    before = (far / "file").stat()
    with pytest.raises(ServerRefused, match="'link' is neither a file nor a folder"):
        call(store)
    assert (far / "file").stat() == before


@pytest.mark.parametrize(
    "call",
    [
        lambda store: store.chmod(b"file", 0o600),
        lambda store: store.touch(b"file", 5),
        lambda store: store.touch(b"new", 5),
        lambda store: store.rmdir(b"sub"),
    ],
)
def test_a_store_that_was_closed_changes_nothing(
    store: FolderStore, far: Path, call: Callable[[FolderStore], None]
) -> None:
    before = {path: path.lstat() for path in far.rglob("*")}
    store.close()
    with pytest.raises(LinkLost):
        call(store)
    assert {path: path.lstat() for path in far.rglob("*")} == before


# -- names


def test_what_stands_there_is_told_without_following_a_link(store: FolderStore, far: Path) -> None:
    os.utime(far / "file", ns=(0, 1_999_999_999))
    assert store.stat(b"file") == RemoteFile(3, 1, (far / "file").stat().st_mode)
    found = store.stat(b"link")
    assert found is not None
    assert stat.S_ISLNK(found.mode or 0)
    whole = store.stat(b"/")
    assert whole is not None
    assert stat.S_ISDIR(whole.mode or 0)
    assert store.stat(b"gone") is None


def test_a_name_that_goes_while_it_is_listed_is_left_out(store: FolderStore, far: Path, monkeypatch) -> None:
    real = os.scandir

    class Listing:
        def __init__(self, folder: int) -> None:
            self.found = real(folder)

        def __enter__(self) -> Iterator[os.DirEntry[str]]:
            (far / "part").unlink()
            return iter(sorted(self.found, key=lambda entry: entry.name))

        def __exit__(self, *_: object) -> None:
            self.found.close()

    monkeypatch.setattr(os, "scandir", Listing)
    assert [entry.name for entry in store.list(b"")] == ["file", "link", "sub"]
    monkeypatch.undo()
    assert [entry.name for entry in store.list(b"sub")] == []


def test_a_rename_takes_what_is_there_to_where_it_belongs(store: FolderStore, far: Path) -> None:
    store.move(b"file", b"sub/file")
    assert (far / "sub/file").read_bytes() == b"old"
    with pytest.raises(NotFound):
        store.move(b"sub/file", b"deep/file", make_dirs=False)
    store.move(b"sub/file", b"deep/er/file")
    assert (far / "deep/er/file").read_bytes() == b"old"
    with pytest.raises(NotFound):
        store.move(b"gone", b"deeper/still/file")
    assert not (far / "deeper").exists()


def test_delete_is_of_files_and_links_and_mkdir_and_rmdir_are_of_folders(store: FolderStore, far: Path) -> None:
    store.delete(b"link")
    assert (far / "file").exists()
    with pytest.raises(ServerRefused, match="'sub' is a folder"):
        store.delete(b"sub")
    with pytest.raises(AlreadyExists, match="'file' exists but is not a folder"):
        store.mkdir(b"file")
    with pytest.raises(ServerRefused, match="'file' is not a folder"):
        store.rmdir(b"file")
    store.mkdir(b"/sub/deep/")
    store.rmdir(b"sub/deep")
    store.rmdir(b"sub")
    store.delete(b"file")
    assert os.listdir(far) == ["part"]
    with pytest.raises(NotFound):
        store.rmdir(b"sub")


def test_nothing_is_open_behind_a_call_that_failed(store: FolderStore, far: Path) -> None:
    before = os.listdir("/proc/self/fd")
    for call in (
        lambda: store.write(PART, Span(0, 1), iter([b"x", None])),  # type: ignore[list-item]
        lambda: list(store.read(b"sub", 0)),
        lambda: store.publish(PART, b"sub", Meta(b""), replace=True),
    ):
        with pytest.raises((TypeError, ServerRefused)):
            call()
    assert os.listdir("/proc/self/fd") == before
