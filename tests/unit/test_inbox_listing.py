"""What a look at a remote folder finds, and whether it has seen all of it: only then is anything forgotten here."""

from __future__ import annotations

import stat
from collections.abc import Callable

import pytest

from iot.spooler.inbox import listing
from iot.spooler.inbox.listing import Listing, listed, remote_join
from iot.spooler.inbox.wanted import clashes
from iot.transfer import LinkLost, NotFound, PermissionDenied, RemoteEntry, RemoteFile

FILE = RemoteFile(3, 10**9, stat.S_IFREG | 0o644)
FOLDER = RemoteFile(None, None, stat.S_IFDIR | 0o755)


class Server:
    def __init__(self, folders: dict[str, list[RemoteEntry] | Exception]) -> None:
        self.folders = folders

    def scan(self, path: str, *, leave_out: Callable[[bytes, bytes], None] | None = None) -> list[RemoteEntry]:
        found = self.folders[path]
        if isinstance(found, Exception):
            raise found
        return found

    def stat(self, path: str) -> RemoteFile:
        return FILE


def look(folders: dict[str, list[RemoteEntry] | Exception]) -> Listing:
    return listed(Server(folders), "/cfg", recursive=True, tick=lambda: None)


def test_all_was_seen_where_each_folder_could_be_listed() -> None:
    found = look({"/cfg": [RemoteEntry("a", FILE), RemoteEntry("deep", FOLDER)], "/cfg/deep": [RemoteEntry("b", FILE)]})
    assert (sorted(found.files), found.refused, found.complete) == (["a", "deep/b"], {}, True)


@pytest.mark.parametrize("error", [PermissionDenied("no"), NotFound("removed meanwhile")])
def test_a_folder_that_cannot_be_listed_makes_nobody_forget_its_files(error: Exception) -> None:
    found = look({"/cfg": [RemoteEntry("a", FILE), RemoteEntry("deep", FOLDER)], "/cfg/deep": error})
    assert (list(found.files), found.complete) == (["a"], False)
    assert ("deep" in found.refused) is isinstance(error, PermissionDenied)


def test_a_link_that_is_lost_is_none_of_its_folders_fault() -> None:
    with pytest.raises(LinkLost):
        look({"/cfg": [RemoteEntry("deep", FOLDER)], "/cfg/deep": LinkLost("cut")})


def test_a_linked_folder_is_not_entered_and_only_regular_files_are_fetched() -> None:
    pipe = RemoteFile(0, 10**9, stat.S_IFIFO | 0o644)
    found = look({"/cfg": [RemoteEntry("loop", FOLDER, is_link=True), RemoteEntry("pipe", pipe)]})
    assert (found.files, found.refused) == ({}, {"pipe": "not a regular file"})


def test_more_files_than_fit_are_told_and_make_nobody_forget_the_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listing, "FILES_MAX", 2)
    found = look({"/cfg": [RemoteEntry(name, FILE) for name in "abc"]})
    assert (list(found.files), found.refused, found.complete) == (["a", "b"], {"c": "more than 2 files"}, False)


def test_what_is_still_written_has_a_checksum_that_is_still_written() -> None:
    found = look({"/cfg": [RemoteEntry(name, FILE) for name in ("a.part.SHA256", "b.TMP", ".c", "d")]})
    assert list(found.files) == ["d"]


def test_names_that_are_one_where_case_or_composition_does_not_count_clash() -> None:
    composed, apart = "\u00e9.csv", "e\u0301.CSV"
    assert clashes([composed, apart, "f"]) == {apart: composed}


def test_folders_deeper_than_are_looked_into_are_named_and_make_nobody_forget_their_files(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(listing, "DEPTH_MAX", 2)
    deep = {"/cfg": [RemoteEntry("a", FOLDER)], "/cfg/a": [RemoteEntry("b", FOLDER), RemoteEntry("f", FILE)]}
    found = look(deep)
    assert (list(found.files), found.refused, found.complete) == (["a/f"], {"a/b": "more than 2 folders deep"}, False)


@pytest.mark.parametrize("told", [RemoteFile(3, None), RemoteFile(None, 10**9), RemoteFile(None, None)])
def test_what_a_listing_does_not_tell_is_asked_for(told: RemoteFile) -> None:
    assert look({"/cfg": [RemoteEntry("a", told)]}).files == {"a": FILE}


def test_folders_are_entered_only_where_that_is_asked_for_and_a_tick_comes_with_each() -> None:
    ticks: list[None] = []
    top = [RemoteEntry("one", FOLDER), RemoteEntry("two", FOLDER), RemoteEntry("a", FILE)]
    server = Server({"/cfg": top, "/cfg/one": [], "/cfg/two": [RemoteEntry("b", FILE)]})
    for recursive, files, folders in ((False, ["a"], 1), (True, ["a", "two/b"], 3)):
        ticks.clear()
        found = listed(server, "/cfg", recursive=recursive, tick=lambda: ticks.append(None))
        assert (list(found.files), found.complete, len(ticks)) == (files, True, folders)


def test_a_name_of_255_bytes_is_fetched_and_a_longer_one_is_told() -> None:
    fits, longer = "n" * 253 + "\u00e9", "n" * 254 + "\u00e9"
    found = look({"/cfg": [RemoteEntry(fits, FILE), RemoteEntry(longer, FILE)]})
    assert (list(found.files), found.refused) == ([fits], {longer: "its name has more than 255 bytes"})


def test_where_a_server_does_not_tell_what_a_file_is_it_is_taken_for_one() -> None:
    found = look(
        {"/cfg": [RemoteEntry("a", RemoteFile(3, 10**9, None)), RemoteEntry("b", RemoteFile(3, 10**9, 0o644))]}
    )
    assert (list(found.files), found.refused) == (["a", "b"], {})


def test_what_may_not_be_asked_for_stays_as_it_was_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object) -> RemoteFile:
        raise PermissionDenied("no")

    monkeypatch.setattr(Server, "stat", refused)
    told = RemoteFile(None, 10**9)
    assert look({"/cfg": [RemoteEntry("a", told)]}).files == {"a": told}


def test_what_is_no_name_is_told_where_it_lies(monkeypatch: pytest.MonkeyPatch) -> None:
    def scan(self: Server, path: str, *, leave_out: Callable[[bytes, bytes], None]) -> list[RemoteEntry]:
        leave_out(path.encode(), b"../x")
        return [RemoteEntry("deep", FOLDER)] if path == "/cfg" else []

    monkeypatch.setattr(Server, "scan", scan)
    words = "not a name: it would lead out of the folder"
    assert look({}).refused == {"../x": words, "deep/../x": words}


@pytest.mark.parametrize(
    ("root", "path", "joined"),
    [(".", "a", "a"), (".", "", "."), ("/cfg", "a/b", "/cfg/a/b"), ("/cfg", "", "/cfg"), ("cfg", "a", "cfg/a")],
)
def test_a_path_below_the_login_folder_stands_alone(root: str, path: str, joined: str) -> None:
    assert remote_join(root, path) == joined
