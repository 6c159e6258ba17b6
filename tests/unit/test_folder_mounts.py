"""On which mount a folder lies, as the kernel's list of mounts tells."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from iot.folder import mounts as module
from iot.folder.mounts import mount_number, mount_point


@pytest.fixture
def mounts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The list, as in proc(5): number, number of the mount above, device, what of it is shown, and where."""
    file = tmp_path / "mountinfo"
    file.write_text(
        "1 1 8:1 / / rw - ext4 /dev/sda1 rw\n"
        "2 1 8:2 / /mnt/usb\\040disk rw - vfat /dev/sdb1 rw\n"
        "3 1 8:1 /srv/data /srv/data rw - ext4 /dev/sda1 rw\n"
        "4 1 8:1 /srv/data /mnt/data rw - ext4 /dev/sda1 rw\n"
        "5 2 8:2 /deep /mnt/usb\\040disk/deep rw - vfat /dev/sdb1 rw\n"
        "6 2 8:3 /deep /mnt/usb\\040disk/deep rw - vfat /dev/sdc1 rw\n"
        "8 2 8:0 /deep /mnt/usb\\040disk/deep rw - vfat /dev/sda rw\n"
        "9 1 8:1 /aaa /srv/zzz rw - ext4 /dev/sda1 rw\n"
        "7 99 8:4 / /above/is/unknown rw - ext4 /dev/sdd1 rw\n"
    )
    monkeypatch.setattr(module, "MOUNTS", str(file))
    return file


@pytest.mark.parametrize(
    ("number", "point"),
    [
        (1, "/"),
        (2, "/mnt/usb disk"),
        (3, "/"),  # a folder that is mounted onto itself
        (4, "/mnt/data"),  # the same folder in another place
        (5, "/mnt/usb disk"),
        (6, "/mnt/usb disk/deep"),  # of another disk
        (7, "/above/is/unknown"),
        (8, "/mnt/usb disk/deep"),
        (9, "/srv/zzz"),
    ],
)
def test_a_folder_is_where_its_mount_shows_it_unless_it_is_mounted_onto_itself(
    mounts: Path, number: int, point: str
) -> None:
    assert mount_point("/wherever", number) == point


@pytest.mark.parametrize("number", [None, 55])
def test_without_a_number_that_is_listed_the_device_decides(
    mounts: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, number: int | None
) -> None:
    (tmp_path / "a/b").mkdir(parents=True)
    (tmp_path / "link").symlink_to("a/b")
    monkeypatch.setattr(os.path, "ismount", lambda path: path == str(tmp_path.resolve()))
    assert mount_point(str(tmp_path / "link"), number) == str(tmp_path.resolve())


def test_where_the_list_cannot_be_read_the_device_decides(mounts: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mounts.unlink()
    monkeypatch.setattr(os.path, "ismount", lambda path: path == "/")
    assert mount_point("/no/such/folder", 2) == "/"


def test_the_number_of_a_mount_is_known_of_an_open_folder_only(tmp_path: Path) -> None:
    folder = os.open(tmp_path, os.O_RDONLY)
    try:
        number = mount_number(folder)
        listed = {int(line.split()[0]) for line in Path("/proc/self/mountinfo").read_text().splitlines()}
        assert number in listed
    finally:
        os.close(folder)
    assert mount_number(folder) is None


def test_a_kernel_that_tells_no_number_has_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told = tmp_path / "fdinfo"
    monkeypatch.setattr("builtins.open", lambda *_, **__: told.open.__func__(told, encoding="utf-8"))
    told.write_text("pos:\t0\nflags:\t02\n")
    assert mount_number(3) is None
    told.write_text("pos:\t0\nmnt_id:\t27\n")
    assert mount_number(3) == 27
