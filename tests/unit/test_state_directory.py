"""What lies in the state directory beside the journal: whole or not there, and nobody else's to read."""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path
from types import SimpleNamespace

import pytest

from iot.transfer.journal import state_directory
from iot.transfer.journal.state_directory import keep_private, lay_out_wal, move_aside, one_at_a_time, owner_of


def test_the_owner_is_on_the_disk_with_all_its_digits_before_it_has_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[str] = []
    real_fsync, real_replace = os.fsync, os.replace

    def fsync(file: int) -> None:
        steps.append(f"fsync {os.fstat(file).st_size}")
        real_fsync(file)

    def replace(old: Path, new: Path) -> None:
        steps.append(f"{old.name} -> {new.name}")
        real_replace(old, new)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "replace", replace)
    owner = owner_of(tmp_path / "owner")
    assert steps == ["fsync 17", "owner.new -> owner"]
    assert (tmp_path / "owner").read_text() == f"{owner}\n"
    assert owner_of(tmp_path / "owner") == owner
    assert re.fullmatch("[0-9a-f]{16}", owner)


@pytest.mark.parametrize("content", [b"", b"0123456789abcde\n", b"\xff" * 32])
def test_a_torn_owner_is_made_anew_and_a_longer_one_kept(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "owner").write_bytes(content)
    assert len(owner_of(tmp_path / "owner")) == 16
    (tmp_path / "owner").write_text("of another release, and longer\n")
    assert owner_of(tmp_path / "owner") == "of another release, and longer"


def test_a_file_is_made_private_or_becomes_so_and_keeps_its_content(tmp_path: Path) -> None:
    file = tmp_path / "file"
    keep_private(file)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    file.write_text("content")
    for mode in (0o640, 0o604, 0o601):
        file.chmod(mode)
        keep_private(file)
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
    file.chmod(0o400)  # what is private already is left as it is
    keep_private(file)
    assert stat.S_IMODE(file.stat().st_mode) == 0o400
    assert file.read_text() == "content"


def test_what_is_set_aside_has_a_dated_name_of_its_own_and_takes_its_wal_along(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(state_directory.time, "gmtime", lambda: (2026, 11, 28, 20, 0, 5, 5, 332, 0))
    for number in range(3):
        for ending in ("", "-wal", "-shm"):
            (tmp_path / f"journal.db{ending}").write_text(f"{number}{ending}")
        target = move_aside(tmp_path / "journal.db", "corrupt")
        tail = f"-{number}" if number else ""
        assert target.name == f"journal.corrupt-20261128T200005{tail}.db"
        for ending in ("", "-wal", "-shm"):
            assert Path(f"{target}{ending}").read_text() == f"{number}{ending}"
    assert not list(tmp_path.glob("journal.db*"))
    move_aside(tmp_path / "journal.db", "corrupt")  # gone already: nothing to do


def test_the_wal_is_laid_out_once_and_its_content_kept(tmp_path: Path, monkeypatch) -> None:
    laid = []
    monkeypatch.setattr(state_directory, "lay_out", lambda file, size: laid.append(size))
    wal = tmp_path / "journal.db-wal"
    monkeypatch.delattr(os, "pwrite")  # as on Windows
    lay_out_wal(tmp_path / "journal.db")  # none there: only a saving
    assert not wal.exists()
    wal.write_bytes(b"content")
    lay_out_wal(tmp_path / "journal.db")
    assert laid == [state_directory.LAID_OUT_BYTES]
    assert wal.read_bytes() == b"content".ljust(state_directory.ZEROED_BYTES, b"\0")
    wal.write_bytes(b"x" * state_directory.LAID_OUT_BYTES)
    lay_out_wal(tmp_path / "journal.db")
    assert len(laid) == 1


def test_one_process_at_a_time_where_there_is_a_folder(tmp_path: Path, monkeypatch) -> None:
    done = []
    monkeypatch.setattr(state_directory.fcntl, "flock", lambda folder, how: done.append((os.fstat(folder).st_ino, how)))
    with one_at_a_time(tmp_path):
        assert done == [(tmp_path.stat().st_ino, state_directory.fcntl.LOCK_EX)]
    with one_at_a_time(None):
        assert len(done) == 1


@pytest.mark.parametrize(("user", "free_bytes", "room"), [(0, 131072, True), (0, 131071, False), (1, 131072, False)])
def test_an_index_needs_twice_its_size_and_what_root_alone_may_use_is_roots(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, user: int, free_bytes: int, room: bool
) -> None:
    disk = SimpleNamespace(f_bfree=free_bytes, f_bavail=free_bytes - 1, f_frsize=1)
    monkeypatch.setattr(os, "statvfs", lambda _: disk)
    monkeypatch.setattr(os, "geteuid", lambda: user)
    assert state_directory.has_room_for_index(tmp_path) is room


def test_only_linux_kills_a_process_for_an_index_without_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "statvfs", lambda _: SimpleNamespace(f_bfree=0, f_bavail=0, f_frsize=1))
    assert not state_directory.has_room_for_index(tmp_path)
    monkeypatch.setattr(state_directory.sys, "platform", "darwin")
    assert state_directory.has_room_for_index(tmp_path)


def test_a_folder_that_cannot_be_locked_is_used_without(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object) -> None:
        raise OSError(95, "Operation not supported")

    done = []
    with monkeypatch.context() as patched:
        patched.setattr(state_directory.fcntl, "flock", refused)
        with one_at_a_time(tmp_path):
            done.append("no locks")
    monkeypatch.setattr(state_directory, "fcntl", None)
    with one_at_a_time(tmp_path / "not even looked at"):
        done.append("no fcntl")
    assert done == ["no locks", "no fcntl"]


def test_the_index_is_laid_out_through_the_descriptor_that_sqlite_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Closing another one of the same file would drop SQLite's locks."""
    laid: list[tuple[str, int]] = []
    monkeypatch.setattr(
        state_directory, "lay_out", lambda file, size: laid.append((os.readlink(f"/proc/self/fd/{file}"), size))
    )
    state_directory.lay_out_index(tmp_path / "journal.db")  # none there
    (tmp_path / "journal.db-shm").touch()
    state_directory.lay_out_index(tmp_path / "journal.db")  # nobody has it open
    assert laid == []
    with (tmp_path / "journal.db-shm").open() as index, (tmp_path / "other").open("w"):
        state_directory.lay_out_index(tmp_path / "journal.db")
        assert laid == [(index.name, state_directory.INDEX_BYTES)]
        os.fstat(index.fileno())  # it is open still


def test_a_file_of_somebody_else_stays_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    file = tmp_path / "file"
    file.touch()
    file.chmod(0o644)
    with monkeypatch.context() as patched:
        patched.setattr(os, "fchmod", refused)
        keep_private(file)
        patched.delattr(os, "fchmod")
        keep_private(file)
    assert stat.S_IMODE(file.stat().st_mode) == 0o644
