"""What the kernel tells of an outbox is looked at at once, and what it does not tell is found by a scan.

Real folders and real events on a clock of the test's own: nothing here waits.
"""

from __future__ import annotations

import contextlib
import logging
import mmap
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from conditions import missing
from unit.finding import SETTLE_S, Rig
from unit.removing import taken

from iot.spooler.leaving.removal import Delete, Item, private_names, put_back
from iot.spooler.outbox.cadence import SOON_S, TOLD_S, UNTOLD_S
from iot.spooler.outbox.inotify import OVERFLOW, Note
from iot.spooler.outbox.mounts import KNOWN
from iot.spooler.outbox.noticed import AGAIN_S, Noticed
from iot.spooler.outbox.place import Place
from iot.spooler.outbox.watches import Watches, why_silent
from iot.spooler.queue.policy import Event, State
from iot.transfer import Fingerprint

OLD_S = 60.0
QUEUED_MOST = 16384
"""Events that the kernel keeps by default: /proc/sys/fs/inotify/max_queued_events."""


@pytest.fixture
def settled(tmp_path: Path) -> Iterator[Rig]:
    rig = Rig(tmp_path, settle_s=SETTLE_S)
    yield rig
    rig.close()


# -- ready


def test_a_file_is_queued_as_soon_as_it_is_closed(watched: Rig) -> None:
    with (watched.box / "a").open("wb") as file:
        file.write(b"half")
        file.flush()
        assert watched.work() == []
        assert watched.work(60.0) == []  # nobody knows it to be complete, however long it rests
        file.write(b"whole")
    assert watched.work() == ["a"]


def test_a_file_that_two_have_open_is_queued_when_the_second_has_closed_it(watched: Rig) -> None:
    with (watched.box / "a").open("wb") as first, (watched.box / "a").open("ab") as second:
        first.write(b"x")
        first.close()
        assert watched.work() == []
        assert watched.work(1.0) == []
        second.write(b"y")
    assert watched.work() == ["a"]


def test_what_is_written_through_a_mapping_is_noticed_when_it_is_unmapped(watched: Rig) -> None:
    """The descriptor was closed before, and no event comes with the writes themselves."""
    path = watched.put("a", b"x" * mmap.PAGESIZE)
    os.utime(path, (10**9, 10**9))
    assert watched.work() == ["a"]
    descriptor = os.open(path, os.O_RDWR)
    with mmap.mmap(descriptor, 0) as mapping:
        os.close(descriptor)
        mapping[0] = ord("y")
        watched.work(1.0)
    watched.work()
    assert watched.intake.passes == 1  # without a scan
    [row] = watched.queue.page(watched.intake.number, 0, 9)
    assert row.fingerprint.mtime_ns == path.stat().st_mtime_ns != 10**18


def test_a_file_that_is_truncated_by_its_path_is_a_new_version_at_the_next_scan(watched: Rig) -> None:
    """The kernel would tell of it only together with each single write of every producer."""
    path = watched.put("a", b"content")
    assert watched.work() == ["a"]
    os.truncate(path, 3)
    watched.intake.wake()
    watched.work(OLD_S)
    [row] = watched.queue.page(watched.intake.number, 0, 9)
    assert row.fingerprint.size == 3


def test_an_empty_file_may_be_about_to_be_filled_and_has_to_settle(watched: Rig) -> None:
    watched.put("a", b"")
    assert watched.work() == []
    assert watched.work(SETTLE_S) == ["a"]


def test_a_file_that_is_renamed_in_is_queued_at_once(watched: Rig, tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"x")
    (tmp_path / "a").rename(watched.box / "a")
    assert watched.work() == ["a"]


def test_whoever_sets_a_quiet_time_gets_it(settled: Rig) -> None:
    settled.put("a")
    assert settled.work() == []
    assert settled.work(SETTLE_S / 2) == []
    assert settled.work(SETTLE_S / 2) == ["a"]


def test_a_new_version_takes_the_place_of_the_one_that_waits(watched: Rig) -> None:
    watched.put("a", b"one")
    assert watched.work() == ["a"]
    watched.put("a", b"second")
    assert watched.work() == ["a"]
    (row,) = watched.queue.page(watched.intake.number, 0, 10)
    assert row.fingerprint.size == len(b"second")


def test_a_version_that_comes_while_the_one_before_is_sent_is_queued_after_it(watched: Rig) -> None:
    watched.put("a", b"one")
    watched.work()
    begun = watched.queue.begin(watched.queue.page(watched.intake.number, 0, 10))
    watched.put("a", b"second")
    assert watched.work() == []
    assert watched.names(State.SENDING) == ["a"]
    watched.queue.drop(begun, Event.CHANGED)
    assert watched.work(AGAIN_S) == ["a"]


# -- what we do ourselves


def test_our_own_removal_is_not_looked_at_and_what_its_producer_puts_there_is(
    watched: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each file that leaves is renamed and unlinked: that is three events for one that came with two."""
    looked: list[bytes] = []
    real = Place._status
    monkeypatch.setattr(Place, "_status", lambda place, path: looked.append(path) or real(place, path))
    watched.put("a", b"one")
    item = Item(1, b"a", Fingerprint.of((watched.box / "a").stat()))
    assert watched.work() == ["a"]
    looked.clear()
    with opened(watched.box) as box:
        assert taken(box, [item], Delete()) == ([1], [])
    watched.work()
    assert (looked, os.listdir(watched.box)) == ([], [])
    watched.put("a", b"second")
    assert watched.work() == ["a"]
    assert looked == [b"a"]


def test_a_version_that_comes_while_the_one_before_is_being_removed_is_queued(watched: Rig) -> None:
    watched.put("a", b"one")
    item = Item(1, b"a", Fingerprint.of((watched.box / "a").stat()))
    watched.work()

    class Late(Delete):
        def leave(self, folder: int, private: bytes, item: Item) -> bool:
            watched.put("a", b"second")
            return True

    with opened(watched.box) as box:
        assert taken(box, [item], Late()) == ([1], [])
    assert watched.work() == ["a"]
    (row,) = watched.queue.page(watched.intake.number, 0, 10)
    assert row.fingerprint.size == len(b"second")


def test_a_file_that_is_put_back_is_noticed(watched: Rig) -> None:
    private = private_names(1, b"a")[0]
    (watched.box / "b").write_bytes(b"x")
    watched.work()
    (watched.box / "b").rename(watched.box / os.fsdecode(private))
    watched.work()
    with opened(watched.box) as box:
        put_back(box, private, b"a")
    assert "a" in watched.work()


@contextlib.contextmanager
def opened(folder: Path) -> Iterator[int]:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


# -- gone


def test_what_is_gone_before_it_was_looked_at_leaves_no_trace(watched: Rig) -> None:
    watched.put("a").unlink()
    assert watched.work() == []
    watched.put("b").unlink()
    watched.put("b", b"again")
    assert watched.work() == ["b"]


def test_what_is_removed_or_moved_while_it_waits_is_forgotten(watched: Rig, tmp_path: Path) -> None:
    for name in "abc":
        watched.put(name)
    assert watched.work() == ["a", "b", "c"]
    (watched.box / "a").unlink()
    (watched.box / "b").rename(tmp_path / "out")
    (watched.box / "c").rename(watched.box / "d")
    assert watched.work() == ["d"]
    assert watched.intake.take_withdrawn() == []


def test_of_what_is_removed_after_an_attempt_the_server_may_have_something(watched: Rig) -> None:
    watched.put("a")
    watched.work()
    (begun,) = watched.queue.begin(watched.queue.page(watched.intake.number, 0, 10))
    watched.queue.restart()
    (watched.box / "a").unlink()
    watched.work()
    assert [entry.id for entry in watched.intake.take_withdrawn()] == [begun.id]


def test_a_symlink_is_counted_soon_and_until_it_is_removed(watched: Rig) -> None:
    (watched.box / "link").symlink_to("elsewhere")
    watched.work()
    watched.work(SOON_S)
    assert dict(watched.intake.outbox.refused.reasons) == {"symlink": 1}
    (watched.box / "link").unlink()
    watched.work()
    watched.work(SOON_S)
    assert dict(watched.intake.outbox.refused.reasons) == {}


# -- how often it is scanned, and when the kernel cannot be relied on


def test_where_the_kernel_tells_of_everything_scans_are_rare(watched: Rig) -> None:
    assert watched.intake.outbox.watches.reason == ""
    assert watched.intake.cadence.next_s == watched.now + TOLD_S
    file = watched.put("a")
    watched.work()
    os.truncate(file, 3)  # of this it tells nothing
    watched.work(TOLD_S / 2)
    assert watched.queue.page(watched.intake.number, 0, 10)[0].fingerprint.size == len(b"content")
    watched.work(TOLD_S / 2)
    assert watched.queue.page(watched.intake.number, 0, 10)[0].fingerprint.size == 3


def test_as_often_as_is_configured_whatever_the_kernel_tells(tmp_path: Path) -> None:
    rig = Rig(tmp_path, scan_s=3 * 86400.0)
    assert rig.intake.cadence.next_s == rig.now + 3 * 86400.0
    rig.close()


def test_after_an_overflow_of_events_everything_is_scanned_and_it_is_logged_once(
    watched: Rig, caplog: pytest.LogCaptureFixture
) -> None:
    path = os.fsencode(watched.box / "a")
    for number in range(2):
        for _ in range(QUEUED_MOST // 2 + 10):  # each is made, closed and removed
            os.close(os.open(path, os.O_CREAT | os.O_WRONLY))
            os.unlink(path)
        watched.put("late")
        watched.put(f"later-{number}")
        watched.work(SETTLE_S)
        assert {"late", f"later-{number}"} <= set(watched.work(SETTLE_S))
    assert watched.intake.outbox.watches.overflows == 2
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
    if "Read-only file system" in done.stderr:
        missing("a limit of inotify cannot be set here: /proc/sys is read-only, as in containers")
    before, after = done.stdout.splitlines()
    reason, seconds = before.split("|")
    assert f"max_user_{what}" in reason
    assert float(seconds) == UNTOLD_S
    assert after == f"|{TOLD_S}"


def test_file_systems_that_others_change_unseen_are_scanned_often() -> None:
    silent = {system.name for system in KNOWN.values() if why_silent(system)}
    assert {"nfs", "cifs", "fuse", "9p", "overlay"} <= silent
    assert not silent & {"vfat", "exfat", ""}


def test_lost_events_are_a_warning_once_and_noise_from_then_on(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    watches = Watches("box")
    watches._inotify = SimpleNamespace(read=lambda: [Note(-1, OVERFLOW, b"")][: lost.pop()])  # type: ignore[assignment]
    for number in range(3):
        lost, noticed = [0, 1], Noticed()
        watches.read(noticed)
        assert (noticed.everything, watches.overflows) == (True, number + 1)
    assert [record.levelname for record in caplog.records] == ["WARNING", "DEBUG", "DEBUG"]
