"""Proof by content: hash remote files there, or read them back, and compare with the source."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from iot.sftp.client.jobs.context import Context
from iot.sftp.client.pipeline.job import TURN, WAIT, Answers, Send, Work, ask, expect_data, expect_handle
from iot.sftp.client.protocol import packets, parsing
from iot.sftp.client.protocol.packets import Code, Data, Flag, Reply, Status
from iot.sftp.client.protocol.server import Refusal, understood
from iot.transfer.errors import PermanentError, SFTPError
from iot.transfer.model import Span
from iot.transfer.source import Source

HASH_FROM_BYTES = 1024 * 1024
"""What is smaller is read back: it takes no longer than a hash."""


class Content(Protocol):
    """What is compared with the remote file: the source of an upload, the part of a download."""

    def read(self, span: Span) -> bytes: ...

    def sha256(self) -> Iterator[str | None]: ...


def final_stands(context: Context, path: bytes, source: Source) -> Work[bool]:
    """Whether the remote file is this version of the source, by its whole content.

    False also where the server lets us neither hash nor read: not proven, so it is sent again.
    """
    try:
        return (yield from same_file(context, path, source))
    except PermanentError:
        return False


def same_file(context: Context, path: bytes, source: Source) -> Work[bool]:
    """Compare the whole content: by the server's hash where it has one, else read back.

    Raises: the refusal when it can be neither hashed nor read.
    """
    if source.fingerprint.size > HASH_FROM_BYTES:
        answer = yield from same_hash(context, path, source)
        if answer is not None:
            return answer
    return (yield from same_content(context, path, source, Span(0, source.fingerprint.size)))


def same_content(context: Context, path: bytes, source: Content, span: Span) -> Work[bool]:
    """Read a span of a remote file back and compare. Raises: the refusal when it cannot be read."""
    reply = yield from ask(packets.open_file(path, Flag.READ))
    handle = expect_handle(reply, f"cannot read back {path!r}")
    comparison = Comparison(context, source, handle, span)
    same = yield from comparison.run()
    yield from ask(packets.close(handle))
    if comparison.failure is not None:
        raise comparison.failure
    return same


def same_hash(context: Context, path: bytes, source: Content) -> Work[bool | None]:
    """Compare SHA-256 with the server's own (check-file-handle); None where it offers none."""
    if context.server.refuses(Refusal.CHECK_FILE):
        return None
    reply = yield from ask(packets.open_file(path, Flag.READ))
    handle = expect_handle(reply, f"cannot read back {path!r}")
    reply = yield from ask(packets.check_file(handle))
    yield from ask(packets.close(handle))
    algorithm, digest = understood(reply, parsing.parse_check_file) or (b"", b"")
    if algorithm != b"sha256" or len(digest) != 32:
        context.server.learn(Refusal.CHECK_FILE)
        return None
    return digest.hex() == (yield from hash_of(source))


def hash_of(source: Content) -> Work[str]:
    """SHA-256 of the source as hex digits, other jobs going on meanwhile."""
    for digest in source.sha256():
        if digest is not None:
            return digest
        yield TURN
    raise AssertionError("a hash ends with its digest")


class Comparison:
    """Reads a span of an open remote file, many blocks in flight, up to the first difference.

    failure: why it could not be read to its end.
    """

    def __init__(self, context: Context, source: Content, handle: bytes, span: Span) -> None:
        self.failure: SFTPError | None = None
        self._context = context
        self._source = source
        self._handle = handle
        self._end = span.end
        self._next = span.start
        self._again: list[Span] = []
        self._same = True

    def run(self) -> Work[bool]:
        """Whether all of it is what the source holds; no answer is due any more when it ends."""
        outstanding = 0
        while True:
            piece = self._next_piece()
            if piece is None and not outstanding:
                return self._same
            if piece is None:
                answers = yield WAIT
            else:
                outstanding += 1
                answers = yield Send(packets.read(self._handle, piece.start, piece.length), piece)
            outstanding -= len(answers)
            self._take(answers)

    def _next_piece(self) -> Span | None:
        if self.failure is not None or not self._same:
            return None
        if self._again:
            return self._again.pop()
        if self._next >= self._end:
            return None
        piece = Span(self._next, min(self._next + self._context.read_block, self._end))
        self._next = piece.end
        return piece

    def _take(self, answers: Answers) -> None:
        for piece, reply in answers:
            try:
                agreed = agreeing(reply, self._source, piece)
            except SFTPError as error:
                self.failure = self.failure or error
                continue
            if not agreed:
                self._same = False
            elif agreed < piece.length:
                self._again.append(Span(piece.start + agreed, piece.end))


def agreeing(reply: Reply, source: Content, span: Span) -> int:
    """How many bytes from the start of the span a READ has proven: 0 where what came differs from the source.

    Servers may send less than was asked for: the rest is to be asked for again.
    Raises: the refusal, when the server does not let us read.
    """
    if isinstance(reply, Status) and reply.code == Code.EOF:
        return 0
    data = bytes(reply.value if isinstance(reply, Data) else expect_data(reply, "cannot read back"))
    if len(data) > span.length:
        return 0
    return len(data) if data == source.read(Span(span.start, span.start + len(data))) else 0
