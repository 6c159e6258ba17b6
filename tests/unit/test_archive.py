"""The archive's limits: they hold at any rate, purge nothing early, and touch nothing else."""

import itertools
import json
import os
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from unit.removing import taken

from iot.sftp.client import Fingerprint
from iot.spooler.leaving import archive as archives
from iot.spooler.leaving.archive import Archive
from iot.spooler.leaving.removal import Item
from iot.spooler.state.elapsed import Moment, Odometer, elapsed_s, observe

DAY = 86400.0


class Clocks:
    """All clocks of a device; since_boot_s moves the truth."""

    def __init__(self):
        self.boot, self.since_boot_s, self.wall_s, self.synchronised = "a", 10.0, 1e9, True

    def __call__(self):
        return Moment(self.boot, self.since_boot_s, self.wall_s, self.synchronised)

    def pass_(self, seconds):
        self.since_boot_s += seconds
        self.wall_s += seconds

    def reboot(self, off_s, wall_s=None, *, synchronised=True):
        self.boot += "x"
        self.wall_s = self.wall_s + off_s if wall_s is None else wall_s
        self.since_boot_s, self.synchronised = 5.0, synchronised


class Device:
    def __init__(self, tmp_path, **limits):
        self.box, self.folder, self.limits = tmp_path / "box", tmp_path / "archive", limits
        self.box.mkdir()
        self.clocks = Clocks()
        self.start()

    def start(self):
        self.archive = Archive(self.folder, look=self.clocks, **self.limits)

    def put(self, *names, size=1000):
        for name in names:
            path = self.box / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(bytes(size))
        root = os.open(self.box, os.O_RDONLY)
        items = [
            Item(key, os.fsencode(name), Fingerprint.of(os.stat(self.box / name))) for key, name in enumerate(names)
        ]
        done, failed = taken(root, items, self.archive)
        assert (sorted(done), failed) == (list(range(len(names))), [])
        os.close(root)

    def tidy(self):
        for _ in range(1000):
            self.archive.tidy(60)
            if self.archive._work is None:
                return
        raise AssertionError("it never ends")

    def names(self):
        return sorted(path.name for path in self.folder.rglob("*") if path.is_file() and path.name != ".state.json")

    def size(self):
        return sum(
            path.stat().st_size for path in self.folder.rglob("*") if path.name != ".state.json" and path.is_file()
        )


@pytest.fixture
def device(tmp_path):
    return lambda **limits: Device(tmp_path, **limits)


def test_the_limit_of_size_holds_at_a_thousand_files_a_second_and_the_newest_stay(device):
    """Between two looks of the agent, 20 ms, 20 files come; the limit is kept after each of them."""
    device = device(max_bytes=100_000)
    for first in range(0, 1000, 20):
        device.put(*(f"d{number % 3}/{number:05}" for number in range(first, first + 20)))
        device.tidy()
        assert device.size() <= 100_000
    assert device.names() == [f"{number:05}" for number in range(900, 1000)]


def test_one_step_is_short_however_much_there_is_to_remove(device, monkeypatch):
    device = device(max_bytes=0)
    device.put(*(f"{number:05}" for number in range(150)))
    monkeypatch.setattr(archives.time, "monotonic", iter(range(10**9)).__next__)  # each look at the clock: a second
    steps = [len(device.names())]
    for _ in range(1000):
        device.archive.tidy(10)
        steps.append(len(device.names()))
        if device.archive._work is None:
            break
    assert max(before - after for before, after in itertools.pairwise(steps)) <= 11
    assert steps[-1] == 0


def test_a_limit_of_age_removes_what_is_older_and_nothing_else(device):
    device = device(max_age_s=DAY)
    device.put("old", "sub/deep/old2")
    device.clocks.pass_(DAY / 2)
    device.put("new")
    device.tidy()
    assert device.names() == ["new", "old", "old2"]
    device.clocks.pass_(DAY / 2 + 60)
    device.tidy()
    assert device.names() == ["new"]
    assert not list(device.folder.rglob("deep"))
    device.clocks.pass_(DAY)
    device.tidy()
    assert [path.name for path in device.folder.iterdir()] == [".state.json"]


def test_a_jump_of_the_wall_clock_makes_nothing_old(device):
    device = device(max_age_s=DAY)
    device.clocks.wall_s, device.clocks.synchronised = 30.0, False
    device.put("f")
    device.clocks.wall_s, device.clocks.synchronised = 2e9, True
    device.tidy()
    device.start()
    device.tidy()
    device.clocks.reboot(off_s=3600)
    device.start()
    device.tidy()
    assert device.names() == ["f"]
    device.clocks.pass_(DAY + 60)
    device.tidy()
    assert device.names() == []


def test_age_goes_on_over_restarts_and_reboots(device):
    device = device(max_age_s=10 * DAY)
    device.put("f")
    for _ in range(5):
        device.clocks.reboot(off_s=3 * DAY)
        device.start()
        device.tidy()
        device.put("g")
    assert "f" not in device.names()


def test_a_device_that_never_knows_the_time_still_empties_its_archive(device):
    device = device(max_age_s=DAY)
    device.clocks.synchronised = False
    for day in range(12):
        device.clocks.reboot(off_s=0, wall_s=10.0, synchronised=False)
        device.start()
        device.clocks.pass_(DAY / 2)
        device.put(f"{day:02}")
        device.tidy()
    assert device.names()[-1] == "11"
    assert len(device.names()) <= 5


moments = st.builds(Moment, st.sampled_from(["", "a", "b"]), st.floats(0, 1e9), st.floats(-1e9, 1e12), st.booleans())


@given(moments, st.floats(0, 1e9), st.floats(0, 1e9), st.booleans())
def test_what_is_measured_is_never_more_than_what_has_passed(before, up_s, off_s, reboots):
    """A clock that is synchronised is right; one that is not may say anything."""
    true_s = up_s + (off_s if reboots else 0.0)
    if reboots:
        now = Moment(before.boot + "x" if before.boot else "", up_s, before.wall_s + true_s, before.synchronised)
    else:
        now = before._replace(since_boot_s=before.since_boot_s + up_s, wall_s=-5e8, synchronised=False)
    assert 0 <= elapsed_s(before, now) <= true_s * (1 + 1e-6) + 1e-3


def test_the_clocks_of_this_machine_can_be_read():
    odometer = Odometer(observe)
    first = odometer.now_s()
    time.sleep(0.01)
    assert 0.009 < odometer.now_s() - first < 60


def test_a_file_that_somebody_removes_meanwhile_stops_nothing(device):
    device = device(max_bytes=2000)
    device.put(*(f"s{number}/{number}" for number in range(10)))
    work = device.archive._remove_beyond()
    for _ in range(2):  # all are found, some are removed
        next(work)
    (gone,) = device.folder.rglob("5")
    gone.unlink()
    gone.parent.rmdir()
    list(work)
    assert device.names() == ["8", "9"]
    (device.folder / device.archive._bundles[0].name / "s8" / "8").unlink()
    device.put("a", "b", "c")
    device.tidy()
    assert device.size() <= 2000
    assert "c" in device.names()


def test_after_a_restart_what_is_there_counts_whoever_removed_some_of_it(device):
    device = device(max_bytes=5000)
    device.put("1", "2", "3", "4")
    next(device.folder.rglob("2")).unlink()
    device.start()
    device.tidy()
    device.put("5", "6")
    device.tidy()
    assert device.names() == ["1", "3", "4", "5", "6"]
    device.put("7")
    device.tidy()
    assert device.names() == ["3", "4", "5", "6", "7"]


def test_nothing_that_the_agent_did_not_put_there_is_removed_nor_any_link_followed(device, tmp_path):
    device = device(max_bytes=0, max_age_s=1)
    device.put("f")
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    (foreign / "precious").write_text("x")
    (device.folder / "mine").mkdir()
    (device.folder / "mine" / "note").write_text("x")
    (device.folder / "2020-01-01.000000").symlink_to(foreign)
    (bundle,) = device.folder.glob("*.000001")
    (bundle / "link").symlink_to(foreign)
    device.start()
    device.clocks.pass_(DAY)
    device.tidy()
    assert (foreign / "precious").exists()
    assert (device.folder / "mine" / "note").exists()
    assert not bundle.exists()


def test_the_same_name_twice_keeps_both(device):
    device = device()
    device.put("sub/f", size=1)
    device.put("sub/f", size=2)
    assert device.names() == ["f", "f.1"]
    (bundle,) = device.folder.glob("*.000001")
    assert sorted(path.stat().st_size for path in (bundle / "sub").iterdir()) == [1, 2]


def test_a_damaged_state_makes_files_stay_longer_never_shorter(device):
    device = device(max_age_s=DAY)
    device.put("f")
    for damage in (b"", b"[]", b"\xff", json.dumps({"clock_s": 1e12, "moment": [], "ends": {}}).encode()):
        (device.folder / ".state.json").write_bytes(damage)
        device.clocks.pass_(DAY / 10)
        device.start()
        device.tidy()
        assert device.names() == ["f"]
    device.clocks.pass_(DAY + 60)
    device.tidy()
    assert device.names() == []


def test_numbers_go_on_where_an_earlier_run_ended(device):
    device = device()
    for name in ("a", "b"):
        device.start()
        device.put(name)
    device.clocks.reboot(off_s=DAY)
    device.start()
    device.put("c")
    bundles = sorted((path for path in device.folder.iterdir() if path.is_dir()), key=lambda path: path.suffix)
    assert [path.suffix for path in bundles] == [".000001", ".000002"]
    assert [sorted(os.listdir(path)) for path in bundles] == [["a", "b"], ["c"]]


def test_a_new_bundle_begins_when_one_is_full(device, monkeypatch):
    monkeypatch.setattr(archives, "CROWD", 10)
    device = device(max_bytes=15_000)
    for first in range(0, 100, 5):
        device.put(*(f"{number:03}" for number in range(first, first + 5)))
    assert [len(os.listdir(path)) for path in device.folder.iterdir() if path.is_dir()] == [10] * 10
    device.tidy()
    assert device.names() == [f"{number:03}" for number in range(85, 100)]
