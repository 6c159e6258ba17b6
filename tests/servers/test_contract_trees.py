"""Whole folders on every server: sent, fetched, kept the same in both directions, and pruned."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from servers.base import Server

from iot.sftp.client import NotFound
from iot.transfer.client import Client

FILES = {"a": b"1", "d/b": b"22", "d/e/c c": b"", "f/\u00e9": b"4444"}
OLD_S = 1_700_000_000


@pytest.fixture
def client(any_remote: Server, tmp_path: Path) -> Iterator[Client]:
    changes = {"replace_by_remove": True} if any_remote.name == "ssh2" else {}  # it replaces no file otherwise
    with any_remote.connect(tmp_path, **changes) as client:
        yield client


@pytest.fixture
def place(request: pytest.FixtureRequest) -> str:
    return "trees-" + request.node.name.partition("[")[0]


def made(root: Path, files: dict[str, bytes]) -> Path:
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
        os.utime(root / name, (OLD_S, OLD_S))
    return root


def here(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def there(server: Server, place: str) -> dict[str, bytes | None]:
    names = [name for name in server.names() if name.startswith(f"{place}/")]
    return {name[len(place) + 1 :]: server.content(name) for name in names}


def test_a_folder_goes_there_and_comes_back(any_remote, client, place, tmp_path) -> None:
    source = made(tmp_path / "source", FILES)
    sent = client.upload_dir(source, any_remote.path(f"{place}/in"))
    sent.raise_first()
    assert there(any_remote, f"{place}/in") == FILES
    assert len(sent.transferred) == len(FILES)
    client.download_dir(any_remote.path(f"{place}/in"), tmp_path / "back").raise_first()
    assert here(tmp_path / "back") == FILES


def test_an_upload_mirror_settles_and_prunes(any_remote, client, place, tmp_path) -> None:
    """What is to be removed is sent, too, because some servers show nobody a file that was put there behind them."""
    client.upload_dir(made(tmp_path / "before", {**FILES, "old": b"x", "gone/far/y": b"y"}), any_remote.path(place))
    source = made(tmp_path / "source", {**FILES, "d/b": b"changed", "new": b"n"})
    first = client.sync(source, any_remote.path(place), prune=True)
    first.raise_first()
    assert there(any_remote, place) == here(source)
    assert {name.rpartition("/")[2] for name in first.removed} >= {"old", "y"}
    second = client.sync(source, any_remote.path(place), prune=True)
    second.raise_first()
    assert [result.dest for result in second.transferred] == []
    assert second.removed == []


def test_a_download_mirror_settles_and_prunes(any_remote, client, place, tmp_path) -> None:
    client.upload_dir(made(tmp_path / "source", FILES), any_remote.path(place)).raise_first()
    copy = made(tmp_path / "copy", {"d/b": b"changed", "old": b"x", "gone/far/y": b"y"})
    first = client.sync(copy, any_remote.path(place), direction="download", prune=True)
    first.raise_first()
    assert here(copy) == FILES
    assert not (copy / "gone").exists()
    second = client.sync(copy, any_remote.path(place), direction="download", prune=True)
    assert (second.ok, second.done) == (True, ())


def test_a_missing_source_on_the_server_removes_nothing_here(any_remote, client, place, tmp_path) -> None:
    copy = made(tmp_path / "copy", FILES)
    if any_remote.name.startswith("s3"):
        pytest.skip("an object store has no folders: none is missing")
    with pytest.raises(NotFound):
        client.sync(copy, any_remote.path(f"{place}/none"), direction="download", prune=True)
    assert here(copy) == FILES


def test_a_link_to_a_folder_there_is_never_followed(any_remote, client, place, tmp_path) -> None:
    """Wherever the server shows that it is one, or not: what it leads to stays, when pruning and when fetching."""
    if any_remote.name.startswith("s3"):
        pytest.skip("an object store has no links")
    treasure = made(any_remote.root / f"{place}-treasure", {"t": b"1", "deep/u": b"2"})
    far = made(any_remote.root / place, {"a": b"1"})
    (far / "way").symlink_to(treasure)
    (far / "loop").symlink_to(far)
    _owned_by_the_server(any_remote, place)
    client.sync(made(tmp_path / "here", {"a": b"1"}), any_remote.path(place), prune=True)
    assert here(treasure) == {"t": b"1", "deep/u": b"2"}
    client.download_dir(any_remote.path(place), tmp_path / "back")
    assert here(tmp_path / "back") == {"a": b"1"}


def _owned_by_the_server(server: Server, place: str) -> None:
    """Whoever serves it may change it: only then a link that is followed does harm."""
    for folder, folders, files in os.walk(server.root):
        for name in [*folders, *files]:
            os.lchown(os.path.join(folder, name), server.root.stat().st_uid, server.root.stat().st_gid)
