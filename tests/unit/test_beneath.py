"""Steps below a folder: what is made, with which rights, and what an error leaves behind."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from unit.other_user import without_capabilities

from iot.transfer import beneath
from iot.transfer.beneath import free_name, join, make_below, open_below, opener, rename_noreplace, split, sync


@pytest.fixture
def root(tmp_path: Path) -> Iterator[int]:
    found = os.open(tmp_path, os.O_RDONLY)
    yield found
    os.close(found)


@pytest.mark.parametrize(("given", "mode"), [({}, 0o755), ({"mode": 0o700}, 0o700)])
def test_folders_are_made_with_their_mode_and_each_name_is_durable(root, tmp_path, monkeypatch, given, mode):
    synced = []
    monkeypatch.setattr(os, "fsync", lambda file: synced.append(os.readlink(f"/proc/self/fd/{file}")))
    umask = os.umask(0)
    try:
        os.close(make_below(root, b"a/b", **given))
    finally:
        os.umask(umask)
    assert [(tmp_path / name).stat().st_mode & 0o7777 for name in ("a", "a/b")] == [mode, mode]
    assert synced == [str(tmp_path), str(tmp_path / "a")]
    os.close(make_below(root, b"a/b"))
    assert len(synced) == 2
    here = open_below(root, b"a/b")
    assert os.readlink(f"/proc/self/fd/{here}") == str(tmp_path / "a/b")
    os.close(here)


@pytest.mark.parametrize("step", [make_below, open_below])
def test_the_empty_path_is_the_folder_itself_and_no_link_is_followed(root, tmp_path, step):
    here = step(root, b"")
    assert os.fstat(here).st_ino == tmp_path.stat().st_ino
    os.close(here)
    (tmp_path / "link").symlink_to("/")
    with pytest.raises(OSError) as told:  # noqa: PT011 - systems differ
        step(root, b"link/etc")
    assert told.value.errno in (errno.ENOTDIR, errno.ELOOP)


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.EINVAL, errno.EOPNOTSUPP, errno.EIO, errno.ENOSPC])
def test_a_sync_that_is_not_offered_is_told_and_one_that_failed_is_an_error(root, monkeypatch, number):
    assert sync(root) is True

    def refused(_: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", refused)
    if number in (errno.ENOSYS, errno.EINVAL, errno.EOPNOTSUPP):
        assert sync(root) is False
    else:
        with pytest.raises(OSError, match=os.strerror(number)):
            sync(root)


# -- renaming without replacing


@pytest.fixture(params=["renameat2", "links", "neither"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param != "renameat2":
        monkeypatch.setattr(beneath, "_renameat2", lambda: None)
    if request.param == "neither":
        monkeypatch.setattr(beneath, "_links_exist", lambda _: False)
    return request.param


def test_a_rename_never_replaces_and_its_errors_are_the_systems_own(root, tmp_path, way):
    (tmp_path / "a").write_text("a")
    (tmp_path / "b").write_text("b")
    with pytest.raises(FileExistsError):
        rename_noreplace(root, b"a", root, b"b")
    with pytest.raises(FileNotFoundError):
        rename_noreplace(root, b"missing", root, b"c")
    (tmp_path / "b").unlink()
    (tmp_path / "b").symlink_to("nowhere")
    with pytest.raises(FileExistsError):
        rename_noreplace(root, b"a", root, b"b")
    assert sorted(os.listdir(tmp_path)) == ["a", "b"]
    rename_noreplace(root, b"a", root, b"c")
    assert sorted(os.listdir(tmp_path)) == ["b", "c"]
    assert (tmp_path / "c").read_text() == "a"


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.EINVAL, errno.EOPNOTSUPP, errno.EPERM, errno.EACCES])
def test_only_what_is_not_offered_is_done_another_way(root, tmp_path, monkeypatch, number):
    (tmp_path / "a").touch()

    def call(*_: object) -> int:
        beneath.ctypes.set_errno(number)
        return -1

    monkeypatch.setattr(beneath, "_renameat2", lambda: call)
    if number in (errno.EPERM, errno.EACCES):
        with pytest.raises(PermissionError):
            rename_noreplace(root, b"a", root, b"b")
        assert os.listdir(tmp_path) == ["a"]
    else:
        rename_noreplace(root, b"a", root, b"b")
        assert os.listdir(tmp_path) == ["b"]


def test_a_c_library_without_the_call_is_done_without(monkeypatch):
    class Library:
        def __init__(self, *_: object, **__: object) -> None: ...

    monkeypatch.setattr(beneath.ctypes, "CDLL", Library)
    assert beneath._renameat2.__wrapped__() is None


@pytest.mark.parametrize("number", [errno.EPERM, errno.EINVAL, errno.ENOSYS, errno.ENOSPC])
def test_whether_there_are_links_is_tried_with_a_file_of_our_own_that_goes_again(root, tmp_path, monkeypatch, number):
    assert beneath._links_exist(root) is True
    assert os.listdir(tmp_path) == []

    def refused(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "link", refused)
    if number == errno.ENOSPC:
        with pytest.raises(OSError, match="No space"):
            beneath._links_exist(root)
    else:
        assert beneath._links_exist(root) is False
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    ("user", "owner", "folder_owner", "sticky", "allowed"),
    [
        (1, 2, 3, True, False),
        (2, 2, 3, True, True),
        (3, 2, 3, True, True),
        (0, 2, 3, True, True),
        (1, 2, 3, False, True),
    ],
)
def test_in_a_sticky_folder_only_owners_and_root_take_a_name_away(
    root, monkeypatch, user, owner, folder_owner, sticky, allowed
):
    real_fstat, real_stat = os.fstat, os.stat

    def fstat(file: int) -> Any:
        return SimpleNamespace(st_uid=folder_owner, st_mode=mode) if file == root else real_fstat(file)

    def stat(path: Any, **how: Any) -> Any:
        return SimpleNamespace(st_uid=owner) if path == b"f" else real_stat(path, **how)

    mode = 0o41777 if sticky else 0o40777
    monkeypatch.setattr(os, "geteuid", lambda: user)
    monkeypatch.setattr(os, "fstat", fstat)
    monkeypatch.setattr(os, "stat", stat)
    if allowed:
        beneath.check_unlink_allowed(root, b"f")
        return
    with pytest.raises(PermissionError, match="sticky folder"):
        beneath.check_unlink_allowed(root, b"f")


@pytest.mark.needs("root")
@pytest.mark.parametrize("answered", [True, False])
def test_from_a_closed_folder_nothing_is_taken_where_the_system_tells(root, tmp_path, monkeypatch, answered):
    """Where it answers nothing, as in old containers, the file is not held for that."""
    monkeypatch.setattr(beneath, "_access_is_answered", lambda: answered)
    (tmp_path / "f").touch()
    tmp_path.chmod(0o555)

    def look() -> None:
        if not answered:
            beneath.check_unlink_allowed(root, b"f")
            return
        with pytest.raises(PermissionError, match="nothing can be removed from this folder"):
            beneath.check_unlink_allowed(root, b"f")

    without_capabilities(look)


def test_a_link_whose_original_cannot_be_taken_away_is_taken_back(root, tmp_path, monkeypatch):
    monkeypatch.setattr(beneath, "_renameat2", lambda: None)
    (tmp_path / "a").touch()
    real = os.unlink

    def unlink(name: bytes, *, dir_fd: int) -> None:
        if name == b"a":
            raise PermissionError(errno.EPERM, "no")
        real(name, dir_fd=dir_fd)

    monkeypatch.setattr(os, "unlink", unlink)
    with pytest.raises(PermissionError):
        rename_noreplace(root, b"a", root, b"b")
    assert os.listdir(tmp_path) == ["a"]


def test_a_link_is_moved_as_what_it_is(root, tmp_path, way):
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to("file")
    rename_noreplace(root, b"link", root, b"moved")
    assert os.readlink(tmp_path / "moved") == "file"
    assert sorted(os.listdir(tmp_path)) == ["file", "moved"]


@pytest.mark.parametrize("answered", [True, False])
def test_whether_the_system_answers_about_access_is_asked_of_the_root_folder(monkeypatch, answered):
    asked = []
    monkeypatch.setattr(os, "access", lambda *what, **how: asked.append((what, how)) or answered)
    assert beneath._access_is_answered.__wrapped__() is answered
    assert asked == [((b"/", os.X_OK), {"effective_ids": True})]


def test_what_is_tried_for_links_has_a_name_that_is_never_sent(root, monkeypatch):
    made = []
    real = os.open

    def noted(name: bytes, *how: Any, **more: Any) -> int:
        made.append(name)
        return real(name, *how, **more)

    monkeypatch.setattr(os, "open", noted)
    assert beneath._links_exist(root)
    assert [bool(beneath.PASSING.fullmatch(name + ending)) for name in made for ending in (b"", b".link")] == [True] * 2


# -- files


def test_an_error_after_a_file_was_opened_leaves_no_descriptor(root, tmp_path, monkeypatch):
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    before = set(os.listdir("/proc/self/fd"))
    with pytest.raises(IsADirectoryError), open(b"folder", "rb", opener=opener(root, os.O_RDONLY)):
        pass  # it does not come to this
    with pytest.raises(LookupError), open("file", encoding="no such codec", opener=opener(root, os.O_RDONLY)):
        pass  # nor to this
    assert set(os.listdir("/proc/self/fd")) == before


def test_a_file_is_made_in_the_folder_with_its_mode(root, tmp_path):
    with open("made", "wb", opener=opener(root, os.O_WRONLY | os.O_CREAT | os.O_EXCL)) as file:
        file.write(b"content")
    assert (tmp_path / "made").read_bytes() == b"content"
    assert (tmp_path / "made").stat().st_mode & 0o777 == 0o600


def test_no_file_is_made_of_a_descriptor_that_nobody_owns_yet() -> None:
    """`open(os.open(...))` leaves it open where `open` fails; `opener` does not."""
    package = Path(beneath.__file__).parents[1]
    made = re.compile(r"\b(?:open|fdopen|FileIO)\((?:os\.open|_open)\(")
    found = [str(file) for file in package.rglob("*.py") if made.search(file.read_text())]
    assert found == []


# -- names


@pytest.mark.parametrize(("path", "parts"), [(b"a/b/c", (b"a/b", b"c")), (b"c", (b"", b"c")), (b"", (b"", b""))])
def test_a_path_is_its_folder_and_its_name(path, parts):
    assert split(path) == parts
    assert join(*parts) == path


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [((b"f", 0), b"f"), ((b"f", 2), b"f.2"), ((b"f", 0, b".x"), b"f.x"), ((b"f", 3, b".x"), b"f.3.x"),
     ((b"n" * 255, 12), b"n" * 252 + b".12"), ((b"n" * 255, 0), b"n" * 255)],
)  # fmt: skip
def test_a_free_name_is_one_that_a_file_can_have(arguments, expected):
    assert free_name(*arguments) == expected
