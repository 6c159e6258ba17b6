"""What the kernel itself tells of a folder that is watched, and of what it tells nothing."""

from __future__ import annotations

import ctypes
import errno
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from iot.spooler.outbox import inotify as module
from iot.spooler.outbox.inotify import (
    CLOSED,
    CREATED,
    DELETED,
    FOLDER,
    FOLDER_DELETED,
    FOLDER_MOVED,
    MOVED_FROM,
    MOVED_TO,
    UNWATCHED,
    Inotify,
    Note,
)


@pytest.fixture
def kernel() -> Iterator[Inotify]:
    made = Inotify()
    yield made
    made.close()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """With a file and a folder in it, and a file and a folder beside it."""
    box = tmp_path / "box"
    for parent in (box, tmp_path / "out"):
        (parent / "sub").mkdir(parents=True)
        (parent / "file").touch()
    return box


def watched(kernel: Inotify, folder: Path) -> int:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        return kernel.watch(descriptor)
    finally:
        os.close(descriptor)


def write(path: Path) -> None:
    path.write_bytes(b"x")


NEWS: list[tuple[Callable[[Path], object], list[tuple[int, bytes]]]] = [
    (lambda box: write(box / "file"), [(CLOSED, b"file")]),
    (lambda box: write(box / "a"), [(CREATED, b"a"), (CLOSED, b"a")]),
    (lambda box: (box / "file").unlink(), [(DELETED, b"file")]),
    (lambda box: (box / "file").rename(box.parent / "moved"), [(MOVED_FROM, b"file")]),
    (lambda box: (box.parent / "out/file").rename(box / "in"), [(MOVED_TO, b"in")]),
    (lambda box: (box / "new").mkdir(), [(CREATED | FOLDER, b"new")]),
    (lambda box: (box / "sub").rmdir(), [(DELETED | FOLDER, b"sub")]),
    (lambda box: (box.parent / "out/sub").rename(box / "in"), [(MOVED_TO | FOLDER, b"in")]),
    (lambda box: box.rename(box.parent / "moved"), [(FOLDER_MOVED, b"")]),
    (lambda box: (box / "file").read_bytes(), []),
    (lambda box: os.truncate(box / "file", 5), []),
    (lambda box: write(box / "sub" / "a"), []),  # which has a watch of its own
]


@pytest.mark.parametrize(("act", "expected"), NEWS, ids=range(len(NEWS)))
def test_of_each_change_of_names_and_of_each_close_it_is_told_and_of_nothing_else(
    kernel: Inotify, folder: Path, act: Callable[[Path], object], expected: list[tuple[int, bytes]]
) -> None:
    watch = watched(kernel, folder)
    act(folder)
    notes = list(kernel.read())
    assert [(note.what, note.name) for note in notes] == expected
    assert {note.watch for note in notes} <= {watch}
    assert list(kernel.read()) == []  # at once


def test_of_the_removal_of_the_folder_itself_it_is_told_and_the_watch_ends(kernel: Inotify, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    watch = watched(kernel, tmp_path / "empty")
    (tmp_path / "empty").rmdir()
    assert list(kernel.read()) == [Note(watch, FOLDER_DELETED, b""), Note(watch, UNWATCHED, b"")]


def test_a_file_without_a_name_is_nobodys_news(kernel: Inotify, folder: Path) -> None:
    with (folder / "file").open("ab") as file:
        (folder / "file").unlink()
        watched(kernel, folder)
        file.write(b"x")
    assert list(kernel.read()) == []


def test_both_notes_of_a_rename_belong_together_and_no_others(kernel: Inotify, folder: Path) -> None:
    watched(kernel, folder)
    watched(kernel, folder / "sub")
    (folder / "file").rename(folder / "other")
    (folder / "other").rename(folder / "sub" / "file")
    write(folder / "a")
    before, after, away, there, *rest = kernel.read()
    assert after.ends(before)
    assert not there.ends(away)  # in another folder
    assert there.move == away.move != before.move
    assert not before.ends(away)
    assert not rest[1].ends(rest[0])  # neither is of a rename


def test_a_folder_has_one_watch_and_what_is_no_folder_none(kernel: Inotify, folder: Path) -> None:
    assert watched(kernel, folder) == watched(kernel, folder)
    with pytest.raises(OSError, match=os.strerror(errno.ENOTDIR)) as caught:
        watched(kernel, folder / "file")
    assert caught.value.errno == errno.ENOTDIR


def test_a_folder_that_is_watched_no_more_is_silent_and_its_end_is_told_once(kernel: Inotify, folder: Path) -> None:
    watch = watched(kernel, folder)
    kernel.unwatch(watch)
    kernel.unwatch(watch)
    write(folder / "a")
    assert list(kernel.read()) == [Note(watch, UNWATCHED, b"")]


def test_many_events_come_in_portions(kernel: Inotify, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "READ_BYTES", 100)
    watched(kernel, folder)
    names = [b"%d" % 10**length for length in range(0, 40, 9)]
    for name in names:
        (folder / os.fsdecode(name)).mkdir()
    portions: list[list[bytes]] = []
    while notes := [note.name for note in kernel.read()]:
        portions.append(notes)
    assert [name for notes in portions for name in notes] == names
    assert len(portions) > 1


def test_programs_that_are_started_do_not_inherit_it(kernel: Inotify) -> None:
    assert not os.get_inheritable(kernel.descriptor)
    began = time.monotonic()
    assert list(kernel.read()) == []
    assert time.monotonic() - began < 5


@pytest.mark.parametrize("lacking", ["linux", "the call"])
def test_a_system_without_it_is_told_as_that(monkeypatch: pytest.MonkeyPatch, lacking: str) -> None:
    if lacking == "linux":
        monkeypatch.setattr(module.sys, "platform", "darwin")
    else:
        monkeypatch.setattr(ctypes, "CDLL", lambda *_, **__: object())
    monkeypatch.setattr(module, "_calls", module._calls.__wrapped__)
    with pytest.raises(OSError, match=os.strerror(errno.ENOSYS)) as caught:
        Inotify()
    assert caught.value.errno == errno.ENOSYS
