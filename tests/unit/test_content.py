"""Comparing what stands on the far side with what is here: up to the first difference, and cancelled at any block."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import pytest

from iot.transfer.errors import Cancelled
from iot.transfer.model import Span
from iot.transfer.parallel.content import agreeing_bytes, hash_of
from iot.transfer.parallel.work import Desk
from iot.transfer.stop import StopFlag

CONTENT = bytes(range(100))


class Here:
    def read(self, span: Span) -> bytes:
        return CONTENT[span.start : span.end]

    def sha256(self) -> Iterator[str | None]:
        yield None
        yield None
        yield hashlib.sha256(CONTENT).hexdigest()


class Theirs:
    """Blocks of a far side; `stop` is set after so many of them."""

    def __init__(self, *blocks: bytes, stop: StopFlag | None = None, after: int = 99) -> None:
        self.blocks, self.stop, self.after = list(blocks), stop, after
        self.given = self.closed = 0

    def __iter__(self) -> Theirs:
        return self

    def __next__(self) -> bytes:
        if not self.blocks:
            raise StopIteration
        self.given += 1
        if self.stop is not None and self.given == self.after:
            self.stop.set()
        return self.blocks.pop(0)

    def close(self) -> None:
        self.closed += 1


def desk(stop: StopFlag | None = None) -> Desk:
    return Desk(lambda _: None, lambda _: None, lambda: 0.0, stop or StopFlag())


@pytest.mark.parametrize(
    ("blocks", "span", "agreeing", "taken"),
    [
        ((CONTENT[10:20], CONTENT[20:30]), Span(10, 30), 20, 2),
        ((CONTENT[10:20], CONTENT[20:30], b"more"), Span(10, 30), 20, 2),
        ((CONTENT[10:40],), Span(10, 30), 20, 1),  # what lies behind the span is not looked at
        ((CONTENT[10:25] + b"?" * 9,), Span(10, 25), 15, 1),
        ((CONTENT[10:20], b"?" + CONTENT[21:30]), Span(10, 30), 10, 2),
        ((b"?",), Span(10, 30), 0, 1),
        ((CONTENT[10:20],), Span(10, 30), 10, 1),  # it ends early
        ((CONTENT[10:20], b"", CONTENT[20:30]), Span(10, 30), 10, 2),
        ((), Span(10, 30), 0, 0),
    ],
)
def test_bytes_agree_up_to_the_first_block_that_differs(blocks, span, agreeing, taken):
    theirs = Theirs(*blocks)
    assert agreeing_bytes(desk(), theirs, Here(), span) == agreeing
    assert (theirs.given, theirs.closed) == (taken, 1)


def test_a_far_side_that_gives_a_plain_iterator_is_compared_too():
    assert agreeing_bytes(desk(), iter([CONTENT]), Here(), Span(0, 100)) == 100


def test_a_comparison_is_cancelled_between_two_blocks_and_closes_what_it_reads():
    stop = StopFlag()
    theirs = Theirs(CONTENT[:10], CONTENT[10:20], CONTENT[20:30], stop=stop, after=2)
    with pytest.raises(Cancelled):
        agreeing_bytes(desk(stop), theirs, Here(), Span(0, 30))
    assert (theirs.given, theirs.closed) == (2, 1)


def test_a_hash_is_cancelled_between_two_steps():
    assert hash_of(desk(), Here()) == hashlib.sha256(CONTENT).hexdigest()
    stop = StopFlag()
    stop.set()
    with pytest.raises(Cancelled):
        hash_of(desk(stop), Here())
