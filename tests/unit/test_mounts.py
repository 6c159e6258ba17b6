"""What the kernel says of a folder's file system, and what may be believed there."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

import pytest

from iot.spooler.outbox import mounts
from iot.spooler.outbox.mounts import FAT, FAT_TIMES_S, KNOWN, ORDINARY, file_system
from iot.transfer import Fingerprint

NETWORK = {"fuse", "nfs", "smb", "cifs", "smb3", "9p", "ceph", "afs", "coda", "ocfs2", "gfs2", "vboxsf"}


def test_where_other_machines_may_write_this_kernel_is_never_believed_to_know_all_writers() -> None:
    shared = {kind.name for kind in KNOWN.values() if kind.shared}
    assert shared == NETWORK
    assert not any(kind.shared for kind in KNOWN.values() if kind.name not in NETWORK)


def test_only_of_fat_and_fuse_inodes_do_not_last_and_only_of_fat_the_times() -> None:
    assert {kind.name for kind in KNOWN.values() if not kind.inodes} == {"vfat", "exfat", "fuse"}
    assert {kind.name for kind in KNOWN.values() if not kind.times} == {"vfat", "exfat"}


def test_what_cannot_be_told_is_ordinary(tmp_path: Path) -> None:
    folder = os.open(tmp_path, os.O_RDONLY)
    assert file_system(folder) in (*KNOWN.values(), ORDINARY)
    os.close(folder)
    assert file_system(folder) is ORDINARY


def saying(monkeypatch: pytest.MonkeyPatch, number: int, answer: int = 0) -> None:
    """fstatfs(2) says that it is this kind; its first field may be 32 bits wide, and is signed."""

    def fstatfs(_: int, buffer: ctypes.Array[ctypes.c_char]) -> int:
        ctypes.c_long.from_buffer(buffer).value = ctypes.c_int32(number).value
        return answer

    monkeypatch.setattr(mounts, "_fstatfs", lambda: fstatfs)


@pytest.mark.parametrize("number", [*KNOWN, 0xEF53])
def test_each_kind_is_known_by_its_number(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    saying(monkeypatch, number)
    assert file_system(0) is KNOWN.get(number, ORDINARY)


@pytest.mark.parametrize("answer", [-1, 1])
def test_what_the_kernel_refuses_to_say_is_not_read(monkeypatch: pytest.MonkeyPatch, answer: int) -> None:
    saying(monkeypatch, 0x6969, answer)
    assert file_system(0) is ORDINARY


@pytest.mark.parametrize("error", [OSError("no library"), AttributeError("no such call")])
def test_where_there_is_no_such_call_all_is_ordinary(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def missing(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(ctypes, "CDLL", missing)
    monkeypatch.setattr(mounts, "_fstatfs", mounts._fstatfs.__wrapped__)
    assert file_system(0) is ORDINARY


SECOND_NS = 10**9
FIRST_S, END_S = FAT_TIMES_S


@pytest.mark.parametrize(
    ("system", "mtime_ns", "size", "may_be"),
    [
        (FAT, FIRST_S * SECOND_NS - 1, 5, True),
        (FAT, FIRST_S * SECOND_NS, 5, False),
        (FAT, END_S * SECOND_NS - 1, 5, False),
        (FAT, END_S * SECOND_NS, 5, True),
        (FAT, 0, 6, False),
        (ORDINARY, 0, 5, False),
    ],
)
def test_only_a_time_that_fat_cannot_hold_may_have_changed_by_a_remount(system, mtime_ns, size, may_be) -> None:
    known, found = Fingerprint(size, mtime_ns, 3, 4), Fingerprint(5, 7 * SECOND_NS, 8, 9)
    assert system.redated(found, known) is may_be
    assert system.may_be_same(found, known) is may_be
    assert system.may_be_same(known._replace(ctime_ns=1, inode=2), known)


def test_what_is_kept_of_a_removed_file_has_a_name_of_its_file_system() -> None:
    names = [b".fuse_hidden" + b"0" * 16, b".nfs" + b"0" * 24, b".__smbfile_silly1", b".nfs1", b"a"]
    found = {kind.name: [name for name in names if kind.is_removed(name)] for kind in (*KNOWN.values(), ORDINARY)}
    kept = {"fuse": names[:1], "nfs": names[1:2], "smb": names[2:3], "cifs": names[2:3], "smb3": names[2:3]}
    assert {name: which for name, which in found.items() if which} == kept
    assert {kind.name for kind in KNOWN.values() if kind.stacked} == {"overlay", "ecryptfs"}
