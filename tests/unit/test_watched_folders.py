"""Folders of an outbox that come, go, are renamed or change places: their files are noticed as before, each once.

Real folders and real events on a clock of the test's own: nothing here waits.
"""

from __future__ import annotations

import ctypes
import os
import shutil
from pathlib import Path

from conditions import missing
from unit.finding import SETTLE_S, Rig

from iot.spooler.outbox.cadence import CHECK_S, SOON_S

OLD_S = 60.0


def test_files_in_new_folders_are_found_however_fast_they_come_and_those_that_come_later(watched: Rig) -> None:
    (watched.box / "a" / "b").mkdir(parents=True)
    watched.put("a/b/at-once")
    assert watched.work() == []  # it was there before its folder was watched: nobody saw it closed
    assert watched.work(SETTLE_S) == ["a/b/at-once"]
    watched.put("a/b/later")
    assert watched.work() == ["a/b/at-once", "a/b/later"]


def test_a_folder_that_is_renamed_takes_its_files_to_their_new_names(watched: Rig) -> None:
    (watched.box / "a" / "deep").mkdir(parents=True)
    watched.work()
    watched.put("a/deep/f")
    assert watched.work() == ["a/deep/f"]
    (watched.box / "a").rename(watched.box / "b")
    assert watched.work(OLD_S) == ["b/deep/f"]
    watched.put("b/deep/g")
    assert watched.work() == ["b/deep/f", "b/deep/g"]
    (watched.box / "a" / "deep").mkdir(parents=True)
    watched.work()
    watched.put("a/deep/h")
    assert "a/deep/h" in watched.work()


def test_a_folder_that_is_moved_out_is_watched_no_more_and_its_files_are_forgotten(
    watched: Rig, tmp_path: Path
) -> None:
    (watched.box / "a").mkdir()
    watched.work()
    watched.put("a/f")
    assert watched.work() == ["a/f"]
    (watched.box / "a").rename(tmp_path / "out")
    assert watched.work() == []
    (tmp_path / "out" / "g").write_bytes(b"x")
    assert watched.work(SETTLE_S) == []


def test_a_folder_that_is_removed_and_made_again_is_watched_again(watched: Rig) -> None:
    for number in range(3):
        (watched.box / "a").mkdir()
        watched.work()
        watched.put(f"a/{number}")
        assert watched.work() == [f"a/{number}"]
        shutil.rmtree(watched.box / "a")
    (watched.box / "a").mkdir()
    assert watched.work() == []


def test_a_folder_that_is_made_again_while_files_are_sent_is_watched_again(watched: Rig) -> None:
    (watched.box / "a").mkdir()
    assert watched.work() == []
    (watched.box / "a").rmdir()
    (watched.box / "a").mkdir()
    for _ in range(3):
        watched.intake.step(busy=True)
    watched.put("a/after")
    assert watched.work() == ["a/after"]


def exchange(one: Path, other: Path) -> None:
    """As `mv --exchange`: the kernel tells that `other` has come, and then that it has gone."""
    if ctypes.CDLL(None).renameat2(-100, os.fsencode(one), -100, os.fsencode(other), 2) != 0:
        missing("this system cannot exchange names")


def test_two_files_that_change_places_are_both_looked_at(watched: Rig) -> None:
    watched.put("a", b"1")
    watched.put("b", b"22")
    watched.work()
    exchange(watched.box / "a", watched.box / "b")
    watched.work()
    watched.work(SETTLE_S)
    known = watched.queue.known(watched.intake.number, [b"a", b"b"])
    assert {path: row.fingerprint.size for path, row in known.items()} == {b"a": 2, b"b": 1}


def test_two_folders_that_change_places_are_both_looked_at_and_watched(watched: Rig) -> None:
    for folder in ("a", "b"):
        (watched.box / folder).mkdir()
    watched.work()
    watched.put("a/x")
    assert watched.work() == ["a/x"]
    exchange(watched.box / "a", watched.box / "b")
    watched.work()
    assert watched.work(SETTLE_S) == ["b/x"]
    watched.put("a/y")
    watched.put("b/z")
    assert watched.work() == ["a/y", "b/x", "b/z"]


def test_folders_are_left_alone_where_they_are_not_wanted(tmp_path: Path) -> None:
    rig = Rig(tmp_path, recursive=False)
    (rig.box / "a").mkdir()
    rig.put("a/f")
    assert rig.work(SETTLE_S) == []
    rig.close()


def test_the_outbox_itself_may_be_removed_and_made_again(watched: Rig) -> None:
    watched.box.rmdir()
    watched.work(CHECK_S)
    assert watched.intake.failed is not None
    watched.box.mkdir()
    watched.work(SOON_S)
    assert watched.intake.failed is None
    watched.put("a")
    assert watched.work() == ["a"]
