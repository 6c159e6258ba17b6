"""The name of a part says whose it is, and is a name that servers take."""

from __future__ import annotations

import posixpath
import re
from pathlib import PurePosixPath, PureWindowsPath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from iot.transfer.errors import ConfigurationError, NameRefused
from iot.transfer.names import (
    NAME_MAX_BYTES,
    as_spelled,
    check_final_name,
    check_no_folder,
    may_be_part,
    parents,
    part_name,
    part_names,
    partial_name,
    path_text,
    remote_path,
    sidecar_part,
)

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


@pytest.mark.parametrize("dest", [b"/up/", b"", b"/", b"/up/.", b".."])
def test_a_destination_that_can_only_be_a_folder_is_refused_with_what_was_perhaps_meant(dest: bytes) -> None:
    with pytest.raises(NameRefused, match="is a folder; did you mean"):
        check_final_name(dest, b"/box/file")


def test_a_folder_that_stands_there_is_refused_and_anything_else_is_not() -> None:
    for mode in (None, 0, 0o100644, 0o120777):
        check_no_folder(mode, b"/up/file", b"/box/file")
    with pytest.raises(NameRefused, match="did you mean '/up/file/name'"):
        check_no_folder(0o040755, b"/up/file", b"/box/name")


@pytest.mark.parametrize(("length", "sidecar", "fits"), [(255, False, True), (248, True, True), (249, True, False)])
def test_the_longest_names_that_fit(length: int, sidecar: bool, fits: bool) -> None:
    if fits:
        check_final_name(b"/up/" + b"n" * length, sidecar=sidecar)
        return
    with pytest.raises(NameRefused):
        check_final_name(b"/up/" + b"n" * length, sidecar=sidecar)


@pytest.mark.parametrize(("name", "kept"), [(b"n" * 241, b"n" * 241), (b"n" * 242, b"n" * 241), (b"\x80" * 255, b"")])
def test_of_a_long_name_as_much_is_kept_as_fits_before_the_ending(name: bytes, kept: bytes) -> None:
    part = part_name(b"/d/" + name, b"/s", "o", ".part")
    assert part[: -len(".01234567.part")] == b"/d/" + kept


@pytest.mark.parametrize(
    ("dest", "suffix", "exact"),
    [
        (b"/up/file", None, None),
        (b"/up/file", "", None),
        (b"/up/file", ".tmp", b"/up/file.tmp"),
        (b"file", ".\udcff", b"file.\xff"),
        (b"/up/" + b"n" * 251, ".tmp", b"/up/" + b"n" * 251 + b".tmp"),
        (b"/up/" + b"n" * 252, ".tmp", None),
    ],
)
def test_an_exact_part_name_comes_first_where_it_is_asked_for_and_fits(
    dest: bytes, suffix: str | None, exact: bytes | None
) -> None:
    owned = part_name(dest, b"/s", "o", ".part")
    names = part_names(dest, b"/s", "o", ".part", suffix)
    assert names == ((owned,) if exact is None else (exact, owned))


@pytest.mark.parametrize(
    ("dest", "pattern", "partial"),
    [
        (b"/up/file", "{name}.filepart", b"/up/file.filepart"),
        (b"file", ".{name}~", b".file~"),
        (b"/up/\xff", "{name}\udcfe", b"/up/\xff\xfe"),
        (b"/up/" + b"n" * 254, "{name}~", b"/up/" + b"n" * 254 + b"~"),
        (b"/up/" + b"n" * 255, "{name}~", None),
    ],
)
def test_anothers_part_lies_beside_the_destination_if_a_name_can_be_that_long(
    dest: bytes, pattern: str, partial: bytes | None
) -> None:
    assert partial_name(dest, pattern) == partial


@pytest.mark.parametrize(
    ("path", "there", "spelled"),
    [
        (b"/up/FILE", ["other"], b"/up/FILE"),
        (b"/up/FILE", [], b"/up/FILE"),
        (b"/up/FILE", ["other", "file"], b"/up/file"),
        (b"FILE", ["file", "File"], b"File"),
        (b"FILE", ["File", "FILE"], b"FILE"),
        (b"STRASSE", ["stra\u00dfe"], "stra\u00dfe".encode()),
        (b"/up/A\xff", ["a\udcff"], b"/up/a\xff"),
    ],
)
def test_a_file_keeps_the_spelling_that_it_has_on_a_server_that_ignores_case(
    path: bytes, there: list[str], spelled: bytes
) -> None:
    assert as_spelled(path, there) == spelled


@pytest.mark.parametrize(
    ("dest", "suffix", "part"),
    [("/up/a.part", ".part", True), ("/up/a.PART", ".part", True), ("/up/a.part", ".Part", True),
     ("/up/a.part.gz", ".part", False), ("/up/apart", ".part", False)],
)  # fmt: skip
def test_what_ends_as_a_part_does_in_either_case_may_be_one_and_is_refused(dest: str, suffix: str, part: bool) -> None:
    assert may_be_part(dest, suffix) is part
    check_final_name(dest.encode())
    if not part:
        check_final_name(dest.encode(), part_suffix=suffix)
        return
    told = f"'{dest}' ends in '{suffix}', as the part of another file does: give parts another ending"
    with pytest.raises(NameRefused, match=re.escape(told)):
        check_final_name(dest.encode(), part_suffix=suffix)


@pytest.mark.parametrize(
    ("dest", "source", "meant"), [(b"/up/", b"/box/f", "/up/f"), (b"/up/.", b"/box/f", "/up/./f"), (b"", b"", "NAME")]
)
def test_for_a_folder_the_path_that_was_perhaps_meant_is_told(dest: bytes, source: bytes, meant: str) -> None:
    told = f"'{dest.decode()}' is a folder; did you mean '{meant}'?"
    with pytest.raises(NameRefused, match=re.escape(told)):
        check_final_name(dest, source)


def test_a_sidecar_that_does_not_fit_is_told_with_its_length_and_the_way_out() -> None:
    with pytest.raises(
        NameRefused, match=r"n.sha256' has 256 bytes; the limit for a name is 255: send without sidecar$"
    ):
        check_final_name(b"/up/" + b"n" * 249, sidecar=True)


# -- what a caller passes as a path


def test_a_remote_path_may_be_text_bytes_or_a_posix_path() -> None:
    for path in ("/up/f", b"/up/f", PurePosixPath("/up/f")):
        assert remote_path(path) == b"/up/f"
        assert path_text(path) == "/up/f"
    assert path_text(b"\xff") == "\udcff"


def test_a_windows_path_names_nothing_on_a_server_and_other_things_are_no_paths() -> None:
    told = "dest: a PureWindowsPath cannot name a remote path: on a server a backslash is part of a name; use PurePos"
    with pytest.raises(ConfigurationError, match=told):
        remote_path(PureWindowsPath("up/f"), "dest")  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match=r"^path: must be str, bytes or PurePosixPath \(got int\)$"):
        remote_path(7)  # type: ignore[arg-type]
    with pytest.raises(NameRefused, match=r"^'a\\x00' is not a valid path: it is empty or contains a NUL character$"):
        remote_path(b"a\0")
