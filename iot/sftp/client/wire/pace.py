"""How many bytes to keep in flight, and in what pieces. Pure: the clock is the caller's.

In flight = gain x measured rate x least round trip, plus a few blocks: enough to keep the link full, no
more, so that a cut wastes little and an urgent file does not wait behind megabytes. The rate is the
delivery rate of each answer (bytes answered between its sending and its answer, as BBR measures it),
of which the largest of the last seconds counts; the round trip is the least ever seen on this connection.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

KIB = 1024
FLOOR_BYTES = 64 * KIB
START_BYTES = 1024 * KIB
SMALL_BLOCK = 32 * KIB - 128  # with its request's head it is one SSH packet, not one and a crumb
GAIN = 1.5
SPARE_BLOCKS = 3
BLOCK_S = 0.005
RATE_MEMORY_S = 3.0


@dataclass(frozen=True, slots=True)
class Mark:
    """What was true when a request was sent."""

    sent_at: float
    delivered: int


class Pace:
    """Measures one connection.

    max_bytes: never keep more in flight. max_block: largest payload of one request that the server takes.
    start_bytes: in flight before anything was measured; what an earlier connection had found, if there was one.
    """

    def __init__(self, max_bytes: int, max_block: int, start_bytes: int = START_BYTES) -> None:
        self.max_bytes = max_bytes
        self._max_block = max_block
        self.delivered = 0
        self._rates: deque[tuple[float, float]] = deque()
        # bytes answered so far
        self.round_trip_s: float | None = None
        self.window = min(start_bytes, max_bytes)
        self.block = min(SMALL_BLOCK, max_block)

    def allow_blocks(self, max_block: int) -> None:
        """The server takes larger requests than was known."""
        self._max_block = max_block

    @property
    def rate(self) -> float:
        """Bytes per second, the largest of the last seconds; 0 before the first measurement."""
        return self._rates[0][1] if self._rates else 0.0

    def sent(self, now: float) -> Mark:
        return Mark(now, self.delivered)

    def answered(self, mark: Mark, cost: int, now: float) -> None:
        """An answer came to a request that kept `cost` bytes in flight."""
        elapsed = max(now - mark.sent_at, 1e-6)
        if self.round_trip_s is None or elapsed < self.round_trip_s:
            self.round_trip_s = elapsed
        if not cost:
            return
        self.delivered += cost
        self._remember((self.delivered - mark.delivered) / elapsed, now)
        self._resize()

    def _remember(self, rate: float, now: float) -> None:
        while self._rates and self._rates[-1][1] <= rate:
            self._rates.pop()
        self._rates.append((now, rate))
        while self._rates[0][0] < now - RATE_MEMORY_S:
            self._rates.popleft()

    def _resize(self) -> None:
        assert self.round_trip_s is not None
        self.block = int(min(max(self.rate * BLOCK_S, SMALL_BLOCK), self._max_block))
        self.block = min(self.block, self._max_block)
        wanted = GAIN * self.rate * self.round_trip_s + SPARE_BLOCKS * self.block
        self.window = int(min(max(wanted, FLOOR_BYTES), self.max_bytes))
