"""What a `.sha256` says of a file, in the forms in which sha256sum and others write it."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from iot.transfer.checksum_file import checksum_line, sha256_alone, sha256_listed

A, B = b"a" * 64, b"b" * 64


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (A + b"  file\n", "a" * 64),
        (A + b" *file\r\n", "a" * 64),
        (A.upper() + b"  file", "a" * 64),
        (A + b"\n", "a" * 64),
        (B + b"  other\n" + A + b"  file\n", "a" * 64),
        (A + b"  ./sub/file\n", "a" * 64),
        (b"SHA256 (file) = " + A + b"\n", "a" * 64),
        (b"\n" + A + b"  file\n\n", "a" * 64),
        (A + b"  other\n", None),
        (A + b"\n" + B + b"\n", None),
        (A[1:] + b"  file\n", None),
        (A + b"a  file\n", None),
        (A + b"file\n", None),
        (b"", None),
        (b"\xff" * 100, None),
    ],
)
def test_a_hash_counts_only_where_it_is_the_files(content: bytes, said: str | None) -> None:
    assert sha256_listed(content, b"file") == said


@pytest.mark.parametrize("name", [b"plain", b"two words", b"back\\slash", b"new\nline", b"\xff\xfe", b"*star"])
@pytest.mark.parametrize("tag", [[], ["--tag"]])
def test_what_sha256sum_writes_is_understood(name: bytes, tag: list[str], tmp_path: Path) -> None:
    (Path(tmp_path) / name.decode("utf-8", "surrogateescape")).write_bytes(b"abc")
    wrote = subprocess.run(["sha256sum", *tag, "--", name], cwd=tmp_path, capture_output=True, check=True, timeout=30)
    assert sha256_listed(wrote.stdout, name) == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


@pytest.mark.parametrize(
    ("name", "line"),
    [
        (b"plain", A + b"  plain\n"),
        (b"two words\xff", A + b"  two words\xff\n"),
        (b"new\nline", b"\\" + A + b"  new\\nline\n"),
        (b"back\\slash", b"\\" + A + b"  back\\\\slash\n"),
        (b"both\\\n", b"\\" + A + b"  both\\\\\\n\n"),
    ],
)
def test_a_line_of_ours_is_what_sha256sum_writes(name: bytes, line: bytes) -> None:
    assert checksum_line("a" * 64, name) == line
    assert sha256_alone(line, name) == "a" * 64
    assert sha256_listed(line, name + b"x") is None


def test_a_name_that_is_not_marked_is_taken_as_it_is() -> None:
    assert sha256_listed(A + b"  new\\nline\n", b"new\\nline") == "a" * 64
    assert sha256_listed(A + b"  new\\nline\n", b"new\nline") is None
    assert sha256_listed(b"\\" + A + b"  a\\rb\n", b"a\rb") == "a" * 64


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (A + b"  file\n", "a" * 64),
        (b"\n" + A + b"  file\n\n", "a" * 64),
        (A + b"\n", "a" * 64),
        (A + b"  other\n", None),
        (A + b"  file\n" + B + b"  other\n", None),
        (b"", None),
    ],
)
def test_only_a_file_that_lists_nothing_else_is_like_ours(content: bytes, said: str | None) -> None:
    assert sha256_alone(content, b"file") == said
