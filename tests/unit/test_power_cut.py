"""After a power cut: that it is noticed, and which files are held back."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from unit.finding import Rig

from iot.spooler.outbox.files import BLOCK_BYTES, PIECE_BYTES, ends_in_zeros, may_have_suffered
from iot.spooler.outbox.mounts import FAT, ORDINARY
from iot.spooler.state.elapsed import Moment
from iot.spooler.state.power_cut import BEHIND_S, NAME, WINDOW_S, PowerCut, running
from iot.transfer import Fingerprint

NOW_S = 1.8e9
FIRST = Moment("boot-1", 5000.0, NOW_S, True)
SECOND = Moment("boot-2", 100.0, NOW_S + 10_000.0, True)
LAST_SIGN_S = NOW_S + 2000.0


@pytest.fixture
def state(tmp_path: Path) -> Path:
    (tmp_path / "state").mkdir()
    (tmp_path / "log").mkdir()
    sign(tmp_path / "state" / "journal", NOW_S + 1000.0)
    sign(tmp_path / "log" / "syslog", LAST_SIGN_S)
    sign(tmp_path / "log" / "boot.log", SECOND.wall_s - 50.0)  # it is from after the boot
    return tmp_path / "state"


def sign(path: Path, at_s: float) -> None:
    path.write_bytes(b"")
    os.utime(path, (at_s, at_s))


def run(state: Path, moment: Moment, *, stops: bool) -> PowerCut | None:
    signs = [state.parent / "log", state.parent / "missing"]
    if stops:
        with running(state, moment, signs) as cut:
            return cut
    return running(state, moment, signs).__enter__()


def test_another_boot_without_a_stop_is_a_power_cut_after_the_last_sign_of_life(state: Path) -> None:
    assert run(state, FIRST, stops=False) is None
    assert run(state, SECOND, stops=True) == (LAST_SIGN_S - WINDOW_S, SECOND.wall_s)


def test_after_a_stop_or_within_the_same_boot_there_is_none(state: Path) -> None:
    assert run(state, FIRST, stops=False) is None
    assert run(state, FIRST, stops=True) is None  # it was killed before
    assert run(state, SECOND, stops=True) is None


def test_the_last_cut_is_remembered_since_its_files_may_still_wait(state: Path) -> None:
    run(state, FIRST, stops=False)
    cut = run(state, SECOND, stops=True)
    assert run(state, SECOND, stops=True) == cut
    assert run(state, Moment("boot-3", 1.0, NOW_S + 20_000.0, True), stops=True) == cut


def test_a_clock_that_begins_anew_in_1970_is_no_reason_to_miss_one(state: Path) -> None:
    run(state, FIRST, stops=False)
    sign(state / "lock", NOW_S + 9000.0)  # of this start
    cut = run(state, Moment("boot-2", 100.0, 150.0, False), stops=True)
    assert cut == (NOW_S + 1000.0 - WINDOW_S, NOW_S + 1000.0 + BEHIND_S)


def test_a_sign_of_life_may_be_a_single_file_and_without_any_the_boot_is_the_latest(state: Path) -> None:
    run(state, FIRST, stops=False)
    with running(state, SECOND, [state.parent / "log" / "syslog"]) as cut:
        assert cut == (LAST_SIGN_S - WINDOW_S, SECOND.wall_s)
    (state / "journal").unlink()
    (state / NAME).write_text('{"boot": "boot-1", "stopped": false, "cut": null}')
    with running(state, SECOND, []) as cut:
        assert cut == (SECOND.wall_s - SECOND.since_boot_s - WINDOW_S, SECOND.wall_s)


@pytest.mark.parametrize(("before", "now"), [("boot-1", ""), ("", "boot-2")])
def test_where_the_kernel_names_no_boot_there_is_no_telling(state: Path, before: str, now: str) -> None:
    (state / NAME).write_text(json.dumps({"boot": before or None, "stopped": False, "cut": None}))
    assert run(state, SECOND._replace(boot=now), stops=True) is None


def test_what_cannot_be_recorded_is_told_and_the_agent_runs(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with running(tmp_path / "missing", FIRST, []) as cut:
        assert cut is None
    assert "cannot record the boot" in caplog.text


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"boot": "boot-1", "cut": "x", "stopped": 5}'])
def test_a_record_that_is_damaged_is_made_anew(state: Path, content: bytes) -> None:
    (state / NAME).write_bytes(content)
    run(state, SECOND, stops=True)
    assert json.loads((state / NAME).read_bytes())["boot"] == "boot-2"


def test_a_start_within_the_same_run_of_things_writes_nothing(state: Path) -> None:
    run(state, FIRST, stops=False)
    before = os.stat(state / NAME).st_ino
    run(state, FIRST, stops=False)
    assert os.stat(state / NAME).st_ino == before


CUT = PowerCut(1000.0, 2000.0)


@pytest.mark.parametrize(("mtime_s", "ctime_s", "suspect"), [(1500, 1500, True), (10, 1500, True), (1500, 2001, False),
                                                             (10, 999, False)])  # fmt: skip
def test_only_what_was_last_changed_about_then_is_looked_at(mtime_s: int, ctime_s: int, suspect: bool) -> None:
    version = Fingerprint(1, mtime_s * 10**9, ctime_s * 10**9, 1)
    assert may_have_suffered(version, CUT, ORDINARY) is suspect
    assert may_have_suffered(version, CUT, FAT) is (1000 <= mtime_s <= 2000)


B, Z = b"x" * BLOCK_BYTES, b"\0" * BLOCK_BYTES


@pytest.mark.parametrize(
    ("content", "suspect"),
    [
        (b"", False), (b"x", False), (b"\0", True), (Z, True), (Z + b"x", False), (B + Z, True),
        (B + Z[:PIECE_BYTES], True), (B + Z[: PIECE_BYTES - 1], False), (B + Z + b"\0", True), (B + Z[1:], True),
        (B[:-1] + b"\0", False), (b"x" + Z[1:], False), (Z * 3 + B, False),
    ],
)  # fmt: skip
def test_what_ends_in_a_block_of_zeros_may_not_be_whole(tmp_path: Path, content: bytes, suspect: bool) -> None:
    (tmp_path / "f").write_bytes(content)
    with (tmp_path / "f").open("rb") as file:
        assert ends_in_zeros(file.fileno(), len(content)) is suspect


def test_of_a_huge_file_only_the_end_is_read(tmp_path: Path) -> None:
    with (tmp_path / "f").open("wb") as file:
        file.truncate(1 << 40)
    with (tmp_path / "f").open("rb") as file:
        assert ends_in_zeros(file.fileno(), 1 << 40)


@pytest.mark.parametrize(("setting", "held"), [({}, True), ({"zeros_after_power_cut": "send"}, False)])
def test_a_file_that_suffered_is_not_sent_unless_that_is_wanted(
    tmp_path: Path, setting: dict[str, Any], held: bool
) -> None:
    rig = Rig(tmp_path, **setting)
    for name, content in {"good": b"x" * 10_000, "bad": b"x" * 4096 + b"\0" * 6000}.items():
        rig.put(name, content)
    rig.work()
    rows = {os.fsdecode(row.path): row for row in rig.queue.page(rig.intake.number, 0, 10)}
    assert not any(rig.intake.suspicion(row) for row in rows.values())  # no cut is known
    rig.intake.cut = PowerCut(rig.began - 10.0, rig.began + 10.0)
    assert [name for name, row in rows.items() if rig.intake.suspicion(row)] == (["bad"] if held else [])
    rig.close()
