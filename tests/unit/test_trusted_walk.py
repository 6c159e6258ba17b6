"""Each folder on the way to one that the agent trusts: whose it is, who may write to it, and what is made there."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

import pytest

from iot.spooler.leaving.trust import LINKS_MAX, UntrustedFolder, open_trusted

AGENT, OTHER, ROOT = 1000, 1234, 0


@pytest.fixture
def as_agent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: AGENT)
    monkeypatch.setattr(os, "getegid", lambda: AGENT)


def opened(path: Path, *, make: bool = False) -> str:
    """Where it leads."""
    folder = open_trusted(path, make=make)
    try:
        return os.readlink(f"/proc/self/fd/{folder}")
    finally:
        os.close(folder)


def why_not(path: Path) -> str | None:
    try:
        opened(path)
    except UntrustedFolder as error:
        return error.strerror.partition(": ")[2]
    return None


@pytest.mark.needs("root")
@pytest.mark.usefixtures("as_agent")
@pytest.mark.parametrize(
    ("user", "group", "mode", "on_the_way", "as_the_last"),
    [
        (ROOT, ROOT, 0o755, None, None),
        (AGENT, AGENT, 0o700, None, None),
        (AGENT, AGENT, 0o770, None, None),
        (AGENT, ROOT, 0o770, None, None),
        (AGENT, OTHER, 0o750, None, None),
        (AGENT, OTHER, 0o770, "group 1234 may write to it; remove that permission: chmod g-w", ...),
        (AGENT, AGENT, 0o702, "everybody may write to it; remove that permission: chmod o-w", ...),
        (ROOT, OTHER, 0o1770, None, "group 1234 may write to it; remove that permission: chmod g-w"),
        (ROOT, ROOT, 0o1777, None, "everybody may write to it; remove that permission: chmod o-w"),
        (OTHER, AGENT, 0o755, "belongs to user 1234; it must belong to user 1000 or root", ...),
        (OTHER, AGENT, 0o1755, "belongs to user 1234; it must belong to user 1000 or root", ...),
    ],
)
def test_whose_folder_is_trusted(tmp_path, user, group, mode, on_the_way, as_the_last):
    folder = tmp_path / "folder"
    (folder / "deeper").mkdir(parents=True)
    os.chown(folder, user, group)
    folder.chmod(mode)
    assert why_not(folder / "deeper") == on_the_way
    assert why_not(folder) == (on_the_way if as_the_last is ... else as_the_last)


@pytest.mark.needs("root")
@pytest.mark.usefixtures("as_agent")
@pytest.mark.parametrize(("user", "followed"), [(ROOT, True), (AGENT, True), (OTHER, False)])
def test_whose_link_is_followed(tmp_path, user, followed):
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    os.lchown(tmp_path / "link", user, user)
    assert why_not(tmp_path / "link") == (None if followed else "is a symlink of user 1234; remove it")


def test_links_lead_from_their_own_folder_or_from_the_root(tmp_path):
    (tmp_path / "real" / "deep").mkdir(parents=True)
    (tmp_path / "relative").symlink_to("real/./deep")
    (tmp_path / "absolute").symlink_to(tmp_path / "real")
    assert opened(tmp_path / "relative") == str(tmp_path / "real" / "deep")
    assert opened(tmp_path / "absolute" / "deep") == str(tmp_path / "real" / "deep")
    assert opened(Path(f"{tmp_path}//real/./deep/")) == str(tmp_path / "real" / "deep")
    assert opened(Path("/")) == "/"


def test_so_many_links_are_followed_and_no_more(tmp_path):
    last = tmp_path / "real"
    last.mkdir()
    for number in range(LINKS_MAX + 1):
        link = tmp_path / f"link{number}"
        link.symlink_to(last.name)
        last = link
    assert opened(tmp_path / f"link{LINKS_MAX - 1}") == str(tmp_path / "real")
    with pytest.raises(OSError, match="Too many levels") as told:
        opened(tmp_path / f"link{LINKS_MAX}")
    assert (told.value.errno, told.value.filename) == (errno.ELOOP, str(tmp_path / f"link{LINKS_MAX}"))


def test_what_is_missing_is_made_if_that_is_asked_and_is_on_the_disk(tmp_path, monkeypatch):
    with pytest.raises(FileNotFoundError):
        opened(tmp_path / "a" / "b")
    assert list(tmp_path.iterdir()) == []
    synced: list[str] = []
    monkeypatch.setattr(os, "fsync", lambda folder: synced.append(os.readlink(f"/proc/self/fd/{folder}")))
    (tmp_path / "link").symlink_to("a")
    assert opened(tmp_path / "link" / "b", make=True) == str(tmp_path / "a" / "b")
    assert synced == [str(tmp_path), str(tmp_path / "a")]
    assert [stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "a", tmp_path / "a/b")] == [0o750, 0o750]
    assert opened(tmp_path / "a" / "b", make=True)
    assert len(synced) == 2  # once


def test_a_file_in_the_way_is_an_error(tmp_path):
    (tmp_path / "file").touch()
    for path in (tmp_path / "file", tmp_path / "file" / "deeper"):
        with pytest.raises(NotADirectoryError):
            opened(path, make=True)
