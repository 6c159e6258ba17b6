"""The name of a part says whose it is, and is a name that servers take."""

from __future__ import annotations

import posixpath
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from iot.transfer.errors import NameRefused
from iot.transfer.names import NAME_MAX_BYTES, check_final_name, parents, part_name, remote_path, sidecar_part

names = st.binary(min_size=1, max_size=NAME_MAX_BYTES).map(lambda name: name.replace(b"/", b"_").replace(b"\0", b"_"))
folders = st.sampled_from([b"", b"/", b"/up", b"up/gw 1", b"/a/b/c"])
owners = st.text(max_size=20)


@given(folders, names, names, owners, st.sampled_from([".part", ".t", ".filepart"]))
def test_a_part_lies_beside_its_destination_in_a_legal_name(
    folder: bytes, name: bytes, source: bytes, owner: str, suffix: str
) -> None:
    dest = posixpath.join(folder, name)
    part = part_name(dest, source, owner, suffix)
    assert posixpath.dirname(part) == posixpath.dirname(dest)
    assert len(posixpath.basename(part)) <= NAME_MAX_BYTES
    ending = re.escape(suffix.encode())
    assert re.search(rb"\.[0-9a-f]{8}" + ending + rb"\Z", part)
    assert part != dest


@given(st.lists(st.tuples(owners, names, names), min_size=2, max_size=20, unique=True))
def test_parts_of_other_owners_sources_or_destinations_differ(identities: list[tuple[str, bytes, bytes]]) -> None:
    parts = {part_name(dest, source, owner, ".part") for owner, source, dest in identities}
    assert len(parts) == len(identities)


def test_two_names_that_differ_only_behind_the_cut_keep_parts_of_their_own() -> None:
    one, two = b"/d/" + b"x" * 254 + b"1", b"/d/" + b"x" * 254 + b"2"
    assert part_name(one, b"/s", "o", ".part") != part_name(two, b"/s", "o", ".part")


def test_owner_source_and_destination_cannot_be_shifted_into_each_other() -> None:
    assert part_name(b"d", b"bc", "a", ".p")[-10:] != part_name(b"d", b"c", "ab", ".p")[-10:]


def test_the_same_transfer_finds_its_part_again() -> None:
    assert part_name(b"/d/f", b"/s/f", "o", ".part") == part_name(b"/d/f", b"/s/f", "o", ".part")


@pytest.mark.parametrize("length", [236, 240, 255])
def test_a_name_is_not_cut_inside_a_character(length: int) -> None:
    name = ("é" * 200).encode()[:length].decode("utf-8", "ignore").encode()
    part_name(b"/d/" + name, b"/s", "o", ".part").decode("utf-8")


@given(st.binary(min_size=1).filter(lambda path: b"\0" not in path))
def test_any_bytes_travel_through_python_text_unchanged(path: bytes) -> None:
    assert remote_path(path.decode("utf-8", "surrogateescape")) == path


@pytest.mark.parametrize("path", ["", "a\0b"])
def test_a_path_that_is_none_is_refused(path: str) -> None:
    with pytest.raises(NameRefused, match="not a valid path"):
        remote_path(path)


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        (b"/a/b/c", [b"/a", b"/a/b"]),
        (b"a/b/", [b"a"]),
        (b"file", []),
        (b"/file", []),
        (b"./x/y", [b"./x"]),
        (b"/", []),
    ],
)
def test_the_folders_above_a_path_come_outermost_first(path: bytes, expected: list[bytes]) -> None:
    assert parents(path) == expected


def test_a_sidecar_whose_name_would_be_too_long_is_refused_before_a_byte_is_sent() -> None:
    check_final_name(b"/d/" + b"n" * 248, sidecar=True)
    check_final_name(b"/d/" + b"n" * 255)
    with pytest.raises(NameRefused, match="sidecar"):
        check_final_name(b"/d/" + b"n" * 249, sidecar=True)


@pytest.mark.parametrize("dest", [b"/d/" + b"n" * 256, b"/" + "é".encode() * 128 + b"/file", b"n" * 256])
def test_a_name_longer_than_servers_take_is_refused_with_its_length(dest: bytes) -> None:
    with pytest.raises(NameRefused, match="has 256 bytes; the limit for a name is 255"):
        check_final_name(dest)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (b"file.0123abcd.part", b"file.0123abcd.part.sha256"),
        (b"\x80x.part", b"\x80x.part.sha256"),  # what is no UTF-8 is not mended
        (b"n" * 249, b"n" * 248 + b".sha256"),
        (b"a" + "\u00e9".encode() * 124, "\u00e9".encode() * 124 + b".sha256"),
        (b"ab" + "\u00e9".encode() * 124, "\u00e9".encode() * 124 + b".sha256"),
        ("\u00e9".encode() * 125, "\u00e9".encode() * 124 + b".sha256"),
        (b"\x80" * 250, b".sha256"),
    ],
)
def test_the_part_of_a_sidecar_keeps_the_end_of_the_parts_name_from_a_whole_character_on(
    name: bytes, expected: bytes
) -> None:
    assert sidecar_part(b"/up/" + name) == b"/up/" + expected
    assert sidecar_part(name) == expected


@pytest.mark.parametrize(
    ("path", "expected"),
    [(b"//x", []), (b"///x", []), (b"//a/b", [b"//a"]), (b"//", []), (b"", []), (b"./a/b", [b"./a"])],
)
def test_a_path_with_several_slashes_at_its_beginning_has_an_end(path: bytes, expected: list[bytes]) -> None:
    assert parents(path) == expected
