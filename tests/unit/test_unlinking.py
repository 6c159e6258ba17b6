"""What has left an outbox is unlinked beside the transfers; only what is durable counts as gone."""

from __future__ import annotations

import errno
import os
import threading
from pathlib import Path

import pytest

from iot.spooler.leaving import unlinking as module
from iot.spooler.leaving.unlinking import FOLDERS_MAX, Unlinker, Unlinking

PRIVATE = b"private-%d"


def work_in(folder: Path, *keys: int, done: tuple[int, ...] = ()) -> Unlinking:
    for key in keys:
        (folder / os.fsdecode(PRIVATE % key)).write_bytes(b"sent")
    return Unlinking(os.open(folder, os.O_RDONLY), {key: PRIVATE % key for key in keys}, list(done))


def closed(descriptor: int) -> bool:
    try:
        os.fstat(descriptor)
    except OSError as error:
        return error.errno == errno.EBADF
    return False


def test_files_are_unlinked_before_their_folder_is_synced(tmp_path, monkeypatch):
    calls: list[str] = []
    unlink, fsync = os.unlink, os.fsync
    monkeypatch.setattr(os, "unlink", lambda *a, **k: (calls.append("unlink"), unlink(*a, **k)))
    monkeypatch.setattr(os, "fsync", lambda *a: (calls.append("fsync"), fsync(*a)))
    work = work_in(tmp_path, 1, 2, done=(7,))
    work.run()
    assert calls == ["unlink", "unlink", "fsync"]
    assert (sorted(work.done), work.failed, list(tmp_path.iterdir())) == ([1, 2, 7], [], [])
    assert closed(work.folder)


def test_what_somebody_else_has_removed_is_gone(tmp_path):
    work = work_in(tmp_path, 1, 2)
    (tmp_path / "private-1").unlink()
    work.run()
    assert (sorted(work.done), work.failed) == ([1, 2], [])


def test_what_cannot_be_unlinked_has_not_left_and_the_others_have(tmp_path, monkeypatch):
    unlink = os.unlink

    def refused(name: bytes, **keywords: int) -> None:
        if name == PRIVATE % 1:
            raise PermissionError(errno.EPERM, "no")
        unlink(name, **keywords)

    monkeypatch.setattr(os, "unlink", refused)
    work = work_in(tmp_path, 1, 2)
    work.run()
    assert (work.done, [(key, error.errno) for key, error in work.failed]) == ([2], [(1, errno.EPERM)])


def test_without_the_sync_nothing_has_left(tmp_path, monkeypatch):
    def broken(_: int) -> None:
        raise OSError(errno.EIO, "no")

    monkeypatch.setattr(os, "fsync", broken)
    work = work_in(tmp_path, 1, done=(7,))
    work.run()
    assert (work.done, sorted(key for key, _ in work.failed)) == ([], [1, 7])
    assert closed(work.folder)


def test_results_are_collected_once_and_the_thread_ends(tmp_path):
    unlinker, works = Unlinker(), [work_in(tmp_path, number) for number in range(3)]
    for work in works:
        unlinker.start(work)
    assert list(unlinker.finished(wait=True)) == works
    assert unlinker.finished(wait=True) == []
    for thread in threading.enumerate():
        if thread.name == "unlinker":
            thread.join(10)
    assert "unlinker" not in [thread.name for thread in threading.enumerate()]
    unlinker.start(again := work_in(tmp_path, 9))  # and a new one begins
    assert list(unlinker.finished(wait=True)) == [again]


def test_nothing_is_waited_for_unless_asked(tmp_path, monkeypatch):
    may_go = threading.Event()
    monkeypatch.setattr(os, "fsync", lambda _: may_go.wait(10))
    unlinker = Unlinker()
    unlinker.start(work := work_in(tmp_path, 1))
    assert unlinker.finished() == []
    [thread] = [each for each in threading.enumerate() if each.name == "unlinker"]
    assert thread.daemon  # a disk that hangs does not keep the agent from ending
    may_go.set()
    assert list(unlinker.finished(wait=True)) == [work]


def test_no_more_folders_are_open_than_agreed(tmp_path, monkeypatch):
    may_go, handed_over = threading.Event(), []
    monkeypatch.setattr(os, "fsync", lambda _: may_go.wait(10))
    unlinker = Unlinker()

    def hand_over() -> None:
        for number in range(FOLDERS_MAX + 1):
            unlinker.start(work_in(tmp_path, number))
            handed_over.append(number)

    producer = threading.Thread(target=hand_over)
    producer.start()
    producer.join(0.5)
    assert (producer.is_alive(), len(handed_over)) == (True, FOLDERS_MAX)
    may_go.set()
    producer.join(10)
    assert len(unlinker.finished(wait=True)) == FOLDERS_MAX + 1


def test_where_no_thread_can_be_started_the_files_are_unlinked_at_once(tmp_path, monkeypatch):
    """At a limit of processes or memory: whoever waited for a thread that never came would wait for ever."""

    def refused(_: object) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refused)
    unlinker = Unlinker()
    unlinker.start(work := work_in(tmp_path, 1))
    assert list(unlinker.finished()) == [work]
    assert (work.done, list(tmp_path.iterdir()), closed(work.folder)) == ([1], [], True)
    monkeypatch.undo()
    unlinker.start(later := work_in(tmp_path, 2))
    assert list(unlinker.finished(wait=True)) == [later]


def test_what_is_no_error_of_a_file_ends_who_collects(tmp_path, monkeypatch):
    def broken(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(module, "_unlink_all", broken)
    unlinker = Unlinker()
    unlinker.start(work_in(tmp_path, 1))
    with pytest.raises(MemoryError):
        unlinker.finished(wait=True)
