"""Listings and replies of FTP servers, hostile ones among them."""

from __future__ import annotations

import stat

import pytest
from hypothesis import given
from hypothesis import strategies as st

from iot.ftp.listing import Listed, parse_facts, parse_list, parse_mlsd, time_of
from iot.ftp.replies import error_of, is_ambiguous, one_line
from iot.transfer.errors import (
    AlreadyExists,
    LinkLost,
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
    assert time_of(b"20250230000000") is None or isinstance(time_of(b"20250230000000"), int)


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
    ],
)
def test_a_reply_is_understood(reply, kind):
    assert type(error_of(reply, "STOR x")) is kind


def test_a_550_without_a_reason_is_looked_into():
    assert is_ambiguous("550 Could not get file size.")
    assert not is_ambiguous("550 Permission denied")
    assert not is_ambiguous("421 Bye")


def test_a_reply_cannot_steer_the_terminal_it_is_shown_on():
    assert one_line("550 \x1b[2Jx\ny") == "550  [2Jx y"
    assert len(one_line("5" * 10_000)) < 400
