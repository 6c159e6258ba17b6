"""The small operations of a remote over stores: what is asked, what is answered, and what is never guessed."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from unit.faulty_store import Faults, SessionSide, folder_remote, remote_of

from iot.folder.store import FolderStore
from iot.transfer.errors import LinkLost, NameRefused, NotFound, PermissionDenied, ServerBusy
from iot.transfer.journal.checkpoints import CHECKPOINTS, Checkpoints
from iot.transfer.journal.journal import Journal
from iot.transfer.model import Direction, RemoteEntry, RemoteFile, UploadJob
from iot.transfer.parallel import ParallelRemote

Make = Callable[..., ParallelRemote]


@pytest.fixture
def far(tmp_path: Path) -> Path:
    folder = tmp_path / "far"
    folder.mkdir()
    return folder


@pytest.fixture
def make(far: Path) -> Iterator[Make]:
    made: list[ParallelRemote] = []

    def make(faults: Faults | None = None, **settings: Any) -> ParallelRemote:
        made.append(folder_remote(far, far.parent / "state", faults, **settings))
        return made[-1]

    yield make
    for remote in made:
        remote.close()


# -- connections


def test_connections_that_are_lost_are_made_anew_and_sound_ones_are_kept(make):
    faults = Faults()
    remote = make(faults)
    for _ in range(3):
        assert remote.stat(b"missing") is None
    assert faults.counts["connect"] == 1
    faults.before[("stat", faults.counts["stat"])] = LinkLost("cut")
    assert remote.stat(b"missing") is None
    assert faults.counts["connect"] == 2


def test_what_the_far_side_can_do_is_known_before_it_is_asked_and_then_as_it_says(make):
    faults = Faults()
    remote = make(faults)
    assert remote.capabilities.keeps_times
    faults.capabilities = {"keeps_times": False}
    assert remote.capabilities.keeps_times
    remote.connect()
    assert not remote.capabilities.keeps_times
    remote.drop()
    assert remote.capabilities.keeps_times


def test_during_a_batch_whether_it_is_connected_is_told_without_a_question(make, far):
    faults, told = Faults(), []
    remote = make(faults)
    remote.connect()
    (far.parent / "source").write_bytes(b"x")
    job = UploadJob(far.parent / "source", "f")
    [result] = remote.upload_many([job], tick=lambda: told.append(remote.is_connected()))
    assert told
    assert set(told) == {True}
    assert faults.counts["check"] == 0
    assert result.sha256 is None


# -- paths


@pytest.mark.parametrize(
    ("size", "most", "length", "blocks"), [(3, 3, 3, 1), (3, 2, 3, 1), (10, 3, 4, 1), (0, 3, 0, 0), (10, 5, 6, 2)]
)
def test_of_a_small_file_no_more_is_read_than_shows_that_it_is_too_long(make, far, size, most, length, blocks):
    (far / "f").write_bytes(b"x" * size)
    seen: list[bytes] = []

    def in_fours(found: Iterator[bytes]) -> Iterator[bytes]:
        whole = b"".join(found)
        for at in range(0, len(whole), 4):
            seen.append(whole[at : at + 4])
            yield seen[-1]

    remote = make(Faults(answer={"read": in_fours}))
    assert remote.read_small(b"f", most) == b"x" * length
    assert len(seen) == blocks


def test_what_cannot_be_read_is_none(make):
    assert make().read_small(b"missing", 5) is None


def test_a_file_that_is_not_there_is_not_moved_though_another_has_the_new_name(make, far):
    (far / "new").write_bytes(b"theirs")
    with pytest.raises(NotFound, match="cannot move 'old': it is not on the server"):
        make().move(b"old", b"new")
    faults = Faults(before={("stat", 0): LinkLost("cut")})
    with pytest.raises(NotFound):
        make(faults).move(b"old", b"newer")
    assert os.listdir(far) == ["new"]


@pytest.mark.parametrize("make_dirs", [True, False])
def test_folders_for_a_moved_file_are_made_only_by_setting(make, far, make_dirs):
    (far / "f").write_bytes(b"")
    remote = make(make_dirs=make_dirs)
    if make_dirs:
        remote.move(b"f", b"d/f")
        assert (far / "d/f").exists()
    else:
        with pytest.raises(NotFound):
            remote.move(b"f", b"d/f")


def test_what_was_never_there_cannot_be_removed(make, far):
    for call in (make().delete, make().rmdir):
        with pytest.raises(NotFound):
            call(b"missing")


# -- listings


def listing(*names: str) -> Faults:
    entries = [RemoteEntry(name, RemoteFile(1)) for name in names]
    return Faults(answer={"list": lambda _: iter(entries)})


def test_a_folder_is_listed_by_name_without_itself_and_the_one_above(make):
    [found] = make(listing("b", ".", "a", "..", "A", "...")).scan([b"."])
    assert [entry.name for entry in found] == ["...", "A", "a", "b"]


@pytest.mark.parametrize("bad", ["x/y", "/", "\0", "a\0", ""])
def test_what_is_no_name_is_refused_or_left_out_with_a_word(make, bad):
    faults = listing("a", bad, "z")
    [refused] = make(faults).scan([b"d"])
    assert isinstance(refused, NameRefused)
    assert "must not contain a slash" in str(refused)
    left: list[tuple[bytes, bytes]] = []
    [found] = make(faults).scan([b"d"], lambda folder, name: left.append((folder, name)))
    assert [entry.name for entry in found] == ["a", "z"]
    assert left == [(b"d", bad.encode())]


def test_many_folders_come_in_the_order_of_the_question_each_with_what_it_holds_or_why_not(make, far):
    for name in "abcd":
        (far / name).mkdir()
        (far / name / f"in {name}").write_bytes(b"")
    (far / "b" / "in b").unlink()
    (far / "b").rmdir()
    found = make().scan([b"d", b"b", b"a", b"c"])
    assert isinstance(found[1], NotFound)
    assert [[entry.name for entry in one] for one in (found[0], *found[2:])] == [["in d"], ["in a"], ["in c"]]
    assert make().scan([]) == []


def test_a_busy_far_side_lists_with_fewer_connections_and_asks_only_for_what_is_missing(make, far, monkeypatch):
    for name in "abcdef":
        (far / name).mkdir()
    faults, refused = Faults(), []
    real = FolderStore.list

    def slow(self: FolderStore, path: bytes) -> Iterator[RemoteEntry]:
        end = time.monotonic() + 10
        while len(faults.stores) < 3 and time.monotonic() < end:
            time.sleep(0.001)
        if path == b"c" and not refused:
            refused.append(path)
            raise ServerBusy("too many")
        return real(self, path)

    monkeypatch.setattr(FolderStore, "list", slow)
    assert make(faults).scan([b"a", b"b", b"c", b"d", b"e", b"f"]) == [[]] * 6
    assert (faults.counts["list"], faults.counts["connect"] > 1) == (7, True)


def test_a_far_side_that_is_busy_for_a_single_connection_is_told_so(make):
    faults = Faults(before={("list", number): ServerBusy("too many") for number in range(9)})
    with pytest.raises(ServerBusy):
        make(faults, connections=1, attempts=1).scan([b"."])
    refusal = PermissionDenied("no")
    assert make(Faults(before={("list", 0): refusal})).scan([b"."]) == [refusal]


# -- what will not be tried again


def recorded(far: Path) -> Any:
    with closing(Journal(far.parent / "state", CHECKPOINTS)) as journal:
        checkpoints = Checkpoints(journal, "far", every_bytes=1, every_s=1, clock=time.monotonic)
        return checkpoints.load(Direction.UPLOAD, b"f", os.fsencode(far.parent / "source"))


def test_an_upload_that_is_given_up_without_a_record_gets_one_so_that_its_part_goes(make, far):
    make().discard([(str(far.parent / "source"), "f")])
    assert recorded(far).token.endswith(b".part")


def test_where_a_part_has_no_name_of_ours_there_is_nothing_to_record(far):
    remote = remote_of(SessionSide().store, far.parent / "state")
    remote.discard([(str(far.parent / "source"), "f")])
    remote.close()
    assert recorded(far) is None
