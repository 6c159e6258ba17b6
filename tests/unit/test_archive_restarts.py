"""The archive of an agent that begins again: what it remembers, what it counts anew, and what it never follows."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest
from unit.test_archive import DAY, Device

from iot.spooler.leaving import archive as archives

STATE = ".state.json"


@pytest.fixture
def device(tmp_path: Path):
    return lambda **limits: Device(tmp_path, **limits)


def bundles(device: Device) -> list[list[str]]:
    """What lies in each, the oldest first."""
    folders = sorted((path for path in device.folder.iterdir() if path.is_dir()), key=lambda path: path.suffix)
    return [sorted(os.listdir(path)) for path in folders]


def test_a_file_is_kept_until_its_age_is_more_than_the_limit(device):
    device = device(max_age_s=100.0)
    device.put("f")
    device.clocks.pass_(100)
    device.tidy()
    assert device.names() == ["f"]
    device.clocks.pass_(1)
    device.tidy()
    assert device.names() == []


def test_time_that_has_passed_is_known_after_a_restart_though_no_file_came(device):
    """A device without a clock that is right: what was not written down before it was switched off is lost."""
    device = device(max_age_s=10 * DAY)
    device.clocks.synchronised = False
    device.put("a")
    device.clocks.pass_(DAY)
    device.put("b")
    device.clocks.pass_(5 * DAY)
    device.start()
    device.tidy()
    device.clocks.reboot(off_s=0, wall_s=10.0, synchronised=False)
    device.start()
    device.clocks.pass_(4 * DAY)
    device.tidy()
    assert device.names() == ["b"]


def test_the_day_in_a_name_is_one_of_the_time_since_1970(device):
    device = device()
    device.clocks.wall_s = -5.0
    device.put("f")
    assert [path.name for path in device.folder.iterdir() if path.is_dir()] == ["1970-01-01.000001"]


def test_a_bundle_that_is_found_to_be_full_gets_no_more_files(device, monkeypatch):
    monkeypatch.setattr(archives, "CROWD", 10)
    device = device(max_bytes=10**6)
    device.put(*"abcdefgh")
    device.start()
    device.put(*"ijklmn")  # it is not counted yet
    device.tidy()
    device.put("o")
    assert [len(names) for names in bundles(device)] == [14, 1]


def test_a_bundle_goes_on_after_a_restart_up_to_its_full_number(device, monkeypatch):
    monkeypatch.setattr(archives, "CROWD", 10)
    device = device(max_bytes=10**6)
    device.put(*"abcdefgh")
    device.start()
    device.tidy()
    device.put(*"ijk")
    assert [len(names) for names in bundles(device)] == [10, 1]


def test_the_bundle_that_still_gets_files_is_counted_in_one_step(device):
    device = device(max_bytes=10**6)
    device.put(*"abcd")
    device.start()
    device.archive.tidy(0)
    device.put("e")
    device.tidy()
    assert device.archive._total == device.size() == 5000


def test_what_is_removed_after_a_restart_is_taken_off_the_total(device):
    device = device(max_bytes=4000)
    device.put("a", "b", "c")
    device.start()
    device.tidy()
    device.put("d", "e", size=1200)
    device.tidy()
    assert (device.names(), device.archive._total) == (["c", "d", "e"], 3400)
    device.put("f", size=4000)
    device.tidy()
    assert (device.names(), device.archive._total) == (["f"], 4000)


def test_when_the_oldest_bundle_is_gone_the_newest_goes_on(device):
    device = device(max_bytes=2500, max_age_s=10 * DAY)
    device.put("a")
    device.clocks.pass_(DAY)
    device.put("b", "c")
    device.tidy()
    device.put("d")
    device.tidy()
    assert bundles(device) == [["c", "d"]]


def test_when_the_only_bundle_is_gone_the_next_file_is_counted_in_another(device, caplog):
    caplog.set_level("INFO")
    device = device(max_bytes=500)
    device.put("a")
    device.tidy()
    assert f"archive tidied folder={device.folder} removed=1 bytes=0" in caplog.messages
    device.put("b", "c", size=300)
    device.tidy()
    assert (device.names(), bundles(device)) == (["c"], [["c"]])


def test_files_beyond_the_limit_do_not_begin_another_bundle(device):
    device = device(max_bytes=2500)
    device.put("a", "b", "c")
    device.tidy()
    device.put("d")
    assert bundles(device) == [["b", "c", "d"]]


def test_a_state_that_is_a_link_of_somebody_is_neither_believed_nor_written_to(device, tmp_path):
    device = device(max_age_s=DAY)
    device.put("f")
    elsewhere = tmp_path / "elsewhere"
    state = json.loads((device.folder / STATE).read_text())
    [bundle] = [path.name for path in device.folder.iterdir() if path.is_dir()]
    elsewhere.write_text(json.dumps({**state, "clock_s": 9 * DAY, "ends": {bundle: 0.0}}))
    (device.folder / STATE).unlink()
    for name in (STATE, f"{STATE}.new"):
        (device.folder / name).symlink_to(elsewhere)
    before = elsewhere.read_text()
    device.start()
    device.tidy()
    assert list(device.folder.rglob("f"))
    assert elsewhere.read_text() == before


def test_a_state_that_is_a_pipe_keeps_nobody_waiting(device):
    device = device(max_age_s=DAY)
    device.put("f")
    (device.folder / STATE).unlink()
    os.mkfifo(device.folder / STATE)
    device.start()
    device.tidy()
    assert json.loads((device.folder / STATE).read_text())["open"][0].endswith(".000001")


def test_what_an_interrupted_save_has_left_is_overwritten(device):
    device = device(max_age_s=DAY)
    device.folder.mkdir(mode=0o750)
    (device.folder / f"{STATE}.new").write_text("x" * 10_000)
    device.put("f")
    assert json.loads((device.folder / STATE).read_text())["open"][0].endswith(".000001")


def test_a_folder_that_cannot_be_looked_into_is_no_empty_one(device, monkeypatch, caplog):
    device = device(max_bytes=500)
    device.put("sub/f")
    device.start()
    real = archives.open_below

    def refused(root: int, path: bytes) -> int:
        if path.endswith(b"sub"):
            raise PermissionError(13, "Permission denied")
        return real(root, path)

    monkeypatch.setattr(archives, "open_below", refused)
    device.archive.tidy(60)
    assert "cannot tidy archive=" in caplog.text
    assert device.names() == ["f"]


@pytest.mark.parametrize("other", ["1999-01-01.000001", "2999-01-01.000001"])
def test_since_when_another_bundle_has_been_open_says_nothing_of_the_last_one(device, other):
    device = device(max_age_s=10 * DAY)
    device.put("a")
    device.clocks.pass_(DAY / 2)
    state = json.loads((device.folder / STATE).read_text())
    (device.folder / STATE).write_text(json.dumps({**state, "open": [other, 0.0]}))
    device.start()
    device.put("b")
    device.clocks.pass_(DAY * 0.6)
    device.put("c")
    assert bundles(device) == [["a", "b", "c"]]


def test_a_bundle_that_somebody_takes_away_whole_is_taken_off_the_total(device, caplog):
    device = device(max_bytes=2500)
    device.put("a", "b")
    device.clocks.pass_(DAY)
    device.put("c")
    [first, _] = sorted(path for path in device.folder.iterdir() if path.is_dir())
    shutil.rmtree(first)
    device.tidy()
    assert (device.names(), device.archive._total, caplog.messages) == (["c"], 1000, [])


def test_a_file_that_cannot_be_removed_still_counts(device, monkeypatch, caplog):
    def refused(*_: object, **__: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    device = device(max_bytes=500)
    device.put("a")
    with monkeypatch.context() as patches:
        patches.setattr(os, "unlink", refused)
        device.archive.tidy(60)
    assert (device.names(), device.archive._total) == (["a"], 1000)
    assert "cannot tidy archive=" in caplog.text
