"""Comparing what stands on the far side with what is here, block by block."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from iot.transfer.errors import PermanentError
from iot.transfer.model import Span
from iot.transfer.parallel.work import Desk
from iot.transfer.remote import Store

__all__ = ["HASH_FROM_BYTES", "Content", "agreeing_bytes", "hash_of", "same_file"]

HASH_FROM_BYTES = 1024 * 1024
"""What is smaller is read back: it takes no longer than a hash."""


class Content(Protocol):
    """What is here: the source of an upload, the part of a download."""

    def read(self, span: Span) -> bytes: ...

    def sha256(self) -> Iterator[str | None]: ...


def agreeing_bytes(desk: Desk, theirs: Iterator[bytes], ours: Content, span: Span) -> int:
    """How many bytes from the start of the span are the same, in whole blocks: up to the first that differs.

    theirs: the far side's bytes from span.start on; what lies behind the span is not looked at.
    """
    at = span.start
    try:
        for block in theirs:
            desk.check()
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


def hash_of(desk: Desk, content: Content) -> str:
    """SHA-256 of all of it, as hex digits."""
    for digest in content.sha256():
        if digest is not None:
            return digest
        desk.check()
    raise AssertionError("a hash ends with its digest")


def same_file(desk: Desk, store: Store, path: bytes, ours: Content, size: int) -> bool:
    """Whether a published file is `size` bytes of ours, by its whole content; False where it can be neither hashed nor
    read: not proven."""
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
