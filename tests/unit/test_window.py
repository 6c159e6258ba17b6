"""Which bytes are acked, synced and suspect: whatever the order of the answers."""

from __future__ import annotations

import itertools

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from iot.transfer.model import Span
from iot.transfer.window import AckedPrefix, PartState, SyncMark, merge

spans = st.builds(lambda start, length: Span(start, start + length), st.integers(0, 60), st.integers(0, 20))


def lacks(state: PartState) -> bool:
    return not state.complete


def covered(parts: tuple[Span, ...]) -> set[int]:
    return {at for span in parts for at in range(span.start, span.end)}


@given(st.tuples(spans, spans, spans, spans))
def test_merged_spans_hold_the_same_bytes_in_order_and_apart(parts: tuple[Span, ...]) -> None:
    merged = merge(parts)
    assert covered(merged) == covered(parts)
    assert all(one.end < two.start for one, two in itertools.pairwise(merged))
    assert all(span.length > 0 for span in merged)


@given(st.integers(0, 500), st.lists(st.integers(1, 50), max_size=30), st.randoms(use_true_random=False))
def test_acked_is_the_contiguous_prefix_for_answers_in_any_order(
    start: int, lengths: list[int], random: object
) -> None:
    prefix, at, cut = AckedPrefix(start), start, []
    for length in lengths:
        cut.append(Span(at, at + length))
        at += length
    order = list(cut)
    random.shuffle(order)  # type: ignore[attr-defined]
    answered: set[int] = set()
    for span in order:
        prefix.add(span)
        answered |= set(range(span.start, span.end))
        expected = start
        while expected in answered:
            expected += 1
        assert prefix.end == expected
    assert prefix.end == at


@given(st.integers(0, 1000), st.integers(0, 1000), st.lists(st.integers(1, 300), min_size=1))
def test_blocks_cover_what_is_left_once_and_keep_to_the_limit(size: int, start: int, limits: list[int]) -> None:
    state = PartState(size, min(start, size))
    at = min(start, size)
    number = 0
    while (span := state.next_block(limits[number % len(limits)])) is not None:
        assert span.start == at
        assert 0 < span.length <= limits[number % len(limits)]
        at, number = span.end, number + 1
    assert at == size


def test_an_empty_file_is_complete_at_once() -> None:
    state = PartState(0)
    assert state.complete
    assert state.next_block(10) is None


def test_a_part_with_unread_suspects_is_not_complete() -> None:
    state = PartState(100, 100, (Span(20, 40),), 20)
    assert lacks(state)
    span = state.next_suspect(1000)
    assert span == Span(20, 40)
    assert lacks(state)
    state.proven(span)
    assert state.complete
    assert state.suspect == ()


def test_a_mended_span_stays_suspect_until_a_later_fsync_has_succeeded() -> None:
    state = PartState(100, 100, (Span(0, 50),), 0)
    early = state.sync_mark()
    span = state.next_suspect(50)
    assert span is not None
    state.mend(span)
    in_flight = state.sync_mark()
    assert lacks(state)
    state.answered(span)
    assert state.complete
    for mark in (early, in_flight):  # both were sent before the answer to the mending write
        state.sync_done(mark)
        assert state.suspect == (Span(0, 50),)
    assert state.unsynced
    state.sync_done(state.sync_mark())
    assert state.suspect == ()
    assert state.unsynced is False


def test_an_fsync_covers_what_was_answered_before_it_was_sent_and_no_more() -> None:
    state = PartState(100)
    first, second = state.next_block(50), state.next_block(50)
    assert first is not None
    assert second is not None
    state.answered(second)
    mark = state.sync_mark()
    state.answered(first)
    state.sync_done(mark)
    assert (state.acked, state.synced) == (100, 0)  # at the mark the prefix was still empty
    state.sync_done(state.sync_mark())
    assert state.synced == 100


def test_a_late_answer_to_an_earlier_fsync_does_not_take_synced_back() -> None:
    state = PartState(100)
    early = state.sync_mark()
    span = state.next_block(100)
    assert span is not None
    state.answered(span)
    state.sync_done(state.sync_mark())
    state.sync_done(early)
    assert state.synced == 100


def test_of_a_part_that_the_server_failed_nothing_counts_as_proven() -> None:
    state = PartState(100, 50, (), 50)
    span = state.next_block(50)
    assert span is not None
    state.answered(span)
    state.sync_done(state.sync_mark())
    state.distrust()
    assert state.suspect == (Span(0, 100),)
    assert state.synced == 0
    assert lacks(state)


def test_what_an_earlier_connection_mended_is_on_the_disk_only_after_another_fsync() -> None:
    """Acked, lost by a power cut, counted as synced by an fsync, mended after it: reading shows the memory only."""
    state = PartState(100, 100, (Span(0, 10),), synced=100)
    span = state.next_suspect(10)
    assert span is not None
    early = state.sync_mark()
    state.proven(span)
    assert state.complete
    state.sync_done(early)
    assert state.suspect == (Span(0, 10),)
    state.sync_done(state.sync_mark())
    assert state.suspect == ()


class PartOnServer(RuleBasedStateMachine):
    """A server with volatile memory and a disk; it may lose what no fsync covered. Claims of PartState are checked.

    memory: what a reader sees, byte for byte right or not. disk: what a power cut leaves.
    """

    SIZE = 60

    def __init__(self) -> None:
        super().__init__()
        self.memory = [False] * self.SIZE
        self.disk = [False] * self.SIZE
        self.begin(0, (), 0)

    def begin(self, start: int, suspect: tuple[Span, ...], synced: int) -> None:
        self.state = PartState(self.SIZE, start, suspect, synced)
        self.writes: list[Span] = []  # handled by the server, answer on its way
        self.marks: list[tuple[SyncMark, list[bool]]] = []
        self.reads: list[tuple[Span, bool]] = []

    @rule(limit=st.integers(1, 9))
    def send(self, limit: int) -> None:
        span = self.state.next_block(limit)
        if span is not None:
            self._write(span)

    def _write(self, span: Span) -> None:
        self.memory[span.start : span.end] = [True] * span.length
        self.writes.append(span)

    @precondition(lambda self: self.writes)
    @rule(data=st.data())
    def answer_any_write(self, data: st.DataObject) -> None:
        self.state.answered(self.writes.pop(data.draw(st.integers(0, len(self.writes) - 1))))

    @rule()
    def ask_fsync(self) -> None:
        self.marks.append((self.state.sync_mark(), list(self.memory)))

    @precondition(lambda self: self.marks)
    @rule(data=st.data(), works=st.booleans())
    def answer_fsync(self, data: st.DataObject, works: bool) -> None:
        mark, content = self.marks.pop(data.draw(st.integers(0, len(self.marks) - 1)))
        if works:
            self.disk = [old or new for old, new in zip(self.disk, content, strict=True)]
            self.state.sync_done(mark)

    @rule(limit=st.integers(1, 9))
    def read_back(self, limit: int) -> None:
        span = self.state.next_suspect(limit)
        if span is not None:
            self.reads.append((span, all(self.memory[span.start : span.end])))

    @precondition(lambda self: self.reads)
    @rule(data=st.data())
    def answer_read(self, data: st.DataObject) -> None:
        span, same = self.reads.pop(data.draw(st.integers(0, len(self.reads) - 1)))
        if same:
            self.state.proven(span)
        else:
            self.state.mend(span)
            self._write(span)

    @rule(power_cut=st.booleans())
    def lose_link(self, power_cut: bool) -> None:
        """As plan does it: go on at acked, what was acked but not synced is suspect, too."""
        acked, synced, suspect = self.state.acked, self.state.synced, self.state.suspect
        if power_cut:
            self.memory = list(self.disk)
        self.begin(acked, (*suspect, Span(synced, acked)), synced)

    @invariant()
    def what_is_not_right_is_suspect_or_unacked(self) -> None:
        wrong = {at for at in range(self.state.acked) if not self.memory[at]}
        assert wrong <= covered(self.state.suspect)

    @invariant()
    def what_a_power_cut_can_take_is_suspect_or_unsynced(self) -> None:
        lost = {at for at in range(self.state.synced) if not self.disk[at]}
        assert lost <= covered(self.state.suspect)

    @invariant()
    def complete_means_every_byte_is_right(self) -> None:
        if self.state.complete:
            assert all(self.memory)


PartOnServer.TestCase.settings = settings(max_examples=300, stateful_step_count=40, deadline=None)
test_nothing_wrong_is_ever_taken_for_proven = PartOnServer.TestCase
