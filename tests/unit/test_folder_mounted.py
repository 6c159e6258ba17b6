"""A folder as a remote: what is not mounted is not empty."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from conditions import missing

from iot.folder import FolderClient
from iot.folder.place import is_mounted
from iot.transfer.errors import LinkLost


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


def test_a_folder_that_is_not_there_is_a_lost_link(tmp_path, source):
    with FolderClient(tmp_path / "gone", state_dir=tmp_path / "state", attempts=1) as client:
        with pytest.raises(LinkLost, match="is not available"):
            client.upload(source, "file")
        with pytest.raises(LinkLost):
            client.list_files("/")
        assert not client.is_connected()
    assert not (tmp_path / "gone").exists()


def test_whether_a_missing_folder_is_mounted_is_a_lost_link_too(tmp_path):
    with pytest.raises(LinkLost, match="No such file"):
        is_mounted(str(tmp_path / "gone"))


def test_a_missing_marker_is_a_lost_link(tmp_path, usb, source):
    with FolderClient(usb, state_dir=tmp_path / "state", marker=".this-disk", attempts=1) as client:
        with pytest.raises(LinkLost, match=r"\.this-disk"):
            client.upload(source, "file")
        assert os.listdir(usb) == []
        (usb / ".this-disk").touch()
        assert client.upload(source, "file").durable


def test_a_folder_that_must_be_mounted_is_not_written_to_before(tmp_path, usb, source):
    if _on_a_mount(usb):
        missing("the temporary folder is on a mount of its own")
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
        missing("the temporary folder is on a mount of its own")
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
