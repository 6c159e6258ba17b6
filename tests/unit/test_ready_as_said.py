"""What each setting of `ready` waits for, and what it does with files that are moved, removed or made again."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError
from unit.finding import SETTLE_S, Rig

from iot.spooler.config.outboxes import OutboxSettings, Ready
from iot.spooler.patterns import MarkerName
from iot.spooler.queue.policy import State


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Callable[..., Rig]]:
    made: list[Rig] = []

    def make(**settings: Any) -> Rig:
        made.append(Rig(tmp_path, **settings))
        return made[-1]

    yield make
    for rig in made:
        rig.close()


# -- renamed


def test_with_renamed_files_are_sent_at_once_under_any_name_that_is_not_an_unfinished_one(make):
    rig = make(ready="renamed")
    for name in ("a.csv.tmp", "b.PART", ".hidden", "c.csv"):
        rig.put(name)
    (rig.box / ".rsync").mkdir()
    rig.put(".rsync/d.csv")
    assert rig.work() == ["c.csv"]
    (rig.box / "a.csv.tmp").rename(rig.box / "a.csv")
    (rig.box / ".rsync/d.csv").rename(rig.box / "d.csv")
    assert rig.work() == ["a.csv", "c.csv", "d.csv"]


def test_with_renamed_a_file_that_is_still_open_is_not_complete_whatever_its_name(make):
    rig = make(ready="renamed")
    with (rig.box / "a").open("wb") as file:
        file.write(b"half")
        assert rig.work(1.0) == []
    assert rig.work() == ["a"]


# -- marker


@pytest.mark.parametrize(("template", "marker"), [("{name}.done", "a.csv.done"), ("{stem}.done", "a.done"),
                                                  ("READY", "READY"), ("done-{name}", "done-a.csv")])  # fmt: skip
def test_a_file_is_complete_when_its_marker_comes_and_the_marker_is_not_sent(make, template, marker):
    rig = make(ready="marker", ready_marker=template)
    rig.put("a.csv")
    assert rig.work(3600.0) == []
    rig.put(marker, b"")
    assert rig.work() == ["a.csv"]


def test_markers_stand_in_the_folder_of_their_file(make):
    rig = make(ready="marker", ready_marker="{stem}.ok")
    (rig.box / "sub").mkdir()
    rig.put("sub/a.csv")
    rig.put("a.ok", b"")
    assert rig.work(3600.0) == []
    rig.put("sub/a.ok", b"")
    assert rig.work() == ["sub/a.csv"]


def test_a_marker_may_come_before_a_scan_sees_either(make):
    rig = make(ready="marker", ready_marker="{name}.done")
    (rig.box / "sub").mkdir()
    rig.put("sub/a")
    rig.put("sub/a.done", b"")
    assert rig.work() == ["sub/a"]


def test_a_marker_of_an_earlier_version_says_nothing_of_the_next(make):
    rig = make(ready="marker", ready_marker="{name}.done")
    os.utime(rig.put("a.done", b""), ns=(0, 10**18))
    os.utime(rig.put("a"), ns=(0, 10**18 + 1))
    assert rig.work(3600.0) == []
    rig.put("a.done", b"")
    assert rig.work() == ["a"]


def test_the_marker_of_a_file_leaves_after_it_and_stays_where_it_may_be_needed(make):
    rig = make(ready="marker", ready_marker="{name}.done")
    for name in ("sent", "replaced", "quarantined"):
        rig.put(name)
        rig.put(f"{name}.done", b"")
    rig.work()
    rows = {os.fsdecode(row.path): row for row in rig.queue.page(rig.intake.number, 0, 10)}
    for name in ("sent", "quarantined"):
        (rig.box / name).unlink()
    rig.intake.left(rows["sent"])
    rig.intake.left(rows["replaced"])
    rig.intake.left(rows["quarantined"]._replace(state=State.QUARANTINED))
    assert {path.name for path in rig.box.iterdir()} == {"replaced", "replaced.done", "quarantined.done"}


def test_files_without_their_marker_are_counted_while_they_are_there(make):
    rig = make(ready="marker", ready_marker="{name}.done")
    for name in ("a", "b", "c"):
        rig.put(name)
    rig.work()
    assert rig.intake.without_marker == 3
    rig.put("a.done", b"")
    (rig.box / "b").unlink()
    assert (rig.work(), rig.intake.without_marker) == (["a"], 1)
    rig.intake.wake()
    assert (rig.work(), rig.intake.without_marker) == (["a"], 1)
    assert make().intake.without_marker == 0


def test_a_marker_for_a_whole_folder_is_nobodys_to_remove(make):
    rig = make(ready="marker", ready_marker="READY")
    rig.put("a")
    rig.put("READY", b"")
    rig.work()
    (row,) = rig.queue.page(rig.intake.number, 0, 10)
    (rig.box / "a").unlink()
    rig.intake.left(row)
    assert (rig.box / "READY").exists()


@pytest.mark.parametrize("template", ["{name}", "{stem}", "", "a/{name}.done", "{name}{stem}", "{name}-{name}", ".."])
def test_a_marker_that_could_not_be_told_from_a_file_is_refused(template):
    with pytest.raises(ValueError, match="must"):
        MarkerName(template)


@pytest.mark.parametrize("settings", [{"ready": "marker"}, {"ready_marker": "{name}.done"},
                                      {"ready": "closed", "ready_marker": "{name}.done"}])  # fmt: skip
def test_settings_that_contradict_each_other_are_refused(settings):
    with pytest.raises(ValidationError):
        OutboxSettings.model_validate({"path": "/box", "destination": "/up", **settings})


@pytest.mark.parametrize(("settings", "ready"), [({}, Ready.CLOSED), ({"settle_s": 2}, Ready.SETTLED),
                                                 ({"settle_s": 2, "ready": "closed"}, Ready.CLOSED)])  # fmt: skip
def test_a_quiet_time_that_is_set_is_meant(settings, ready):
    assert OutboxSettings.model_validate({"path": "/box", "destination": "/up", **settings}).readiness is ready


@pytest.mark.parametrize("settings", [{"ready": "renamed"}, {"ready": "marker", "ready_marker": "READY"}])
def test_a_quiet_time_that_is_set_counts_beside_a_name_or_marker(make, settings):
    rig = make(settle_s=SETTLE_S, **settings)
    rig.put("a")
    rig.put("READY", b"")
    assert "a" not in rig.work()
    assert "a" in rig.work(SETTLE_S)


# -- while a file settles


def test_what_happens_to_a_file_while_it_settles(make, tmp_path):
    rig = make(settle_s=SETTLE_S)
    for name in ("modified", "deleted", "again", "moved", "out"):
        rig.put(name)
    assert rig.work(SETTLE_S / 2) == []
    rig.put("modified", b"another")
    (rig.box / "deleted").unlink()
    (rig.box / "again").unlink()
    rig.put("again", b"new")
    (rig.box / "moved").rename(rig.box / "elsewhere")
    (rig.box / "out").rename(tmp_path / "out")
    for name in ("modified", "again", "elsewhere"):
        os.utime(rig.box / name, (rig.began + rig.now - 1000.0,) * 2)
    assert rig.work(SETTLE_S * 0.75) == []
    assert rig.work(SETTLE_S) == ["again", "elsewhere", "modified"]
    assert len(rig.intake.readiness) == 0
