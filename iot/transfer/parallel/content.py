"""Compares content on the far side with local content, block by block."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Protocol

from iot.transfer.errors import PermanentError
from iot.transfer.model import Span
from iot.transfer.parallel.work import Desk
from iot.transfer.plan import ResumeAt
from iot.transfer.remote import Store, Token
from iot.transfer.source import Source

__all__ = ["HASH_FROM_BYTES", "Content", "agreed_offset", "agreeing_bytes", "hash_of", "same_file"]

log = logging.getLogger(__name__)

HASH_FROM_BYTES = 1024 * 1024
"""A smaller file is read back: that takes no longer than a hash."""


class Content(Protocol):
    """Local content: the source of an upload, the part of a download."""

    def read(self, span: Span) -> bytes: ...

    def sha256(self) -> Iterator[str | None]: ...


def agreeing_bytes(desk: Desk, theirs: Iterator[bytes], ours: Content, span: Span) -> int:
    """Length of the common prefix of the span, in whole blocks.

    theirs: the far side's bytes from span.start on; anything after the span is ignored.
    """
    at = span.start
    try:
        for block in theirs:
            desk.check()
            desk.pay(len(block))
            data = block[: span.end - at]
            if not data or data != ours.read(Span(at, at + len(data))):
                break
            at += len(data)
            if at == span.end:
                break
    finally:
        close = getattr(theirs, "close", None)
        if close is not None:
            close()
    return at - span.start


def agreed_offset(desk: Desk, store: Store, token: Token, source: Source, step: ResumeAt) -> int:
    """Read back what is suspect -> where the upload goes on, in whole blocks."""
    for span in ([step.tail] if step.tail else []) + [*step.suspect]:
        agreed = agreeing_bytes(desk, store.read_part(token, span), source, span)
        if agreed < span.length:
            log.info("part differs path=%s at=%d", source.name, span.start + agreed)
            return 0 if span is step.tail else span.start + agreed
    return step.offset


def hash_of(desk: Desk, content: Content) -> str:
    """SHA-256 of the whole content, as hex digits."""
    for digest in content.sha256():
        if digest is not None:
            return digest
        desk.check()
    raise AssertionError("a hash ends with its digest")


def same_file(desk: Desk, store: Store, path: bytes, ours: Content, size: int) -> bool:
    """Whether a published file has the same content as the `size` bytes of ours. False, that is, not proven, if it can
    be neither hashed nor read."""
    try:
        if size > HASH_FROM_BYTES and "sha256" in store.capabilities.hashes:
            digest = store.digest(path, "sha256")
            if digest is not None:
                return digest == hash_of(desk, ours)
        found = store.stat(path)
        if found is None or found.size not in (None, size):
            return False
        return agreeing_bytes(desk, store.read(path, 0), ours, Span(0, size)) == size
    except PermanentError:
        return False
