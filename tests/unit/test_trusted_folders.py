"""Which folders the agent takes for its own: whoever could replace one of them, or its content, is named."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from iot.spooler.leaving import trust
from iot.spooler.leaving.trust import FOLDER_MODE, LINKS_MAX, UntrustedFolder, open_trusted

OURS, ROOT, OTHER = 1000, 0, 2000


class Owners:
    """The system, with folders and links that belong to somebody else or have another mode. of: those, by path."""

    def __init__(self) -> None:
        self.of: dict[str, tuple[int, int, int]] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(os, name)

    def geteuid(self) -> int:
        return OURS

    def getegid(self) -> int:
        return OURS

    def fstat(self, folder: int) -> Any:
        return self._told(os.fstat(folder), os.readlink(f"/proc/self/fd/{folder}"))

    def stat(self, name: str, *, dir_fd: int, follow_symlinks: bool) -> Any:
        assert not follow_symlinks
        status = os.stat(name, dir_fd=dir_fd, follow_symlinks=False)
        return self._told(status, os.path.join(os.readlink(f"/proc/self/fd/{dir_fd}"), name))

    def _told(self, status: os.stat_result, path: str) -> Any:
        uid = ROOT if status.st_uid == os.getuid() else status.st_uid
        told = self.of.get(path, (uid, status.st_gid, stat.S_IMODE(status.st_mode)))
        return SimpleNamespace(st_uid=told[0], st_gid=told[1], st_mode=stat.S_IFMT(status.st_mode) | told[2])


@pytest.fixture
def owners(monkeypatch: pytest.MonkeyPatch) -> Owners:
    owners = Owners()
    monkeypatch.setattr(trust, "os", owners)
    return owners


def opened(path: Path, *, make: bool = False) -> str:
    """-> the folder that was opened"""
    folder = open_trusted(path, make=make)
    try:
        return os.readlink(f"/proc/self/fd/{folder}")
    finally:
        os.close(folder)


@pytest.mark.parametrize(
    ("owner", "on_the_way", "at_the_end"),
    [
        ((OURS, OTHER, 0o755), None, None),
        ((ROOT, OTHER, 0o755), None, None),
        ((OTHER, OURS, 0o755), "belongs to user 2000", "belongs to user 2000"),
        ((OURS, OURS, 0o775), None, None),
        ((OURS, ROOT, 0o775), None, None),
        ((OURS, OTHER, 0o775), "group 2000 may write", "group 2000 may write"),
        ((OURS, OURS, 0o777), "everybody may write", "everybody may write"),
        ((OURS, OURS, 0o757), "everybody may write", "everybody may write"),
        ((OURS, OTHER, 0o1777), None, "everybody may write"),
        ((OURS, OTHER, 0o1775), None, "group 2000 may write"),
        ((OTHER, OURS, 0o1777), "belongs to user 2000", "belongs to user 2000"),
    ],
)
def test_a_folder_on_the_way_may_be_sticky_and_the_last_one_may_be_nobody_elses(
    tmp_path: Path, owners: Owners, owner: tuple[int, int, int], on_the_way: str | None, at_the_end: str | None
) -> None:
    folder = tmp_path / "way" / "end"
    folder.mkdir(parents=True)
    for path, reason in ((folder.parent, on_the_way), (folder, at_the_end)):
        owners.of = {str(path): owner}
        if reason is None:
            assert opened(folder) == str(folder)
            continue
        with pytest.raises(UntrustedFolder, match=f"{path}.*: {reason}") as told:
            opened(folder)
        assert told.value.errno == errno.EPERM


@pytest.mark.parametrize(("uid", "fine"), [(OURS, True), (ROOT, True), (OTHER, False)])
def test_a_link_is_followed_if_it_is_ours_or_of_root(tmp_path: Path, owners: Owners, uid: int, fine: bool) -> None:
    (tmp_path / "real" / "in").mkdir(parents=True)
    for name, target in (("absolute", str(tmp_path / "real")), ("relative", "./real")):
        link = tmp_path / name
        link.symlink_to(target)
        owners.of = {str(link): (uid, uid, 0o777)}
        if fine:
            assert opened(link / "in") == str(tmp_path / "real" / "in")
            continue
        with pytest.raises(UntrustedFolder, match=f"{link}: is a symlink of user 2000"):
            opened(link / "in")


@pytest.mark.parametrize(("links", "fine"), [(LINKS_MAX, True), (LINKS_MAX + 1, False)])
def test_links_that_lead_to_links_have_an_end(tmp_path: Path, owners: Owners, links: int, fine: bool) -> None:
    (tmp_path / "0").mkdir()
    for number in range(links):
        (tmp_path / str(number + 1)).symlink_to(str(number))
    if fine:
        assert opened(tmp_path / str(links)) == str(tmp_path / "0")
        return
    with pytest.raises(OSError, match="symbolic links") as told:
        opened(tmp_path / str(links))
    assert told.value.errno == errno.ELOOP


def test_what_is_missing_is_made_only_where_that_is_asked_for(tmp_path: Path, owners: Owners) -> None:
    folder = tmp_path / "a" / "b"
    with pytest.raises(FileNotFoundError):
        opened(folder)
    assert not folder.parent.exists()
    assert opened(folder, make=True) == str(folder)
    assert stat.S_IMODE(Path(folder).lstat().st_mode) == FOLDER_MODE & ~_umask()
    assert opened(folder, make=True) == str(folder)
    (tmp_path / "file").touch()
    with pytest.raises(NotADirectoryError):
        opened(tmp_path / "file", make=True)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
