"""The laboratory sees what is wrong, whatever it is."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from faults.rig import judge
from faults.steps import BY_NAME, STEPS
from faults.table import Row, as_markdown
from faults.watch import Watch

VERSION = b"a version of a file"
CONTENTS = {"file": {hashlib.sha256(VERSION).hexdigest(): len(VERSION)}}
LAST = {"file": set(CONTENTS["file"])}


def publish(folder: Path, content: bytes) -> None:
    (folder / "file.1234.part").write_bytes(content)
    os.replace(folder / "file.1234.part", folder / "file")


def judged(folder: Path, *contents: bytes, leave_part: bool = False) -> Row:
    """What the judge says of these contents, published one after the other."""
    watch, row = Watch(folder), Row("fault")
    for content in contents:
        publish(folder, content)
        watch.look()
    if leave_part:
        (folder / "file.5678.part").write_bytes(b"")
    watch.close()
    judge(row, watch, CONTENTS, LAST)
    return row


def test_one_whole_file_is_clean(tmp_path: Path) -> None:
    assert judged(tmp_path, VERSION).clean


def test_a_missing_file_is_lost(tmp_path: Path) -> None:
    assert judged(tmp_path).lost == 1


def test_a_short_file_is_half_though_it_is_replaced_later(tmp_path: Path) -> None:
    row = judged(tmp_path, VERSION[:-1], VERSION)
    assert (row.half, row.mixed, row.lost) == (1, 0, 0)
    assert not row.clean


def test_other_content_of_the_right_size_is_mixed(tmp_path: Path) -> None:
    row = judged(tmp_path, VERSION[::-1])
    assert (row.half, row.mixed, row.lost) == (0, 1, 1)


def test_the_same_version_published_again_is_twice(tmp_path: Path) -> None:
    assert judged(tmp_path, VERSION, VERSION).twice == 1


def test_a_part_that_stays_is_left(tmp_path: Path) -> None:
    assert judged(tmp_path, VERSION, leave_part=True).left == 1


def test_rows_add_up_in_the_table() -> None:
    row = Row("kill", injected=2, files=1, payload_bytes=100, up_bytes=103, down_bytes=10)
    row.add(Row("kill", injected=3, files=1, payload_bytes=100, up_bytes=101, down_bytes=0))
    assert as_markdown([row]).splitlines()[2] == "| kill | 5 | 2 | 0 | 0 | 0 | 0 | 2.0 % | 5.0 % |"


def test_steps_have_names_of_their_own() -> None:
    assert len(BY_NAME) == len(STEPS)
