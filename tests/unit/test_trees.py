"""Whole folders over real files: sent, fetched, kept the same, and pruned without ever removing too much."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from iot.folder import FolderClient
from iot.sftp.client import (
    ConfigurationError,
    IoTSFTPClient,
    NameRefused,
    NotFound,
    PermanentError,
    PermissionDenied,
)
from iot.sftp.server import EmbeddedServer
from iot.transfer.client import Client
from iot.transfer.trees import local as local_module
from iot.transfer.trees.model import Act

FILES = {"a": b"1", "d/b": b"22", "d/e/c": b"", "f/\u00e9 x": b"4444"}


@pytest.fixture
def there(tmp_path: Path) -> Path:
    folder = tmp_path / "there"
    folder.mkdir()
    return folder


@pytest.fixture(params=["sftp", "folder"])
def client(request: pytest.FixtureRequest, tmp_path: Path, there: Path) -> Iterator[Client]:
    state = tmp_path / "state"
    if request.param == "folder":
        with FolderClient(there, state_dir=state) as client:
            yield client
        return
    with EmbeddedServer(there) as server:
        login = (server.host, server.port, server.user, server.password)
        with IoTSFTPClient(*login, host_key=server.host_key, state_dir=state) as client:
            yield client


def made(root: Path, files: dict[str, bytes]) -> Path:
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
        os.utime(root / name, (1_700_000_000, 1_700_000_000))
    return root


def content(root: Path) -> dict[str, bytes | None]:
    """Files with their content, folders with None."""
    return {str(p.relative_to(root)): p.read_bytes() if p.is_file() else None for p in sorted(root.rglob("*"))}


def test_a_folder_goes_there_and_comes_back(client: Client, there: Path, tmp_path: Path) -> None:
    source = made(tmp_path / "source", FILES)
    (source / "empty/er").mkdir(parents=True)
    result = client.upload_dir(source, "/up/new")
    assert result.ok
    assert sorted(each.dest for each in result.transferred) == sorted(f"/up/new/{name}" for name in FILES)
    assert content(there / "up/new") == content(source)
    assert client.download_dir("/up/new", tmp_path / "back", keep_times=True).ok
    assert content(tmp_path / "back") == content(source)


def test_a_plan_changes_nothing_and_says_what_will_happen(client: Client, there: Path, tmp_path: Path) -> None:
    source = made(tmp_path / "source", FILES)
    result = client.upload_dir(source, "/new", dry_run=True)
    assert (result.done, list(there.iterdir())) == ((), [])
    assert (len(result.plan.transfers), result.plan.total_bytes) == (4, 7)
    made(there / "far", FILES)
    assert client.download_dir("/far", tmp_path / "back", dry_run=True).plan.total_bytes == 7
    assert not (tmp_path / "back").exists()


@pytest.mark.parametrize("direction", ["upload", "download"])
def test_a_sync_transfers_what_differs_and_the_second_time_nothing(
    client: Client, there: Path, tmp_path: Path, direction: str
) -> None:
    here, far = tmp_path / "here", there / "far"
    source, dest = (here, far) if direction == "upload" else (far, here)
    made(source, FILES)
    made(dest, {"a": b"1", "d/b": b"23", "d/old": b"x", "gone/x": b""})
    os.utime(dest / "d/b", (1, 1))
    first = client.sync(here, "/far", direction=direction, prune=True)
    first.raise_first()
    assert sorted(Path(each.source).name for each in first.transferred) == ["b", "c", "\u00e9 x"]
    assert sorted(Path(name).name for name in first.removed) == ["gone", "old", "x"]
    assert content(dest) == content(source)
    second = client.sync(here, "/far", direction=direction, prune=True)
    assert second.ok
    assert second.done == ()


def test_what_is_older_at_the_source_is_sent_again_once_because_its_time_goes_with_it(
    client: Client, there: Path, tmp_path: Path
) -> None:
    here = made(tmp_path / "here", {"a": b"1"})
    made(there / "far", {"a": b"2"})
    os.utime(here / "a", (5, 5))
    assert [each.source for each in client.sync(here, "/far").transferred] == [str(here / "a")]
    assert content(there / "far") == {"a": b"1"}
    assert client.sync(here, "/far").done == ()


@pytest.mark.parametrize("direction", ["upload", "download"])
def test_without_prune_nothing_is_removed(client: Client, there: Path, tmp_path: Path, direction: str) -> None:
    here, far = made(tmp_path / "here", {"a": b"1"}), made(there / "far", {"a": b"1"})
    extra = (far if direction == "upload" else here) / "extra"
    extra.write_bytes(b"x")
    assert client.sync(here, "/far", direction=direction).ok
    assert extra.exists()


@pytest.mark.parametrize("direction", ["upload", "download"])
def test_a_failure_holds_up_no_other_file_and_keeps_everything_at_the_destination(
    client: Client, there: Path, tmp_path: Path, direction: str
) -> None:
    here, far = tmp_path / "here", there / "far"
    source, dest = (here, far) if direction == "upload" else (far, here)
    made(source, {"a": b"1", "b": b"2", "z": b"3"})
    made(dest, {"b/in the way": b"", "old": b""})
    result = client.sync(here, "/far", direction=direction, prune=True)
    assert {name for name, data in content(dest).items() if data is not None} == {"a", "b/in the way", "old", "z"}
    assert [type(each.error) for each in result.failed] == [NameRefused, PermanentError]
    assert str(result.failed[-1].error).endswith("1 name was not transferred")
    with pytest.raises(NameRefused, match="is a folder"):
        result.raise_first()


@pytest.mark.parametrize("direction", ["upload", "download"])
def test_a_missing_source_is_an_error_and_an_empty_one_removes_nothing_unless_asked(
    client: Client, there: Path, tmp_path: Path, direction: str
) -> None:
    here, far = tmp_path / "here", there / "far"
    source, dest = (here, far) if direction == "upload" else (far, here)
    made(dest, {"a": b"1"})
    with pytest.raises(NotFound):
        client.sync(here, "/far", direction=direction, prune=True)
    source.mkdir()
    refused = client.sync(here, "/far", direction=direction, prune=True)
    assert not refused.ok
    assert "the source holds no files" in str(refused.failed[0].error)
    assert content(dest) == {"a": b"1"}
    assert client.sync(here, "/far", direction=direction, prune=True, allow_empty=True).removed
    assert content(dest) == {}


def test_at_most_so_many_names_are_removed(client: Client, there: Path, tmp_path: Path) -> None:
    here, far = made(tmp_path / "here", {"a": b"1"}), made(there / "far", {"b": b"", "c": b""})
    refused = client.sync(here, "/far", prune=True, max_remove=1)
    assert "max_remove permits 1" in str(refused.failed[0].error)
    assert content(far) == {"a": b"1", "b": b"", "c": b""}
    assert len(client.sync(here, "/far", prune=True, max_remove=2).removed) == 2


def test_links_are_removed_and_never_followed(client: Client, there: Path, tmp_path: Path) -> None:
    far = made(there / "far", {"a": b"1"})
    treasure = made(there / "treasure", {"t": b"1"})
    (far / "way").symlink_to(treasure)
    (far / "file").symlink_to(treasure / "t")
    assert client.sync(made(tmp_path / "here", {"a": b"1"}), "/far", prune=True).ok
    assert content(far) == {"a": b"1"}
    here = tmp_path / "here"
    (here / "way").symlink_to(treasure)
    assert client.sync(here, "/far", direction="download", prune=True).ok
    assert content(here) == {"a": b"1"}
    assert content(treasure) == {"t": b"1"}


@pytest.mark.parametrize("was_link", [False, True])
def test_a_local_folder_that_became_another_since_the_plan_loses_nothing(
    client: Client, there: Path, tmp_path: Path, was_link: bool
) -> None:
    made(there / "far", {"a": b"a"})
    here, other, first = tmp_path / "here", made(tmp_path / "other", {"old": b"2"}), tmp_path / "first"
    made(first if was_link else here, {"a": b"a", "old": b"1"})
    if was_link:
        here.symlink_to(first)
    plan = client.sync(here, "far", direction="download", prune=True, dry_run=True).plan
    assert [step.path for step in plan.removals] == ["old"]
    if was_link:
        here.unlink()
    else:
        here.rename(first)
    here.symlink_to(other)
    failed = [done for done in client.carry_out(plan) if done.error is not None]
    assert "leads elsewhere now" in str(failed[0].error)
    assert content(other)["old"] == b"2"
    assert content(first)["old"] == b"1"
    here.unlink()
    here.symlink_to(first)
    client.sync(here, "far", direction="download", prune=True).raise_first()
    assert "old" not in content(first)


def test_a_link_to_a_folder_in_the_source_is_left_out_and_its_place_there_is_kept(
    client: Client, there: Path, tmp_path: Path
) -> None:
    here, far = made(tmp_path / "here", {"a": b"1"}), made(there / "far", {"way/x": b"1"})
    (here / "way").symlink_to(tmp_path)
    os.mkfifo(here / "pipe")
    result = client.sync(here, "/far", prune=True)
    assert result.ok
    assert {step.path: step.reason for step in result.plan.of(Act.LEAVE_OUT)} == {
        "way": "a link to a folder",
        "pipe": "not a regular file",
    }
    assert content(far) == {"a": b"1", "way": None, "way/x": b"1"}


def test_parts_of_others_are_neither_fetched_nor_removed(client: Client, there: Path, tmp_path: Path) -> None:
    far = made(there / "far", {"a": b"1", "b.0123abcd.part": b"half"})
    here = tmp_path / "here"
    assert client.download_dir("/far", here).ok
    assert content(here) == {"a": b"1"}
    assert client.sync(here, "/far", prune=True).ok
    assert (far / "b.0123abcd.part").exists()


def test_a_folder_that_cannot_be_listed_is_reported_and_nothing_is_removed(
    client: Client, tmp_path: Path, there: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, far = made(tmp_path / "here", {"a": b"1", "s/x": b"1"}), made(there / "far", {"s/x": b"1", "old": b"1"})

    def scandir(path: str) -> object:
        if str(path).endswith("/here/s"):
            raise PermissionError(13, "Permission denied")
        return real(path)

    real = os.scandir
    monkeypatch.setattr(local_module.os, "scandir", scandir)
    result = client.sync(here, "/far", prune=True)
    assert isinstance(result.failed[0].error, PermissionDenied)
    assert content(far) == {"a": b"1", "old": b"1", "s": None, "s/x": b"1"}


def test_two_pairs_with_one_destination_are_refused_before_anything_is_sent(
    client: Client, there: Path, tmp_path: Path
) -> None:
    here = made(tmp_path, {"x/f": b"1", "y/f": b"2"})
    plan = client.plan_upload([(here / "x", "/d"), (here / "y", "/d")])
    with pytest.raises(ConfigurationError, match="two files would go to /d/f"):
        list(client.carry_out(plan))
    assert list(there.iterdir()) == []


def test_what_is_no_folder_is_an_error(client: Client, there: Path, tmp_path: Path) -> None:
    made(there, {"f": b"1"})
    for call in (lambda: client.upload_dir(there / "f", "/x"), lambda: client.download_dir("/f", tmp_path / "x")):
        with pytest.raises(NameRefused, match="is not a folder"):
            call()
    with pytest.raises(NotFound):
        client.upload_dir(tmp_path / "none", "/x")
    with pytest.raises(NotFound):
        client.download_dir("/none", tmp_path / "x")
    made(tmp_path / "d", {"x": b"1"})
    for near, far, direction in (("there/f", "/x", "upload"), ("d", "/f", "download"), ("there/f", "/", "download")):
        with pytest.raises(NameRefused, match="f is not a folder"):
            client.sync(tmp_path / near, far, direction=direction, prune=True)
    with pytest.raises(ConfigurationError, match="direction: must be 'upload' or 'download' \\(got 'both'\\)"):
        client.sync(tmp_path, "/x", direction="both")
    with pytest.raises(ConfigurationError, match="remote: must be str, bytes or PurePosixPath"):
        client.upload_dir(tmp_path, 3)


# -- names that differ only in case


def test_a_name_that_is_hidden_by_case_overwrites_nothing(
    client: Client, there: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a file system that ignores case: a name is there under any spelling, and listed under one."""
    made(there / "far", {"readme": b"new", "x": b"1"})
    here = made(tmp_path / "here", {"README": b"old"})
    lexists = os.path.lexists
    monkeypatch.setattr(os.path, "lexists", lambda path: lexists(path) or str(path).endswith("/readme"))
    result = client.download_dir("/far", here)
    assert "differs from README only in case" in str(result.failed[0].error)
    assert content(here) == {"README": b"old", "x": b"1"}


def test_where_case_counts_both_names_come(client: Client, there: Path, tmp_path: Path) -> None:
    files = {"readme": b"new", "README": b"x", "D/f": b"1", "d/f": b"2"}
    made(there / "far", files)
    here = made(tmp_path / "here", {"Readme": b"old"})
    assert client.sync(here, "/far", direction="download", prune=True).ok
    assert {name: data for name, data in content(here).items() if data is not None} == files
