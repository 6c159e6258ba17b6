"""A folder as a remote: no path leads out of it, what is not mounted is not empty, and errors say what is wrong."""

from __future__ import annotations

import errno
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


# -- what should be there


def test_a_folder_that_is_not_there_is_a_lost_link(tmp_path, source):
    with FolderClient(tmp_path / "gone", state_dir=tmp_path / "state", attempts=1) as client:
        with pytest.raises(LinkLost, match="is not available"):
            client.upload(source, "file")
        with pytest.raises(LinkLost):
            client.list_files("/")
        assert not client.is_connected()
    assert not (tmp_path / "gone").exists()


def test_a_missing_marker_is_a_lost_link(tmp_path, usb, source):
    with FolderClient(usb, state_dir=tmp_path / "state", marker=".this-disk", attempts=1) as client:
        with pytest.raises(LinkLost, match=r"\.this-disk"):
            client.upload(source, "file")
        assert os.listdir(usb) == []
        (usb / ".this-disk").touch()
        assert client.upload(source, "file").durable


def test_a_folder_that_must_be_mounted_is_not_written_to_before(tmp_path, usb, source):
    if _on_a_mount(usb):
        pytest.skip("the temporary folder is on a mount of its own")
    with (
        FolderClient(usb, state_dir=tmp_path / "state", mounted=True, attempts=1) as client,
        pytest.raises(LinkLost, match="not mounted"),
    ):
        client.upload(source, "file")
    assert os.listdir(usb) == []


def _on_a_mount(path: Path) -> bool:
    return any(os.path.ismount(folder) for folder in (path, *path.parents) if folder != Path("/"))


MOUNTED = """
import os, subprocess, sys
from pathlib import Path
from iot.folder import FolderClient
from iot.transfer.errors import LinkLost, NoSpaceOnServer

top = Path(sys.argv[1])
usb, source = top / "usb", top / "source"

def mount(size="64m"):
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "none", str(usb)], check=True)

def umount():
    subprocess.run(["umount", str(usb)], check=True)

def expect(error, dest):
    try:
        client.upload(source, dest)
    except error as told:
        return str(told)
    raise AssertionError(dest)

mount()
client = FolderClient(usb, state_dir=top / "state", mounted=sys.argv[2] == "mounted", attempts=1)
client.upload(source, "deep/one")
assert client.is_connected()
umount()  # nothing holds it while nothing is sent
assert " mounted" in expect(LinkLost, "deep/two")
assert not client.is_connected()
assert os.listdir(usb) == [], "written to the disk below"
mount()
client.upload(source, "deep/two")
assert (usb / "deep/two").read_bytes() == source.read_bytes()
umount()
mount("40k")
expect(NoSpaceOnServer, "deep/three")
assert [path for path in usb.rglob("*") if path.is_file()] == [], "a full disk keeps no part"
(top / "small").write_bytes(b"small")
client.upload(top / "small", "deep/small")
client.close()
umount()
"""


@pytest.mark.needs("mounts")
@pytest.mark.parametrize("mounted", ["mounted", "plain"])
def test_a_disk_that_is_unmounted_is_a_lost_link_and_no_empty_folder(tmp_path, usb, source, mounted):
    command = ["unshare", "--mount", "--propagation", "private", sys.executable, "-c", MOUNTED, str(tmp_path), mounted]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr


BOUND = """
import subprocess, sys
from pathlib import Path
from iot.folder.place import Place, is_mounted
from iot.transfer.errors import LinkLost

top = Path(sys.argv[1])
disk, usb = top / "disk x", top / "usb"
disk.mkdir()

def run(*words):
    subprocess.run([*map(str, words)], check=True)

def is_there():
    try:
        Place(str(usb / "deep"), mounted=True).check()
    except LinkLost as error:
        assert "is not mounted" in str(error), error
        return False
    return True

(disk / "deep").mkdir()
(usb / "deep").mkdir()
assert not is_there()
run("mount", "--bind", disk, usb)  # of the same file system
assert is_there() and is_mounted(str(usb))
run("umount", usb)
run("mount", "--bind", usb, usb)  # as for ReadWritePaths= of a unit: nothing is mounted there
assert not is_there() and not is_mounted(str(usb))
run("mount", "--bind", disk, usb)
place = Place(str(usb / "deep"), mounted=True)
place.check()
run("umount", usb)
try:
    place.check()
except LinkLost:
    pass
else:
    raise AssertionError("unmounted")
"""


@pytest.mark.needs("mounts")
def test_a_bind_mount_of_the_same_file_system_is_a_mount_and_a_folder_onto_itself_is_none(tmp_path, usb):
    if _on_a_mount(usb):
        pytest.skip("the temporary folder is on a mount of its own")
    command = ["unshare", "--mount", "--propagation", "private", sys.executable, "-c", BOUND, str(tmp_path)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr


VFAT = """
import os, subprocess, sys
from pathlib import Path
from iot.folder import FolderClient
from iot.folder.place import Place
from iot.folder.store import FolderStore
from iot.transfer.errors import AlreadyExists
from iot.transfer.model import Span
from iot.transfer.remote import Meta

top = Path(sys.argv[1])
usb, source = top / "usb", top / "source"
subprocess.run(f"truncate -s 8M {top}/image && mkfs.vfat {top}/image >/dev/null && mount -o loop {top}/image {usb}",
               shell=True, check=True)
client = FolderClient(usb, state_dir=top / "state", mounted=True, keep_mode=True, keep_times=True)
for _ in range(2):
    client.upload(source, "deep/one")
    assert (usb / "deep/one").read_bytes() == source.read_bytes()
store = FolderStore(Place(str(usb)))
token = store.begin(b"deep/one", 1, Meta(b"deep/one.part"))
store.write(token, Span(0, 1), [b"x"])
try:
    store.publish(token, b"deep/one", Meta(b""), replace=False)
except AlreadyExists:
    pass
else:
    raise AssertionError("replaced")
assert (usb / "deep/one").read_bytes() == source.read_bytes()
client.close()
subprocess.run(["umount", str(usb)], check=True)
"""


@pytest.mark.needs("vfat")
def test_a_usb_disk_without_links_and_modes_is_a_remote_too(tmp_path, usb, source):
    command = ["unshare", "--mount", "--propagation", "private", sys.executable, "-c", VFAT, str(tmp_path)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    environment["PATH"] = f"{environment.get('PATH', '')}:/usr/sbin:/sbin"
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr


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
