"""What list_files takes as a pattern: a text that is contained, or with *, ? or [ a pattern for the whole name."""

from __future__ import annotations

from pathlib import Path

import pytest

from iot.folder import FolderClient


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        (None, ["a.csv", "b.csv.part", "csv", "d.txt"]),
        ("csv", ["a.csv", "b.csv.part", "csv"]),
        (".csv", ["a.csv", "b.csv.part"]),
        ("*.csv", ["a.csv"]),
        ("*csv*", ["a.csv", "b.csv.part", "csv"]),
        ("?.*", ["a.csv", "b.csv.part", "d.txt"]),
        ("[ad].*", ["a.csv", "d.txt"]),
        ("csv?", []),
    ],
)
def test_a_text_is_contained_and_a_pattern_fits_the_whole_name(
    pattern: str | None, expected: list[str], tmp_path: Path
) -> None:
    far = tmp_path / "far.csv"
    far.mkdir()
    for name in ("a.csv", "b.csv.part", "csv", "d.txt"):
        (far / name).write_text(name)
    with FolderClient(far, state_dir=tmp_path / "state") as client:
        found = client.list_files(".", pattern)
    assert found is not None
    assert [name.removeprefix("./") for name in found] == expected
