"""Bytes waiting for the channel: coalesced requests, without copying a payload until its packet is assembled. Pure."""

from __future__ import annotations

from collections import deque

__all__ = ["Outgoing"]


class Outgoing:
    """A byte stream kept in the pieces in which it arrived; its length is in bytes."""

    def __init__(self, *pieces: bytes | memoryview) -> None:
        self._pieces: deque[bytes | memoryview] = deque()
        self._bytes = 0
        self.add(pieces)

    def __len__(self) -> int:
        return self._bytes

    def add(self, pieces: tuple[bytes | memoryview, ...]) -> None:
        self._pieces.extend(pieces)
        self._bytes += sum(map(len, pieces))

    def first(self, most: int) -> bytes:
        """The next bytes, at most `most`; they stay until they are dropped."""
        found: list[bytes | memoryview] = []
        for piece in self._pieces:
            if most <= 0:
                break
            found.append(piece if len(piece) <= most else memoryview(piece)[:most])
            most -= len(piece)
        return b"".join(found)

    def drop(self, count: int) -> None:
        """The first `count` bytes were sent."""
        self._bytes -= count
        while count:
            piece = self._pieces.popleft()
            if len(piece) > count:
                self._pieces.appendleft(memoryview(piece)[count:])
                return
            count -= len(piece)
