"""When the archive is looked at, saved and left alone: at its first start, after errors, in small steps."""

from __future__ import annotations

import itertools
import json
import os
from pathlib import Path

import pytest
from unit.test_archive import DAY, Device

from iot.spooler.leaving import archive as archives
from iot.spooler.leaving.archive import HELD_S


@pytest.fixture
def device(tmp_path: Path):
    return lambda **limits: Device(tmp_path, **limits)


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Each opening of an archive, at the time of the (fake) monotonic clock; `fail` makes it fail."""
    return Opened(monkeypatch)


class Opened(list):
    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        super().__init__()
        self.now, self.fail = 1000.0, False
        real = archives.open_trusted

        def open_trusted(folder: Path, **how: bool) -> int:
            self.append(self.now)
            if self.fail:
                raise PermissionError(13, "Permission denied")
            return real(folder, **how)

        monkeypatch.setattr(archives, "open_trusted", open_trusted)
        monkeypatch.setattr(archives.time, "monotonic", lambda: self.now)


@pytest.mark.parametrize("limits", [{"max_bytes": 0}, {"max_age_s": DAY}])
def test_before_anything_was_archived_there_is_nothing_to_tidy(device, limits, opened, tmp_path, monkeypatch):
    device = device(**limits)
    monkeypatch.chdir(tmp_path)
    for _ in range(3):
        device.archive.tidy(1)
    assert len(opened) == 1  # that it is not there is known from then on
    assert os.listdir(tmp_path) == ["box"]
    device.put("f")
    assert device.names() == ["f"]
    device.clocks.pass_(DAY + 1)
    device.tidy()
    assert device.names() == []


def test_without_limits_nothing_is_ever_looked_at(device, opened):
    device = device()
    device.put("f")
    opened.clear()
    device.archive.tidy(1)
    assert opened == []


def test_where_all_is_within_the_limits_the_folder_is_left_alone(device, opened):
    device = device(max_bytes=5000, max_age_s=DAY)
    device.put("a", "b")
    opened.clear()
    device.archive.tidy(1)
    assert opened == []
    device.start()
    device.tidy()  # counted once
    device.archive.tidy(1)
    assert len(opened) == 1
    device.clocks.pass_(DAY + 1)
    device.tidy()
    assert len(opened) == 2


def test_after_an_error_it_is_left_alone_for_a_while_and_tried_again(device, opened, caplog):
    device = device(max_bytes=0)
    device.put("f")
    opened.clear()
    opened.fail = True
    device.archive.tidy(1)
    opened.now += HELD_S - 1
    device.archive.tidy(1)
    assert opened == [1000.0]
    assert "cannot tidy archive=" in caplog.text
    opened.fail = False
    opened.now += 1
    device.archive.tidy(1)
    assert device.names() == []


def test_a_step_ends_when_its_time_is_over_and_the_next_goes_on(device, opened, monkeypatch):
    device = device(max_bytes=0)
    device.put(*(f"{number:02}" for number in range(20)))
    ticks = itertools.count(2000)
    monkeypatch.setattr(archives.time, "monotonic", lambda: float(next(ticks)))
    opened.clear()
    left = []
    while not left or left[-1]:
        device.archive.tidy(4)
        left.append(len(device.names()))
        assert len(left) < 50
    assert len(opened) == 1  # one piece of work, in steps
    assert max(before - after for before, after in itertools.pairwise([20, *left])) == 4


def test_files_that_were_there_before_are_counted_in_steps_too(device, monkeypatch):
    device = device(max_bytes=100_000)
    device.put(*(f"{number:02}" for number in range(20)))
    device.clocks.pass_(DAY + 1)
    device.put("newest")
    device.start()
    ticks = itertools.count(2000)
    monkeypatch.setattr(archives.time, "monotonic", lambda: float(next(ticks)))
    steps = 0
    while not steps or device.archive._work is not None:
        device.archive.tidy(4)
        steps += 1
    assert steps > 4
    assert device.archive._total == 21_000
    assert device.names()[-1] == "newest"


def test_a_bundle_is_saved_once_in_each_run_and_when_another_begins(device):
    device = device(max_age_s=10 * DAY)
    saved = []

    def started() -> None:
        device.start()
        real = device.archive._save
        device.archive._save = lambda root: saved.append(root) or real(root)

    started()
    device.put("a")
    device.put("b")
    assert len(saved) == 1
    started()
    device.put("c")
    device.put("d")
    assert len(saved) == 2
    device.clocks.pass_(DAY)  # a tenth of the limit
    device.put("e")
    assert len(saved) == 3
    state = json.loads((device.folder / ".state.json").read_text())
    assert len(state["ends"]) == 1
    assert state["open"][0].endswith(".000002")


@pytest.mark.parametrize(
    ("limits", "lasts_s"), [({"max_age_s": 100.0}, 10.0), ({"max_age_s": 100 * DAY}, DAY), ({"max_bytes": 10**6}, DAY)]
)
def test_a_bundle_lasts_a_tenth_of_the_limit_of_age_a_day_at_most(device, limits, lasts_s):
    device = device(**limits)
    device.put("a")
    device.clocks.pass_(lasts_s - 1)
    device.put("b")
    device.clocks.pass_(1)
    device.put("c")
    bundles = [sorted(os.listdir(path)) for path in sorted(device.folder.iterdir()) if path.is_dir()]
    assert sorted(bundles) == [["a", "b"], ["c"]]


def test_a_state_that_cannot_be_written_is_told_and_stops_nothing(device, monkeypatch, caplog):
    device = device(max_bytes=10**6)
    real = os.rename

    def refused(source, target, **dirs):
        if source == ".state.json.new":
            raise OSError(28, "No space left on device")
        return real(source, target, **dirs)

    monkeypatch.setattr(os, "rename", refused)
    device.put("f")
    assert device.names()[-1] == "f"
    assert "cannot save archive state" in caplog.text


def test_the_total_is_what_lies_there_after_files_came_and_went(device):
    device = device(max_bytes=3500)
    device.put("a", "b", "c")
    device.tidy()
    assert device.archive._total == 3000
    device.put("d", size=600)
    device.tidy()
    assert (device.archive._total, device.names()) == (2600, ["b", "c", "d"])
    for path in device.folder.rglob("[bc]"):
        path.unlink()
    device.put("e", size=3400)
    device.tidy()
    assert device.names() == ["e"]
    assert device.archive._total == 3400
    assert device.size() == 3400


def test_an_empty_file_counts_as_a_file(device):
    device = device(max_bytes=10)
    device.put("a", size=0)
    device.put("b", size=11)
    device.tidy()
    assert device.names() == []
    assert [path.name for path in device.folder.iterdir()] == [".state.json"]


def test_a_link_that_somebody_has_put_there_counts_as_itself(device, tmp_path):
    device = device(max_bytes=5000)
    device.put("a")
    (tmp_path / "big").write_bytes(bytes(100_000))
    (bundle,) = (path for path in device.folder.iterdir() if path.is_dir())
    (bundle / "link").symlink_to(tmp_path / "big")
    (bundle / "dangling").symlink_to("nowhere")
    device.start()
    device.tidy()
    assert device.archive._total < 2000
    assert "a" in device.names()


def test_files_that_come_while_their_bundle_is_emptied_stay_and_are_counted(device):
    device = device(max_bytes=2500)
    device.put("a", "b", "c")
    device.archive.tidy(0)  # one step
    assert device.names() == ["b", "c"]
    device.put("d", "e", "f")
    device.tidy()
    assert (device.names(), device.archive._total) == (["e", "f"], 2000)
    device.put("g")
    device.tidy()
    assert device.names() == ["f", "g"]


def test_an_older_bundle_is_looked_through_in_small_steps(device):
    device = device(max_bytes=15_000)
    device.put(*(f"{number:02}" for number in range(15)))
    device.clocks.pass_(DAY)
    device.put("newest")
    steps = 0
    while not steps or device.archive._work is not None:
        device.archive.tidy(0)
        steps += 1
    assert steps > 15
    assert len(device.names()) == 15
