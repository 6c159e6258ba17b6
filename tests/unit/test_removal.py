"""Files that leave an outbox where a step of it fails: nothing counts as gone that is not, and nothing is lost."""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import pytest
from unit.removing import outcome_of, taken

from iot.spooler.leaving import removal
from iot.spooler.leaving.removal import Delete, Item, Outcome, key_of, private_names, put_back, recover
from iot.spooler.outbox import departure
from iot.spooler.outbox.departure import Departure, Stays, Why
from iot.spooler.outbox.lease import Answer, Leases, Writer
from iot.transfer import Fingerprint

PREFIX = ".iot-sent."


@pytest.fixture
def box(tmp_path: Path) -> Path:
    folder = tmp_path / "box"
    (folder / "sub").mkdir(parents=True)
    for name in ("a", "b", "sub/c"):
        (folder / name).write_text(name)
    return folder


@contextmanager
def opened(folder: Path) -> Iterator[int]:
    found = os.open(folder, os.O_RDONLY)
    try:
        yield found
    finally:
        os.close(found)


def items(box: Path, *names: str) -> list[Item]:
    return [Item(key, name.encode(), Fingerprint.of((box / name).stat())) for key, name in enumerate(names, 1)]


def left(box: Path) -> list[str]:
    return sorted(str(path.relative_to(box)) for path in box.rglob("*") if path.is_file())


class Leaver:
    """Takes files by unlinking them later, as Delete; refuses what it is told to. moves: some are elsewhere already."""

    def __init__(self, refuses: set[int] | None = None, syncs: bool = True, moves: set[int] | None = None) -> None:
        self.refuses, self.syncs, self.moves, self.taken = refuses or set(), syncs, moves or set(), []

    def leave(self, folder: int, private: bytes, item: Item) -> bool:
        if item.key in self.refuses:
            raise OSError(errno.ENOSPC, "archive full")
        self.taken.append((item.key, os.readlink(f"/proc/self/fd/{folder}"), private))
        return item.key not in self.moves

    def sync(self) -> None:
        if not self.syncs:
            raise OSError(errno.EIO, "disk broken")


def outcome(box: Path, found: list[Item], leaver: Any) -> Outcome:
    with opened(box) as root:
        return outcome_of(root, found, leaver)


def test_each_file_is_given_to_its_leaver_under_a_private_name_of_its_own_folder(box):
    leaver = Leaver()
    found = outcome(box, items(box, "a", "sub/c"), leaver)
    assert (sorted(found.done), found.failed, found.stays) == ([1, 2], [], [])
    assert leaver.taken == [(1, str(box), b".iot-sent.#1.a"), (2, str(box / "sub"), b".iot-sent.#2.c")]
    assert left(box) == ["b"]


def test_one_that_is_refused_waits_under_its_private_name_and_holds_up_no_other(box):
    found = outcome(box, items(box, "a", "b"), Leaver({1}))
    assert found.done == [2]
    assert [(key, error.errno) for key, error in found.failed] == [(1, errno.ENOSPC)]
    assert left(box) == [f"{PREFIX}#1.a", "sub/c"]


def test_where_the_target_is_not_durable_nothing_is_gone(box):
    found = outcome(box, items(box, "a", "b", "sub/c"), Leaver(syncs=False, moves={2}))
    assert found.done == []
    assert sorted(key for key, _ in found.failed) == [1, 2, 3]
    assert left(box) == [f"{PREFIX}#1.a", f"{PREFIX}#2.b", f"sub/{PREFIX}#3.c"]
    assert sorted(outcome(box, [*found_items(box)], Delete()).done) == [1, 2, 3]


def test_what_may_not_be_unlinked_is_not_copied_elsewhere_either(box, monkeypatch):
    found = items(box, "a")
    (box / "a").rename(box / f"{PREFIX}#1.a")  # it has been waiting there

    def refused(*_: object) -> None:
        raise PermissionError(errno.EPERM, "the folder is sticky")

    monkeypatch.setattr(removal, "check_unlink_allowed", refused)
    leaver = Leaver()
    told = outcome(box, found, leaver)
    assert (told.done, [error.strerror for _, error in told.failed]) == ([], ["the folder is sticky"])
    assert (leaver.taken, left(box)) == ([], [f"{PREFIX}#1.a", "b", "sub/c"])


def test_an_error_of_the_program_leaves_no_folder_open(box):
    """Which the fixture of all tests sees to."""

    class Broken(Leaver):
        def leave(self, folder: int, private: bytes, item: Item) -> bool:
            raise RuntimeError("a mistake")

    with pytest.raises(RuntimeError, match="a mistake"):
        outcome(box, items(box, "a"), Broken())


def found_items(box: Path) -> Iterator[Item]:
    """The versions that wait under their private names."""
    for key, name in enumerate(("a", "b", "sub/c"), 1):
        folder, _, last = name.rpartition("/")
        yield Item(key, name.encode(), Fingerprint.of((box / folder / f"{PREFIX}#{key}.{last}").stat()))


def test_a_folder_that_cannot_be_synced_makes_all_of_it_owed(box, monkeypatch):
    def broken(_: int) -> None:
        raise OSError(errno.EIO, "broken")

    monkeypatch.setattr(os, "fsync", broken)
    found = outcome(box, items(box, "a", "b"), Delete())
    assert (found.done, sorted(key for key, _ in found.failed)) == ([], [1, 2])


def failing_unlink(monkeypatch: pytest.MonkeyPatch, name: bytes, number: int) -> None:
    real = os.unlink

    def unlink(given: bytes, *, dir_fd: int) -> None:
        if given.endswith(name):
            raise OSError(number, os.strerror(number))
        real(given, dir_fd=dir_fd)

    monkeypatch.setattr(os, "unlink", unlink)


def test_one_that_cannot_be_unlinked_is_owed_and_one_that_is_gone_already_is_done(box, monkeypatch):
    failing_unlink(monkeypatch, b".a", errno.EPERM)
    found = outcome(box, items(box, "a", "b"), Delete())
    assert (found.done, [key for key, _ in found.failed]) == ([2], [1])
    monkeypatch.undo()
    failing_unlink(monkeypatch, b".c", errno.ENOENT)
    assert outcome(box, items(box, "sub/c"), Delete()).done == [1]


@pytest.mark.parametrize(("number", "gone"), [(errno.ENOENT, True), (errno.ENOTDIR, True), (errno.EACCES, False)])
def test_a_folder_that_went_took_its_files_along_and_one_that_cannot_be_opened_did_not(box, monkeypatch, number, gone):
    real = removal.open_below

    def open_below(root: int, path: bytes) -> int:
        if path == b"sub":
            raise OSError(number, os.strerror(number))
        return real(root, path)

    monkeypatch.setattr(removal, "open_below", open_below)
    found = outcome(box, items(box, "sub/c", "a"), Delete())
    assert sorted(found.done) == ([1, 2] if gone else [2])
    assert [key for key, _ in found.failed] == ([] if gone else [1])


# -- the private name


def test_names_are_private_in_two_lengths_and_give_their_key():
    long, short = private_names(7, b"name")
    assert (long, short) == (b".iot-sent.#7.name", b".iot-sent.#7~" + hashlib.sha256(b"name").hexdigest()[:16].encode())
    assert (key_of(long), key_of(short)) == (7, 7)
    for other in (b".iot-sent.name", b".iot-sent.#7", b".iot-sent.#x.name", b"name", b".iot-sent.#7.", b"x" + long):
        assert key_of(other) is None
    assert key_of(b".iot-sent.#1.two\nlines") == 1


def test_a_long_name_leaves_under_a_short_private_one(box):
    (box / ("n" * 255)).write_text("long")
    leaver = Leaver()
    with opened(box) as root:
        assert taken(root, items(box, "n" * 255), leaver) == ([1], [])
    assert leaver.taken[0][2] == private_names(1, b"n" * 255)[1]
    assert left(box) == ["a", "b", "sub/c"]


def failing_rename(monkeypatch: pytest.MonkeyPatch, *answers: int) -> list[bytes]:
    """Each call fails with the next of these numbers; 0: it is done."""
    real, numbers, targets = removal.rename_noreplace, iter(answers), []

    def rename(source_dir: int, source: bytes, target_dir: int, target: bytes) -> None:
        targets.append(target)
        number = next(numbers, 0)
        if number:
            raise OSError(number, os.strerror(number), target)
        real(source_dir, source, target_dir, target)

    monkeypatch.setattr(removal, "rename_noreplace", rename)
    return targets


@pytest.mark.parametrize("answers", [(errno.EPERM,), (errno.ENAMETOOLONG, errno.ENAMETOOLONG), (errno.EROFS,)])
def test_a_file_that_may_not_be_renamed_is_owed_and_stays(box, monkeypatch, answers):
    targets = failing_rename(monkeypatch, *answers)
    found = outcome(box, items(box, "a"), Delete())
    assert (found.done, [(key, error.errno) for key, error in found.failed]) == ([], [(1, answers[-1])])
    assert len(targets) == len(answers)
    assert left(box) == ["a", "b", "sub/c"]


def test_one_that_its_producer_takes_away_at_that_moment_is_gone(box, monkeypatch):
    failing_rename(monkeypatch, errno.ENOENT)
    found = items(box, "a")
    real = departure.Departure.check

    def check(self: Departure, answer: Answer, meant: Fingerprint) -> None:
        real(self, answer, meant)
        (box / "a").unlink()

    monkeypatch.setattr(Departure, "check", check)
    assert outcome(box, found, Delete()) == Outcome([1], [], [])


def test_what_lies_under_the_private_name_from_another_journal_is_given_back_beside_it(box, monkeypatch):
    (box / f"{PREFIX}#1.a").write_text("of another journal")
    found = outcome(box, items(box, "a"), Delete())
    assert found.done == [1]
    assert left(box) == ["a.1", "b", "sub/c"]
    assert (box / "a.1").read_text() == "of another journal"


# -- somebody is there


def looking(monkeypatch: pytest.MonkeyPatch, says: Callable[[bytes, Answer], Answer]) -> None:
    real = Departure.look
    monkeypatch.setattr(Departure, "look", lambda self, folder, name: says(name, real(self, folder, name)))
    monkeypatch.setattr(Leases, "hold", lambda *_: nullcontext())  # where each look asks anew


def test_one_that_is_opened_for_writing_after_its_rename_gets_its_name_back(box, monkeypatch):
    def says(name: bytes, answer: Answer) -> Answer:
        private = name.startswith(b".iot-sent.") and answer.fingerprint is not None
        return Answer(Writer.SOME, answer.fingerprint) if private else answer

    looking(monkeypatch, says)
    assert outcome(box, items(box, "a"), Delete()) == Outcome([], [], [(1, Why.OPEN)])
    assert left(box) == ["a", "b", "sub/c"]


@pytest.mark.parametrize(("writer", "why"), [(Writer.SOME, Why.OPEN), (Writer.NONE, Why.TOUCHED)])
def test_one_that_was_touched_stays_and_the_reason_says_whether_somebody_has_it(box, monkeypatch, writer, why):
    found = items(box, "a")
    (box / "a").chmod(0o600)  # its ctime moves, and nothing else
    looking(monkeypatch, lambda name, answer: Answer(writer, answer.fingerprint))
    assert outcome(box, found, Delete()) == Outcome([], [], [(1, why)])


@pytest.mark.parametrize("content", ["", "another version"])
def test_another_version_under_the_name_is_left_alone(box, monkeypatch, content):
    found = items(box, "a")
    (box / "a").write_text(content)
    renamed = failing_rename(monkeypatch)
    assert outcome(box, found, Delete()) == Outcome([1], [], [])
    assert ((box / "a").read_text(), renamed) == (content, [])


def test_what_its_producer_has_taken_away_is_gone(box, monkeypatch):
    found = items(box, "a")
    (box / "a").unlink()
    leaver, renamed = Leaver(), failing_rename(monkeypatch)
    assert outcome(box, found, leaver) == Outcome([1], [], [])
    assert (leaver.taken, renamed) == ([], [])


@pytest.mark.parametrize("length", [1, 255])
def test_what_waits_under_its_private_name_long_or_short_leaves_from_there(box, length):
    name = "n" * length
    (box / name).write_text("delivered")
    found = items(box, name)
    private = private_names(1, name.encode())[length > 1]
    (box / name).rename(box / os.fsdecode(private))
    leaver = Leaver()
    assert outcome(box, found, leaver).done == [1]
    assert [taken[2] for taken in leaver.taken] == [private]
    assert left(box) == ["a", "b", "sub/c"]


def test_another_file_under_the_private_name_is_given_back_and_not_taken(box):
    (box / f"{PREFIX}#1.a").write_text("of another journal")
    found = items(box, "a")
    (box / "a").unlink()
    leaver = Leaver()
    assert outcome(box, found, leaver) == Outcome([1], [], [])
    assert (leaver.taken, (box / "a").read_text()) == ([], "of another journal")


@pytest.mark.parametrize(
    ("writer", "rested", "why"),
    [(Writer.SOME, True, Why.OPEN), (Writer.UNKNOWN, False, Why.RESTING), (Writer.UNKNOWN, True, None),
     (Writer.NONE, False, None)],
)  # fmt: skip
def test_what_is_asked_before_a_file_leaves(writer, rested, why):
    meant = Fingerprint(1, 2)
    question = Departure(None, lambda version: rested and version == meant)
    if why is None:
        question.check(Answer(writer, meant), meant)
        return
    with pytest.raises(Stays) as told:
        question.check(Answer(writer, meant), meant)
    assert told.value.why is why


@pytest.mark.parametrize("number", [errno.ENOENT, errno.ENAMETOOLONG, errno.EACCES, errno.EIO])
def test_only_what_is_certainly_not_there_counts_as_not_there(number):
    class Asked:
        def ask(self, *_: object) -> Answer:
            raise OSError(number, os.strerror(number))

    question = Departure(Asked(), lambda _: True)
    if number in (errno.ENOENT, errno.ENAMETOOLONG):
        assert question.look(0, b"f") == Answer(Writer.UNKNOWN, None)
    else:
        with pytest.raises(OSError, match=os.strerror(number)):
            question.look(0, b"f")


# -- back under its name


def test_what_is_put_back_replaces_nothing_and_says_where_it_is_now(box, caplog):
    with opened(box) as root:
        assert put_back(root, b"a", b"new") == b"new"
        assert caplog.records == []
        assert put_back(root, b"b", b"new") == b"new.1"
        assert "kept beside a newer version" in caplog.text
        assert put_back(root, b"gone", b"other") == b"other"
    assert left(box) == ["new", "new.1", "sub/c"]


def test_where_no_name_is_free_it_stays_and_that_is_told(box, monkeypatch):
    tried = failing_rename(monkeypatch, *[errno.EEXIST] * 1000)
    with opened(box) as root, pytest.raises(FileExistsError, match="no free name beside it") as told:
        put_back(root, b"a", b"new")
    assert (len(tried), told.value.filename) == (1000, "new")
    assert "a" in left(box)


@pytest.mark.parametrize(
    ("private", "name"),
    [
        (".iot-sent.#12.report.csv", "report.csv"),
        (".iot-sent.#12~0123456789abcdef", "recovered.12"),
        (".iot-sent.report.csv", "report.csv"),
        (".iot-sent.", "recovered."),
    ],
)
def test_what_no_row_claims_gets_the_name_that_its_private_one_tells(box, private, name, caplog):
    (box / "sub" / private).write_text("content")
    with opened(box) as root:
        recover(root, b"sub/" + private.encode())
    assert (box / "sub" / name).read_text() == "content"
    assert f"put back after an interrupted removal path=sub/{name}" in caplog.text
