"""What mv, rm, rmdir and mkdir do on a server: no more than they were told, and never the whole of it by mistake."""

from __future__ import annotations

import argparse
import io
import sys
from typing import Any

import pytest

from iot.sftp.client.cli import changing as module
from iot.sftp.client.cli.changing import add_changing
from iot.sftp.client.cli.local_names import base_name, expand_local, first_twice
from iot.sftp.client.cli.parser import UsageError, top_parser
from iot.transfer.errors import NotFound, PermissionDenied
from iot.transfer.model import RemoteEntry, RemoteFile

FOLDER, FILE, LINK = RemoteFile(None, mode=0o040755), RemoteFile(3, mode=0o100644), RemoteFile(3, mode=0o120777)


class Client:
    """These paths, and links with what they lead to (None: nowhere); what was done to them is noted."""

    def __init__(self) -> None:
        self.there = dict.fromkeys(("/", "/d", "/d/e", "/x"), FOLDER)
        self.there |= dict.fromkeys(("/a", "/b", "/d/a", "/d/e/c"), FILE)
        self.links: dict[str, RemoteFile | None] = {"/dead": None, "/tod": FOLDER, "/d/l": FOLDER}
        self.did: list[tuple[str, ...]] = []
        self.gone: set[str] = set()

    def stat(self, path: str) -> RemoteFile:
        known = path.rstrip("/") or "/"
        found = self.links[known] if known in self.links else self.there.get(known)
        if found is None:
            raise NotFound(f"{path}: No such file")
        return found

    def lstat(self, path: str) -> RemoteFile:
        assert path == "/" or not path.endswith("/")
        return LINK if path in self.links else self.stat(path)

    def scan(self, path: str) -> Any:
        base = path.rstrip("/") + "/"
        every = {**self.there, **self.links}
        for name in sorted(every):
            if name.startswith(base) and name != base and "/" not in name[len(base) :]:
                yield RemoteEntry(name[len(base) :], every[name] or LINK, name in self.links)

    def walk(self, folder: str, *, wanted: Any) -> Any:
        for path in sorted(self.there):
            if path == folder or (path.startswith(f"{folder}/") and self.there[path] is FOLDER):
                yield path[len(folder) :].lstrip("/"), list(self.scan(path))

    def _do(self, *words: str) -> None:
        if words[1] in self.gone:
            raise NotFound(words[1])
        self.did.append(words)

    def delete(self, path: str) -> None:
        self._do("delete", path)

    def rmdir(self, path: str) -> None:
        self._do("rmdir", path)

    def mkdir(self, path: str) -> None:
        self._do("mkdir", path)

    def move(self, source: str, dest: str) -> None:
        self._do("move", source, dest)


@pytest.fixture
def client() -> Client:
    return Client()


def run(client: Client, *words: str) -> int:
    arguments: argparse.Namespace = top_parser((add_changing,)).parse_args([*words])
    return int(arguments.run(client, arguments))


# -- mv


@pytest.mark.parametrize(
    ("words", "moved"),
    [
        (["/a", "/new"], [("/a", "/new")]),
        (["/a", "/b"], [("/a", "/b")]),
        (["/a", "/x"], [("/a", "/x/a")]),
        (["/a", "/new/"], [("/a", "/new/a")]),
        (["-T", "/a", "/x"], [("/a", "/x")]),
        (["-T", "/d/", "/new"], [("/d", "/new")]),
        (["/a", "/b", "/x"], [("/a", "/x/a"), ("/b", "/x/b")]),
        (["/d/", "/x"], [("/d", "/x/d")]),
        (["/?", "/new/"], [("/a", "/new/a"), ("/b", "/new/b"), ("/d", "/new/d"), ("/x", "/new/x")]),
    ],
)
def test_what_is_moved_gets_a_new_name_or_keeps_its_own_in_a_folder(client, words, moved) -> None:
    assert run(client, "mv", *words) == 0
    assert client.did == [("move", *pair) for pair in moved]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["/a", "/b", "/new"], r"2 files need a folder as DEST; /new is none\. Nothing was moved"),
        (["-T", "/a", "/b", "/x"], r"2 files need a folder as DEST"),
        (["/a", "/d/a", "/x"], r"two files would go to /x/a: one would replace the other\. Nothing was moved"),
    ],
)
def test_a_move_that_makes_no_sense_moves_nothing(client, words: list[str], said: str) -> None:
    with pytest.raises(UsageError, match=f"^{said}"):
        run(client, "mv", *words)
    assert client.did == []


# -- rm


def test_files_and_links_are_deleted_and_what_links_lead_to_stays(client, capsys) -> None:
    assert run(client, "rm", "/a", "/tod", "/dead", "/d") == 74
    assert client.did == [("delete", "/a"), ("delete", "/tod"), ("delete", "/dead")]
    assert capsys.readouterr().err == "iot-sftp: /d is a folder; delete it with -r, or rmdir where it is empty\n"
    assert run(client, "rm", "-r", "--yes", "/tod/") == 0
    assert client.did[3:] == [("delete", "/tod/")]


def test_a_pattern_is_deleted_name_by_name_and_one_that_matches_nothing_is_told(client, capsys) -> None:
    assert run(client, "rm", "/[ab]", "/gone*") == 1
    assert client.did == [("delete", "/a"), ("delete", "/b")]
    assert "nothing on the server matches '/gone*'" in capsys.readouterr().err


def test_a_folder_is_deleted_files_first_and_from_the_innermost_out(client) -> None:
    assert run(client, "rm", "-r", "--yes", "/d/") == 0
    assert client.did == [
        ("delete", "/d/a"), ("delete", "/d/e/c"), ("delete", "/d/l"), ("rmdir", "/d/e"), ("rmdir", "/d"),
    ]  # fmt: skip


def test_what_somebody_else_has_deleted_meanwhile_is_as_it_was_to_be(client) -> None:
    client.gone = {"/d/a", "/d/e"}
    assert run(client, "rm", "-r", "--yes", "/d") == 0
    assert client.did[-1] == ("rmdir", "/d")


@pytest.mark.parametrize("path", ["/", "//", ".", "/d/..", "/d/../d"])
def test_the_root_of_everything_is_not_deleted(client, capsys, path: str) -> None:
    client.stat = lambda _: FOLDER
    client.lstat = lambda _: FOLDER
    assert run(client, "rm", "-r", "--yes", path) == 74
    assert client.did == []
    assert f"iot-sftp: {path} is not deleted as a whole: name what is in it" in capsys.readouterr().err


class Typed(io.StringIO):
    """What a person types at the terminal, or a program sends."""

    def __init__(self, text: str, *, terminal: bool = True) -> None:
        super().__init__(text)
        self.terminal = terminal

    def isatty(self) -> bool:
        return self.terminal


@pytest.mark.parametrize(
    ("answer", "agreed"), [("y\n", True), (" YES \n", True), ("n\n", False), ("\n", False), ("", False)]
)
def test_a_folder_is_deleted_when_that_is_agreed_to(client, monkeypatch, capsys, answer: str, agreed: bool) -> None:
    monkeypatch.setattr(sys, "stdin", Typed(answer))
    assert run(client, "rm", "-r", "/d") == 0
    said = capsys.readouterr().err
    assert said.startswith("delete /d with 3 files in 2 folders? [y/N] ")
    assert bool(client.did) is agreed
    assert said.endswith("/d stays\n") is not agreed


def test_the_question_is_seen_before_the_answer_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []

    class Asked:
        def write(self, text: str) -> None:
            order.append(text)

        def flush(self) -> None:
            order.append("seen")

    class Answer:
        def readline(self) -> str:
            order.append("read")
            return "y\n"

    monkeypatch.setattr(sys, "stderr", Asked())
    monkeypatch.setattr(sys, "stdin", Answer())
    assert module._agreed("really \x1b? ")
    assert order == ["really \\x1b? ", "seen", "read"]


def test_where_nobody_can_be_asked_a_folder_is_only_deleted_with_yes(client, monkeypatch) -> None:
    monkeypatch.setattr(sys, "stdin", Typed("y\n", terminal=False))
    with pytest.raises(UsageError, match=r"say --yes\. Nothing was deleted$"):
        run(client, "rm", "-r", "/d")
    assert client.did == []
    assert run(client, "rm", "/a") == 0
    assert run(client, "rm", "-r", "--yes", "/b") == 0


# -- rmdir, mkdir


def test_folders_are_made_and_removed_one_by_one(client, capsys) -> None:
    assert run(client, "mkdir", "/m", "/n/o") == 0
    assert run(client, "rmdir", "/?", "/gone", "/d/e") == 1
    assert client.did == [
        ("mkdir", "/m"), ("mkdir", "/n/o"), ("rmdir", "/a"), ("rmdir", "/b"), ("rmdir", "/d"), ("rmdir", "/x"),
        ("rmdir", "/d/e"),
    ]  # fmt: skip
    client.mkdir = lambda path: (_ for _ in ()).throw(PermissionDenied(path))
    assert run(client, "mkdir", "/m") == 77
    assert capsys.readouterr().err.splitlines()[-1] == "iot-sftp: /m"


# -- names here


def test_a_pattern_that_no_shell_expanded_is_expanded_once_and_a_name_that_is_there_is_none(
    tmp_path, monkeypatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("b.csv", "a.csv", "[x]"):
        (tmp_path / name).touch()
    (tmp_path / "dead*").symlink_to("nowhere")
    assert expand_local(["*.csv", "a.csv", "[x]", "gone*", "dead*"]) == ["a.csv", "b.csv", "[x]", "gone*", "dead*"]


@pytest.mark.parametrize(
    ("path", "name"), [("a/b", "b"), ("a/b/", "b"), ("b", "b"), (".", ""), ("..", ""), ("a/..", ""), ("/", "")]
)
def test_a_file_arrives_under_its_last_name(path: str, name: str) -> None:
    assert base_name(path) == name


def test_a_name_that_comes_twice_is_found() -> None:
    assert (first_twice([]), first_twice("abc"), first_twice("abcba")) == (None, None, "b")
