"""What waits to be looked at: nothing that has happened is lost, and nothing that is over is done."""

from __future__ import annotations

import pytest

from iot.spooler.outbox import noticed
from iot.spooler.outbox.noticed import AGAIN_S, Noticed


def test_a_name_that_is_gone_and_back_is_a_file_and_one_that_came_and_went_is_none() -> None:
    names = Noticed()
    names.gone(b"back")
    names.file(b"back", closed=True)
    names.file(b"away", closed=True)
    names.gone(b"away")
    assert names.take(0.0, 9) == {b"back": True}
    assert names.take_gone(9) == [b"away"]
    assert (names.take(0.0, 9), names.take_gone(9)) == ({}, [])


def test_a_file_that_was_closed_stays_so_until_it_is_looked_at() -> None:
    names = Noticed()
    names.file(b"a", closed=True)
    names.file(b"a", closed=False)
    assert names.take(0.0, 9) == {b"a": True}


def test_what_is_put_off_is_due_after_a_while_counted_from_the_last_time() -> None:
    names = Noticed()
    names.again(b"a", 0.0, closed=True)
    names.again(b"b", 0.5, closed=False)
    names.again(b"a", 1.0, closed=False)
    assert names.next_due(1.0) == 0.5 + AGAIN_S
    assert names.take(0.4 + AGAIN_S, 9) == {}
    assert names.take(0.5 + AGAIN_S, 9) == {b"b": False}
    names.file(b"a", closed=True)
    assert names.take(1.0 + AGAIN_S, 9) == {b"a": True}
    assert names.next_due(9.0) == float("inf")


def test_beyond_what_fits_everything_is_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(noticed, "MOST", 2)
    names = Noticed()
    names.file(b"a", closed=True)
    names.gone(b"b")
    assert not names.everything
    names.file(b"c", closed=True)
    assert (names.everything, names.next_due(5.0)) == (True, 5.0)
    assert [names.again(path, 0.0, closed=True) for path in (b"a", b"b", b"c")] == [True, True, False]


def test_a_whole_walk_leaves_nothing_to_look_at_but_what_was_lost() -> None:
    names = Noticed()
    names.file(b"a", closed=True)
    names.gone(b"b")
    names.again(b"c", 0.0, closed=True)
    names.folders[b"d"] = names.lost_folders[b"e"] = None
    names.everything = True
    names.clear()
    assert names.next_due(9.0) == float("inf")
    assert (names.take(9.0, 9), names.take_gone(9), names.folders) == ({}, [], {})
    assert names.lost_folders == {b"e": None}


def test_whatever_waits_by_itself_is_something_to_look_at() -> None:
    assert Noticed().next_due(5.0) == float("inf")
    whole, listed, gone, found, later = (Noticed() for _ in range(5))
    whole.everything = True
    listed.folders[b"a"] = None
    gone.gone(b"a")
    found.file(b"a", closed=False)
    assert [each.next_due(5.0) for each in (whole, listed, gone, found)] == [5.0] * 4
    later.again(b"a", 5.0, closed=False)
    later.again(b"b", 6.0, closed=False)
    assert later.next_due(5.0) == 5.0 + AGAIN_S
