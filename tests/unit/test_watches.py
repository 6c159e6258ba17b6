"""What the kernel tells of an outbox is looked at at once, and what it does not tell is found by a scan.

Real folders and real events on a clock of the test's own: nothing here waits.
"""

from __future__ import annotations

import contextlib
import ctypes
import mmap
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from conditions import missing
from unit.finding import SETTLE_S, Rig
from unit.removing import taken

from iot.spooler.leaving.removal import Delete, Item, private_names, put_back
from iot.spooler.outbox.cadence import CHECK_S, SOON_S, TOLD_S, UNTOLD_S
from iot.spooler.outbox.mounts import KNOWN
from iot.spooler.outbox.noticed import AGAIN_S
from iot.spooler.outbox.place import Place
from iot.spooler.outbox.watches import why_silent
from iot.spooler.queue.policy import Event, State
from iot.transfer import Fingerprint

OLD_S = 60.0
QUEUED_MOST = 16384
"""Events that the kernel keeps by default: /proc/sys/fs/inotify/max_queued_events."""


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    rig = Rig(tmp_path)
    yield rig
    rig.close()


@pytest.fixture
def settled(tmp_path: Path) -> Iterator[Rig]:
    rig = Rig(tmp_path, settle_s=SETTLE_S)
    yield rig
    rig.close()


# -- ready


def test_a_file_is_queued_as_soon_as_it_is_closed(rig: Rig) -> None:
    with (rig.box / "a").open("wb") as file:
        file.write(b"half")
        file.flush()
        assert rig.work() == []
        assert rig.work(60.0) == []  # nobody knows it to be complete, however long it rests
        file.write(b"whole")
    assert rig.work() == ["a"]


def test_a_file_that_two_have_open_is_queued_when_the_second_has_closed_it(rig: Rig) -> None:
    with (rig.box / "a").open("wb") as first, (rig.box / "a").open("ab") as second:
        first.write(b"x")
        first.close()
        assert rig.work() == []
        assert rig.work(1.0) == []
        second.write(b"y")
    assert rig.work() == ["a"]


def test_what_is_written_through_a_mapping_is_noticed_when_it_is_unmapped(rig: Rig) -> None:
    """The descriptor was closed before, and no event comes with the writes themselves."""
    path = rig.put("a", b"x" * mmap.PAGESIZE)
    os.utime(path, (10**9, 10**9))
    assert rig.work() == ["a"]
    descriptor = os.open(path, os.O_RDWR)
    with mmap.mmap(descriptor, 0) as mapping:
        os.close(descriptor)
        mapping[0] = ord("y")
        rig.work(1.0)
    rig.work()
    assert rig.intake.passes == 1  # without a scan
    [row] = rig.queue.page(rig.intake.number, 0, 9)
    assert row.fingerprint.mtime_ns == path.stat().st_mtime_ns != 10**18


def test_a_file_that_is_truncated_by_its_path_is_a_new_version_at_the_next_scan(rig: Rig) -> None:
    """The kernel would tell of it only together with each single write of every producer."""
    path = rig.put("a", b"content")
    assert rig.work() == ["a"]
    os.truncate(path, 3)
    rig.intake.wake()
    rig.work(OLD_S)
    [row] = rig.queue.page(rig.intake.number, 0, 9)
    assert row.fingerprint.size == 3


def test_an_empty_file_may_be_about_to_be_filled_and_has_to_settle(rig: Rig) -> None:
    rig.put("a", b"")
    assert rig.work() == []
    assert rig.work(SETTLE_S) == ["a"]


def test_a_file_that_is_renamed_in_is_queued_at_once(rig: Rig, tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"x")
    (tmp_path / "a").rename(rig.box / "a")
    assert rig.work() == ["a"]


def test_whoever_sets_a_quiet_time_gets_it(settled: Rig) -> None:
    settled.put("a")
    assert settled.work() == []
    assert settled.work(SETTLE_S / 2) == []
    assert settled.work(SETTLE_S / 2) == ["a"]


def test_a_new_version_takes_the_place_of_the_one_that_waits(rig: Rig) -> None:
    rig.put("a", b"one")
    assert rig.work() == ["a"]
    rig.put("a", b"second")
    assert rig.work() == ["a"]
    (row,) = rig.queue.page(rig.intake.number, 0, 10)
    assert row.fingerprint.size == len(b"second")


def test_a_version_that_comes_while_the_one_before_is_sent_is_queued_after_it(rig: Rig) -> None:
    rig.put("a", b"one")
    rig.work()
    begun = rig.queue.begin(rig.queue.page(rig.intake.number, 0, 10))
    rig.put("a", b"second")
    assert rig.work() == []
    assert rig.names(State.SENDING) == ["a"]
    rig.queue.drop(begun, Event.CHANGED)
    assert rig.work(AGAIN_S) == ["a"]


# -- what we do ourselves


def test_our_own_removal_is_not_looked_at_and_what_its_producer_puts_there_is(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each file that leaves is renamed and unlinked: that is three events for one that came with two."""
    looked: list[bytes] = []
    real = Place._status
    monkeypatch.setattr(Place, "_status", lambda place, path: looked.append(path) or real(place, path))
    rig.put("a", b"one")
    item = Item(1, b"a", Fingerprint.of((rig.box / "a").stat()))
    assert rig.work() == ["a"]
    looked.clear()
    with opened(rig.box) as box:
        assert taken(box, [item], Delete()) == ([1], [])
    rig.work()
    assert (looked, os.listdir(rig.box)) == ([], [])
    rig.put("a", b"second")
    assert rig.work() == ["a"]
    assert looked == [b"a"]


def test_a_version_that_comes_while_the_one_before_is_being_removed_is_queued(rig: Rig) -> None:
    rig.put("a", b"one")
    item = Item(1, b"a", Fingerprint.of((rig.box / "a").stat()))
    rig.work()

    class Late(Delete):
        def leave(self, folder: int, private: bytes, item: Item) -> bool:
            rig.put("a", b"second")
            return True

    with opened(rig.box) as box:
        assert taken(box, [item], Late()) == ([1], [])
    assert rig.work() == ["a"]
    (row,) = rig.queue.page(rig.intake.number, 0, 10)
    assert row.fingerprint.size == len(b"second")


def test_a_file_that_is_put_back_is_noticed(rig: Rig) -> None:
    private = private_names(1, b"a")[0]
    (rig.box / "b").write_bytes(b"x")
    rig.work()
    (rig.box / "b").rename(rig.box / os.fsdecode(private))
    rig.work()
    with opened(rig.box) as box:
        put_back(box, private, b"a")
    assert "a" in rig.work()


@contextlib.contextmanager
def opened(folder: Path) -> Iterator[int]:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


# -- folders


def test_files_in_new_folders_are_found_however_fast_they_come_and_those_that_come_later(rig: Rig) -> None:
    (rig.box / "a" / "b").mkdir(parents=True)
    rig.put("a/b/at-once")
    assert rig.work() == []  # it was there before its folder was watched: nobody saw it closed
    assert rig.work(SETTLE_S) == ["a/b/at-once"]
    rig.put("a/b/later")
    assert rig.work() == ["a/b/at-once", "a/b/later"]


def test_a_folder_that_is_renamed_takes_its_files_to_their_new_names(rig: Rig) -> None:
    (rig.box / "a" / "deep").mkdir(parents=True)
    rig.work()
    rig.put("a/deep/f")
    assert rig.work() == ["a/deep/f"]
    (rig.box / "a").rename(rig.box / "b")
    assert rig.work(OLD_S) == ["b/deep/f"]
    rig.put("b/deep/g")
    assert rig.work() == ["b/deep/f", "b/deep/g"]
    (rig.box / "a" / "deep").mkdir(parents=True)
    rig.work()
    rig.put("a/deep/h")
    assert "a/deep/h" in rig.work()


def test_a_folder_that_is_moved_out_is_watched_no_more_and_its_files_are_forgotten(rig: Rig, tmp_path: Path) -> None:
    (rig.box / "a").mkdir()
    rig.work()
    rig.put("a/f")
    assert rig.work() == ["a/f"]
    (rig.box / "a").rename(tmp_path / "out")
    assert rig.work() == []
    (tmp_path / "out" / "g").write_bytes(b"x")
    assert rig.work(SETTLE_S) == []


def test_a_folder_that_is_removed_and_made_again_is_watched_again(rig: Rig) -> None:
    for number in range(3):
        (rig.box / "a").mkdir()
        rig.work()
        rig.put(f"a/{number}")
        assert rig.work() == [f"a/{number}"]
        shutil.rmtree(rig.box / "a")
    (rig.box / "a").mkdir()
    assert rig.work() == []


def test_a_folder_that_is_made_again_while_files_are_sent_is_watched_again(rig: Rig) -> None:
    (rig.box / "a").mkdir()
    assert rig.work() == []
    (rig.box / "a").rmdir()
    (rig.box / "a").mkdir()
    for _ in range(3):
        rig.intake.step(busy=True)
    rig.put("a/after")
    assert rig.work() == ["a/after"]


def exchange(one: Path, other: Path) -> None:
    """As `mv --exchange`: the kernel tells that `other` has come, and then that it has gone."""
    if ctypes.CDLL(None).renameat2(-100, os.fsencode(one), -100, os.fsencode(other), 2) != 0:
        missing("this system cannot exchange names")


def test_two_files_that_change_places_are_both_looked_at(rig: Rig) -> None:
    rig.put("a", b"1")
    rig.put("b", b"22")
    rig.work()
    exchange(rig.box / "a", rig.box / "b")
    rig.work()
    rig.work(SETTLE_S)
    known = rig.queue.known(rig.intake.number, [b"a", b"b"])
    assert {path: row.fingerprint.size for path, row in known.items()} == {b"a": 2, b"b": 1}


def test_two_folders_that_change_places_are_both_looked_at_and_watched(rig: Rig) -> None:
    for folder in ("a", "b"):
        (rig.box / folder).mkdir()
    rig.work()
    rig.put("a/x")
    assert rig.work() == ["a/x"]
    exchange(rig.box / "a", rig.box / "b")
    rig.work()
    assert rig.work(SETTLE_S) == ["b/x"]
    rig.put("a/y")
    rig.put("b/z")
    assert rig.work() == ["a/y", "b/x", "b/z"]


def test_folders_are_left_alone_where_they_are_not_wanted(tmp_path: Path) -> None:
    rig = Rig(tmp_path, recursive=False)
    (rig.box / "a").mkdir()
    rig.put("a/f")
    assert rig.work(SETTLE_S) == []
    rig.close()


def test_the_outbox_itself_may_be_removed_and_made_again(rig: Rig) -> None:
    rig.box.rmdir()
    rig.work(CHECK_S)
    assert rig.intake.failed is not None
    rig.box.mkdir()
    rig.work(SOON_S)
    assert rig.intake.failed is None
    rig.put("a")
    assert rig.work() == ["a"]


# -- gone


def test_what_is_gone_before_it_was_looked_at_leaves_no_trace(rig: Rig) -> None:
    rig.put("a").unlink()
    assert rig.work() == []
    rig.put("b").unlink()
    rig.put("b", b"again")
    assert rig.work() == ["b"]


def test_what_is_removed_or_moved_while_it_waits_is_forgotten(rig: Rig, tmp_path: Path) -> None:
    for name in "abc":
        rig.put(name)
    assert rig.work() == ["a", "b", "c"]
    (rig.box / "a").unlink()
    (rig.box / "b").rename(tmp_path / "out")
    (rig.box / "c").rename(rig.box / "d")
    assert rig.work() == ["d"]
    assert rig.intake.take_withdrawn() == []


def test_of_what_is_removed_after_an_attempt_the_server_may_have_something(rig: Rig) -> None:
    rig.put("a")
    rig.work()
    (begun,) = rig.queue.begin(rig.queue.page(rig.intake.number, 0, 10))
    rig.queue.restart()
    (rig.box / "a").unlink()
    rig.work()
    assert [entry.id for entry in rig.intake.take_withdrawn()] == [begun.id]


def test_a_symlink_is_counted_soon_and_until_it_is_removed(rig: Rig) -> None:
    (rig.box / "link").symlink_to("elsewhere")
    rig.work()
    rig.work(SOON_S)
    assert dict(rig.intake.outbox.refused.reasons) == {"symlink": 1}
    (rig.box / "link").unlink()
    rig.work()
    rig.work(SOON_S)
    assert dict(rig.intake.outbox.refused.reasons) == {}


# -- how often it is scanned, and when the kernel cannot be relied on


def test_where_the_kernel_tells_of_everything_scans_are_rare(rig: Rig) -> None:
    assert rig.intake.outbox.watches.reason == ""
    assert rig.intake.cadence.next_s == rig.now + TOLD_S
    file = rig.put("a")
    rig.work()
    os.truncate(file, 3)  # of this it tells nothing
    rig.work(TOLD_S / 2)
    assert rig.queue.page(rig.intake.number, 0, 10)[0].fingerprint.size == len(b"content")
    rig.work(TOLD_S / 2)
    assert rig.queue.page(rig.intake.number, 0, 10)[0].fingerprint.size == 3


def test_as_often_as_is_configured_whatever_the_kernel_tells(tmp_path: Path) -> None:
    rig = Rig(tmp_path, scan_s=3 * 86400.0)
    assert rig.intake.cadence.next_s == rig.now + 3 * 86400.0
    rig.close()


def test_after_an_overflow_of_events_everything_is_scanned_and_it_is_logged_once(
    rig: Rig, caplog: pytest.LogCaptureFixture
) -> None:
    path = os.fsencode(rig.box / "a")
    for number in range(2):
        for _ in range(QUEUED_MOST // 2 + 10):  # each is made, closed and removed
            os.close(os.open(path, os.O_CREAT | os.O_WRONLY))
            os.unlink(path)
        rig.put("late")
        rig.put(f"later-{number}")
        rig.work(SETTLE_S)
        assert {"late", f"later-{number}"} <= set(rig.work(SETTLE_S))
    assert rig.intake.outbox.watches.overflows == 2
    assert caplog.text.count("events were lost") == 1


NO_WATCHES = """
import pathlib, sys
sys.path.insert(0, sys.argv[1])
pathlib.Path("/proc/sys/user/max_inotify_" + sys.argv[2]).write_text(sys.argv[3])
from unit.finding import Rig
rig = Rig(pathlib.Path(sys.argv[4]))
(rig.box / "a" / "b").mkdir(parents=True)
rig.intake.wake(); rig.work()
print(rig.intake.outbox.watches.reason, rig.intake.cadence.next_s - rig.now, sep="|")
pathlib.Path("/proc/sys/user/max_inotify_" + sys.argv[2]).write_text("100")
rig.intake.wake(); rig.work()
print(rig.intake.outbox.watches.reason, rig.intake.cadence.next_s - rig.now, sep="|")
"""


@pytest.mark.parametrize(("what", "allowed"), [("watches", 2), ("instances", 0)])
def test_without_watches_it_is_scanned_often_until_there_are_some_again(
    tmp_path: Path, what: str, allowed: int
) -> None:
    command = ["unshare", "--user", "--map-root-user", sys.executable, "-c", NO_WATCHES]
    given = [str(Path(__file__).parents[1]), what, str(allowed), str(tmp_path)]
    done = subprocess.run([*command, *given], capture_output=True, text=True, timeout=60, check=False)
    if "unshare: " in done.stderr:
        missing("no user namespaces here")
    before, after = done.stdout.splitlines()
    reason, seconds = before.split("|")
    assert f"max_user_{what}" in reason
    assert float(seconds) == UNTOLD_S
    assert after == f"|{TOLD_S}"


def test_file_systems_that_others_change_unseen_are_scanned_often() -> None:
    silent = {system.name for system in KNOWN.values() if why_silent(system)}
    assert {"nfs", "cifs", "fuse", "9p", "overlay"} <= silent
    assert not silent & {"vfat", "exfat", ""}
