"""The base folder of a remote: the right one or none, nothing of it stays open, and an error names what it is about."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from iot.folder import place as module
from iot.folder.place import Place, is_mounted, parts_of, translated
from iot.transfer.errors import (
    AccessRefused,
    AlreadyExists,
    LinkLost,
    NameRefused,
    NoSpaceOnServer,
    NotFound,
    PermissionDenied,
    ServerRefused,
    TransferError,
)


@pytest.fixture
def usb(tmp_path: Path) -> Path:
    folder = tmp_path / "usb"
    (folder / "a/b").mkdir(parents=True)
    return folder


def open_files() -> set[str]:
    return set(os.listdir("/proc/self/fd"))


@pytest.mark.parametrize(
    ("path", "parts"),
    [
        (b"", (b"", b"")),
        (b"/", (b"", b"")),
        (b".", (b"", b"")),
        (b"a", (b"", b"a")),
        (b"/a//./b/", (b"a", b"b")),
        (b"a/b/c", (b"a/b", b"c")),
        (b"..a/b..", (b"..a", b"b..")),
    ],
)
def test_a_path_is_a_folder_and_a_name_however_it_is_written(path: bytes, parts: tuple[bytes, bytes]) -> None:
    assert parts_of(path) == parts


def test_a_folder_is_opened_where_it_is_and_made_only_where_that_is_asked_for(usb: Path) -> None:
    place = Place(str(usb))
    with place.folder(b"a") as here:
        assert os.listdir(here) == ["b"]
    with place.parent(b"a/b") as here:
        assert os.listdir(here) == ["b"]
    for refused in (place.folder(b"new"), place.parent(b"new/file")):
        with pytest.raises(NotFound), refused:
            pass
    assert not (usb / "new").exists()
    with place.parent(b"new/er/file", make=True) as here:
        assert os.listdir(here) == []
    assert (usb / "new/er").is_dir()


def test_an_error_is_about_the_path_that_was_asked_for(usb: Path) -> None:
    with (
        pytest.raises(NotFound, match=r"^'gone/file': No such file or directory$"),
        Place(str(usb)).parent(b"gone/file"),
    ):
        pass
    with pytest.raises(NotFound, match=r"^'gone': No such"), Place(str(usb)).folder(b"gone"):
        pass
    with pytest.raises(ServerRefused, match=r"^'x': strange$"), translated(b"x"):
        raise OSError("strange")
    with translated(b"x"):
        pass


@pytest.mark.parametrize("fails", [None, "block", "path", "marker", "mount"])
def test_nothing_stays_open_whatever_happens(usb: Path, monkeypatch: pytest.MonkeyPatch, fails: str | None) -> None:
    def broken(*_: object) -> str:
        raise LinkLost("not mounted")

    if fails == "mount":
        monkeypatch.setattr(module, "_mount_point", broken)
    place = Place(str(usb), marker=".gone" if fails == "marker" else "")
    before = open_files()
    try:
        with place.folder(b"missing" if fails == "path" else b"a"):
            if fails == "block":
                raise OSError(errno.EIO, "broken")
    except TransferError:
        assert fails is not None
    if fails in ("marker", "mount"):
        with pytest.raises(LinkLost):
            place.check()
    else:
        place.check()
    assert open_files() == before


@pytest.mark.parametrize(
    ("number", "kind", "told"),
    [
        (errno.ENOENT, LinkLost, "is not available: told"),
        (errno.EIO, LinkLost, "is not available: told"),
        (errno.EACCES, AccessRefused, r"cannot be used: told for user \d+; give this user the folder"),
        (errno.EPERM, AccessRefused, "cannot be used: told"),
        (errno.ELOOP, PermissionDenied, ": told"),
    ],
)
def test_a_base_folder_that_does_not_open_is_told_with_who_has_to_do_something(
    usb: Path, monkeypatch: pytest.MonkeyPatch, number: int, kind: type[Exception], told: str
) -> None:
    def refuse(*_: object) -> int:
        raise OSError(number, "told")

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(kind, match=f"^{usb} ?{told}") as caught:
        Place(str(usb)).check()
    assert type(caught.value) is kind


def test_a_system_without_user_numbers_names_none(usb: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "geteuid")
    assert "denied; give this user" in Place(str(usb))._not_open(OSError(errno.EACCES, "denied"))


def test_a_marker_is_a_name_in_the_folder_be_it_a_link_that_leads_nowhere(usb: Path) -> None:
    place = Place(str(usb), marker=".disk")
    with pytest.raises(LinkLost, match=rf"^{usb} has no \.disk: this is not the expected disk$"):
        place.check()
    (usb / ".disk").symlink_to("nowhere")
    place.check()
    (usb / ".disk").unlink()
    with pytest.raises(LinkLost):
        place.check()


@pytest.mark.parametrize(
    ("number", "read_only", "may_write", "kind"),
    [
        (errno.EROFS, True, True, AccessRefused),
        (errno.EROFS, False, True, LinkLost),
        (errno.EROFS, False, False, LinkLost),
        (errno.ENOSPC, True, True, NoSpaceOnServer),
        (errno.EDQUOT, True, True, NoSpaceOnServer),
        (errno.EACCES, True, True, PermissionDenied),
        (errno.EACCES, True, False, AccessRefused),
        (errno.ENOENT, True, False, NotFound),
        (errno.EEXIST, True, False, AlreadyExists),
    ],
)
def test_an_error_is_that_of_the_whole_folder_only_where_the_folder_is_to_blame(
    usb: Path, monkeypatch: pytest.MonkeyPatch, number: int, read_only: bool, may_write: bool, kind: type[Exception]
) -> None:
    monkeypatch.setattr(module, "_is_read_only", lambda _: read_only)
    monkeypatch.setattr(module, "_may_write", lambda _: may_write)
    with pytest.raises(kind) as caught, Place(str(usb)).folder(b""):
        raise OSError(number, os.strerror(number))
    assert type(caught.value) is kind


def test_what_is_mounted_for_reading_only_is_known_by_its_flag(usb: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Place(str(usb)).folder(b"") as base:
        assert module._may_write(base)
        for flags, expected in ((os.ST_RDONLY | os.ST_NOSUID, True), (os.ST_NOSUID, False), (0, False)):
            monkeypatch.setattr(os, "fstatvfs", lambda _, flags=flags: os.statvfs_result([1] * 8 + [flags, 255]))
            assert module._is_read_only(base) is expected


@pytest.mark.parametrize(("point", "expected"), [("/", False), ("/mnt", True)])
def test_a_folder_is_mounted_where_its_mount_is_not_the_roots(
    usb: Path, monkeypatch: pytest.MonkeyPatch, point: str, expected: bool
) -> None:
    monkeypatch.setattr(module, "mount_point", lambda *_: point)
    before = open_files()
    assert is_mounted(str(usb)) is expected
    assert open_files() == before


def test_a_name_that_leads_out_is_refused_with_the_name() -> None:
    with pytest.raises(NameRefused, match=r"^'a/\.\./b' leads out of the folder"):
        parts_of(b"a/../b")
