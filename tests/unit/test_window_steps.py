"""Which bytes of a part are acked, synced and suspect, step by step."""

from __future__ import annotations

import pytest

from iot.transfer.model import Span
from iot.transfer.window import PartState, SyncMark, merge


@pytest.mark.parametrize(
    ("spans", "merged"),
    [
        ((), ()),
        ((Span(3, 3),), ()),
        ((Span(5, 9), Span(0, 2)), (Span(0, 2), Span(5, 9))),
        ((Span(0, 2), Span(2, 4)), (Span(0, 4),)),
        ((Span(0, 2), Span(3, 4)), (Span(0, 2), Span(3, 4))),
        ((Span(0, 9), Span(2, 4)), (Span(0, 9),)),
        ((Span(0, 4), Span(2, 9), Span(9, 10)), (Span(0, 10),)),
        ((Span(0, 1), Span(1, 1), Span(2, 3)), (Span(0, 1), Span(2, 3))),
    ],
)
def test_spans_are_merged_where_they_touch(spans: tuple[Span, ...], merged: tuple[Span, ...]) -> None:
    assert merge(spans) == merged


def test_blocks_are_sent_to_the_end_and_no_further() -> None:
    state = PartState(10, 3)
    assert (state.acked, state.synced, state.suspect) == (3, 0, ())
    sent = []
    while (span := state.next_block(4)) is not None:
        assert not state.complete
        sent.append(span)
    assert sent == [Span(3, 7), Span(7, 10)]
    assert state.all_sent
    assert not state.complete
    for span in reversed(sent):
        state.answered(span)
    assert state.acked == 10
    assert state.complete


@pytest.mark.parametrize("reached", ["unread", "reading", "mending", "mended"])
def test_a_suspect_span_is_neither_complete_nor_sent_until_it_is_mended(reached: str) -> None:
    state = PartState(10, 10, (Span(2, 6),), synced=10)
    steps = ["unread", "reading", "mending", "mended"].index(reached)
    if steps >= 1:
        assert state.next_suspect(9) == Span(2, 6)
    if steps >= 2:
        state.mend(Span(2, 6))
    if steps == 3:
        state.answered(Span(2, 6))
    assert state.suspect == (Span(2, 6),)
    assert (state.complete, state.all_sent) == (steps == 3, steps == 3)
    assert state.certain == 6
    assert state.unsynced is (steps == 3)
    assert state.next_suspect(9) == (Span(2, 6) if steps == 0 else None)


def test_what_is_certain_is_synced_and_not_suspect() -> None:
    assert PartState(10, 8, (), synced=5).certain == 5
    assert PartState(10, 8, (Span(1, 3), Span(4, 8)), synced=5).certain == 2
    assert PartState(10, 8, (Span(6, 8),), synced=5).certain == 5
    assert PartState(10, 8, (Span(0, 8),), synced=5).certain == 0


def test_suspect_spans_are_read_back_in_pieces_in_their_order() -> None:
    state = PartState(20, 20, (Span(10, 13), Span(0, 5)), synced=0)
    read = [state.next_suspect(4) for _ in range(4)]
    assert read == [Span(0, 4), Span(4, 5), Span(10, 13), None]
    assert not state.complete
    for span in read[:3]:
        assert span is not None
        state.proven(span)
    assert (state.suspect, state.complete) == ((), True)


@pytest.mark.parametrize(("synced", "suspect"), [(0, ()), (3, ()), (4, (Span(3, 6),))])
def test_what_was_synced_by_an_earlier_connection_and_is_suspect_needs_another_sync(
    synced: int, suspect: tuple[Span, ...]
) -> None:
    state = PartState(10, 10, (Span(3, 6),), synced=synced)
    state.next_suspect(9)
    state.proven(Span(3, 6))
    assert state.suspect == suspect
    state.sync_done(state.sync_mark())
    assert (state.suspect, state.synced) == ((), 10)


def test_the_rest_of_a_short_answer_is_read_next() -> None:
    state = PartState(20, 20, (Span(0, 8), Span(10, 12)), synced=20)
    assert state.next_suspect(8) == Span(0, 8)
    state.read_short(Span(0, 8), 5)
    assert state.suspect == (Span(0, 8), Span(10, 12))
    assert [state.next_suspect(9), state.next_suspect(9)] == [Span(5, 8), Span(10, 12)]


def test_a_sync_covers_what_was_answered_before_it_was_asked_for() -> None:
    state = PartState(10)
    assert not state.unsynced
    state.next_block(10)
    state.answered(Span(0, 4))
    assert state.unsynced
    mark = state.sync_mark()
    assert mark == SyncMark(4, frozenset())
    state.answered(Span(4, 6))
    state.sync_done(mark)
    assert (state.synced, state.unsynced) == (4, True)
    state.sync_done(SyncMark(2, frozenset()))  # an older one that is answered late
    assert state.synced == 4


def test_a_span_that_is_rewritten_does_not_move_the_prefix() -> None:
    state = PartState(10, 4, (Span(0, 2),))
    state.next_suspect(2)
    state.mend(Span(0, 2))
    state.answered(Span(0, 2))
    assert state.acked == 4
    state.next_block(2)
    state.answered(Span(4, 6))
    assert state.acked == 6


def test_a_part_that_the_server_has_failed_is_suspect_to_its_end() -> None:
    state = PartState(10, 0, (), synced=0)
    state.next_block(6)
    state.answered(Span(0, 6))
    state.sync_done(state.sync_mark())
    state.distrust()
    assert (state.suspect, state.synced, state.certain, state.unsynced) == ((Span(0, 6),), 0, 0, True)
    assert state.next_suspect(99) == Span(0, 6)
