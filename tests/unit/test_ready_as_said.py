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
from iot.spooler.outbox.markers import Markers
from iot.spooler.outbox.place import Found, SourceFailed
from iot.spooler.patterns import MarkerName
from iot.spooler.queue.policy import State
from iot.transfer import Fingerprint


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


# -- markers, one by one

THEN_NS = 10**18


class Lying:
    """An outbox in which a file lies, and its marker with the given time. None: none is there."""

    def __init__(self, marker_ns: int | None) -> None:
        self.marker_ns = marker_ns
        self.fails = False

    def look(self, path: bytes) -> Fingerprint | None:
        if self.fails:
            raise SourceFailed("no answer")
        return None if self.marker_ns is None else Fingerprint(0, self.marker_ns)


@pytest.mark.parametrize(("marker_ns", "ready"), [(None, False), (THEN_NS - 1, False), (THEN_NS, True),
                                                  (THEN_NS + 1, True)])  # fmt: skip
def test_a_marker_counts_unless_it_is_older_than_its_file(marker_ns, ready):
    outbox = Lying(marker_ns)
    markers = Markers(MarkerName("{name}.done"), outbox)
    file = Found(b"a", Fingerprint(5, THEN_NS))
    assert markers.is_ready(file) is ready
    assert markers.waiting == (set() if ready else {b"a"})
    outbox.fails = True
    assert markers.is_ready(file) is False  # not known
    assert markers.waiting == {b"a"}
    outbox.fails, outbox.marker_ns = False, THEN_NS
    assert markers.is_ready(file) is True
    assert markers.waiting == set()


def test_after_a_whole_walk_only_those_wait_that_it_has_found_and_so_many_are_counted(monkeypatch):
    monkeypatch.setattr("iot.spooler.outbox.markers.COUNTED_MAX", 2)
    markers = Markers(MarkerName("{name}.done"), Lying(None))
    names = (b"a", b"b", b"c")
    for expected in ({b"a", b"b"}, {b"b", b"c"}):
        markers.begin()
        for name in names:
            assert markers.is_ready(Found(name, Fingerprint(5, THEN_NS))) is False
        markers.finish()
        assert markers.waiting == expected
        names = (b"b", b"c")
    markers.forget(b"b")
    markers.forget(b"never seen")
    assert markers.waiting == {b"c"}


def test_of_names_that_were_reported_markers_lead_to_their_files():
    each, stems = Markers(MarkerName("{name}.done"), Lying(None)), Markers(MarkerName("{stem}.done"), Lying(None))
    paths = [b"sub/a.csv.done", b"sub/b.csv", b"c.done"]
    assert each.sort(paths) == ([b"sub/a.csv", b"c"], [])
    assert stems.sort(paths) == ([], [b"sub", b""])


def test_a_marker_stays_where_another_version_of_its_file_came_or_nothing_is_known(make):
    rig = make(ready="marker", ready_marker="{name}.done")
    markers = rig.intake._markers
    (rig.box / "sub").mkdir()
    for name in ("a", "a.done", "sub/b.done", "d.done"):
        rig.put(name)
    (rig.box / "link.done").symlink_to("a")
    for name in (b"a", b"sub/b", b"link", b"nothing", b"none/c"):
        markers.drop(name)
    assert {path.name for path in rig.box.rglob("*")} == {"a", "a.done", "sub", "link.done", "d.done"}
    rig.box.rename(rig.box.with_name("away"))
    markers.drop(b"d")  # out of reach
    rig.box.with_name("away").rename(rig.box)
    assert (rig.box / "d.done").exists()
