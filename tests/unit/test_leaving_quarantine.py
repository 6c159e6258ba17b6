"""What comes out of the quarantine goes exactly where it was, and never over a newer file."""

import os
import tempfile
from pathlib import Path

import pytest
from conditions import missing
from quarantined import quarantined
from unit.agent_rig import Rig
from unit.leaving_lab import PRIVATE, files_in, item, opened, take

from iot.sftp.client import PermissionDenied
from iot.spooler.agent.draining import End
from iot.spooler.leaving import census as counting
from iot.spooler.leaving import release as releasing
from iot.spooler.leaving.census import Census
from iot.spooler.leaving.quarantine import Quarantine
from iot.spooler.leaving.release import release
from iot.spooler.queue.deliveries import last_delivered


@pytest.fixture
def rig(tmp_path):
    return Rig(tmp_path)


@pytest.fixture
def other_disk(tmp_path):
    """A folder on another file system."""
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        if os.stat(folder).st_dev == os.stat(tmp_path).st_dev:
            missing("/dev/shm is on the same file system")
        yield Path(folder)


def test_each_outbox_gets_back_its_own_exactly_where_it_was(tmp_path, other_disk):
    boxes = [tmp_path / "one", tmp_path / "two"]
    names = ["x", "x.reason.txt", "sub/x", os.fsdecode(b"sub/\xff\n"), "n" * 255, ".iot-copy", ".iot-copy.1"]
    for folder in (tmp_path / "q", other_disk / "q"):
        for box in boxes:
            (box / "sub").mkdir(parents=True, exist_ok=True)
            for name in names:
                (box / name).write_text(f"{box.name} {name!r}")
            items = [item(box, name, key, reason="because") for key, name in enumerate(names)]
            done, failed = take(box, items, Quarantine(folder, box))
            assert (sorted(done), failed) == (list(range(len(names))), [])
            assert files_in(box) == []
        census = Census([folder])
        census.begin()
        census.finish()
        assert census.files == len(quarantined(folder)) == 2 * len(names)
        (boxes[0] / "sub").rmdir()
        assert release([folder, folder], boxes) == (2 * len(names), 0)
        for box in boxes:
            assert files_in(box) == sorted(names)
            assert all((box / name).read_text() == f"{box.name} {name!r}" for name in names)
        assert list(folder.iterdir()) == []


def test_of_two_outboxes_with_the_very_same_file_each_gets_back_its_own(tmp_path):
    boxes, folder = [tmp_path / "one", tmp_path / "two"], tmp_path / "q"
    for box in boxes:
        box.mkdir()
        (box / "x").write_text("the same")
        os.utime(box / "x", (1e9, 1e9))
        assert take(box, [item(box, "x")], Quarantine(folder, box)) == ([1], [])
    assert release([folder], boxes) == (2, 0)
    assert [files_in(box) for box in boxes] == [["x"], ["x"]]


def test_the_same_name_twice_comes_back_under_that_name_only(tmp_path, caplog):
    box, folder = tmp_path / "box", tmp_path / "q"
    box.mkdir()
    for content in ("old", "new"):
        (box / "f").write_text(content * 3)
        os.utime(box / "f", ns=(10**18, 10**18))  # size and time the same: only the content tells them apart
        assert take(box, [item(box, "f")], Quarantine(folder, box)) == ([1], [])
    assert [file.content for file in quarantined(folder)] == [b"newnewnew", b"oldoldold"]
    assert release([folder], [box]) == (1, 1)
    assert "its place is taken" in caplog.text
    assert files_in(box) == ["f"]
    first = (box / "f").read_text()
    (box / "f").unlink()
    assert release([folder], [box]) == (1, 0)
    assert {first, (box / "f").read_text()} == {"oldoldold", "newnewnew"}


@pytest.mark.parametrize("first", range(4))
def test_of_two_versions_the_older_is_released_first_so_that_the_newer_one_stands_in_the_end(first, tmp_path):
    box, folder = tmp_path / "box", tmp_path / "q"
    box.mkdir()
    for number, at in enumerate(
        ["2026-01-01T00:00:00+00:00", "2026-01-01T00:00:00+00:00", "2026-01-02T00:00:00+00:00"]
    ):
        (box / "f").write_text(f"{first}, version {number}" + "x" * first)
        assert take(box, [item(box, "f", key=9 + number, at=at)], Quarantine(folder, box)) == ([9 + number], [])
    came = []
    for stuck in (2, 1, 0):
        assert release([folder], [box]) == (1, stuck)
        came.append((box / "f").read_text())
        (box / "f").unlink()
    assert came == [f"{first}, version {number}" + "x" * first for number in range(3)]


def test_a_release_never_goes_over_a_newer_file(tmp_path, other_disk):
    box = tmp_path / "box"
    for folder in (tmp_path / "q", other_disk / "q"):
        box.mkdir(exist_ok=True)
        (box / "f").write_text("old")
        take(box, [item(box, "f")], Quarantine(folder, box))
        (box / "f").write_text("newer")
        assert release([folder], [box]) == (0, 1)
        assert (box / "f").read_text() == "newer"
        assert [file.content for file in quarantined(folder)] == [b"old"]
        assert files_in(box) == ["f"]


def test_a_release_never_replaces_what_was_delivered_since(rig, caplog):
    """The oldest version would stand on the server in the end, and the newest nowhere."""
    rig.retry = {"max_attempts": 1}
    rig.remote.refuse["/up/f"] = PermissionDenied("no")
    rig.put("f", b"version 1")
    assert rig.run() is End.REMAINS
    rig.remote.refuse.clear()
    rig.loop.now += 60
    rig.put("f", b"version 2")
    rig.run()
    state = rig.base / "state"
    assert release([rig.quarantine], [rig.box], last_delivered(state)) == (0, 1)
    assert "a newer version was delivered since" in caplog.text
    assert [file.content for file in quarantined(rig.quarantine)] == [b"version 1"]
    assert (rig.base / "remote/up/f").read_bytes() == b"version 2"
    (state / "journal.db").unlink()
    assert last_delivered(state) == {}  # without a journal nothing is known, and nobody waits for it
    assert release([rig.quarantine], [rig.box], last_delivered(state)) == (1, 0)


def test_a_file_whose_outbox_is_not_configured_any_more_stays_and_is_said(tmp_path, caplog):
    box, folder = tmp_path / "box", tmp_path / "q"
    box.mkdir()
    (box / "f").write_text("x")
    take(box, [item(box, "f")], Quarantine(folder, box))
    assert release([folder], [tmp_path / "other"]) == (0, 1)
    assert "not in this configuration" in caplog.text
    assert len(quarantined(folder)) == 1


@pytest.mark.parametrize(
    "damage",
    [
        b"",
        b"[]",
        b"{",
        b'{"outbox": 1, "path": "f"}',
        b'{"outbox": "BOX", "path": "../f"}',
        b'{"outbox": "BOX", "path": "/f"}',
        b'{"outbox": "BOX", "path": "a\\u0000"}',
        b"x" * 100_000,
    ],
)
def test_a_damaged_record_is_named_and_its_file_stays(damage, tmp_path, caplog):
    box, folder = tmp_path / "box", tmp_path / "q"
    box.mkdir()
    (box / "f").write_text("x")
    take(box, [item(box, "f")], Quarantine(folder, box))
    (record,) = folder.glob("*.json")
    record.write_bytes(damage.replace(b"BOX", bytes(box)))
    assert release([folder], [box]) == (0, 1)
    assert record.name in caplog.text
    assert len(list(folder.glob("*/f"))) == 1
    assert files_in(tmp_path) == sorted([f"q/{record.name}", f"q/{record.stem}/f"])


def test_an_interrupted_release_and_an_interrupted_move_are_finished(tmp_path):
    box, folder = tmp_path / "box", tmp_path / "q"
    box.mkdir()
    (box / "f").write_text("x")
    take(box, [item(box, "f")], Quarantine(folder, box))
    (inside,) = folder.glob("*/f")
    os.rename(inside, box / "f")  # and then the power went
    assert release([folder], [box]) == (0, 0)
    assert files_in(tmp_path) == ["box/f"]
    assert list(folder.iterdir()) == []


def test_the_agent_waits_while_files_are_released(tmp_path):
    box, folder = tmp_path / "box", tmp_path / "q"
    box.mkdir()
    folder.mkdir()
    (box / "f").write_text("x")
    with opened(folder) as root, releasing._locked(root):
        done, failed = take(box, [item(box, "f")], Quarantine(folder, box))
        assert (done, str(failed[0][1].strerror)) == ([], "files are being released from the quarantine")
    assert [os.fsencode(name) for name in files_in(box)] == [PRIVATE]


def test_the_count_goes_in_small_steps(tmp_path, monkeypatch):
    monkeypatch.setattr(counting, "COUNT_AT_ONCE", 10)
    for number in range(95):
        (tmp_path / f"{number:016x}").mkdir()
        (tmp_path / f"{number:016x}.json").touch()
    census = Census([tmp_path, tmp_path / "nowhere"])
    census.begin()
    steps = 0
    while census.step():
        steps += 1
    assert (census.files, steps) == (95, 19)


def test_a_quarantine_that_cannot_be_looked_into_is_not_empty(rig):
    rig.quarantine.parent.mkdir()
    rig.quarantine.write_text("no folder")
    rig.put("f")
    assert rig.run() is End.REMAINS
    rig.quarantine.unlink()
    assert rig.run() is End.DRAINED


def test_a_record_that_is_no_file_keeps_nobody_waiting(tmp_path):
    box, folder = tmp_path / "box", tmp_path / "q"
    box.mkdir()
    (box / "f").write_text("x")
    take(box, [item(box, "f")], Quarantine(folder, box))
    (record,) = folder.glob("*.json")
    record.unlink()
    os.mkfifo(record)
    assert release([folder], [box]) == (0, 1)
    assert len(list(folder.glob("*/f"))) == 1
