"""A file leaves only when nobody writes to it, as far as that can be known: by the kernel's answers, not by fakes."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from unit.other_user import without_capabilities
from unit.removing import is_waited_for, outcome_of

from iot.sftp.client import Fingerprint
from iot.spooler.leaving import removal
from iot.spooler.leaving.removal import Delete, Item, Outcome, private_names
from iot.spooler.outbox.departure import Stays, Why
from iot.spooler.outbox.watches import PRIVATE_PREFIX

OTHER = 65534


@pytest.fixture
def box(tmp_path: Path) -> Iterator[int]:
    tmp_path.chmod(0o777)
    descriptor = os.open(tmp_path, os.O_RDONLY)
    yield descriptor
    os.close(descriptor)


def item(path: Path) -> Item:
    return Item(1, os.fsencode(path.name), Fingerprint.of(os.stat(path)))


def leave(box: int, *items: Item, rested: bool = True, inodes: bool = True) -> Outcome:
    return outcome_of(box, items, Delete(), rested=rested, inodes=inodes)


def test_a_file_that_is_open_for_writing_stays_under_its_name_and_is_not_touched(box: int, tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(b"line\n")
    meant = item(path)
    with path.open("ab", buffering=0) as writer:
        assert leave(box, meant) == Outcome([], [], [(1, Why.OPEN)])
        assert Fingerprint.of(os.stat(path)) == meant.fingerprint  # ctime, too: there was no rename
        writer.write(b"more\n")
    assert leave(box, meant) == Outcome([1], [], [])  # another version by now: its row goes, the scan finds it
    assert path.read_bytes() == b"line\nmore\n"


@pytest.mark.parametrize("long", [False, True])
def test_a_file_that_is_opened_while_it_leaves_is_put_back_with_all_that_is_written_to_it(
    box: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, long: bool
) -> None:
    """The producer comes between the question and the rename, and waits for the end of the lease."""
    path = tmp_path / ("n" * 250 if long else "log")
    path.write_bytes(b"line\n")
    meant = item(path)
    real, opened = removal.rename_noreplace, []
    producer = threading.Thread(target=lambda: opened.append(path.open("ab", buffering=0)))

    def race(source_dir: int, source: bytes, target_dir: int, target: bytes) -> None:
        if not producer.ident:
            producer.start()
            while producer.is_alive() and not is_waited_for(path):
                time.sleep(0.001)  # until he waits for the lease
        real(source_dir, source, target_dir, target)

    monkeypatch.setattr(removal, "rename_noreplace", race)
    outcome = leave(box, meant)
    assert outcome in (Outcome([], [], [(1, Why.OPEN)]), Outcome([], [], [(1, Why.TOUCHED)]))  # he may just have come
    producer.join()
    with opened[0] as writer:
        writer.write(b"more\n")
    assert path.read_bytes() == b"line\nmore\n"
    assert os.listdir(tmp_path) == [path.name]


def test_a_file_that_is_opened_by_another_of_its_names_after_the_rename_is_put_back(
    box: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, other = tmp_path / "log", tmp_path / "other"
    path.write_bytes(b"line\n")
    os.link(path, other)
    meant = item(path)
    real, opened = removal.rename_noreplace, []
    producer = threading.Thread(target=lambda: opened.append(other.open("ab", buffering=0)))

    def race(source_dir: int, source: bytes, target_dir: int, target: bytes) -> None:
        real(source_dir, source, target_dir, target)
        if not producer.ident:
            producer.start()
            while producer.is_alive() and not is_waited_for(other):
                time.sleep(0.001)  # until he waits for the lease

    monkeypatch.setattr(removal, "rename_noreplace", race)
    assert leave(box, meant).done == []
    producer.join()
    with opened[0] as writer:
        writer.write(b"more\n")
    assert path.read_bytes() == b"line\nmore\n"


def test_a_file_that_was_put_back_unchanged_is_to_be_compared_not_forgotten(box: int, tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_bytes(b"x")
    meant = item(path)
    os.rename(path, tmp_path / "aside")
    os.rename(tmp_path / "aside", path)  # ctime moved
    assert leave(box, meant) == Outcome([], [], [(1, Why.TOUCHED)])
    path.write_bytes(b"xy")
    assert leave(box, meant) == Outcome([1], [], [])
    assert path.read_bytes() == b"xy"


@pytest.mark.needs("root")
def test_where_nobody_can_know_a_file_rests_and_nothing_is_written_meanwhile(box: int, tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_bytes(b"x")
    os.chown(path, OTHER, OTHER)
    meant = item(path)
    before = os.stat(tmp_path)

    def work() -> None:
        for _ in range(3):
            assert leave(box, meant, rested=False) == Outcome([], [], [(1, Why.RESTING)])
        after = os.stat(tmp_path)
        assert (after.st_mtime_ns, after.st_ctime_ns) == (before.st_mtime_ns, before.st_ctime_ns)
        assert leave(box, meant, rested=True) == Outcome([1], [], [])
        assert os.listdir(tmp_path) == []

    without_capabilities(work)


def test_where_it_is_known_nothing_rests(box: int, tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"x")
    assert leave(box, item(tmp_path / "f"), rested=False) == Outcome([1], [], [])


@pytest.mark.parametrize("inodes", [True, False])
def test_a_private_file_with_another_inode_is_the_same_only_where_inodes_do_not_last(
    box: int, tmp_path: Path, inodes: bool
) -> None:
    """As after a crash between the rename and the removal, and a remount."""
    path = tmp_path / "f"
    path.write_bytes(b"x")
    meant = item(path)._replace(fingerprint=Fingerprint.of(os.stat(path))._replace(inode=1))
    os.rename(path, tmp_path / os.fsdecode(private_names(1, b"f")[0]))
    assert leave(box, meant, inodes=inodes).done == [1]
    assert os.listdir(tmp_path) == (["f"] if inodes else [])


def test_a_file_with_another_inode_is_compared_before_it_leaves_where_inodes_do_not_last(
    box: int, tmp_path: Path
) -> None:
    path = tmp_path / "f"
    path.write_bytes(b"x")
    meant = item(path)._replace(fingerprint=Fingerprint.of(os.stat(path))._replace(inode=1))
    assert leave(box, meant, inodes=False) == Outcome([], [], [(1, Why.TOUCHED)])
    assert leave(box, meant, inodes=True) == Outcome([1], [], [])
    assert path.exists()


@pytest.mark.parametrize("private", [False, True])
@pytest.mark.parametrize("seconds", [0, 315_532_799, 315_532_800, 4_354_819_199, 4_354_819_200])
def test_a_file_whose_time_fat_cannot_hold_is_compared_after_a_remount(
    box: int, tmp_path: Path, seconds: int, private: bool
) -> None:
    path = tmp_path / "f"
    path.write_bytes(b"x")
    meant = item(path)._replace(fingerprint=Fingerprint.of(os.stat(path))._replace(inode=1, mtime_ns=seconds * 10**9))
    if private:
        path.rename(tmp_path / os.fsdecode(private_names(1, b"f")[0]))
    stays = [] if 315_532_800 <= seconds < 4_354_819_200 else [(1, Why.TOUCHED)]
    assert leave(box, meant, inodes=False).stays == stays
    assert leave(box, meant, inodes=True).stays == []
    assert os.listdir(tmp_path) == ["f"]
    path.write_bytes(b"longer")
    assert leave(box, meant, inodes=False) == Outcome([1], [], [])


def test_a_file_is_opened_once_to_leave(box: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One lease covers the questions before and after the rename."""
    path = tmp_path / "f"
    path.write_bytes(b"x")
    meant = item(path)
    opened: list[object] = []
    real = os.open
    monkeypatch.setattr(os, "open", lambda name, *rest, **more: opened.append(name) or real(name, *rest, **more))
    assert leave(box, meant) == Outcome([1], [], [])
    assert opened.count(b"f") == 1
    assert not [name for name in opened if isinstance(name, bytes) and name.startswith(PRIVATE_PREFIX)]


def test_why_a_file_stays_is_said_in_words() -> None:
    assert [str(Stays(why)) for why in Why] == ["open for writing", "resting", "touched"]
