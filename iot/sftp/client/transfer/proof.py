"""Proof by content: read remote spans back and compare them with the source."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from iot.sftp.client.errors import PermanentError, SFTPError
from iot.sftp.client.model import Span
from iot.sftp.client.transfer.context import Context
from iot.sftp.client.transfer.source import Source
from iot.sftp.client.wire import packets, parsing
from iot.sftp.client.wire.job import TURN, WAIT, Send, Work, ask, expect_data, expect_handle
from iot.sftp.client.wire.packets import Code, Data, Flag, Reply, Status
from iot.sftp.client.wire.server import Refusal, understood

WHOLE_BYTES = 1024 * 1024


class Content(Protocol):
    """What is compared with the remote file: the source of an upload, the part of a download."""

    def read(self, span: Span) -> bytes: ...

    def sha256(self) -> Iterator[str | None]: ...


def final_stands(context: Context, path: bytes, source: Source) -> Work[bool]:
    """Whether the remote file is this version of the source: whole up to 1 MiB, else by hash, else by its tail."""
    size = source.fingerprint.size
    if size > WHOLE_BYTES:
        answer = yield from same_hash(context, path, source)
        if answer is not None:
            return answer
    tail = Span(max(0, size - max(context.options.tail_size, WHOLE_BYTES)), size)
    try:
        return (yield from same_content(context, path, source, tail))
    except PermanentError:
        return False  # it cannot be read or is gone: not proven


def same_content(context: Context, path: bytes, source: Content, span: Span) -> Work[bool]:
    """Read a span of a remote file back and compare. Raises: the refusal when it cannot be read."""
    reply = yield from ask(packets.open_file(path, Flag.READ))
    handle = expect_handle(reply, f"cannot read back {path!r}")
    try:
        same = yield from _compare(context, handle, source, span)
    except SFTPError:
        yield from ask(packets.close(handle))
        raise
    yield from ask(packets.close(handle))
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


def _compare(context: Context, handle: bytes, source: Content, span: Span) -> Work[bool]:
    """A short answer is no difference: the rest is asked for again from where it stopped."""
    same = True
    outstanding = 0
    at = span.start
    again: list[Span] = []
    while (same and (again or at < span.end)) or outstanding:
        if same and (again or at < span.end):
            piece = again.pop() if again else Span(at, min(at + context.read_block, span.end))
            at = max(at, piece.end)
            answers = yield Send(packets.read(handle, piece.start, piece.length), piece)
            outstanding += 1
        else:
            answers = yield WAIT
        for asked, reply in answers:
            outstanding -= 1
            end = asked.start + _length(reply)
            same = same and asked.start < end <= asked.end and matches(reply, source, Span(asked.start, end))
            if same and end < asked.end:
                again.append(Span(end, asked.end))
    return same


def _length(reply: Reply) -> int:
    """Bytes in a READ's answer; 0 at the end of the file. Raises: the refusal."""
    if isinstance(reply, Status) and reply.code == Code.EOF:
        return 0
    return len(expect_data(reply, "cannot read back"))


def matches(reply: Reply, source: Content, span: Span) -> bool:
    """Whether a READ's answer is what the source has there; less than asked for is a difference.

    Raises: the refusal, when the server does not let us read.
    """
    if isinstance(reply, Status) and reply.code == Code.EOF:
        return False
    data = reply.value if isinstance(reply, Data) else expect_data(reply, "cannot read back")
    return data == source.read(span)
