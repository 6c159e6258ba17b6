"""Which server and which path a word of the command line means."""

from __future__ import annotations

import argparse

import pytest
from hypothesis import given
from hypothesis import strategies as st

from iot.sftp.client.cli.address import Place, Server, host_from, place_from
from iot.sftp.client.cli.fetching import add_get
from iot.sftp.client.cli.parser import UsageError, top_parser
from iot.sftp.client.cli.whereabouts import locate


@pytest.mark.parametrize(
    ("word", "path", "server"),
    [
        ("root@h:/tmp/", "/tmp/", Server("h", "root")),
        ("root@h:", ".", Server("h", "root")),
        ("root@h", ".", Server("h", "root")),
        ("me@corp@h.example:a:b", "a:b", Server("h.example", "me@corp")),
        ("u@[::1]:/x", "/x", Server("::1", "u")),
        ("u@[fe80::1%eth0]", ".", Server("fe80::1%eth0", "u")),
        ("h:/x", "/x", Server("h")),
        ("[::1]:x", "x", Server("::1")),
        ("sftp://u@h:2222/a%20b/c", "/a b/c", Server("h", "u", 2222)),
        ("sftp://h", ".", Server("h")),
        ("sftp://h/", "/", Server("h")),
        ("sftp://h/~/in", "in", Server("h")),
        ("sftp://h/~", ".", Server("h")),
        ("sftp://[::1]:22/x", "/x", Server("::1", None, 22)),
        ("sftp://me%40corp@h/x", "/x", Server("h", "me@corp")),
        ("/upload/a@b:c", "/upload/a@b:c", None),
        ("./a@b:c", "./a@b:c", None),
        ("a.csv", "a.csv", None),
        ("@h", "@h", None),
        (":x", ":x", None),
    ],
)
def test_a_word_names_a_path_and_perhaps_a_server(word: str, path: str, server: Server | None) -> None:
    assert place_from(word, host_known=False) == Place(path, server)


def test_a_colon_in_a_name_is_no_host_where_the_host_is_known() -> None:
    assert place_from("log-12:30.csv", host_known=True) == Place("log-12:30.csv")
    assert place_from("u@h:x", host_known=True) == Place("x", Server("h", "u"))


@pytest.mark.parametrize("word", ["sftp://", "sftp:///x", "sftp://u:hunter2@h/x", "sftp://h:70000/", "sftp://h:0/"])
def test_an_address_that_makes_no_sense_is_refused_and_shows_no_password(word: str) -> None:
    with pytest.raises(UsageError) as caught:
        place_from(word, host_known=False)
    assert "hunter2" not in str(caught.value)


@given(st.text(), st.booleans())
def test_any_text_is_a_place_or_refused(word: str, host_known: bool) -> None:
    try:
        place = place_from(word, host_known=host_known)
    except UsageError:
        return
    assert place.server is None or place.server.host


def test_a_host_may_bring_user_and_port() -> None:
    assert host_from("h") == Server("h")
    assert host_from("u@[::1]") == Server("::1", "u")
    assert host_from("sftp://u@h:23/") == Server("h", "u", 23)
    with pytest.raises(UsageError, match="a host has no path"):
        host_from("sftp://h/x")


def located(monkeypatch: pytest.MonkeyPatch, environment: str = "", **values: object) -> argparse.Namespace:
    monkeypatch.setenv("SFTP_HOST", environment)
    arguments = argparse.Namespace(**{"remote": ("source", "dest"), "source": None, "dest": None, **values})
    locate(arguments)
    return arguments


def test_the_server_comes_out_of_the_words(monkeypatch: pytest.MonkeyPatch) -> None:
    found = located(monkeypatch, source=["u@h:/a", "u@h:/b"], dest="u@h:c")
    assert (found.host, found.user, found.source, found.dest) == ("h", "u", ["/a", "/b"], "c")
    assert not hasattr(found, "port")
    found = located(monkeypatch, environment="me@other", source="x")
    assert (found.host, found.user, found.source, found.addressed) == ("other", "me", "x", False)


@pytest.mark.parametrize(
    "values",
    [
        {"source": "a@h:x", "dest": "b@h:y"},
        {"source": "a@h:x", "dest": "a@i:y"},
        {"source": "a@h:x", "host": "i"},
        {"source": "a@h:x", "user": "b"},
        {"source": "b@h:x", "user": "a"},
        {"source": "sftp://h:1/x", "port": "2"},
    ],
)
def test_words_that_contradict_each_other_are_refused(monkeypatch: pytest.MonkeyPatch, values: dict[str, str]) -> None:
    with pytest.raises(UsageError):
        located(monkeypatch, **values)


def test_servers_that_differ_only_in_their_user_are_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match=r"one server at a time: a@h or b@h port 3$"):
        located(monkeypatch, source="a@h:x", dest="sftp://b@h:3/y")
    with pytest.raises(UsageError, match=r"a@h or that of --host$"):
        located(monkeypatch, source="a@h:x", host="b@h")


def test_the_same_said_twice_is_no_contradiction(monkeypatch: pytest.MonkeyPatch) -> None:
    found = located(monkeypatch, source="a@h:x", user="a", port="2")
    assert (found.host, found.user, found.port) == ("h", "a", "2")
    assert located(monkeypatch, source="sftp://h:2/x", port="2").port == 2


@pytest.mark.parametrize(
    ("environment", "words", "dest"),
    [
        ("", ["h:/a", "h:/b"], None),
        ("", ["h:/a", "b"], "b"),
        ("", ["h:/a", "x:/b"], "x:/b"),
        ("", ["u@h:/a", "u@h:/b"], None),
        ("h", ["12:30.csv", "12:31.csv"], "12:31.csv"),
        ("h", ["/a", "u@h:/b"], None),
        ("", ["sftp://h/a"], None),
    ],
)
def test_the_last_word_of_get_is_local_unless_it_is_on_the_server_too(
    environment: str, words: list[str], dest: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SFTP_HOST", environment)
    arguments = top_parser((add_get,)).parse_args(["get", *words])
    arguments.arrange(arguments)
    assert arguments.dest == dest
    assert arguments.sources == (words if dest is None else words[:-1])
