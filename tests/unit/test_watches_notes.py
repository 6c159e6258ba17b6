"""What each note of the kernel means for an outbox, and what is said of its watches; the notes are a test's own."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest

from iot.spooler.outbox import watches as module
from iot.spooler.outbox.inotify import (
    CLOSED,
    CREATED,
    DELETED,
    FOLDER,
    FOLDER_DELETED,
    FOLDER_MOVED,
    MOVED_FROM,
    MOVED_TO,
    OVERFLOW,
    UNMOUNTED,
    UNWATCHED,
    Note,
)
from iot.spooler.outbox.mounts import ORDINARY, FileSystem
from iot.spooler.outbox.noticed import Noticed
from iot.spooler.outbox.watches import PORTIONS, UNTRIED, Watches, is_private, why_silent, why_unwatched

ROOT, SUB, DEEP, SUBWAY = 1, 2, 3, 4
PRIVATE = b".iot-sent.#7.a"


class Kernel:
    """Gives watches the numbers that a test says, and notes in portions. error: of the next watch."""

    descriptor = 77

    def __init__(self) -> None:
        self.numbers: list[int] = []
        self.portions: list[list[Note]] = []
        self.unwatched: list[int] = []
        self.reads = self.closed = 0
        self.error: OSError | None = None

    def watch(self, folder: int) -> int:
        if self.error is not None:
            raise self.error
        return self.numbers.pop(0)

    def unwatch(self, number: int) -> None:
        self.unwatched.append(number)

    def read(self) -> list[Note]:
        self.reads += 1
        return self.portions.pop(0) if self.portions else []

    def close(self) -> None:
        self.closed += 1


class Lab:
    """An outbox with the folders sub, sub/deep and subway, which are watched."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.kernel = Kernel()
        monkeypatch.setattr(module, "Inotify", lambda: self.kernel)
        self.watches, self.noticed = Watches("box"), Noticed()
        self.subscribed: list[object] = []
        self.watches.subscribe = self._subscribe  # type: ignore[assignment]
        for number, path in ((ROOT, b""), (SUB, b"sub"), (DEEP, b"sub/deep"), (SUBWAY, b"subway")):
            self.watch(number, path)

    def _subscribe(self, descriptor: int) -> Any:
        self.subscribed.append(descriptor)
        return lambda: self.subscribed.append("ended")

    def watch(self, number: int, path: bytes) -> None:
        self.kernel.numbers = [number]
        self.watches.watch(0, path)

    def told(self, *notes: Note) -> Noticed:
        self.kernel.portions = [list(notes)]
        self.noticed = Noticed()
        self.watches.read(self.noticed)
        return self.noticed

    @property
    def paths(self) -> dict[bytes, int]:
        assert self.watches._paths == {number: path for path, number in self.watches._numbers.items()}
        return self.watches._numbers


@pytest.fixture
def lab(monkeypatch: pytest.MonkeyPatch) -> Lab:
    return Lab(monkeypatch)


@pytest.mark.parametrize(
    ("note", "files", "gone"),
    [
        (Note(ROOT, CREATED, b"a"), {b"a": False}, []),
        (Note(SUB, CLOSED, b"a"), {b"sub/a": True}, []),
        (Note(DEEP, MOVED_TO, b"a", 5), {b"sub/deep/a": True}, []),
        (Note(ROOT, DELETED, b"a"), {}, [b"a"]),
        (Note(SUB, MOVED_FROM, b"a", 5), {}, [b"sub/a"]),
        (Note(99, CLOSED, b"a"), {}, []),  # of a watch that has ended
        (Note(SUB, CLOSED, PRIVATE), {}, []),
    ],
)
def test_what_happens_to_a_file_is_noticed_under_its_path(lab: Lab, note: Note, files, gone) -> None:
    noticed = lab.told(note)
    assert (noticed.take(0.0, 9), noticed.take_gone(9)) == (files, gone)
    assert (noticed.everything, noticed.folders, noticed.lost_folders) == (False, {}, {})


@pytest.mark.parametrize(
    ("note", "everything"),
    [
        (Note(ROOT, FOLDER_MOVED, b""), True),
        (Note(ROOT, FOLDER_DELETED, b""), True),
        (Note(SUB, FOLDER_MOVED, b""), False),  # the folder above tells of it
        (Note(SUB, UNMOUNTED, b""), True),
        (Note(-1, OVERFLOW, b""), True),
    ],
)
def test_where_the_outbox_itself_is_concerned_everything_is_scanned(lab: Lab, note: Note, everything: bool) -> None:
    noticed = lab.told(note)
    assert noticed.everything is everything
    assert (noticed.take(0.0, 9), lab.watches.overflows) == ({}, int(note.what == OVERFLOW))


@pytest.mark.parametrize("what", [CREATED, MOVED_TO])
def test_a_new_folder_is_to_be_listed(lab: Lab, what: int) -> None:
    noticed = lab.told(Note(SUB, what | FOLDER, b"new"))
    assert (list(noticed.folders), list(noticed.lost_folders), lab.kernel.unwatched) == ([b"sub/new"], [], [])


@pytest.mark.parametrize("what", [DELETED, MOVED_FROM])
def test_a_folder_that_is_gone_takes_its_watches_along_and_no_others(lab: Lab, what: int) -> None:
    noticed = lab.told(Note(ROOT, what | FOLDER, b"sub"))
    assert (list(noticed.folders), list(noticed.lost_folders)) == ([], [b"sub"])
    assert (sorted(lab.kernel.unwatched), lab.paths) == ([SUB, DEEP], {b"": ROOT, b"subway": SUBWAY})


def test_a_change_of_a_folders_own_rights_is_nothing(lab: Lab) -> None:
    noticed = lab.told(Note(ROOT, CLOSED | FOLDER, b"sub"))
    assert (list(noticed.folders), list(noticed.lost_folders)) == ([], [])


def test_a_watch_that_the_kernel_has_ended_is_forgotten(lab: Lab) -> None:
    lab.told(Note(SUB, UNWATCHED, b""))
    assert lab.paths == {b"": ROOT, b"sub/deep": DEEP, b"subway": SUBWAY}
    lab.watch(9, b"sub")
    lab.watches._paths[SUB] = b"sub"
    lab.told(Note(SUB, UNWATCHED, b""))  # of the folder that had the name before
    assert lab.paths[b"sub"] == 9


@pytest.mark.parametrize(
    ("notes", "files", "gone"),
    [
        ([Note(ROOT, MOVED_FROM, b"a", 5), Note(ROOT, MOVED_TO, PRIVATE, 5)], {}, []),  # it leaves
        ([Note(ROOT, MOVED_FROM, b"a", 5), Note(ROOT, MOVED_TO, b"b", 5)], {b"b": True}, [b"a"]),
        ([Note(ROOT, MOVED_FROM, b"a", 5), Note(ROOT, MOVED_TO, PRIVATE, 6)], {}, [b"a"]),
        ([Note(ROOT, MOVED_FROM, b"a", 5), Note(SUB, MOVED_TO, PRIVATE, 5)], {}, [b"a"]),
        ([Note(ROOT, DELETED, b"a"), Note(ROOT, DELETED, PRIVATE)], {}, [b"a"]),
        ([Note(ROOT, MOVED_FROM, PRIVATE, 5), Note(ROOT, MOVED_TO, b"a", 5)], {b"a": True}, []),  # it is put back
        ([Note(ROOT, MOVED_FROM, b"a", 5)], {}, [b"a"]),
    ],
)
def test_our_own_removals_are_nobodys_news(lab: Lab, notes: list[Note], files, gone) -> None:
    noticed = lab.told(*notes)
    assert (noticed.take(0.0, 9), noticed.take_gone(9)) == (files, gone)


def test_a_folder_with_such_a_name_is_a_folder(lab: Lab) -> None:
    assert list(lab.told(Note(ROOT, CREATED | FOLDER, PRIVATE)).folders) == [PRIVATE]
    assert [is_private(name) for name in (PRIVATE, b"a", b"a.iot-sent.")] == [True, False, False]


def test_a_storm_of_events_is_read_in_portions(lab: Lab) -> None:
    lab.kernel.portions = [[Note(ROOT, CLOSED, b"%d" % number)] for number in range(PORTIONS + 3)]
    lab.watches.read(lab.noticed)
    assert (lab.kernel.reads, len(lab.kernel.portions)) == (PORTIONS, 3)
    lab.watches.read(lab.noticed)
    assert (lab.kernel.reads, len(lab.noticed.take(0.0, 99))) == (PORTIONS + 4, PORTIONS + 3)


# -- watches


def test_a_folder_is_watched_under_its_newest_name_and_a_name_for_its_newest_folder(lab: Lab) -> None:
    lab.watch(SUB, b"renamed")
    assert lab.paths == {b"": ROOT, b"renamed": SUB, b"sub/deep": DEEP, b"subway": SUBWAY}
    assert lab.kernel.unwatched == []
    lab.watch(9, b"subway")
    assert (lab.paths[b"subway"], lab.kernel.unwatched) == (9, [SUBWAY])
    lab.watch(9, b"subway")
    assert lab.kernel.unwatched == [SUBWAY]
    lab.watches.forget_all_but({b"", b"renamed"})
    assert (lab.paths, sorted(lab.kernel.unwatched)) == ({b"": ROOT, b"renamed": SUB}, [DEEP, SUBWAY, 9])


def test_after_the_end_the_next_watch_begins_anew(lab: Lab) -> None:
    assert lab.subscribed == [lab.kernel.descriptor]
    for _ in range(2):
        lab.watches.close()
    assert (lab.subscribed[1:], lab.kernel.closed, lab.paths) == (["ended"], 1, {})
    lab.watches.read(lab.noticed)
    assert lab.kernel.reads == 0
    lab.watch(5, b"")
    assert (lab.subscribed[2:], lab.paths) == ([lab.kernel.descriptor], {b"": 5})


# -- what is said of them


@pytest.mark.parametrize(
    ("number", "reason"),
    [(errno.ENOSPC, "no inotify watches left"), (errno.EMFILE, "no inotify instances left"),
     (errno.ENOENT, "without /proc"), (errno.ENOSYS, "has no inotify"), (errno.EIO, "inotify: Input/output error")],
)  # fmt: skip
def test_why_an_outbox_is_scanned_often_is_said_until_a_whole_scan_could_watch_all(lab: Lab, number, reason) -> None:
    lab.kernel.error = OSError(number, os.strerror(number))
    lab.watch(9, b"more")
    assert not lab.watches.finish(ORDINARY)
    assert reason in lab.watches.reason
    lab.kernel.error = None
    assert not lab.watches.finish(ORDINARY)
    lab.watches.begin()
    assert lab.watches.finish(ORDINARY)
    assert lab.watches.reason == ""


@pytest.mark.parametrize(
    ("system", "silent"),
    [(ORDINARY, False), (FileSystem("nfs", shared=True), True), (FileSystem("overlay", stacked=True), True)],
)
def test_a_file_system_that_changes_unseen_is_scanned_often(lab: Lab, system: FileSystem, silent: bool) -> None:
    assert lab.watches.finish(system) is not silent
    assert lab.watches.reason == why_silent(system)
    assert (why_silent(system) == f"{system.name}: changes made elsewhere are not reported") is silent


def test_what_has_become_of_it_is_logged_when_that_is_new(lab: Lab, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")
    assert lab.watches.reason == UNTRIED
    lab.watches.tell(10.0)  # nothing is known yet
    for reason, refused in (("", ""), ("", ""), ("full", "full"), ("shared", ""), ("", "")):
        lab.watches.reason, lab.watches._refused = reason, refused
        lab.watches.tell(10.0)
    assert [(record.levelname, record.getMessage()) for record in caplog.records] == [
        ("DEBUG", "outbox is watched outbox=box scanned_every_s=10"),
        ("WARNING", "outbox is scanned often outbox=box every_s=10 reason=full"),
        ("INFO", "outbox is scanned often outbox=box every_s=10 reason=shared"),
        ("INFO", "outbox is watched outbox=box scanned_every_s=10"),
    ]


@pytest.mark.parametrize(
    ("error", "system", "reason"),
    [
        (None, ORDINARY, ""),
        (errno.ENOSPC, ORDINARY, "no inotify watches left: raise fs.inotify.max_user_watches"),
        (None, FileSystem("nfs", shared=True), "nfs: changes made elsewhere are not reported"),
    ],
)
def test_why_a_folder_would_be_scanned_often_is_known_beforehand_and_leaves_no_watch(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, error: int | None, system: FileSystem, reason: str
) -> None:
    kernel = Kernel()
    kernel.numbers = [1]
    kernel.error = None if error is None else OSError(error, os.strerror(error))
    monkeypatch.setattr(module, "Inotify", lambda: kernel)
    monkeypatch.setattr(module, "file_system", lambda descriptor: system)
    assert why_unwatched(tmp_path) == reason
    assert kernel.closed == 1


def test_of_a_folder_that_cannot_be_opened_others_tell(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(module, "Inotify", lambda: pytest.fail("nothing to watch"))
    assert why_unwatched(tmp_path / "missing") == ""


def test_a_listener_is_asked_for_once_however_many_folders_are_watched(lab: Lab) -> None:
    assert lab.subscribed == [lab.kernel.descriptor]
    assert len(lab.paths) == 4


def test_a_name_of_two_flags_is_a_file_that_was_closed(lab: Lab) -> None:
    assert lab.told(Note(ROOT, CREATED | CLOSED, b"a")).take(0.0, 9) == {b"a": True}
    assert lab.told(Note(ROOT, CREATED | MOVED_TO, b"a")).take(0.0, 9) == {b"a": True}


def test_watches_of_folders_that_have_others_names_for_a_beginning_stay(lab: Lab) -> None:
    lab.watches.forget_below(b"sub")
    assert lab.paths == {b"": ROOT, b"subway": SUBWAY}
    lab.watches.forget_below(b"never watched")
    assert lab.kernel.unwatched == [SUB, DEEP]
