"""What stands under a path on an FTP server, answer by answer: not there is only what is certain."""

from __future__ import annotations

import stat
from typing import Any

import pytest

from iot.ftp import paths as module
from iot.ftp.paths import Paths, sent
from iot.transfer.errors import LinkLost, NotFound, PermissionDenied, ServerRefused, Unsupported
from iot.transfer.model import RemoteFile

PWD = {"PWD": '257 "/home" is it'}
GONE, UNCLEAR, DENIED = "550 No such file or directory", "550 Failed", "550 Permission denied"


class Data:
    def __init__(self, blocks: list[bytes], reply: str) -> None:
        self.blocks, self.reply, self.broken = list(blocks), reply, 0

    def receive(self) -> bytes:
        return self.blocks.pop(0) if self.blocks else b""

    def done(self) -> str:
        return self.reply

    def break_off(self) -> None:
        self.broken += 1


class Connection:
    """Answers commands from a table: the command with its path, or the command alone; "500" to all else.

    listing: bytes, pieces of them, or a table of these by command. refusing: the command that lists -> its error.
    """

    def __init__(self, answers: dict[str, str], features: tuple[str, ...] = (), listing: Any = b"") -> None:
        self.answers, self.features, self.asked = {**PWD, **answers}, set(features), []
        self.listing = listing
        self.data: Data | None = None
        self.refusing: dict[str, Exception] = {}

    def ask(self, command: str, path: bytes = b"") -> tuple[bool, str]:
        self.asked.append(f"{command} {path.decode()}".strip())
        reply = self.answers.get(self.asked[-1], self.answers.get(command, "500 what"))
        return reply[0] in "123", reply

    def command(self, command: str, path: bytes = b"") -> str:
        return self.ask(command, path)[1]

    def transfer(self, command: str) -> Data:
        self.asked.append(command)
        if command in self.refusing:
            raise self.refusing[command]
        listing = self.listing[command] if isinstance(self.listing, dict) else self.listing
        blocks = listing if isinstance(listing, list) else [listing]
        self.data = Data(blocks, self.answers.get("226", "226 done"))
        return self.data


def paths(answers: dict[str, str], features: tuple[str, ...] = (), listing: Any = b"") -> tuple[Paths, Connection]:
    connection = Connection(answers, features, listing)
    return Paths(connection), connection


def line(name: str, kind: str = "-") -> bytes:
    return f"{kind}rw-r--r-- 1 me us 3 Nov 28 20:00 {name}\r\n".encode()


# -- looking


def test_facts_tell_what_a_path_is():
    facts = "250-Begin\n Type=file;Size=3;Modify=20261128200000; /up/f\n250 End"
    found, connection = paths({"MLST /up/f": facts}, ("MLST",))
    assert found.stat(b"/up/f") == RemoteFile(3, 1795896000, stat.S_IFREG)
    assert connection.asked == ["MLST /up/f"]


@pytest.mark.parametrize("reply", ["500 what", "502 not here", "504 no"])
def test_a_server_that_announces_facts_and_has_none_is_asked_for_the_size(reply):
    found, _ = paths({"MLST": reply, "SIZE": "213 7", "MDTM": "213 20261128200000"}, ("MLST",))
    assert found.stat(b"/up/f") == RemoteFile(7, 1795896000, stat.S_IFREG)


@pytest.mark.parametrize(("mdtm", "mtime_s"), [("213 20261128200000", 1795896000), ("500 what", None), ("213 x", None)])
def test_without_facts_size_and_time_are_asked_for(mdtm, mtime_s):
    found, _ = paths({"SIZE": "213 7", "MDTM": mdtm})
    assert found.stat(b"/up/f") == RemoteFile(7, mtime_s, stat.S_IFREG)


def test_what_has_no_size_and_can_be_entered_is_a_folder_and_is_left_again():
    found, connection = paths({"SIZE": UNCLEAR, "CWD": "250 ok"})
    assert found.stat(b"/up/d") == RemoteFile(None, mode=stat.S_IFDIR)
    assert connection.asked == ["SIZE /up/d", "PWD", "CWD /up/d", "CWD /home"]


@pytest.mark.parametrize("features", [(), ("MLST",)])
def test_only_what_is_certainly_not_there_is_not_there(features):
    refusing = {"CWD /up/f": "550 no", "CWD /up": "250 ok", "CWD /home": "250 ok"}
    for reply, listing, expected in (
        (GONE, b"", None),
        (UNCLEAR, b"Type=file; other\r\n" if features else line("other"), None),
        (UNCLEAR, b"Type=file; f\r\n" if features else line("f"), PermissionDenied),
        (UNCLEAR, b"?? strange line\r\n", ServerRefused),
        (DENIED, b"", PermissionDenied),
    ):
        found, _ = paths({"SIZE": reply, "MLST": reply, **refusing}, features, listing)
        if expected is None:
            assert found.stat(b"/up/f") is None
        else:
            with pytest.raises(expected):
                found.stat(b"/up/f")


def test_below_a_folder_that_is_not_there_nothing_is_and_below_one_that_is_shut_nothing_is_known():
    shut = {"SIZE": UNCLEAR, "CWD": "550 no", "CWD /": "250 ok", "CWD /home": "250 ok"}
    found, _ = paths(shut, listing=line("other"))
    assert found.stat(b"/up/f") is None
    found, _ = paths(shut, listing=line("up", "d"))
    with pytest.raises(PermissionDenied, match="cannot be entered"):
        found.stat(b"/up/f")


def test_the_root_is_there():
    found, _ = paths({"SIZE": UNCLEAR, "CWD": "550 no"})
    with pytest.raises(PermissionDenied):
        found.stat(b"/")


@pytest.mark.parametrize(
    ("answers", "expected"),
    [
        ({"SIZE": "213 7"}, 7),
        ({"SIZE": "213  007 "}, 7),
        ({"SIZE": "213 many"}, ServerRefused),
        ({"SIZE": GONE, "CWD": "550 no"}, None),
        ({"SIZE": UNCLEAR, "CWD": "250 ok"}, ServerRefused),
    ],
)
def test_a_size_is_a_number_or_none(answers, expected):
    found, _ = paths(answers)
    if isinstance(expected, type):
        with pytest.raises(expected):
            found.size(b"/up/f")
    else:
        assert found.size(b"/up/f") == expected


def test_a_size_is_taken_from_the_facts_where_size_is_refused():
    facts = "250-Begin\n Type=file;Size=3; /up/f\n250 End"
    found, _ = paths({"SIZE": UNCLEAR, "MLST": facts}, ("MLST",))
    assert found.size(b"/up/f") == 3
    found, _ = paths({"SIZE": UNCLEAR, "MLST": facts.replace("file", "dir")}, ("MLST",))
    with pytest.raises(ServerRefused):
        found.size(b"/up/f")


# -- refusals


@pytest.mark.parametrize(
    ("reply", "there", "kind"),
    [
        (GONE, True, NotFound),
        (UNCLEAR, True, PermissionDenied),
        (UNCLEAR, False, NotFound),
        (DENIED, False, PermissionDenied),
    ],
)
def test_an_unclear_refusal_is_cleared_up_by_looking(reply, there, kind):
    found, connection = paths({"SIZE": "213 1" if there else GONE, "MDTM": "500", "CWD": "550 no"})
    assert type(found.refusal(b"/up/f", reply, "STOR")) is kind
    assert bool(connection.asked) is (reply == UNCLEAR)


def test_what_cannot_be_looked_at_is_there():
    found, _ = paths({"SIZE": DENIED, "CWD": "550 no"})
    assert type(found.refusal(b"/up/f", UNCLEAR, "STOR")) is PermissionDenied


# -- folders and listings


def test_the_login_folder_is_asked_for_once_and_unquoted():
    found, connection = paths({"PWD": '257 "/a ""b"""', "CWD": "250 ok"})
    assert found.is_folder(b"x")
    assert not paths({"CWD": "550 no"})[0].is_folder(b"x")
    assert found.is_folder(b"y")
    assert connection.asked == ["PWD", "CWD x", 'CWD /a "b"', "CWD y", 'CWD /a "b"']
    with pytest.raises(ServerRefused, match="does not name a folder"):
        paths({"PWD": "257 what"})[0].is_folder(b"x")


@pytest.mark.parametrize(("path", "entered"), [(b"/up", "CWD /up"), (b"-x", "CWD ./-x"), (b"", "CWD /home")])
def test_a_folder_is_listed_from_inside_and_left_again(path, entered):
    found, connection = paths({"CWD": "250 ok"}, listing=line("f") + line("d", "d"))
    assert sorted(entry.name for entry in found.list(path).entries) == [b"d", b"f"]
    assert connection.asked == ["PWD", entered, "LIST -a", "CWD /home"]


def test_facts_are_preferred_in_listings_too():
    found, connection = paths({"CWD": "250 ok"}, ("MLST",), b"Type=file;Size=3; f\r\n")
    assert [entry.name for entry in found.list(b"/up").entries] == [b"f"]
    assert "MLSD" in connection.asked


def test_a_folder_that_cannot_be_entered_is_told_as_what_it_is():
    for reply, kind in ((GONE, NotFound), (DENIED, PermissionDenied)):
        with pytest.raises(kind):
            paths({"CWD": reply})[0].list(b"/up")


def test_a_listing_that_failed_or_broke_off_or_has_no_end_is_none(monkeypatch):
    found, connection = paths({"CWD": "250 ok", "226": "226 Transfer done (but failed to open directory)."})
    with pytest.raises(PermissionDenied, match="cannot list"):
        found.list(b"/up")
    assert connection.asked[-1] == "CWD /home"
    with pytest.raises(LinkLost, match="broke off in the middle of a line"):
        paths({"CWD": "250 ok"}, listing=line("f")[:-2])[0].list(b"/up")
    monkeypatch.setattr(module, "MOST_BYTES", 100)
    found, connection = paths({"CWD": "250 ok"}, listing=[b"x" * 60, b"y" * 60])
    with pytest.raises(ServerRefused, match="is longer than 100 bytes"):
        found.list(b"/up")
    assert connection.data.broken == 1


def test_lines_may_end_in_either_way_and_empty_ones_say_nothing():
    unix = line("f").replace(b"\r\n", b"\n") + b"\n" + line("g").replace(b"\r\n", b"\n")
    found, _ = paths({"CWD": "250 ok"}, listing=[unix[:10], unix[10:]])
    assert sorted(entry.name for entry in found.list(b"/up").entries) == [b"f", b"g"]


@pytest.mark.parametrize(
    ("path", "told"),
    [(b"-x", b"./-x"), (b" x", b"./ x"), (b"~x", b"./~x"), (b"x", b"x"), (b"/-x", b"/-x"), (b"", b".")],
)
def test_a_path_that_would_be_taken_for_something_else_is_told_as_a_path(path, told):
    assert sent(path) == told


# -- links in listings


FACTS_OF_FOLDER = b"Type=dir; d\r\nType=file;Size=3; f\r\n"


def links(found: Paths) -> dict[bytes, bool]:
    return {entry.name: entry.is_link for entry in found.list(b"/up").entries}


def test_a_link_that_the_facts_take_for_a_folder_is_seen_in_the_other_listing():
    listing = {"MLSD": FACTS_OF_FOLDER, "LIST -a": line("d -> elsewhere", "l") + line("f")}
    found, connection = paths({"CWD": "250 ok"}, ("MLST",), listing)
    assert links(found) == {b"d": True, b"f": False}
    assert connection.asked == ["PWD", "CWD /up", "MLSD", "LIST -a", "CWD /home"]
    listing["LIST -a"] = line("d", "d") + line("f")
    assert links(found) == {b"d": False, b"f": False}
    assert connection.asked.count("LIST -a") == 2


def test_a_server_whose_facts_show_links_is_not_asked_twice():
    listing = {"MLSD": b"Type=OS.unix=slink:/x; l\r\n" + FACTS_OF_FOLDER}
    found, connection = paths({"CWD": "250 ok"}, ("MLST",), listing)
    assert links(found) == {b"l": True, b"d": False, b"f": False}
    listing["MLSD"] = FACTS_OF_FOLDER
    assert links(found) == {b"d": False, b"f": False}
    assert "LIST -a" not in connection.asked


def test_where_there_are_only_files_no_link_is_looked_for():
    found, connection = paths({"CWD": "250 ok"}, ("MLST",), {"MLSD": b"Type=file;Size=3; f\r\n"})
    assert links(found) == {b"f": False}
    assert "LIST -a" not in connection.asked


def test_a_server_that_lists_in_one_way_only_is_listed_in_that_way():
    found, connection = paths({"CWD": "250 ok"}, ("MLST",), {"MLSD": FACTS_OF_FOLDER})
    connection.refusing["LIST -a"] = ServerRefused("no")
    assert links(found) == {b"d": False, b"f": False}
    found, connection = paths({"CWD": "250 ok"}, ("MLST",), {"LIST -a": line("g")})
    connection.refusing["MLSD"] = Unsupported("no")
    assert links(found) == {b"g": False}
    connection.refusing["MLSD"] = PermissionDenied("no")
    with pytest.raises(PermissionDenied):
        found.list(b"/up")
    assert connection.asked[-1] == "CWD /home"


# -- edges


def test_an_empty_folder_and_a_listing_of_just_the_size_that_is_allowed_are_fine(monkeypatch):
    assert paths({"CWD": "250 ok"})[0].list(b"/up").entries == ()
    whole = line("f")
    monkeypatch.setattr(module, "MOST_BYTES", len(whole))
    assert len(paths({"CWD": "250 ok"}, listing=whole)[0].list(b"/up").entries) == 1


def test_a_listing_with_names_that_hold_a_line_feed_ends_its_lines_in_both():
    found, _ = paths({"CWD": "250 ok"}, listing=line("f\nx") + line("g"))
    assert sorted(entry.name for entry in found.list(b"/up").entries) == [b"f\nx", b"g"]


@pytest.mark.parametrize(
    "reply", ["250-Begin\nno facts\n250 End", "250 type=file;size=3; /up/f", "250-a=b; x\n250 a=b; x"]
)
def test_facts_are_on_a_line_of_their_own_between_the_first_and_the_last(reply):
    found, _ = paths({"MLST": reply}, ("MLST",))
    with pytest.raises(ServerRefused, match="contains no facts"):
        found.stat(b"/up/f")


def test_an_unknown_refusal_of_facts_is_no_reason_to_ask_in_another_way():
    found, connection = paths({"MLST": "501 what"}, ("MLST",))
    with pytest.raises(ServerRefused, match=r"^MLST '/up/f': 501 what"):
        found.stat(b"/up/f")
    assert connection.asked == ["MLST /up/f"]


@pytest.mark.parametrize(("path", "folder"), [(b"f", "CWD /home"), (b"./f", "CWD ."), (b"/f", "CWD /")])
def test_a_file_of_the_first_folder_is_looked_for_in_its_listing(path, folder):
    answers = {"SIZE": UNCLEAR, f"CWD {path.decode()}": "550 no", "CWD": "250 ok"}
    found, connection = paths(answers, listing=line("g"))
    assert found.stat(path) is None
    assert paths(answers, listing=line("e"))[0].stat(path) is None
    assert connection.asked[3:] == [folder, "LIST -a", "CWD /home"]
    with pytest.raises(PermissionDenied, match=r"^SIZE .*Failed"):
        paths(answers, listing=line("f"))[0].stat(path)


def test_a_listing_that_was_understood_in_part_still_shows_what_it_shows():
    answers = {"SIZE": UNCLEAR, "CWD /up/f": "550 no", "CWD": "250 ok"}
    with pytest.raises(PermissionDenied):
        paths(answers, listing=line("f") + b"?? strange\r\n")[0].stat(b"/up/f")


def test_the_first_line_that_is_not_understood_is_told():
    answers = {"SIZE": UNCLEAR, "CWD /up/f": "550 no", "CWD": "250 ok"}
    with pytest.raises(ServerRefused, match=r"unknown format: .*\?\? one"):
        paths(answers, listing=b"?? one\r\n?? two\r\n")[0].stat(b"/up/f")


def test_what_is_no_folder_is_not_left():
    found, connection = paths({"CWD": "550 no"})
    assert not found.is_folder(b"/up")
    assert connection.asked == ["PWD", "CWD /up"]
    assert paths({"PWD": '257 ""', "CWD": "250 ok"})[0]._login_folder() == b"/"


def test_a_size_without_a_kind_is_that_of_a_file_and_a_kind_without_a_size_is_none():
    facts = "250-Begin\n {}; /up/f\n250 End"
    assert paths({"SIZE": UNCLEAR, "MLST": facts.format("Size=3")}, ("MLST",))[0].size(b"/up/f") == 3
    with pytest.raises(ServerRefused, match="is not a regular file"):
        paths({"SIZE": UNCLEAR, "MLST": facts.format("Type=file")}, ("MLST",))[0].size(b"/up/f")
