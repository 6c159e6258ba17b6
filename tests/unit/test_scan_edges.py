"""The scan of an outbox where a folder or file cannot be looked at: unknown is told, and is never "not there"."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from iot.spooler.outbox import place, scan
from iot.spooler.outbox.lease import Answer, Writer
from iot.spooler.outbox.place import completeness_of
from iot.spooler.outbox.refused import Refused, kind_of_file
from iot.spooler.outbox.scan import GRANULARITY_S, Outbox, SourceFailed


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def box(tmp_path: Path) -> Path:
    folder = tmp_path / "box"
    (folder / "sub" / "deep").mkdir(parents=True)
    for name in ("a", "sub/b", "sub/deep/c"):
        (folder / name).write_text(name)
    return folder


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def outbox(box: Path, clock: Clock) -> Iterator[Outbox]:
    found = Outbox(box, wanted=lambda _: True, excluded=lambda path: path.endswith("unwanted"), clock=clock)
    yield found
    found.release()


def walked(outbox: Outbox, *, whole: bool = True) -> list[bytes]:
    return sorted(found.path for batch in outbox.walk(whole=whole) for found in batch)


class Failing:
    """os.open, os.stat and os.scandir fail for what has this name."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, name: str, number: int, calls: tuple[str, ...]) -> None:
        self.name, self.number = os.fsencode(name), number
        for call in calls:
            monkeypatch.setattr(os, call, self._wrapped(getattr(os, call)))

    def _wrapped(self, real: Any) -> Any:
        def call(what: Any, *arguments: Any, **keywords: Any) -> Any:
            where = os.readlink(f"/proc/self/fd/{what}") if isinstance(what, int) else what
            if os.path.basename(os.fsencode(where)) == self.name:
                raise OSError(self.number, os.strerror(self.number))
            return real(what, *arguments, **keywords)

        return call


@pytest.mark.parametrize(("number", "unread"), [(errno.EACCES, True), (errno.EIO, True), (errno.ENOENT, False)])
@pytest.mark.parametrize("calls", [("open",), ("scandir",)])
def test_a_folder_that_cannot_be_read_is_told_unless_it_is_gone(outbox, monkeypatch, caplog, number, unread, calls):
    with monkeypatch.context() as patches:
        Failing(patches, "sub", number, calls)
        for _ in range(2):
            assert walked(outbox) == [b"a"]
            assert outbox.unread == ({b"sub": f"folder sub: {os.strerror(number)}"} if unread else {})
    assert caplog.text.count(f'reason="folder: {os.strerror(number)}"') == (1 if unread else 0)  # once
    assert {b"sub/b", b"sub/deep/c"} <= set(walked(outbox, whole=False))
    assert outbox.unread == {}


def test_the_first_walk_is_a_whole_one_and_so_is_the_next_after_one_that_was_given_up(outbox):
    assert walked(outbox, whole=False) == [b"a", b"sub/b", b"sub/deep/c"]
    walk = outbox.walk(whole=True)
    next(walk)
    walk.close()
    assert walked(outbox, whole=False) == [b"a", b"sub/b", b"sub/deep/c"]


def test_a_folder_that_becomes_unreadable_between_two_walks_is_not_known_and_comes_back(outbox, monkeypatch, clock):
    assert walked(outbox) == [b"a", b"sub/b", b"sub/deep/c"]
    clock.now += GRANULARITY_S
    walked(outbox, whole=False)
    assert walked(outbox, whole=False) == []
    with monkeypatch.context() as patches:
        Failing(patches, "sub", errno.EACCES, ("stat", "open"))
        assert walked(outbox, whole=False) == []
        assert outbox.unread == {b"sub": "folder sub: Permission denied"}
    assert set(walked(outbox, whole=False)) == {b"sub/b"}
    assert outbox.unread == {}


def test_the_outbox_itself_out_of_reach_is_a_failed_source(outbox, monkeypatch):
    for calls in (("open",), ("scandir",)):
        with monkeypatch.context() as patches:
            Failing(patches, "box", errno.EIO, calls)
            with pytest.raises(SourceFailed, match="Input/output error"):
                walked(outbox)
    walked(outbox)
    with monkeypatch.context() as patches:
        Failing(patches, "box", errno.EIO, ("scandir",))
        outbox.forget(b"a")
        with pytest.raises(SourceFailed, match="box: Input/output error"):
            walked(outbox, whole=False)


@pytest.mark.parametrize(("number", "known"), [(errno.EIO, False), (errno.ENOENT, True)])
def test_a_file_that_cannot_be_looked_at_makes_its_folder_unread_and_one_that_went_does_not(
    outbox, monkeypatch, number, known
):
    real = scan._by_name

    class Entry:
        def __init__(self, entry: os.DirEntry[str]) -> None:
            self._entry, self.name = entry, entry.name

        def is_dir(self, *, follow_symlinks: bool) -> bool:
            return self._entry.is_dir(follow_symlinks=follow_symlinks)

        def stat(self, *, follow_symlinks: bool) -> os.stat_result:
            if self.name == "b":
                raise OSError(number, os.strerror(number))
            return self._entry.stat(follow_symlinks=follow_symlinks)

    monkeypatch.setattr(scan, "_by_name", lambda entries: map(Entry, real(entries)))
    assert walked(outbox) == [b"a", b"sub/deep/c"]
    assert outbox.unread == ({} if known else {b"sub": "sub/b: Input/output error"})


@pytest.mark.parametrize("path", [b"sub/b", b"a"])
def test_a_look_that_fails_is_no_answer_and_what_is_gone_or_no_file_is_none(outbox, box, monkeypatch, path):
    assert outbox.look(path) is not None
    assert outbox.look(b"sub") is None
    assert outbox.look(b"missing/x") is None
    with monkeypatch.context() as patches:
        Failing(patches, path.rpartition(b"/")[2].decode(), errno.EIO, ("stat",))
        with pytest.raises(SourceFailed, match=f"box/{path.decode()}: Input/output error"):
            outbox.look(path)


def test_files_of_several_folders_are_asked_for_and_what_cannot_be_is_no_answer(outbox, box, monkeypatch):
    found = [each for batch in outbox.walk(whole=True) for each in batch]
    (box / "a").unlink()
    for files in (found, found[::-1], found[1:2] * 2):  # in any order
        answers = {each.path: answer for each, answer in outbox.ask(files)}
        assert answers.get(b"a", Answer(Writer.UNKNOWN, None)) == Answer(Writer.UNKNOWN, None)
        assert answers[b"sub/b"].fingerprint == outbox.look(b"sub/b")
    with monkeypatch.context() as patches:
        Failing(patches, "sub", errno.EIO, ("open",))
        answers = {each.path: answer for each, answer in outbox.ask(found)}
    assert answers == {b"a": Answer(Writer.UNKNOWN, None), b"sub/b": None, b"sub/deep/c": None}


# -- what is not sent


@pytest.mark.parametrize(
    ("most", "expected"), [(2, [b"a", b"sub/b", b"sub/deep/c"]), (1, [b"a", b"sub/b"]), (0, [b"a"])]
)
def test_folders_too_deep_are_counted_and_told_unless_they_are_excluded(outbox, box, monkeypatch, most, expected):
    monkeypatch.setattr(scan, "DEPTH_MAX", most)
    (box / "sub" / "deep" / "unwanted").mkdir()
    (box / "sub" / "unwanted").mkdir()
    (box / "unwanted").mkdir()
    assert walked(outbox) == expected
    assert outbox.refused.reasons == ({f"deeper than {most} folders": 1} if most < 2 else {})


def test_what_is_refused_is_counted_by_reason_as_it_was_last_listed_and_told_once(tmp_path, caplog):
    refused = Refused(tmp_path)
    refused.add(b"a", b"a/1", "fifo")
    refused.add(b"a", b"a/2", "symlink")
    refused.add(b"b", b"b/1", "symlink")
    assert list(refused.reasons.items()) == [("symlink", 2), ("fifo", 1)]
    refused.listed_anew(b"a")
    refused.listed_anew(b"never seen")
    refused.add(b"a", b"a/1", "fifo")
    assert refused.reasons == {"symlink": 1, "fifo": 1}
    refused.forget_all_but({b"b"})
    assert refused.reasons == {"symlink": 1}
    assert len(caplog.records) == 3


def test_no_more_than_so_many_refusals_are_told(tmp_path, caplog, monkeypatch):
    monkeypatch.setattr("iot.spooler.outbox.refused.TOLD_MAX", 2)
    refused = Refused(tmp_path)
    for number in range(4):
        refused.add(b"", b"%d" % number, "fifo")
    assert len(caplog.records) == 2
    assert refused.reasons == {"fifo": 4}


@pytest.mark.parametrize(
    ("mode", "word"),
    [(0o120777, "symlink"), (0o010644, "fifo"), (0o140644, "socket"), (0o060644, "block device"),
     (0o020644, "character device"), (0o160644, "not a regular file")],
)  # fmt: skip
def test_what_is_no_regular_file_has_a_word(mode, word):
    assert kind_of_file(mode) == word


# -- which folder it is


def test_another_folder_on_the_same_mount_is_walked_as_a_whole_and_told(outbox, box, tmp_path, caplog):
    walked(outbox)
    box.rename(tmp_path / "old")
    box.mkdir()
    (box / "new").touch()
    assert walked(outbox, whole=False) == [b"new"]
    assert "outbox is now another folder" in caplog.text


def test_a_folder_that_cannot_be_locked_is_told(outbox, monkeypatch, caplog):
    class Claim:
        counts_everywhere = False

        def __init__(self, *_: object) -> None: ...

        def release(self) -> None: ...

    monkeypatch.setattr(place, "OutboxClaim", Claim)
    walked(outbox)
    assert "folder cannot be locked" in caplog.text


def test_completeness_is_told_in_words_before_anything_was_opened_too(outbox, box, tmp_path):
    assert outbox.completeness is None
    walked(outbox)
    assert str(outbox.completeness) == completeness_of(box)
    assert completeness_of(tmp_path / "missing") == "unknown: No such file or directory"


def test_what_arrives_in_an_inbox_is_no_file_to_send(outbox, box):
    """Another agent fetches into this outbox: its hidden folder is neither walked nor entered when it is noticed."""
    for folder in (".iot-inbox", "deep/.iot-inbox"):
        (box / folder).mkdir(parents=True)
        (box / folder / "0123.part").write_bytes(b"half")
    (box / "deep/whole").touch()
    assert [path for path in walked(outbox) if path.startswith((b".", b"deep/"))] == [b"deep/whole"]
    assert list(outbox.enter([b".iot-inbox", b"deep/.iot-inbox"])) == []
    found = outbox.find([b".iot-inbox/0123.part", b"deep/.iot-inbox/0123.part", b"deep/whole"])
    assert [each.path for each in found] == [b"deep/whole"]


def test_a_folder_is_listed_in_batches_of_so_many_by_name(outbox, box, monkeypatch):
    monkeypatch.setattr(scan, "BATCH", 2)
    for name in ("e", "d", "c", "b"):
        (box / name).touch()
    batches = [[found.path for found in batch] for batch in outbox.walk(whole=True)]
    assert batches[:3] == [[b"a", b"b"], [b"c", b"d"], [b"e"]]
    assert [path for batch in batches[3:] for path in batch] == [b"sub/b", b"sub/deep/c"]


def test_each_whole_walk_tries_to_watch_every_folder_again(outbox):
    outbox.watches._refused = "no inotify watches left"
    walked(outbox, whole=False)  # the first is a whole one
    assert outbox.watches._refused == ""
    outbox.watches._refused = "no inotify watches left"
    walked(outbox, whole=False)
    assert outbox.watches._refused != ""


# -- names that are reported


@pytest.fixture
def settled(outbox, clock) -> Outbox:
    """All folders are listed for good: none is listed again before it changes."""
    for _ in range(2):
        walked(outbox, whole=False)
        clock.now += GRANULARITY_S
    assert all(listed.final for listed in outbox._listed.values())
    return outbox


def doubtful(outbox: Outbox) -> tuple[bool, list[bytes]]:
    return outbox.doubted, [folder for folder, listed in outbox._listed.items() if not listed.final]


@pytest.mark.parametrize(
    ("what", "found", "doubt"),
    [("file", [b"sub/b"], (False, [])), ("gone", [], (False, [])), ("fifo", [], (True, [b"sub"])),
     ("unknown", [], (True, [b"sub"]))],
)  # fmt: skip
def test_a_reported_name_that_is_no_file_makes_its_folder_doubtful(settled, box, monkeypatch, what, found, doubt):
    if what != "file":
        (box / "sub/b").unlink()
    if what == "fifo":
        os.mkfifo(box / "sub/b")
    with monkeypatch.context() as patches:
        if what == "unknown":
            (box / "sub/b").touch()
            Failing(patches, "b", errno.EIO, ("stat",))
        assert [each.path for each in settled.find([b"sub/b"])] == found
    assert doubtful(settled) == doubt


@pytest.mark.parametrize(("what", "gone"), [("file", False), ("gone", True), ("unknown", False)])
def test_a_name_is_gone_only_if_that_is_known(settled, box, monkeypatch, what, gone):
    if what == "gone":
        (box / "sub/b").unlink()
    with monkeypatch.context() as patches:
        if what == "unknown":
            Failing(patches, "b", errno.EIO, ("stat",))
        assert settled.removed(b"sub/b") is gone
    assert doubtful(settled) == (False, [])
    settled.refused.add(b"sub", b"sub/x", "fifo")
    settled.removed(b"sub/b")
    assert doubtful(settled) == (True, [b"sub"])  # perhaps that is what has gone


def test_a_file_to_be_looked_at_again_has_its_folder_listed_again_and_stays_closed(settled):
    settled.forget(b"sub/b", closed=True)
    settled.forget(b"sub/b")
    settled.forget(b"a")
    assert settled.again == {b"sub/b": True, b"a": False}
    assert doubtful(settled) == (False, [b"", b"sub"])
    settled.relist(b"never listed")
    assert b"never listed" not in settled._listed


def test_a_folder_that_is_gone_is_forgotten_with_all_in_it_and_no_other(settled, box):
    (box / "subway").mkdir()
    walked(settled)
    for folder in (b"sub", b"sub/deep", b"subway"):
        settled.unread[folder] = "no"
        settled.refused.add(folder, folder + b"/x", "fifo")
    settled.leave(b"sub")
    assert set(settled._listed) == {b"", b"subway"}
    assert (set(settled.unread), settled.refused.reasons) == ({b"subway"}, {"fifo": 1})
    assert set(settled.watches._numbers) == {b"", b"subway"}


@pytest.mark.parametrize("recursive", [True, False])
def test_folders_below_count_only_where_they_are_searched(box, clock, recursive):
    told: list[bytes] = []
    outbox = Outbox(box, wanted=lambda path: path != "sub/no", clock=clock, recursive=recursive, unwanted=told.append)
    (box / "sub/no").touch()
    below = [b"sub/b", b"sub/deep/c"] if recursive else []
    try:
        assert walked(outbox) == [b"a", *below]
        entered = [found.path for batch in outbox.enter([b"", b"sub"]) for found in batch]
        assert sorted(entered) == [b"a", *below[:1]]
        assert [each.path for each in outbox.find([b"sub/b", b"a", b"sub/no", b".iot-sent.#1.a"])] == [b"a", *below[:1]]
    finally:
        outbox.release()
    assert told == ([b"sub/no"] * 3 if recursive else [])
