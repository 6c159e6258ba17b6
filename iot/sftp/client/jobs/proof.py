"""Proof by content: hash remote files on the server, or read them back, and compare with the source."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from iot.sftp.client.jobs.context import Context
from iot.sftp.client.jobs.opening import open_to_read
from iot.sftp.client.pipeline.job import TURN, WAIT, Answers, Send, Work, ask, expect_data
from iot.sftp.client.protocol import packets, parsing
from iot.sftp.client.protocol.packets import Code, Data, Reply, Status
from iot.sftp.client.protocol.server import Refusal, understood
from iot.transfer.errors import PermanentError, SFTPError
from iot.transfer.model import Span
from iot.transfer.source import Beginning, Source
from iot.transfer.terminal import quoted

HASH_FROM_BYTES = 1024 * 1024
"""A smaller file is read back: that takes no longer than a hash."""


class Hashed(Protocol):
    """Content whose SHA-256 can be computed in steps; see Source.sha256."""

    def sha256(self) -> Iterator[str | None]: ...


class Content(Hashed, Protocol):
    """What the remote file is compared with: the source of an upload, the part of a download."""

    def read(self, span: Span) -> bytes: ...


def final_stands(context: Context, path: bytes, source: Source) -> Work[bool]:
    """Whether the remote file has the whole content of this version of the source.

    False, that is, not proven and to be sent again, if the server allows neither hashing nor reading.
    """
    try:
        return (yield from same_file(context, path, source))
    except PermanentError:
        return False


def same_file(context: Context, path: bytes, source: Source) -> Work[bool]:
    """Compare the whole content: by the server's hash if it has one, otherwise by reading it back.

    Raises: the server's refusal (PermissionDenied, NotFound, ServerRefused) if it can be neither hashed nor read.
    """
    if source.fingerprint.size > HASH_FROM_BYTES:
        answer = yield from same_hash(context, path, source)
        if answer is not None:
            return answer
    return (yield from same_content(context, path, source, Span(0, source.fingerprint.size)))


def begins_alike(context: Context, path: bytes, source: Source, size: int) -> Work[bool]:
    """Whether the first `size` bytes of a remote file are those of the source: by the server's hash if it has one,
    otherwise by reading them back. Raises: see same_file."""
    if size > HASH_FROM_BYTES:
        answer = yield from same_hash(context, path, Beginning(source, size), length=size)
        if answer is not None:
            return answer
    return (yield from same_content(context, path, source, Span(0, size)))


def same_content(context: Context, path: bytes, source: Content, span: Span) -> Work[bool]:
    """Read a span of a remote file back and compare. Raises: PermissionDenied, NotFound, ServerRefused; ServerBusy."""
    handle = yield from open_to_read(context, path, f"cannot read back {quoted(path)}")
    return (yield from same_when_read(context, handle, source, span))


def same_when_read(context: Context, handle: bytes, source: Content, span: Span) -> Work[bool]:
    """Compare a span of a remote file that `opening` has opened, and close it. Raises: like same_content."""
    comparison = Comparison(context, source, handle, span)
    try:
        same = yield from comparison.run()
        yield from ask(packets.close(handle))
    finally:
        context.handles.discard(handle)
    if comparison.failure is not None:
        raise comparison.failure
    return same


def same_hash(context: Context, path: bytes, source: Hashed, *, length: int = 0) -> Work[bool | None]:
    """Compare the SHA-256 with the server's (check-file-handle); None if it offers none. length: of the remote file's
    beginning; 0: all of it."""
    if context.server.refuses(Refusal.CHECK_FILE):
        return None
    handle = yield from open_to_read(context, path, f"cannot read back {quoted(path)}")
    try:
        reply = yield from ask(packets.check_file(handle, length=length))
        yield from ask(packets.close(handle))
    finally:
        context.handles.discard(handle)
    algorithm, digest = understood(reply, parsing.parse_check_file) or (b"", b"")
    if algorithm != b"sha256" or len(digest) != 32:
        context.server.learn(Refusal.CHECK_FILE)
        return None
    return digest.hex() == (yield from hash_of(source))


def hash_of(source: Hashed) -> Work[str]:
    """SHA-256 of the source as hex digits; other jobs run in between."""
    for digest in source.sha256():
        if digest is not None:
            return digest
        yield TURN
    raise AssertionError("a hash ends with its digest")


class Comparison:
    """Reads a span of an open remote file, with many blocks in flight, up to the first difference.

    failure: why it could not be read completely.
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
        """Whether all of it matches the source; when this ends, no answer is outstanding."""
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
    """How many bytes from the start of the span a READ has verified; 0 if the data differs from the source.

    Servers may send less than requested; the rest must be requested again.
    Raises: PermissionDenied or ServerRefused if the server does not allow reading.
    """
    if isinstance(reply, Status) and reply.code == Code.EOF:
        return 0
    data = bytes(reply.value if isinstance(reply, Data) else expect_data(reply, "cannot read back"))
    if len(data) > span.length:
        return 0
    return len(data) if data == source.read(Span(span.start, span.start + len(data))) else 0
