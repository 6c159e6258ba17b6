"""What one walk of an outbox leaves to the next: listings, watches, refusals, and what could not be read."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from unit.test_scan_edges import Clock, Failing, walked

from iot.spooler.outbox import scan
from iot.spooler.outbox.scan import GRANULARITY_S, Outbox


@pytest.fixture
def box(tmp_path: Path) -> Path:
    folder = tmp_path / "box"
    for name in ("one", "sub/deep", "zoo"):
        (folder / name).mkdir(parents=True)
        (folder / name / "f").touch()
    return folder


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def outbox(box: Path, clock: Clock) -> Iterator[Outbox]:
    found = Outbox(box, wanted=lambda _: True, clock=clock)
    yield found
    found.release()


@pytest.fixture
def settled(outbox: Outbox, clock: Clock) -> Outbox:
    """All folders are listed for good."""
    walked(outbox)
    clock.now += GRANULARITY_S
    walked(outbox, whole=False)
    assert walked(outbox, whole=False) == []
    return outbox


def test_another_folder_is_walked_and_watched_anew_and_once(outbox: Outbox, box: Path, tmp_path: Path, clock: Clock):
    walked(outbox)
    watched = dict(outbox.watches._numbers)
    box.rename(tmp_path / "old")
    (box / "new").mkdir(parents=True)
    (box / "new" / "f").touch()
    assert walked(outbox, whole=False) == [b"new/f"]
    assert set(watched) - set(outbox.watches._numbers) == {b"one", b"sub", b"sub/deep", b"zoo"}
    assert len(outbox.watches._paths) == 2
    assert not outbox.moved
    clock.now += GRANULARITY_S
    walked(outbox, whole=False)
    assert walked(outbox, whole=False) == []


def test_an_outbox_that_is_released_is_watched_no_more(outbox: Outbox):
    walked(outbox)
    descriptor = outbox.watches._inotify.descriptor
    outbox.release()
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(descriptor)


def test_what_a_whole_walk_does_not_find_again_is_forgotten(outbox: Outbox, box: Path):
    (box / "sub" / "link").symlink_to("f")
    walked(outbox)
    assert outbox.refused.reasons == {"symlink": 1}
    outbox.unread[b"gone"] = "folder gone: Permission denied"
    (box / "sub").rename(box.parent / "sub")
    assert walked(outbox) == [b"one/f", b"zoo/f"]
    assert outbox.unread == {}
    assert outbox.refused.reasons == {}
    assert set(outbox.watches._numbers) == set(outbox._listed) == {b"", b"one", b"zoo"}


def test_a_folder_in_whose_place_a_symlink_leads_to_it_is_gone(settled: Outbox, box: Path):
    """Its number and its time are those that were listed."""
    (box / "sub").rename(box.parent / "sub")
    (box / "sub").symlink_to(box.parent / "sub")
    assert walked(settled, whole=False) == []
    assert b"sub" not in settled._listed
    assert settled.refused.reasons == {"symlink": 1}
    assert settled.unread == {}


def test_folders_behind_one_that_cannot_be_looked_at_are_looked_at(settled: Outbox, box: Path, monkeypatch: Any):
    (box / "zoo" / "new").touch()
    with monkeypatch.context() as patches:
        Failing(patches, "one", errno.EIO, ("stat",))
        assert walked(settled, whole=False) == [b"zoo/f", b"zoo/new"]
    assert settled.unread == {b"one": "folder one: Input/output error"}


def test_a_folder_in_which_a_file_could_not_be_looked_at_is_listed_until_it_can_be(settled: Outbox):
    settled.unread[b"one"] = "one/f: Input/output error"
    assert walked(settled, whole=False) == [b"one/f"]
    assert settled.unread == {}
    assert walked(settled, whole=False) == []


def test_a_reported_folder_that_cannot_be_opened_is_not_known_and_holds_up_no_other(settled: Outbox, monkeypatch: Any):
    with monkeypatch.context() as patches:
        Failing(patches, "one", errno.EACCES, ("open",))
        entered = [found.path for batch in settled.enter([b"one", b"zoo"]) for found in batch]
    assert entered == [b"zoo/f"]
    assert settled.unread == {b"one": "folder one: Permission denied"}


def test_a_reported_folder_too_deep_is_refused_and_not_entered(settled: Outbox, monkeypatch: Any):
    monkeypatch.setattr(scan, "DEPTH_MAX", 1)
    assert [batch for batch in settled.enter([b"sub/deep"]) if batch] == []
    assert settled.refused.reasons == {"deeper than 1 folders": 1}


def test_what_belongs_to_the_file_system_is_told_and_makes_no_source_failed(
    outbox: Outbox, box: Path, monkeypatch, caplog
):
    for name in ("lost+found", "other"):
        (box / name).mkdir()
    with monkeypatch.context() as patches:
        Failing(patches, "lost+found", errno.EACCES, ("open",))
        walked(outbox)
    assert outbox.unread == {}
    assert 'path=lost+found reason="folder: Permission denied"' in caplog.text


def test_a_symlink_to_a_folder_counts_as_what_it_is(outbox: Outbox, box: Path):
    (box / "link").symlink_to("one")
    assert b"link/f" not in walked(outbox)
    assert outbox.refused.reasons == {"symlink": 1}


def test_hidden_files_of_a_producer_are_sent_and_ours_are_put_aside(outbox: Outbox, box: Path):
    for name in (".hidden", ".iot-sent.#1.f", "iot-sent.f"):
        (box / "one" / name).touch()
    assert walked(outbox)[:3] == [b"one/.hidden", b"one/f", b"one/iot-sent.f"]
    assert outbox.leftovers == [b"one/.iot-sent.#1.f"]


def test_names_are_sorted_in_portions_and_none_is_left_out(outbox: Outbox, box: Path, monkeypatch: Any):
    monkeypatch.setattr(scan, "SORTED", 2)
    names = [b"%d" % number for number in range(5)]
    for name in names:
        (box / os.fsdecode(name)).touch()
    found = [found.path for batch in outbox.walk(whole=True) for found in batch]
    assert sorted(found[:5]) == names
    assert len(found) == 8


def test_a_full_batch_is_passed_on_at_once(outbox: Outbox, box: Path, monkeypatch: Any):
    monkeypatch.setattr(scan, "BATCH", 1)
    (box / "a").touch()
    batches = [[found.path for found in batch] for batch in outbox.walk(whole=True)]
    assert batches[:2] == [[b"a"], []]


def test_a_folder_is_listed_for_good_only_when_its_time_was_old_enough(outbox: Outbox, box: Path, clock: Clock):
    walked(outbox)
    clock.now += GRANULARITY_S / 2
    (box / "one" / "late").touch()
    assert b"one/late" in walked(outbox, whole=False)
    clock.now += GRANULARITY_S / 2
    assert b"one/late" in walked(outbox, whole=False)  # its time is not that of the first listing
    assert b"one/late" in walked(outbox, whole=False)
    clock.now += GRANULARITY_S / 2
    assert b"one/late" in walked(outbox, whole=False)
    assert walked(outbox, whole=False) == []


def test_what_is_to_be_looked_at_again_is_listed_until_its_time_is_old_enough(settled: Outbox, clock: Clock):
    settled.forget(b"one/f")
    for later_s in (0.0, GRANULARITY_S - 0.1, 0.1):
        clock.now += later_s
        assert walked(settled, whole=False) == [b"one/f"]
    assert walked(settled, whole=False) == []


def test_a_file_is_opened_itself_and_not_where_a_symlink_leads_and_a_fifo_without_waiting(outbox: Outbox, box: Path):
    (box / "link").symlink_to("one/f")
    os.mkfifo(box / "fifo")
    with pytest.raises(OSError, match=os.strerror(errno.ELOOP)):
        outbox.open_file(b"link")
    for name in (b"one/f", b"fifo"):
        os.close(outbox.open_file(name))
