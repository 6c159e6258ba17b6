"""What ls, stat and exists show of a server, and how patterns are found on it, without a server."""

from __future__ import annotations

import argparse
import json
from typing import Any

import pytest

from iot.sftp.client.cli import listing as module
from iot.sftp.client.cli.listing import add_listing
from iot.sftp.client.cli.parser import top_parser
from iot.sftp.client.cli.remote_tree import Found, expand, in_folder, is_folder, is_pattern, look, matches, walk
from iot.transfer.errors import NotFound, PermissionDenied
from iot.transfer.model import RemoteEntry, RemoteFile

FOLDER = RemoteFile(4096, 1_000_000_000, 0o040755)
FILE = RemoteFile(3, 1_000_000_000, 0o100640)


class Client:
    """A server with these paths, absolute and without an end; what was asked of it is noted."""

    def __init__(self, **there: RemoteFile) -> None:
        self.there = {"/": FOLDER, ".": FOLDER} | {f"/{name}": file for name, file in there.items()}
        self.links: set[str] = set()
        self.denied: set[str] = set()
        self.asked: list[str] = []

    def stat(self, path: str) -> RemoteFile:
        self.asked.append(f"stat {path}")
        found = self.there.get(path.rstrip("/") or "/")
        if found is None:
            raise NotFound(f"{path}: No such file")
        return found

    def scan(self, path: str) -> Any:
        self.asked.append(f"scan {path}")
        if path in self.denied:
            raise PermissionDenied(f"{path}: denied")
        path = path[1:] if path.startswith("./") else path  # the login's folder is the first
        if (path.rstrip("/") or "/") not in self.there:
            raise NotFound(path)
        base = "/" if path in (".", "/") else path.rstrip("/") + "/"
        for name, file in sorted(self.there.items()):
            if name.startswith(base) and "/" not in name[len(base) :] and name not in (base, "."):
                yield RemoteEntry(name[len(base) :], file, name in self.links)

    def walk(self, folder: str, *, wanted: Any) -> Any:
        """As the client's: (path below the folder, its entries or why it cannot be listed)."""
        waiting = [""]
        while waiting:
            path = waiting.pop(0)
            whole = f"{folder.rstrip('/')}/{path}".rstrip("/") or "/"
            if whole in self.denied:
                yield path, PermissionDenied(f"{whole}: denied")
                continue
            entries = [entry for entry in self.scan(whole) if wanted(entry.name)]
            yield path, entries
            inside = [entry.name for entry in entries if entry.is_folder and not entry.is_link]
            waiting += [f"{path}/{name}".lstrip("/") for name in inside]


@pytest.fixture
def client() -> Any:
    return Client(**{
        "a.csv": FILE, "b.csv": FILE, ".hidden": FILE, "up": FOLDER, "up/c.csv": FILE, "up/d": FOLDER,
        "up/d/e.csv": FILE, "up/.git": FOLDER, "up/.git/x.csv": FILE, "up/c.csv.0123abcd.part": FILE,
    })  # fmt: skip


def shown(client: Any, capsys: pytest.CaptureFixture[str], *words: str) -> list[str]:
    arguments: argparse.Namespace = top_parser((add_listing,)).parse_args([*words])
    assert arguments.run(client, arguments) == 0
    return capsys.readouterr().out.splitlines()


# -- ls


@pytest.mark.parametrize(
    ("words", "lines"),
    [
        (["ls"], ["a.csv", "b.csv", "up/"]),
        (["ls", "/"], ["a.csv", "b.csv", "up/"]),
        (["ls", "/up"], ["c.csv", "d/"]),
        (["ls", "/up/"], ["c.csv", "d/"]),
        (["ls", "-a", "/up"], [".git/", "c.csv", "c.csv.0123abcd.part", "d/"]),
        (["ls", "-R", "/up"], ["c.csv", "d/", "d/e.csv"]),
        (["ls", "-aR", "/up"], [".git/", ".git/x.csv", "c.csv", "c.csv.0123abcd.part", "d/", "d/e.csv"]),
        (["ls", "/a.csv"], ["/a.csv"]),
        (["ls", "/*.csv"], ["/a.csv", "/b.csv"]),
        (["ls", "/u*"], ["/up/"]),
        (["ls", "-R", "/u*"], ["/up/c.csv", "/up/d/", "/up/d/e.csv"]),
        (["ls", "/up", "/a.csv"], ["/up/c.csv", "/up/d/", "/a.csv"]),
        (["ls", "--files", "/up"], ["c.csv"]),
        (["ls", "--directories", "/up"], ["d/"]),
        (["ls", "-R", "."], ["a.csv", "b.csv", "up/", "up/c.csv", "up/d/", "up/d/e.csv"]),
    ],
)
def test_names_stand_below_the_only_folder_and_else_with_the_path_that_leads_to_them(
    client, capsys, words: list[str], lines: list[str]
) -> None:
    assert shown(client, capsys, *words) == lines


@pytest.mark.parametrize(("way", "suffix"), [("option", ".tmp"), ("variable", ".tmp"), ("", ".part")])
def test_unfinished_parts_are_hidden_by_the_suffix_that_they_have(client, capsys, monkeypatch, way, suffix) -> None:
    for name in (".tmp", ".part", ".1234.part"):
        client.there[f"/p/x.0123abcd{name}"] = FILE
    client.there["/p"] = FOLDER
    if way == "variable":
        monkeypatch.setenv("SFTP_PART_SUFFIX", ".tmp")
    given = ["--part-suffix", ".tmp"] if way == "option" else []
    expected = sorted(f"x.0123abcd{name}" for name in {".tmp", ".part", ".1234.part"} - {suffix})
    assert shown(client, capsys, "ls", *given, "/p") == expected


def test_a_folder_that_a_pattern_found_is_named_and_not_opened(client, capsys) -> None:
    client.there |= {"/!x": FOLDER, "/!x/y": FILE}
    assert shown(client, capsys, "ls", "/*x") == ["/!x/"]


def test_names_may_end_in_nul_and_lines_may_be_long_or_json(client, capsys) -> None:
    arguments = top_parser((add_listing,)).parse_args(["ls", "-0", "/up"])
    arguments.run(client, arguments)
    assert capsys.readouterr().out == "c.csv\0d/\0"
    assert shown(client, capsys, "ls", "-l", "/up") == [
        "-rw-r-----            3 2001-09-09T01:46:40Z c.csv",
        "drwxr-xr-x         4096 2001-09-09T01:46:40Z d/",
    ]
    rows = [json.loads(line) for line in shown(client, capsys, "ls", "--json", "/up")]
    assert rows == [
        {"name": "c.csv", "type": "file", "size": 3, "mtime": "2001-09-09T01:46:40Z", "mode": "0640"},
        {"name": "d", "type": "folder", "size": 4096, "mtime": "2001-09-09T01:46:40Z", "mode": "0755"},
    ]


BEGIN = "1970-01-01T00:00:00Z"


@pytest.mark.parametrize(
    ("file", "line", "row"),
    [
        (RemoteFile(None), "??????????            ? ?                    n", [None, None, None, None]),
        (RemoteFile(0, 0, 0o120777), f"lrwxrwxrwx            0 {BEGIN} n", ["link", 0, BEGIN, "0777"]),
        (RemoteFile(1, 10**18, 0o010600), "prw-------            1 ?                    n", ["other", 1, None, "0600"]),
        (RemoteFile(1, 0, 0), f"?---------            1 {BEGIN} n", ["other", 1, BEGIN, "0000"]),
    ],
)  # fmt: skip
def test_what_the_server_does_not_tell_is_left_open(file: RemoteFile, line: str, row: list[Any]) -> None:
    assert module._long_line("n", file) == line
    found = json.loads(module._json_line("n", file))
    assert [found[key] for key in ("type", "size", "mtime", "mode")] == row


def test_what_cannot_be_listed_does_not_hold_up_the_others(client, capsys) -> None:
    arguments = top_parser((add_listing,)).parse_args(["ls", "/gone", "/up"])
    assert arguments.run(client, arguments) == 1
    said = capsys.readouterr()
    assert (said.out, said.err) == ("/up/c.csv\n/up/d/\n", "iot-sftp: /gone: No such file\n")


# -- stat, exists


def test_stat_tells_of_files_and_folders_in_full(client, capsys) -> None:
    assert shown(client, capsys, "stat", "/up", "/a*") == [
        "drwxr-xr-x         4096 2001-09-09T01:46:40Z /up/",
        "-rw-r-----            3 2001-09-09T01:46:40Z /a.csv",
    ]
    (row,) = shown(client, capsys, "stat", "--json", "/up")
    assert json.loads(row)["name"] == "/up"


@pytest.mark.parametrize(("path", "code"), [("/up", 0), ("/gone", 1)])
def test_exists_is_an_exit_code(client, capsys, path: str, code: int) -> None:
    arguments = top_parser((add_listing,)).parse_args(["exists", path])
    assert arguments.run(client, arguments) == code
    assert capsys.readouterr().out == ""


# -- patterns


@pytest.mark.parametrize(
    ("pattern", "found"),
    [
        ("/*.csv", ["/a.csv", "/b.csv"]),
        ("/[ab].csv", ["/a.csv", "/b.csv"]),
        ("/?.csv", ["/a.csv", "/b.csv"]),
        ("/.h*", ["/.hidden"]),
        ("/*/c.csv", ["/up/c.csv"]),
        ("/up/*/e.*", ["/up/d/e.csv"]),
        ("/*/*/*.csv", ["/up/d/e.csv"]),
        ("//up//*.csv", ["/up/c.csv"]),
    ],
)
def test_a_pattern_is_expanded_part_by_part(client, pattern: str, found: list[str]) -> None:
    assert [each.path for each in expand(client, [pattern])] == found


def test_a_relative_pattern_begins_in_the_login_folder(client) -> None:
    assert [each.path for each in expand(client, ["*.csv"])] == ["a.csv", "b.csv"]
    assert client.asked[1:] == ["scan ."]


@pytest.mark.parametrize("pattern", ["/*.txt", "/gone/*", "/*/gone", "/a.csv/*"])
def test_what_no_name_matches_is_told(client, pattern: str) -> None:
    with pytest.raises(NotFound, match=r"nothing on the server matches"):
        list(expand(client, [pattern]))
    with pytest.raises(NotFound, match=r"^/gone: No such file$"):
        list(expand(client, ["/gone"]))


def test_a_name_that_is_there_as_it_is_written_is_no_pattern_and_each_is_found_once(client) -> None:
    client.there["/[ab].csv"] = FILE
    found = [each.path for each in expand(client, ["/[ab].csv", "/*.csv", "/a.csv"])]
    assert found == ["/[ab].csv", "/a.csv", "/b.csv"]


def test_a_folder_on_the_way_that_is_shut_is_an_error(client) -> None:
    client.denied.add("/up")
    with pytest.raises(PermissionDenied):
        list(expand(client, ["/up/*.csv"]))


def test_a_link_is_told_as_one(client) -> None:
    client.links.add("/up/d")
    assert [(each.path, each.is_folder, each.is_link) for each in in_folder(client, "/up")][-1] == ("/up/d", True, True)
    assert "/up/d/e.csv" not in [each.path for each in walk(client, "/up")]
    assert Found("x", FILE).is_link is False


def test_all_that_can_be_listed_comes_before_the_first_error(client) -> None:
    client.denied = {"/up/d", "/up/.git"}
    walking = walk(client, "/up")
    assert [next(walking).path for _ in range(4)] == ["/up/.git", "/up/c.csv", "/up/c.csv.0123abcd.part", "/up/d"]
    with pytest.raises(PermissionDenied, match=r"/up/\.git: denied"):
        next(walking)


def test_what_is_a_folder_a_pattern_or_there_is_known(client) -> None:
    assert [is_folder(file) for file in (None, FILE, FOLDER, RemoteFile(3))] == [False, False, True, False]
    assert [is_pattern(path) for path in ("a*", "a?", "a[", "a]", "a")] == [True, True, True, False, False]
    assert [matches(name, "*") for name in ("a", ".a")] == [True, False]
    assert [matches(name, ".*") for name in ("a", ".a")] == [False, True]
    assert (look(client, "/gone"), look(client, "/up")) == (None, FOLDER)
