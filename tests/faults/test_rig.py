"""The laboratory sees what is wrong, whatever it is."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from faults import power
from faults.rig import MARKED, Marks, judge
from faults.steps import BY_NAME, PART_STEPS, STEPS, Step, install
from faults.table import Row, as_markdown
from faults.watch import Watch
from unit.agent_rig import Rig as AgentRig

VERSION = b"a version of a file"
CONTENTS = {"file": {hashlib.sha256(VERSION).hexdigest(): len(VERSION)}}
LAST = {"file": set(CONTENTS["file"])}


@pytest.mark.parametrize("step", BY_NAME.values(), ids=list(BY_NAME))
def test_each_named_step_is_a_step_of_this_product(step: Step) -> None:
    install(step, lambda: None)()


def publish(folder: Path, content: bytes) -> None:
    (folder / "file.1234.part").write_bytes(content)
    os.replace(folder / "file.1234.part", folder / "file")


def judged(folder: Path, *contents: bytes, leave_part: bool = False, marked: Marks | None = None) -> Row:
    """What the judge says of these contents, published one after the other."""
    watch, row = Watch(folder), Row("fault")
    for content in contents:
        publish(folder, content)
        watch.look()
    if leave_part:
        (folder / "file.5678.part").write_bytes(b"")
    watch.close()
    judge(row, watch, CONTENTS, LAST, marked)
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


def test_an_announced_repeat_is_none_but_excuses_no_other_one(tmp_path: Path) -> None:
    for number, (marks, expected) in enumerate(
        [
            ({("file", len(VERSION)): 1}, (1, 0)),
            ({("file", len(VERSION)): 5}, (1, 0)),
            ({("file", len(VERSION) + 1): 1}, (0, 1)),
            ({("other", len(VERSION)): 1}, (0, 1)),
        ]
    ):
        (tmp_path / str(number)).mkdir()
        row = judged(tmp_path / str(number), VERSION, VERSION, marked=Counter(marks))
        assert (row.repeats, row.twice) == expected


def test_one_announcement_excuses_one_repeat(tmp_path: Path) -> None:
    row = judged(tmp_path, VERSION, VERSION, VERSION, marked=Counter({("file", len(VERSION)): 1}))
    assert (row.repeats, row.twice) == (1, 1)
    assert not row.clean


def test_the_agents_announcement_is_understood(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """As the agent itself logs it."""
    rig = AgentRig(tmp_path)
    rig.put("file", VERSION)
    deliver = rig.remote._deliver
    rig.remote._deliver = lambda job: replace(deliver(job), possible_repeat=True)
    with caplog.at_level("INFO"):
        rig.run()
    [found] = [match for match in map(MARKED.search, caplog.messages) if match]
    assert (found["name"], int(found["size"])) == ("file", len(VERSION))


def test_a_part_that_stays_is_left(tmp_path: Path) -> None:
    assert judged(tmp_path, VERSION, leave_part=True).left == 1


def test_a_part_that_goes_while_the_lab_looks_counts_as_nothing(tmp_path: Path) -> None:
    assert power.content(tmp_path / "renamed-meanwhile") == b""


def test_rows_add_up_in_the_table() -> None:
    row = Row("kill", injected=2, files=1, payload_bytes=100, up_bytes=103, down_bytes=10)
    row.add(Row("kill", injected=3, files=1, payload_bytes=100, up_bytes=101, down_bytes=0))
    assert as_markdown([row]).splitlines()[2] == "| kill | 5 | 2 | 0 | 0 | 0 | 0 | 2.0 % | 5.0 % |"


def test_steps_have_names_of_their_own() -> None:
    assert len(BY_NAME) == len(STEPS) + sum(map(len, PART_STEPS.values()))
