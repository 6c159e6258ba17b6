"""The rows of checkpoints: which are written, when, over which others, and that those of earlier releases are read."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from typing import TypeVar

import pytest
from unit.test_checkpoints import KIB, Clock, CountingJournal, checkpoint, make, stored

from iot.transfer.errors import JournalUnavailable
from iot.transfer.journal import checkpoints as module
from iot.transfer.journal.checkpoints import CHECKPOINTS, keep_for, kept_with_others
from iot.transfer.journal.journal import Journal
from iot.transfer.model import Direction, Fingerprint, Phase, Span, Token

T = TypeVar("T")


@pytest.fixture
def journal() -> Iterator[CountingJournal]:
    with closing(CountingJournal(None, CHECKPOINTS)) as journal:
        yield journal


def ids(journal: Journal) -> dict[bytes, int]:
    return {bytes(row["local"]): row["id"] for row in journal.read("SELECT id, local FROM checkpoint")}


# -- when


@pytest.mark.parametrize(("acked", "written"), [(64 * KIB - 1, 1), (64 * KIB, 2)])
def test_progress_is_written_as_soon_as_it_is_so_many_bytes(journal, acked, written) -> None:
    kept = make(journal)
    kept.note(checkpoint(acked=1000), now=True)
    kept.note(checkpoint(acked=1000 + acked))
    assert journal.transactions == written


@pytest.mark.parametrize(("seconds", "written"), [(9.9, 0), (10.0, 1)])
@pytest.mark.parametrize("first", ["noted", "forgotten"])
def test_what_was_noted_or_forgotten_first_is_written_after_so_long(journal, seconds, written, first) -> None:
    clock = Clock()
    kept = make(journal, clock=clock)
    kept.note(checkpoint("first")) if first == "noted" else kept.forget(checkpoint("first"))
    clock.now += 5
    kept.note(checkpoint("second"))
    kept.forget(checkpoint("third"))
    assert journal.transactions == 0
    clock.now += seconds - 5
    kept.note(checkpoint("second"))
    assert journal.transactions == written


def test_drops_that_wait_for_the_next_batch_count_from_when_they_were_put_off(journal) -> None:
    clock = Clock()
    kept = make(journal, clock=clock)
    kept.commit([checkpoint(name) for name in "abc"])
    kept.forget_keys([module._key(checkpoint(name)) for name in "abc"])
    clock.now += 9
    kept.commit([checkpoint("d")])
    assert sorted(ids(journal)) == [b"/l/b", b"/l/c", b"/l/d"]
    clock.now += 9
    kept.note(checkpoint("d"))
    assert journal.transactions == 2
    clock.now += 1
    kept.note(checkpoint("d"))
    assert sorted(ids(journal)) == [b"/l/d"]


# -- where


def test_a_new_row_takes_the_place_of_one_that_is_dropped_and_a_known_one_keeps_its_own(journal) -> None:
    kept = make(journal)
    kept.commit([checkpoint("a"), checkpoint("b")])
    before = ids(journal)
    assert sorted(before.values()) == [1, 2]
    kept.forget(checkpoint("a"))
    kept.commit([checkpoint("c", acked=5)])
    kept.commit([checkpoint("b", acked=7), checkpoint("d")])
    assert ids(journal) == {b"/l/c": before[b"/l/a"], b"/l/b": before[b"/l/b"], b"/l/d": 3}
    assert stored(journal, "b") == checkpoint("b", acked=7)
    assert stored(journal, "a") is None


def test_a_row_of_another_name_is_never_taken_for_the_one_that_is_looked_for(journal) -> None:
    kept = make(journal)
    kept.commit([checkpoint("a", acked=5)])
    places = kept._places.current()
    [place] = places.values()
    places[module._hash(module._key(checkpoint("b")))] = place  # two names, one hash
    assert kept.load(Direction.UPLOAD, b"/r/b", b"/l/b") is None
    assert kept.load(Direction.UPLOAD, b"/r/a", b"/l/a") == checkpoint("a", acked=5)


def test_rows_that_were_written_although_an_error_was_told_are_found(journal, monkeypatch) -> None:
    kept = make(journal)
    assert stored(journal) is None
    real = journal.write

    def told_late(work: Callable[[sqlite3.Connection], T]) -> T:
        real(work)
        raise JournalUnavailable("told late")

    with monkeypatch.context() as patched:
        patched.setattr(journal, "write", told_late)
        with pytest.raises(JournalUnavailable):
            kept.commit([checkpoint(acked=5)])
    assert stored(journal) == checkpoint(acked=5)


def test_only_what_differs_from_the_destination_is_kept_of_a_part(journal) -> None:
    token = Token(b"upload-id-7")
    make(journal).commit([checkpoint("a"), replace(checkpoint("b"), token=token)])
    parts = {bytes(row["local"]): bytes(row["part"]) for row in journal.read("SELECT local, part FROM checkpoint")}
    assert parts == {b"/l/a": b"\0.part", b"/l/b": bytes(token)}
    found = stored(journal, "b")
    assert found is not None
    assert found.token == token


EARLIER = """
    INSERT INTO checkpoint VALUES (
        1, 165543975583968, 'me@host:22', 'upload', X'2f722f61', X'2f6c2f61', X'002e70617274', 1000000, 1, 2, 3,
        700, 600, '[[100, 200]]', 'publishing', 1700000000, 530635082, NULL)
"""


def test_a_row_that_an_earlier_release_has_written_is_read(journal) -> None:
    """Its hash and its checksum are those of that release."""
    journal.write(lambda db: db.execute(EARLIER))
    known = checkpoint(acked=700, synced_bytes=600, suspect=(Span(100, 200),), phase=Phase.PUBLISHING)
    assert stored(journal) == known


# -- given up


def test_what_is_to_be_dropped_is_not_given_up_once_more(journal, monkeypatch) -> None:
    kept = make(journal)
    monkeypatch.setattr(module.time, "time", lambda: 1000.0)
    kept.commit([checkpoint("a"), checkpoint("b")])
    kept.forget(checkpoint("a"))
    assert [each.local_path for each in kept.abandoned_before(1001.0)] == [b"/l/b"]
    assert kept.abandoned_before(1000.0) == []
    assert make(journal, "me@other:22").abandoned_before(2000.0) == []


# -- other servers


def test_uploads_of_other_servers_are_told_without_damaged_ones_and_downloads(journal) -> None:
    download = replace(checkpoint("c"), direction=Direction.DOWNLOAD)
    make(journal, "me@there:22").commit([checkpoint("a"), checkpoint("b"), download])
    make(journal, "me@here:22").commit([checkpoint("d")])
    journal.write(lambda db: db.execute("UPDATE checkpoint SET acked = 9 WHERE local = CAST('/l/b' AS BLOB)"))
    assert kept_with_others(journal, "me@here:22") == [("me@there:22", checkpoint("a"))]


def test_only_a_row_that_is_there_is_replaced_and_keeps_its_time(journal, monkeypatch) -> None:
    monkeypatch.setattr(module.time, "time", lambda: 1000.0)
    make(journal, "me@there:22").commit([checkpoint("a")])
    monkeypatch.setattr(module.time, "time", lambda: 5000.0)
    anew = checkpoint("a", fingerprint=Fingerprint(0, 0))
    journal.write(lambda db: keep_for(db, [("me@there:22", anew), ("me@there:22", checkpoint("b"))]))
    rows = journal.read("SELECT noted_at FROM checkpoint")
    assert [row["noted_at"] for row in rows] == [1000]
    assert stored(journal, server="me@there:22") == anew
