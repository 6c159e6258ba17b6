"""A folder as a remote: no path leads out of it, and errors say what is wrong."""

from __future__ import annotations

import errno
import itertools
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from iot.folder import FolderClient
from iot.folder.place import Place, translated
from iot.folder.store import FolderStore
from iot.transfer.errors import (
    AccessRefused,
    AlreadyExists,
    ConfigurationError,
    LinkLost,
    NameRefused,
    NoSpaceOnServer,
    NotFound,
    PermissionDenied,
    ServerBusy,
    ServerRefused,
    SFTPError,
)
from iot.transfer.model import Span
from iot.transfer.remote import Gone, Meta, Offset, Token


@pytest.fixture
def usb(tmp_path: Path) -> Path:
    folder = tmp_path / "usb"
    folder.mkdir()
    return folder


@pytest.fixture
def client(tmp_path: Path, usb: Path):
    with FolderClient(usb, state_dir=tmp_path / "state", backoff_s=0.0) as client:
        yield client


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "source"
    path.write_bytes(os.urandom(100_000))
    return path


# -- no path leads out


@pytest.mark.parametrize("dest", ["../out", "a/../../out", "..", "/../out"])
def test_dots_do_not_lead_out(client, usb, source, dest):
    with pytest.raises(NameRefused):
        client.upload(source, dest)
    assert not (usb.parent / "out").exists()
    for call in (client.exists, client.delete, client.mkdir, client.rmdir, client.list):
        with pytest.raises(NameRefused):
            call(dest)


def test_a_link_on_the_way_is_not_followed(client, usb, source, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "secret").write_bytes(b"secret")
    (usb / "link").symlink_to(tmp_path / "elsewhere")
    for call in (
        lambda: client.upload(source, "link/file"),
        lambda: client.download("link/secret", tmp_path / "got"),
        lambda: client.delete("link/secret"),
    ):
        with pytest.raises(SFTPError):
            call()
    assert os.listdir(tmp_path / "elsewhere") == ["secret"]
    assert not (tmp_path / "got").exists()


def test_a_link_in_the_place_of_a_file_is_replaced_and_never_written_through(client, usb, source, tmp_path):
    (tmp_path / "victim").write_bytes(b"old")
    (usb / "file").symlink_to(tmp_path / "victim")
    with pytest.raises(SFTPError):
        client.download("file", tmp_path / "got")
    client.upload(source, "file")
    assert (tmp_path / "victim").read_bytes() == b"old"
    assert (usb / "file").read_bytes() == source.read_bytes()


def test_a_link_in_the_place_of_a_part_is_not_written_through(usb, tmp_path):
    (tmp_path / "victim").write_bytes(b"old")
    (usb / "part").symlink_to(tmp_path / "victim")
    store = FolderStore(Place(str(usb)))
    with pytest.raises(ServerRefused):
        store.where(Token(b"part"))
    with pytest.raises(PermissionDenied):
        store.write(Token(b"part"), Span(0, 1), [b"x"])
    token = store.begin(b"file", 1, Meta(b"part"))
    store.write(token, Span(0, 1), [b"x"])
    assert (tmp_path / "victim").read_bytes() == b"old"
    assert not (usb / "part").is_symlink()


# -- the store's own calls


@pytest.fixture
def store(usb: Path) -> FolderStore:
    return FolderStore(Place(str(usb)))


def part_of(store: FolderStore, content: bytes = b"new") -> Token:
    token = store.begin(b"to/file", len(content), Meta(b"to/file.part"))
    store.write(token, Span(0, len(content)), [content])
    return token


def test_create_only_never_replaces(store, usb):
    (usb / "to").mkdir()
    (usb / "to/file").write_bytes(b"old")
    token = part_of(store)
    with pytest.raises(AlreadyExists):
        store.publish(token, b"to/file", Meta(b""), replace=False)
    assert (usb / "to/file").read_bytes() == b"old"
    assert store.where(token) == Offset(3)
    assert store.publish(token, b"to/other", Meta(b""), replace=False)
    assert (usb / "to/other").read_bytes() == b"new"


def test_a_folder_is_never_replaced_or_deleted_as_a_file(store, usb):
    (usb / "to/file").mkdir(parents=True)
    with pytest.raises(ServerRefused, match="is a folder"):
        store.publish(part_of(store), b"to/file", Meta(b""), replace=True)
    with pytest.raises(ServerRefused, match="is a folder"):
        store.delete(b"to/file")
    with pytest.raises(ServerRefused, match="not a folder"):
        store.rmdir(b"to/file.part")
    with pytest.raises(AlreadyExists):
        store.mkdir(b"to/file.part")


def test_times_and_mode_are_kept(store, usb):
    store.publish(part_of(store), b"to/file", Meta(b"", mtime_s=10**9, mode=0o640), replace=True)
    status = (usb / "to/file").stat()
    assert (status.st_mtime, status.st_mode & 0o7777) == (10**9, 0o640)


def test_a_write_done_twice_leaves_the_same_bytes(store, usb):
    token = store.begin(b"file", 6, Meta(b"part"))
    store.write(token, Span(0, 3), [b"abc"])
    store.write(token, Span(3, 6), [b"def"])
    store.write(token, Span(0, 3), [b"abc"])
    assert b"".join(store.read_part(token, Span(1, 5))) == b"bcde"
    assert b"".join(store.read_part(token, Span(4, 99))) == b"ef"


def test_what_is_gone_is_told(store):
    assert store.where(Token(b"no/part")) == Gone()
    assert store.stat(b"no/file") is None
    store.abandon(Token(b"no/part"))
    for call in (
        lambda: store.write(Token(b"part"), Span(0, 1), [b"x"]),
        lambda: list(store.read(b"file", 0)),
        lambda: list(store.list(b"folder")),
        lambda: store.delete(b"file"),
        lambda: store.rmdir(b"folder"),
        lambda: store.move(b"one", b"deep/two"),
        lambda: store.publish(Token(b"part"), b"file", Meta(b""), replace=True),
    ):
        with pytest.raises(NotFound):
            call()
    assert store.stat(b"deep") is None  # no folder was made for what is not there


def test_after_abort_every_call_is_a_lost_link(store):
    token = part_of(store)
    reading = store.read_part(token, Span(0, 3))
    store.abort()
    for call in (store.check, lambda: next(reading), lambda: store.stat(b"to"), lambda: store.where(token)):
        with pytest.raises(LinkLost):
            call()


@pytest.mark.parametrize(
    ("number", "kind"),
    [
        (errno.ENOSPC, NoSpaceOnServer),
        (errno.EDQUOT, NoSpaceOnServer),
        (errno.EIO, LinkLost),
        (errno.ESTALE, LinkLost),
        (errno.EROFS, LinkLost),
        (errno.ENODEV, LinkLost),
        (errno.ENOENT, NotFound),
        (errno.EACCES, PermissionDenied),
        (errno.ENAMETOOLONG, NameRefused),
        (errno.EEXIST, AlreadyExists),
        (errno.EMFILE, ServerBusy),
        (errno.EFBIG, ServerRefused),
    ],
)
def test_an_error_of_the_system_is_told_as_what_it_means(number, kind):
    with pytest.raises(kind) as told, translated(b"file"):
        raise OSError(number, os.strerror(number))
    assert type(told.value) is kind
    assert isinstance(told.value.__cause__, OSError)


def test_names_that_are_no_text_arrive_as_they_are(client, usb, source):
    name = b"caf\xe9 \xff\n.txt"
    client.upload(source, os.fsdecode(name))
    assert (Path(os.fsdecode(os.fsencode(usb) + b"/" + name))).exists()
    assert client.list(".") == ["./" + os.fsdecode(name)]


@pytest.mark.parametrize(
    "options", [{"marker": "a/b"}, {"connections": 0}, {"nonsense": 1}, {"part_suffix": ""}, {"path": "relative"}]
)
def test_a_wrong_option_is_refused_by_name(tmp_path, options):
    path = options.pop("path", tmp_path)
    with pytest.raises(ConfigurationError, match=next(iter(options), "path")):
        FolderClient(path, **options)


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        (b"", AccessRefused),
        (b"/", AccessRefused),
        (b"./f", AccessRefused),
        (b"new", AccessRefused),
        (b"/new/open", AccessRefused),
        (b"open", PermissionDenied),
        (b"open/new", PermissionDenied),
        (b"n" * 300, PermissionDenied),
    ],
)
def test_a_folder_that_this_user_may_not_write_to_is_to_blame_only_for_what_is_made_right_in_it(
    usb: Path, monkeypatch: pytest.MonkeyPatch, path: bytes, kind: type[Exception]
) -> None:
    def refuse(*_: object) -> int:
        raise PermissionError(errno.EACCES, "Permission denied")

    (usb / "open").mkdir()
    monkeypatch.setattr("iot.folder.place.make_below", refuse)
    place = Place(str(usb))
    with pytest.raises(PermissionDenied), place.folder(path, make=True):
        pass  # root may write anywhere
    monkeypatch.setattr("iot.folder.place._may_write", lambda _: False)
    with pytest.raises(kind) as told, place.folder(path, make=True):
        pass
    assert type(told.value) is kind


@pytest.mark.parametrize(("whole", "kind"), [(True, AccessRefused), (False, LinkLost)])
def test_a_read_only_file_system_is_told_as_that_and_one_below_it_as_a_lost_disk(
    usb: Path, monkeypatch: pytest.MonkeyPatch, whole: bool, kind: type[Exception]
) -> None:
    monkeypatch.setattr("iot.folder.place._is_read_only", lambda _: whole)
    expected = pytest.raises(kind, match="mounted read-only" if whole else "Read-only file system")
    with expected as told, Place(str(usb)).folder(b""):
        raise OSError(errno.EROFS, "Read-only file system")
    assert type(told.value) is kind


@pytest.mark.parametrize(
    ("mounted", "seen", "told"),
    [
        (True, ["/"], "is not mounted"),
        (True, ["/mnt", "/mnt"], ""),
        (True, ["/mnt", "/"], "is not mounted"),
        (True, ["/mnt", "/mnt/other"], "/mnt is no longer mounted"),
        (False, ["/", "/"], ""),
        (False, ["/mnt", "/"], "/mnt is no longer mounted"),
    ],
)
def test_the_mount_where_the_folder_was_first_seen_is_the_only_right_one(
    usb: Path, monkeypatch: pytest.MonkeyPatch, mounted: bool, seen: list[str], told: str
) -> None:
    numbers, points = itertools.count(), iter(seen)
    monkeypatch.setattr("iot.folder.place.mount_number", lambda _: next(numbers))
    monkeypatch.setattr("iot.folder.place.mount_point", lambda *_: next(points))
    place = Place(str(usb), mounted=mounted)
    for _ in seen[1:]:
        place.check()
    for _ in range(2):  # a refusal is none that counts as seen
        points = iter(seen[-1:])
        if told:
            with pytest.raises(LinkLost, match=told):
                place.check()
        else:
            place.check()


def test_a_mount_is_looked_up_once_for_each_number_that_it_gets(usb: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    numbers = iter((7, 7, 8, 8))
    monkeypatch.setattr("iot.folder.place.mount_number", lambda _: next(numbers))
    monkeypatch.setattr("iot.folder.place.mount_point", lambda _, number: asked.append(number) or "/mnt")
    place = Place(str(usb))
    for _ in range(4):
        place.check()
    assert asked == [7, 8]


NOT_OPEN = """
import os, sys
from pathlib import Path
from iot.folder.place import Place
from iot.transfer.errors import AccessRefused, PermissionDenied

usb = Path(sys.argv[1])
place = Place(str(usb))
for folder in (usb, usb.parent):
    folder.chmod(0o755)
(usb / "open").mkdir(mode=0o777)
(usb / "open").chmod(0o777)
(usb / "open/closed").mkdir(mode=0o700)
os.setegid(65534)
os.seteuid(65534)

def told(path, kind, name=b"f"):
    try:
        with place.folder(path, make=True) as folder:
            os.close(os.open(name, os.O_WRONLY | os.O_CREAT, dir_fd=folder))
    except kind as error:
        assert type(error) is kind, error
        return str(error)
    raise AssertionError(path)

assert f"{usb} cannot be used: Permission denied for user 65534; give this user" in told(b"", AccessRefused)
told(b"new/below", AccessRefused)
told(b"open/closed", PermissionDenied)  # of this folder alone: others may be open
os.seteuid(0)
usb.chmod(0o700)
os.seteuid(65534)
told(b"open", AccessRefused)
"""


@pytest.mark.needs("root")
def test_a_folder_that_is_not_open_to_this_user_as_a_whole_is_told_from_one_path():
    """The files in it are not to blame, and would go to the quarantine one by one."""
    with tempfile.TemporaryDirectory(prefix="iot-sftp-not-open-") as folder:
        usb = Path(folder, "usb")
        usb.mkdir()
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        command = [sys.executable, "-c", NOT_OPEN, str(usb)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
