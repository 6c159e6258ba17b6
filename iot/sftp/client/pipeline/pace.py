"""How many bytes to keep in flight, and in what pieces. Pure: the clock is the caller's.

In flight = gain x measured rate x least round trip, plus a few blocks: enough to keep the link full, no
more, so that a cut wastes little and an urgent file does not wait behind megabytes. The rate is the
delivery rate of each answer, as BBR measures it: bytes answered since the last answer before its sending, by the time
since then, or answers that were held up and come at once would look like a faster link. The largest of the last
seconds counts; the round trip is the least ever seen on this connection.

At first TCP itself is feeling its way up, and the rate says little about the link. Until it has stopped growing (three
round trips with less than a quarter more, as in BBR's start-up) there is room for half a MiB or, where a round trip
takes long, for a link of 40 Mbit/s, up to one MiB: more would only fill the queues of most links, and be lost there.
"""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

KIB = 1024
FLOOR_BYTES = 64 * KIB
START_BYTES = 512 * KIB
START_MAX_BYTES = 1024 * KIB
START_RATE = 5e6
SMALL_BLOCK = 32 * KIB - 128  # with its request's head it is one SSH packet, not one and a crumb
GAIN = 1.5
GROWTH = 1.25
FLAT_ROUNDS = 3
SPARE_BLOCKS = 2
BLOCK_S = 0.005
RATE_MEMORY_S = 3.0


class Mark(NamedTuple):
    """What was true when a request was sent: bytes answered by then, and when the last of them was."""

    sent_at: float
    delivered: int
    delivered_at: float


class Pace:
    """Measures one connection.

    max_bytes: never keep more in flight. max_block: largest payload of one request that the server takes.
    start_bytes: in flight before anything was measured; what an earlier connection had found, if there was one.
    """

    def __init__(self, max_bytes: int, max_block: int, start_bytes: int = START_BYTES) -> None:
        self.max_bytes = max_bytes
        self._max_block = max_block
        self.delivered = 0  # bytes answered so far
        self.in_flight = 0
        self.round_trip_s: float | None = None
        self.window = min(start_bytes, max_bytes)
        self._start_bytes = start_bytes
        self._grows = True
        self._delivered_at = 0.0
        self._rates: deque[tuple[float, float]] = deque()
        self._round_ends_at = 0.0
        self._grown_to = 0.0
        self._flat_rounds = 0
        self.block = min(SMALL_BLOCK, max_block)

    def allow_blocks(self, max_block: int) -> None:
        """The server takes larger requests than was known."""
        self._max_block = max_block

    @property
    def rate(self) -> float:
        """Bytes per second, the largest of the last seconds; 0 before the first measurement."""
        return self._rates[0][1] if self._rates else 0.0

    def has_room(self, cost: int) -> bool:
        """Whether a request of so many bytes may be sent now."""
        return not self.in_flight or self.in_flight + cost <= self.window

    def sent(self, now: float, cost: int) -> Mark:
        """A request keeps `cost` bytes in flight from now on."""
        if cost and not self.in_flight:
            self._delivered_at = now
        self.in_flight += cost
        return Mark(now, self.delivered, self._delivered_at)

    def answered(self, mark: Mark, cost: int, now: float) -> None:
        """An answer came to a request that kept `cost` bytes in flight."""
        round_trip_s = max(now - mark.sent_at, 1e-6)
        if self.round_trip_s is None or round_trip_s < self.round_trip_s:
            self.round_trip_s = round_trip_s
        if not cost:
            return
        self.in_flight -= cost
        self.delivered += cost
        self._delivered_at = now
        self._remember((self.delivered - mark.delivered) / max(now - mark.delivered_at, 1e-6), now)
        if now >= self._round_ends_at:
            self._round_ends_at = now + self.round_trip_s
            self._watch_growth()
        self._resize()

    def _watch_growth(self) -> None:
        """A round trip is over: what has stopped growing has found the link's rate."""
        if self.rate >= self._grown_to * GROWTH:
            self._grown_to, self._flat_rounds = self.rate, 0
        else:
            self._flat_rounds += 1
        self._grows = self._grows and self._flat_rounds < FLAT_ROUNDS

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
        least = FLOOR_BYTES
        if self._grows:
            least = max(self._start_bytes, int(min(START_RATE * self.round_trip_s, START_MAX_BYTES)))
        wanted = GAIN * self.rate * self.round_trip_s + SPARE_BLOCKS * self.block
        self.window = int(min(max(wanted, least), self.max_bytes))
