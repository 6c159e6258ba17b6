"""Listings and replies of FTP servers, hostile ones among them."""

from __future__ import annotations

import stat

import pytest
from hypothesis import given
from hypothesis import strategies as st

from iot.ftp import replies
from iot.ftp.listing import Listed, parse_facts, parse_list, parse_mlsd, time_of
from iot.ftp.replies import SHOWN, code_of, error_of, hide, is_ambiguous, one_line, without_secrets
from iot.transfer.errors import (
    AlreadyExists,
    LinkLost,
    LoginRefused,
    NameRefused,
    NoSpaceOnServer,
    NotFound,
    PermissionDenied,
    ServerBusy,
    ServerRefused,
    Unsupported,
)
from iot.transfer.model import RemoteFile


@pytest.mark.parametrize(
    "name",
    [
        b"plain",
        b" leading",
        b"trailing ",
        b"two  spaces",
        b"-dash",
        b"a;b=c",
        b"a -> b",
        b"caf\xc3\xa9",
        b"\xff\xfe",
        b"a\nb",
    ],
)
def test_mlsd_keeps_every_byte_of_a_name(name):
    listing = parse_mlsd([b"type=file;size=3; " + name])
    assert [entry.name for entry in listing.entries] == [name]


@pytest.mark.parametrize(
    "name", [b"plain", b" leading", b"tail ", b"-dash", b"12:30 x", b"Jan  1  2020 b", b"\xff\xfe"]
)
@pytest.mark.parametrize("date", [b"Nov 28 17:30", b"Nov 28  2025", b"28 Nov 17:30", b"2025-11-28 17:30"])
def test_list_keeps_every_byte_of_a_name(name, date):
    listing = parse_list([b"-rw-r--r--    1 1001     1001           17 " + date + b" " + name])
    assert listing.entries == (Listed(name, RemoteFile(17, None, stat.S_IFREG)),)


def test_the_folder_itself_and_the_one_above_are_not_listed():
    lines = [b"type=cdir; .", b"type=pdir; ..", b"Type=dir;Perm=el; sub", b"type=file;size=0; x"]
    assert [(entry.name, entry.file.mode) for entry in parse_mlsd(lines).entries] == [
        (b"sub", stat.S_IFDIR),
        (b"x", stat.S_IFREG),
    ]
    lines = [b"total 8", b"drwxr-xr-x 2 0 0 4096 Nov 28 17:30 .", b"drwxr-xr-x 2 0 0 4096 Nov 28 17:30 .."]
    assert parse_list(lines).entries == ()


def test_what_a_link_leads_to_is_left_open():
    [entry] = parse_list([b"lrwxrwxrwx    1 0        0               6 Nov 28 17:30 link -> target"]).entries
    assert entry == Listed(b"link", RemoteFile(None), is_link=True)
    [entry] = parse_mlsd([b"type=OS.unix=slink:/etc;size=4; link"]).entries
    assert entry == Listed(b"link", RemoteFile(None), is_link=True)


def test_a_listing_of_dos_is_understood():
    lines = [b"11-28-25  05:30PM       <DIR>          sub", b"11-28-2025  05:30PM                 1234 a b.txt"]
    assert parse_list(lines).entries == (
        Listed(b"sub", RemoteFile(None, None, stat.S_IFDIR)),
        Listed(b"a b.txt", RemoteFile(1234, None, stat.S_IFREG)),
    )


@pytest.mark.parametrize("line", [b"garbage", b"-rw-r--r-- 1 0 0 x Nov 28 17:30 name", b"type=file"])
def test_a_line_that_cannot_be_read_is_handed_back(line):
    assert parse_list([line]).unread == (line,)
    assert parse_mlsd([b"type=file;size=3;"]).unread == (b"type=file;size=3;",)


@given(st.lists(st.binary(max_size=200), max_size=5))
def test_no_listing_makes_the_parser_fail(lines):
    for listing in (parse_list(lines), parse_mlsd(lines)):
        assert len(listing.entries) + len(listing.unread) <= len(lines)


def test_facts_tell_size_time_and_kind():
    facts = b"Type=file;Size=17;Modify=20251128173000.123;UNIX.mode=0640;"
    assert parse_facts(facts) == RemoteFile(17, 1764351000, stat.S_IFREG | 0o640)
    assert parse_facts(b"type=dir;modify=99999999999999;") == RemoteFile(None, None, stat.S_IFDIR)
    assert parse_facts(b"size=-1;") == RemoteFile(None, None, None)
    assert parse_facts(b"UNIX.mode=0640;") == RemoteFile(None, None, None)
    assert parse_facts(b"type=file;UNIX.mode=0100640;") == RemoteFile(None, None, stat.S_IFREG)
    assert parse_facts(b"type=file;UNIX.mode=14755;") == RemoteFile(None, None, stat.S_IFREG | 0o4755)
    assert parse_facts(b"type=file;UNIX.mode=rwx;") == RemoteFile(None, None, stat.S_IFREG)


@pytest.mark.parametrize(
    ("kind", "mode"),
    [
        (b"file", stat.S_IFREG),
        (b"FILE", stat.S_IFREG),
        (b"Dir", stat.S_IFDIR),
        (b"cdir", stat.S_IFDIR),
        (b"pdir", stat.S_IFDIR),
        (b"OS.unix=chr-13/29", stat.S_IFCHR),
        (b"OS.unix=slink:/x", None),
        (b"OS.UNIX=symlink", None),
        (b"", None),
    ],
)
def test_a_kind_is_a_folder_a_file_a_device_or_unknown(kind, mode):
    assert parse_facts(b"type=" + kind + b";size=3;") == RemoteFile(3, None, mode)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        (b"19700101000000", 0),
        (b" 20251128173000 ", 1764351000),
        (b"20251128173000.5", 1764351000),
        (b"20251328173000", None),
        (b"2025112817300", None),
        (b"20251128173000x", None),
        (b"", None),
    ],
)
def test_a_time_is_seconds_since_1970_or_none(text, seconds):
    assert time_of(text) == seconds


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (b" name", Listed(b"name", RemoteFile(None))),
        (b"size=3; name", Listed(b"name", RemoteFile(3))),
        (b"type=OS.unix=slink:/x;size=3; name", Listed(b"name", RemoteFile(None), is_link=True)),
        (b"type=file;", None),
        (b"type=file; ", None),
        (b"type=file name", None),
        (b"", None),
    ],
)
def test_a_line_of_facts_is_facts_a_space_and_a_name(line, expected):
    found = parse_mlsd([line])
    assert (found.entries, found.unread) == (((), (line,)) if expected is None else ((expected,), ()))


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (b"drwxr-xr-x 2 me us 4096 Nov 28 17:30 d -> e", Listed(b"d -> e", RemoteFile(None, None, stat.S_IFDIR))),
        (b"lrwxrwxrwx 1 me us 6 Nov 28 17:30 a -> b -> c", Listed(b"a", RemoteFile(None), is_link=True)),
        (b"crw-r--r-- 1 root root 1, 3 Nov 28 17:30 null", Listed(b"null", RemoteFile(None, None, stat.S_IFCHR))),
        (b"prw-r--r-- 1 root root 0 Nov 28 17:30 p", Listed(b"p", RemoteFile(None, None, stat.S_IFIFO))),
        (b"11-28-25  05:30PM  <JUNCTION>  j", Listed(b"j", RemoteFile(None, None, stat.S_IFDIR))),
        (b"total 8", None),
        (b"  ", None),
    ],
)
def test_a_line_of_a_listing_is_an_entry_or_says_nothing(line, expected):
    found = parse_list([line])
    assert (found.entries, found.unread) == ((expected,) if expected else (), ())


@pytest.mark.parametrize(
    ("reply", "kind"),
    [
        ("421 Timeout.", LinkLost),
        ("425 Can't open data connection.", LinkLost),
        ("426 Connection closed; transfer aborted.", LinkLost),
        ("450 /x: Device or resource busy", ServerBusy),
        ("451 Failure writing to local file.", NoSpaceOnServer),
        ("451 Can't write: No space left on device", NoSpaceOnServer),
        ("451 Local error in processing", ServerBusy),
        ("452 Insufficient storage space.", NoSpaceOnServer),
        ("552 Quota exceeded", NoSpaceOnServer),
        ("500 Unknown command.", Unsupported),
        ("502 Not implemented.", Unsupported),
        ("550 x: No such file or directory", NotFound),
        ("550 x: Permission denied", PermissionDenied),
        ("550 File exists", AlreadyExists),
        ("550 Could not get file size.", ServerRefused),
        ("553 File name too long", NameRefused),
        ("501 File name too long", ServerRefused),
        ("426 No space left on device", NoSpaceOnServer),
        ("530 No space for you", LoginRefused),
        ("500 No such command", Unsupported),
        ("532 Need account", PermissionDenied),
        ("400 what", ServerBusy),
        ("499 what", ServerBusy),
        ("399 what", ServerRefused),
        ("599 what", ServerRefused),
        ("what", ServerRefused),
    ],
)
def test_a_reply_is_understood(reply, kind):
    assert type(error_of(reply, "STOR x")) is kind


def test_a_550_without_a_reason_is_looked_into():
    assert is_ambiguous("550 Could not get file size.")
    assert not is_ambiguous("550 Permission denied")
    assert not is_ambiguous("421 Bye")
    assert is_ambiguous("450 what")
    assert is_ambiguous("553 what")
    assert not is_ambiguous("551 what")


def test_an_error_says_what_was_tried_and_what_was_answered():
    assert str(error_of("550 No such file\r\n", "STOR x")) == "STOR x: 550 No such file  "


@pytest.mark.parametrize(
    ("reply", "code"),
    [("226 done", 226), ("226", 226), ("2260", 226), ("22", 22), ("x26 done", 0), ("²26 done", 0), ("", 0)],
)
def test_a_code_is_three_digits(reply, code):
    assert code_of(reply) == code


def test_no_secret_is_shown_however_it_comes_back(monkeypatch):
    monkeypatch.setattr(replies, "_secrets", set())
    hide("")
    assert without_secrets("230 hello") == "230 hello"
    hide("Correct-Horse")
    hide("battery.*")
    assert without_secrets("530 CORRECT-HORSE is not battery.*, batteryxx is") == "530 *** is not ***, batteryxx is"


def test_a_reply_cannot_steer_the_terminal_it_is_shown_on():
    assert one_line("550 \x1b[2Jx\ny") == "550  [2Jx y"
    assert one_line("caf\xc3\xa9 \xff") == "caf\N{LATIN SMALL LETTER E WITH ACUTE} \\xff"
    assert one_line("5" * SHOWN) == "5" * SHOWN
    assert one_line("5" * (SHOWN + 1)) == "5" * SHOWN + "..."
