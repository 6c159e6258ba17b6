"""Comparing what stands on the far side with what is here: up to the first difference, and cancelled at any block."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from types import SimpleNamespace

import pytest

from iot.transfer.errors import Cancelled
from iot.transfer.model import RemoteFile, Span
from iot.transfer.parallel import content
from iot.transfer.parallel.content import agreed_offset, agreeing_bytes, hash_of, same_file
from iot.transfer.parallel.work import Desk
from iot.transfer.plan import ResumeAt
from iot.transfer.remote import Token
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


def test_what_is_suspect_is_read_back_in_order_up_to_the_first_block_that_differs():
    asked: list[Span] = []

    def read_part(_: object, span: Span) -> Iterator[bytes]:
        asked.append(span)
        return iter([theirs[at : at + 5] for at in range(span.start, span.end, 5)])

    step = ResumeAt(90, (Span(20, 40), Span(60, 80)), tail=Span(70, 90))
    store, source = SimpleNamespace(read_part=read_part), SimpleNamespace(read=Here().read, name="source")
    for differs_at, offset, looks in ((99, 90, 3), (70, 0, 1), (62, 60, 3), (38, 35, 2), (0, 90, 3)):
        theirs = bytearray(CONTENT)
        theirs[differs_at] ^= 1
        asked.clear()
        assert agreed_offset(desk(), store, Token(b"part"), source, step) == offset
        assert asked == [Span(70, 90), Span(20, 40), Span(60, 80)][:looks]
    theirs = bytearray(CONTENT)
    theirs[75] ^= 1
    assert agreed_offset(desk(), store, Token(b"part"), source, ResumeAt(90, (Span(60, 80),))) == 75


class Final:
    """A published file, as the far side tells of it."""

    def __init__(self, content: bytes, size: int | None, digest: str | None, hashes: frozenset[str]) -> None:
        self.content, self.size, self.told = content, size, digest
        self.capabilities = SimpleNamespace(hashes=hashes)
        self.asked: list[str] = []

    def stat(self, _: bytes) -> RemoteFile | None:
        return RemoteFile(self.size) if self.content else None

    def read(self, _: bytes, offset: int) -> Iterator[bytes]:
        self.asked.append("read")
        yield self.content[offset:]

    def digest(self, _: bytes, __: str) -> str | None:
        self.asked.append("hash")
        return self.told


OURS = hashlib.sha256(CONTENT).hexdigest()
SHA256 = frozenset({"sha256"})


@pytest.mark.parametrize(
    ("final", "limit", "is_same", "asked"),
    [
        (Final(CONTENT, 100, OURS, SHA256), 100, True, ["read"]),  # a hash would take no less time
        (Final(CONTENT, 100, OURS, SHA256), 99, True, ["hash"]),
        (Final(CONTENT, 100, OURS, frozenset()), 99, True, ["read"]),
        (Final(CONTENT, 100, "0" * 64, SHA256), 99, False, ["hash"]),
        (Final(CONTENT, 100, "f" * 64, SHA256), 99, False, ["hash"]),
        (Final(CONTENT, 100, None, SHA256), 99, True, ["hash", "read"]),
        (Final(CONTENT, None, None, SHA256), 100, True, ["read"]),
        (Final(CONTENT, 101, None, SHA256), 100, False, []),
        (Final(CONTENT, 99, None, SHA256), 100, False, []),
        (Final(CONTENT[:50], 100, None, SHA256), 100, False, ["read"]),
        (Final(b"", 100, None, SHA256), 100, False, []),
    ],
)
def test_a_published_file_is_the_same_if_its_hash_or_else_its_size_and_content_are(
    monkeypatch, final, limit, is_same, asked
):
    monkeypatch.setattr(content, "HASH_FROM_BYTES", limit)
    assert same_file(desk(), final, b"file", Here(), 100) is is_same
    assert final.asked == asked
