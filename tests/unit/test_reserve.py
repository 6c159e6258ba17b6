"""The journal's reserve: there while there is room, given up once, made again, and whether a disk is full."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest

from iot.transfer.journal import reserve as module
from iot.transfer.journal.reserve import AGAIN_S, FULL_BELOW_BYTES, RESERVE_BYTES, RESERVE_NAME, Reserve, is_full


class Rig:
    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now, self.free = 1000.0, 10 * RESERVE_BYTES
        monkeypatch.setattr(module.time, "monotonic", lambda: self.now)
        monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=self.free))
        self.reserve, self.path = Reserve(folder), folder / RESERVE_NAME

    def tended(self) -> bool:
        self.reserve.tend()
        return self.path.exists()


@pytest.fixture
def rig(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Rig:
    return Rig(tmp_path, monkeypatch)


@pytest.mark.parametrize("laid_out", [True, False])
def test_it_takes_its_space_also_where_that_cannot_be_taken_ahead(rig, monkeypatch, laid_out):
    if not laid_out:
        monkeypatch.setattr(module, "lay_out", lambda *_: False)
    rig.reserve.keep()
    assert rig.path.stat().st_size == RESERVE_BYTES
    before = rig.path.stat()
    rig.reserve.keep()
    assert rig.path.stat().st_mtime_ns == before.st_mtime_ns  # it is not made twice
    rig.path.write_bytes(b"half")
    rig.reserve.keep()
    assert rig.path.stat().st_size == RESERVE_BYTES


def test_where_there_is_no_room_none_is_left_half_and_it_is_tried_again(rig, monkeypatch, caplog):
    def full(path: Path) -> None:
        path.write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patches:
        patches.setattr(module, "_fill", full)
        rig.reserve.keep()
    assert not rig.path.exists()
    assert "no space for the journal's reserve" in caplog.text
    rig.now += AGAIN_S - 1
    assert not rig.tended()
    rig.now += 1
    assert rig.tended()


def test_it_is_given_up_once_and_made_again_when_twice_as_much_is_free(rig, caplog):
    assert not rig.reserve.give_up()
    rig.reserve.keep()
    assert rig.reserve.give_up()
    assert not rig.path.exists()
    assert not rig.reserve.give_up()
    assert "disk full: journal's reserve deleted" in caplog.text
    rig.now += AGAIN_S - 1
    assert not rig.tended()
    rig.now, rig.free = rig.now + 1, 2 * RESERVE_BYTES
    assert not rig.tended()
    rig.free += 1
    assert not rig.tended()  # it was looked at just now
    rig.now += AGAIN_S
    assert rig.tended()
    rig.path.unlink()
    rig.now += 10 * AGAIN_S
    assert not rig.tended()  # nobody has given it up


def test_without_a_folder_there_is_none():
    reserve = Reserve(None)
    reserve.keep()
    reserve.tend()
    assert not reserve.give_up()


# -- whether a disk is full


@pytest.mark.parametrize(
    ("error", "free", "limited", "full"),
    [
        (Exception("database or disk is full"), 10**9, False, True),
        (OSError(errno.ENOSPC, "x"), 10**9, False, True),
        (OSError(errno.EDQUOT, "x"), 10**9, False, True),
        (OSError(errno.EIO, "x"), 0, False, False),
        (Exception("disk I/O error"), FULL_BELOW_BYTES - 1, False, True),
        (Exception("disk I/O error"), FULL_BELOW_BYTES, False, False),
        (Exception("unable to open database file"), 0, False, True),
        (Exception("disk I/O error"), 10**9, True, True),
        (Exception("database is locked"), 0, True, False),
    ],
)
def test_an_error_means_a_full_disk_by_its_words_or_by_what_is_free(
    rig, monkeypatch, tmp_path, error, free, limited, full
):
    rig.free = free
    monkeypatch.setattr(module, "_is_limited", lambda _: limited)
    assert is_full(error, tmp_path) is full
    if "full" not in str(error) and not isinstance(error, OSError):
        assert not is_full(error, None)


def test_a_disk_that_cannot_answer_is_not_just_full(monkeypatch, tmp_path):
    def broken(_: object) -> None:
        raise OSError(errno.EIO, "broken")

    monkeypatch.setattr(shutil, "disk_usage", broken)
    assert not is_full(Exception("disk I/O error"), tmp_path)


@pytest.mark.parametrize(
    ("call", "answer", "limited"),
    [
        (None, None, False),
        ("pwrite", 10, True),
        ("pwrite", OSError(errno.ENOSPC, "x"), True),
        ("fsync", OSError(errno.EDQUOT, "x"), True),
        ("fsync", OSError(errno.EIO, "x"), False),
        ("open", OSError(errno.ENOSPC, "x"), True),
    ],
)
def test_a_quota_is_found_by_trying_and_the_trial_goes_again(monkeypatch, tmp_path, call, answer, limited):
    def answered(*_: object, **__: object) -> object:
        if isinstance(answer, BaseException):
            raise answer
        return answer

    with monkeypatch.context() as patches:
        if call is not None:
            patches.setattr(os, call, answered)
        assert module._is_limited(tmp_path) is limited
    assert os.listdir(tmp_path) == []


class Library:
    def __init__(self, *_: object, **__: object) -> None: ...


def no_library(*_: object, **__: object) -> Library:
    raise TypeError("LoadLibrary() argument 1 must be str, not None")


@pytest.mark.parametrize("loaded", [Library, no_library], ids=["macOS", "Windows"])
def test_a_system_without_the_call_lays_nothing_out(monkeypatch, tmp_path, loaded):
    monkeypatch.setattr(module.ctypes, "CDLL", loaded)
    with (tmp_path / "f").open("wb") as file:
        assert module.lay_out(file.fileno(), 10) is False
    monkeypatch.undo()
    with (tmp_path / "f").open("wb") as file:
        assert module.lay_out(file.fileno(), 10) is (os.stat(tmp_path / "f").st_size == 10)
