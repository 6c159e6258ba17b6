"""Whole folders: what each argument changes, by what is asked of a remote; and what both sides look like to a plan."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from iot.folder import FolderClient
from iot.transfer.errors import NameRefused, NotFound, PermanentError, PermissionDenied
from iot.transfer.model import RemoteEntry, RemoteFile
from iot.transfer.trees import local as local_module
from iot.transfer.trees import remote as remote_module
from iot.transfer.trees.local import local_tree, name_refused
from iot.transfer.trees.making import check_folder
from iot.transfer.trees.model import Act, Kind, Node
from iot.transfer.trees.remote import remote_join, remote_node, remote_nodes, remote_tree, remote_walk

THEN_S = 1_700_000_000


@pytest.fixture
def here(tmp_path: Path) -> Path:
    return made(tmp_path / "here", "a", "d/b")


@pytest.fixture
def client(tmp_path: Path) -> Iterator[FolderClient]:
    (tmp_path / "there").mkdir()
    with FolderClient(tmp_path / "there", state_dir=tmp_path / "state") as client:
        yield client


def made(root: Path, *names: str, mtime_s: int = THEN_S) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(name)
        os.utime(root / name, (mtime_s, mtime_s))
    return root


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch, client: FolderClient) -> dict[str, Any]:
    """With what the files were sent or fetched."""
    told: dict[str, Any] = {}

    def spying(name: str) -> None:
        real = getattr(client._remote, name)

        def call(jobs: Any, **manner: Any) -> Any:
            told.update(manner)
            return real(jobs, **manner)

        monkeypatch.setattr(client._remote, name, call)

    spying("upload_many")
    spying("download_many")
    return told


WAYS = ["upload_dir", "download_dir"]


def way(client: FolderClient, here: Path, name: str, **more: Any) -> Any:
    return client.upload_dir(here, "/d", **more) if name == "upload_dir" else client.download_dir("/d", here, **more)


@pytest.mark.parametrize("name", WAYS)
def test_by_default_all_is_transferred_gone_on_with_and_not_hashed_and_times_are_of_today(
    client, here, tmp_path, asked, name
):
    made(tmp_path / "there/d", "a", "d/b")
    result = way(client, here, name)
    assert [each.sha256 for each in result.transferred] == [None, None]
    assert asked["resume"] is True
    written = (tmp_path / "there/d" if name == "upload_dir" else here) / "a"
    assert written.stat().st_mtime > THEN_S + 1000


@pytest.mark.parametrize("name", WAYS)
def test_each_wish_is_heard(client, here, tmp_path, asked, name):
    made(tmp_path / "there/d", "a", "d/b")
    told: list[Any] = []
    ticks: list[int] = []
    result = way(
        client,
        here,
        name,
        keep_times=True,
        resume=False,
        sha256=True,
        progress=told.append,
        tick=lambda: ticks.append(1),
    )
    assert all(each.sha256 for each in result.transferred)
    assert asked["resume"] is False
    assert told
    assert ticks
    written = (tmp_path / "there/d" if name == "upload_dir" else here) / "a"
    assert written.stat().st_mtime == THEN_S
    assert way(client, here, name, update=True).transferred == []
    assert way(client, here, name, update=True, dry_run=True).done == ()


@pytest.mark.parametrize("direction", ["upload", "download"])
def test_a_sync_has_the_same_defaults_and_wishes(client, here, tmp_path, asked, direction):
    source, dest = (here, tmp_path / "there/d") if direction == "upload" else (tmp_path / "there/d", here)
    made(source, "a", "d/b", mtime_s=THEN_S + 1)
    made(dest, "a", "d/b", "extra")
    lenient = client.sync(here, "/d", direction=direction, time_tolerance_s=1, dry_run=True)
    assert (lenient.plan.transfers, lenient.done) == ([], ())
    result = client.sync(here, "/d", direction=direction)
    assert len(result.transferred) == 2
    assert [each.sha256 for each in result.transferred] == [None, None]
    assert asked["resume"] is True
    assert (dest / "extra").exists()
    os.utime(source / "a", (5, 5))
    assert client.sync(here, "/d", direction=direction, resume=False, sha256=True, prune=True).transferred[0].sha256
    assert asked["resume"] is False
    assert not (dest / "extra").exists()


def test_a_plan_by_itself_keeps_no_times_unless_it_updates(client, here):
    assert [client.plan_upload([(here, "/d")], update=update).keep_times for update in (False, True)] == [False, True]
    client.upload_dir(here, "/d")
    for update in (False, True):
        assert client.plan_download([("/d", here, None)], update=update).keep_times is update
    assert client.plan_upload([(here, "/d")], keep_times=True).keep_times


def test_carrying_out_goes_on_and_hashes_nothing_unless_asked(client, here, asked):
    plan = client.plan_upload([(here, "/d")])
    assert [done.result.sha256 for done in client.carry_out(plan)] == [None, None]
    assert asked["resume"] is True
    assert all(done.result.sha256 for done in client.carry_out(plan, sha256=True, resume=False))
    assert asked["resume"] is False


# -- files that are named one by one


def test_files_and_folders_may_be_mixed_and_what_is_missing_is_told(client, here, tmp_path):
    pairs = [(here / "a", "/x/a"), (here / "d", "/x/d"), (here / "none", "/x/none")]
    plan = client.plan_upload(pairs)
    assert {(step.act, step.path, step.dest) for step in plan.steps} == {
        (Act.MAKE_FOLDER, "", "/x/d"),
        (Act.TRANSFER, "b", "/x/d/b"),
        (Act.FAIL, "none", "/x/none"),
        (Act.TRANSFER, "a", "/x/a"),
    }
    list(client.carry_out(plan))
    back = [("/x/a", tmp_path / "back/a", None), ("/x/d", tmp_path / "back/d", None), ("/x/no", tmp_path / "no", None)]
    plan = client.plan_download(back)
    assert [step.dest for step in plan.of(Act.FAIL)] == [str(tmp_path / "no")]
    list(client.carry_out(plan))
    assert (tmp_path / "back/a").read_text() == "a"
    assert (tmp_path / "back/d/b").read_text() == "d/b"


@pytest.mark.parametrize("update", [False, True])
def test_a_single_file_that_is_the_same_is_left_only_where_it_is_updated(client, here, tmp_path, update):
    made(tmp_path / "there", "a")
    for plan in (
        client.plan_upload([(here / "a", "//a")], update=update),
        client.plan_download([("/a", here / "a", None)], update=update),
    ):
        assert [step.act for step in plan.steps] == [Act.LEAVE if update else Act.TRANSFER]
        assert [step.path for step in plan.steps] == ["a"]


def test_what_cannot_be_looked_at_is_no_folder(tmp_path, here, monkeypatch):
    with pytest.raises(NameRefused, match="is not a folder"):
        check_folder(here / "a")
    with pytest.raises(NotFound):
        check_folder(tmp_path / "none")
    check_folder(here)


# -- a folder here


def test_a_name_that_cannot_be_looked_at_hides_no_other(tmp_path, monkeypatch):
    root = made(tmp_path / "root", "a", "b", "c/d", "e")
    (root / "dead").symlink_to("nowhere")
    (root / "way").symlink_to("c")
    (root / "to-file").symlink_to("a")
    real = local_module.local_node

    def local_node(entry: os.DirEntry[str]) -> Node:
        if entry.name == "b":
            raise PermissionError(13, "Permission denied")
        return real(entry)

    monkeypatch.setattr(local_module, "local_node", local_node)
    tree = local_tree(str(root))
    assert {path: node.kind for path, node in tree.nodes.items()} == {
        "a": Kind.FILE,
        "c": Kind.FOLDER,
        "c/d": Kind.FILE,
        "dead": Kind.DEAD_LINK,
        "e": Kind.FILE,
        "to-file": Kind.FILE,
        "way": Kind.FOLDER_LINK,
    }
    assert [path for path, node in tree.nodes.items() if node.is_link] == ["dead", "to-file", "way"]
    assert tree.nodes["a"] == Node(Kind.FILE, 1, THEN_S, is_link=False)
    assert list(tree.unknown) == ["b"]
    assert isinstance(tree.unknown["b"], PermissionDenied)


def test_folders_come_in_order_each_before_its_content(tmp_path):
    root = made(tmp_path / "root", "b/1", "b/c/2", "a/3", "d")
    assert [path for path in local_tree(str(root)).nodes if "/" in path] == ["a/3", "b/1", "b/c", "b/c/2"]
    assert local_tree(str(tmp_path / "none")).exists is False
    with pytest.raises(NameRefused, match="is not a folder"):
        local_tree(str(root / "d"))


@pytest.mark.parametrize(("name", "is_refused"), [("", True), (".", True), ("..", True), ("a/b", True), ("a\0", True),
                                                  ("...", False), ("a.b", False), (" ", False)])  # fmt: skip
def test_only_a_name_within_the_folder_is_one(name, is_refused):
    assert (name_refused(name) is not None) is is_refused


# -- a folder there


class Far:
    """Folders by their path; listed: how many at once."""

    def __init__(self, folders: dict[str, Any]) -> None:
        self.folders, self.listed = folders, []

    def scan(self, paths: list[bytes]) -> list[Any]:
        self.listed.append([path.decode() for path in paths])
        return [self.folders.get(path.decode(), NotFound("none")) for path in paths]


def folder(name: str, is_link: bool = False) -> RemoteEntry:
    return RemoteEntry(name, RemoteFile(None, None, 0o040755), is_link)


def file(name: str, size: int = 1) -> RemoteEntry:
    return RemoteEntry(name, RemoteFile(size, 5, 0o100644))


def test_a_tree_is_listed_level_by_level_and_what_cannot_be_listed_is_named():
    denied = PermissionDenied("no")
    far: Any = Far({
        "/r": [folder("b"), file("c"), folder("a"), folder("l", is_link=True)],
        "/r/a": denied,
        "/r/b": [folder("x"), file("y")],
        "/r/b/x": [],
    })  # fmt: skip
    tree = remote_tree(far, "/r")
    assert list(tree.nodes) == ["a", "b", "b/x", "b/y", "c", "l"]
    assert (tree.unknown, tree.exists) == ({"a": denied}, True)
    assert tree.nodes["l"] == Node(Kind.FOLDER_LINK, is_link=True)
    assert far.listed == [["/r"], ["/r/b", "/r/a"], ["/r/b/x"]]
    assert remote_tree(far, "/none").exists is False


def test_only_what_is_wanted_is_told_and_entered():
    far: Any = Far({"r": [folder("a"), folder("no"), file("no.txt"), file("f")], "r/a": [file("g")]})
    told = {path: [entry.name for entry in found] for path, found in remote_walk(far, "r", lambda name: name[0] != "n")}
    assert told == {"": ["a", "f"], "a": ["g"]}
    assert far.listed == [["r"], ["r/a"]]


def test_a_tree_without_end_is_left_at_some_point(monkeypatch):
    monkeypatch.setattr(remote_module, "DEPTH_MAX", 3)
    far: Any = Far({"r" + "/d" * depth: [folder("d")] for depth in range(9)})
    *told, (path, error) = remote_walk(far, "r")
    assert [path for path, _ in told] == ["", "d", "d/d"]
    assert path == "d/d/d"
    assert isinstance(error, NameRefused)
    assert str(error) == "r/d/d/d is too deep: more than 3 levels"


def test_very_many_folders_are_listed_some_at_a_time(monkeypatch):
    monkeypatch.setattr(remote_module, "FOLDERS_AT_ONCE", 2)
    far: Any = Far({"r": [folder(name) for name in "abcde"], **{f"r/{name}": [file("f")] for name in "abcde"}})
    assert len(remote_tree(far, "r").nodes) == 10
    assert far.listed == [["r"], ["r/a", "r/b"], ["r/c", "r/d"], ["r/e"]]
    far.listed.clear()
    denied = PermissionDenied("no")
    far.folders["r/b"] = denied
    tree = remote_nodes(far, ["r/a", "none", "r/b", "r/c"])
    assert (list(tree.nodes), tree.unknown) == (["r/a/f", "r/c/f"], {"r/b": denied})
    assert far.listed == [["r/a", "none"], ["r/b", "r/c"]]


@pytest.mark.parametrize(
    ("mode", "is_link", "node"),
    [
        (0o040755, False, Node(Kind.FOLDER)),
        (0o040755, True, Node(Kind.FOLDER_LINK, is_link=True)),
        (0o120777, False, Node(Kind.DEAD_LINK, is_link=True)),
        (0o100644, False, Node(Kind.FILE, 7, 5)),
        (0o100644, True, Node(Kind.FILE, 7, 5, is_link=True)),
        (None, False, Node(Kind.FILE, 7, 5)),
        (0o010644, False, Node(Kind.SPECIAL, 7, 5)),
    ],
)
def test_what_a_listing_says_of_a_name(mode, is_link, node):
    assert remote_node(RemoteFile(7, 5, mode), is_link=is_link) == node


@pytest.mark.parametrize(
    ("root", "path", "joined"), [(".", "a", "a"), (".", "", "."), ("/r", "", "/r"), ("/r", "a/b", "/r/a/b")]
)
def test_a_path_below_the_login_folder_stands_alone(root, path, joined):
    assert remote_join(root, path) == joined


def test_a_size_that_a_listing_does_not_tell_is_asked_for(client, here, tmp_path, monkeypatch):
    """A listing may tell neither size nor time: then each file that may be the same is asked for."""
    made(tmp_path / "there/d", "a", "d/b")
    real_scan, real_stat, stats = client._remote.scan, client._remote.stat, []

    def untold(entry: RemoteEntry) -> RemoteEntry:
        return RemoteEntry(entry.name, RemoteFile(None, None, entry.file.mode))

    def scan(*arguments: Any) -> Any:
        return [found if isinstance(found, Exception) else list(map(untold, found)) for found in real_scan(*arguments)]

    def stat(path: bytes) -> RemoteFile | None:
        stats.append(path)
        if path.endswith(b"/b") and len(stats) > 2:
            raise PermanentError("no")
        return real_stat(path)

    monkeypatch.setattr(client._remote, "scan", scan)
    monkeypatch.setattr(client._remote, "stat", stat)
    assert client.upload_dir(here, "/d", update=True).transferred == []
    assert sorted(stats) == [b"/d/a", b"/d/d/b"]
    assert [step.path for step in client.plan_upload([(here, "/d")], update=True).transfers] == ["d/b"]
