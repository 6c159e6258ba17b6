"""When two folders are the same, lie within each other, or show something of each other, by what is known of them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from iot.spooler.config import whereabouts as module
from iot.spooler.config.whereabouts import Key, Mount, Region, Whereabouts, mounted_now, whereabouts

DISK, OTHER = b"8:1", b"8:2"
A: Key = (1, 10, ())
B: Key = (1, 20, ())
ROOT: Key = (1, 2, ())


def place(key: Key, *above: Key, regions: tuple[Region, ...] = ()) -> Whereabouts:
    return Whereabouts(key, frozenset(above), regions)


def region(path: str, device: bytes = DISK) -> Region:
    return device, tuple(name.encode() for name in path.split("/") if name)


SHOWS_OTHER = (region("x"), region("a/b", OTHER))


@pytest.mark.parametrize(
    ("one", "other", "same", "overlap", "within"),
    [
        (place(A), place(A), True, True, True),
        (place(A), place(B), False, False, False),
        (place(B, A, ROOT), place(A, ROOT), False, True, True),
        (place(A, ROOT), place(B, A, ROOT), False, True, False),
        (place(A), place(B, regions=(region("a"),)), False, False, False),
        (place(A, regions=(region("a"),)), place(B, regions=(region("a"),)), True, True, True),
        (place(A, regions=(region("a/b"),)), place(B, regions=(region("a"),)), False, True, True),
        (place(A, regions=(region("a"),)), place(B, regions=(region("a/b"),)), False, True, False),
        (place(A, regions=(region("a"),)), place(B, regions=(region("ab"),)), False, False, False),
        (place(A, regions=(region("a"),)), place(B, regions=(region("a", OTHER),)), False, False, False),
        (place(A, regions=SHOWS_OTHER), place(B, regions=(region("a", OTHER),)), False, True, False),
        (place(A, regions=(region("a", OTHER),)), place(B, regions=SHOWS_OTHER), False, True, False),
    ],
)  # fmt: skip
def test_folders_are_compared_by_themselves_by_what_is_above_and_by_what_can_be_reached(
    one: Whereabouts, other: Whereabouts, same: bool, overlap: bool, within: bool
) -> None:
    assert (one.is_same(other), one.overlaps(other), one.is_within(other)) == (same, overlap, within)
    assert (other.is_same(one), other.overlaps(one)) == (same, overlap)


def test_the_mounts_of_this_process_are_read_as_the_kernel_writes_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mountinfo").write_bytes(
        b"36 35 98:0 /mnt1 /mnt/with\\040space rw,noatime master:1 - ext3 /dev/root rw,errors=continue\n"
        b"37 35 0:4 net:[4026531840] /run/netns/x rw shared:1 - nsfs nsfs rw\n"
        b"38 36 8:1 / / rw - ext4 /dev/sda1 rw\n"
    )
    monkeypatch.setattr(module, "MOUNTINFO", tmp_path / "mountinfo")
    assert mounted_now() == {
        36: Mount(b"98:0", (b"mnt1",), (b"mnt", b"with space")),
        38: Mount(b"8:1", (), ()),
    }


@pytest.fixture
def below(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that is a mount point, as far as the list of mounts says."""
    (tmp_path / "mnt" / "sub").mkdir(parents=True)
    return tmp_path / "mnt"


def names(path: Path) -> tuple[bytes, ...]:
    return tuple(map(os.fsencode, path.parts[1:]))


def number_of(path: Path) -> int:
    """The mount that the kernel has this folder in."""
    folder = os.open(path, os.O_PATH)
    try:
        told = Path(f"/proc/self/fdinfo/{folder}").read_text()
    finally:
        os.close(folder)
    return int(next(line for line in told.splitlines() if line.startswith("mnt_id:")).split()[1])


def test_a_region_is_the_part_of_the_file_system_that_is_seen_at_the_folder(below: Path) -> None:
    mounts = {number_of(below): Mount(DISK, (b"root",), names(below))}
    assert whereabouts(below, mounts).regions == ((DISK, (b"root",)),)
    assert whereabouts(below / "sub", mounts).regions == ((DISK, (b"root", b"sub")),)
    assert whereabouts(below / "sub" / "new" / "one", mounts).regions == ((DISK, (b"root", b"sub", b"new", b"one")),)


def test_what_is_mounted_below_a_folder_can_be_reached_through_it(below: Path) -> None:
    number = number_of(below)
    inner = Mount(OTHER, (b"x",), (*names(below), b"sub", b"deep"))
    beside = Mount(OTHER, (b"y",), (*names(below.parent), b"mntx"))
    itself = Mount(OTHER, (b"z",), names(below))
    mounts = {number: Mount(DISK, (), names(below)), 10**6: inner, 10**6 + 1: beside, 10**6 + 2: itself}
    own = (DISK, ())
    assert whereabouts(below, mounts).regions == (own, (OTHER, (b"x",)))
    assert whereabouts(below / "sub", mounts).regions == ((DISK, (b"sub",)), (OTHER, (b"x",)))
    assert whereabouts(below / "new", mounts).regions == ((DISK, (b"new",)),)  # nothing is mounted below what is not


def test_a_mount_that_is_not_listed_or_lies_elsewhere_tells_nothing(below: Path) -> None:
    assert whereabouts(below, {10**6: Mount(DISK, (), names(below))}).regions == ()
    assert whereabouts(below, {number_of(below): Mount(DISK, (), (b"elsewhere",))}).regions == ()


def test_a_folder_that_is_missing_is_its_nearest_parent_and_the_names_below(tmp_path: Path) -> None:
    status = os.stat(tmp_path)
    found = whereabouts(tmp_path / "a" / "b", {})
    assert found.key == (status.st_dev, status.st_ino, ("a", "b"))
    assert (status.st_dev, status.st_ino, ("a",)) in found.above
    assert (status.st_dev, status.st_ino, ()) in found.above


def test_both_the_folders_above_a_link_and_above_what_it_leads_to_are_above(tmp_path: Path) -> None:
    for name in ("one/real", "two"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "two" / "link").symlink_to(tmp_path / "one" / "real")
    above = whereabouts(tmp_path / "two" / "link", {}).above
    for name in ("one", "two"):
        status = os.stat(tmp_path / name)
        assert (status.st_dev, status.st_ino, ()) in above
