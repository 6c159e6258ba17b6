"""How many bytes to keep in flight, and in what block size. Pure: the caller supplies the clock.

In flight = gain x measured rate x minimum round trip, plus a few blocks: enough to fill the link, but no more, so that
little is wasted when it breaks and an urgent file does not wait behind megabytes. Where the server accepts no block as
large as the rate calls for, its time counts: a link without delay would run dry whenever this side pauses for a moment.

The rate is the delivery rate of each answer, as BBR measures it: bytes answered since the last answer before it was
sent, divided by the time since then. Otherwise, answers that were held up and then arrive at once would look like a
faster link. The maximum of the last few seconds counts; the round trip is the minimum of this connection.

At the start TCP itself is still probing, and the rate says little about the link. Until the rate stops growing (three
round trips with less than a quarter more, as in BBR's start-up), eight times what was measured may be in flight: TCP
doubles its own window each round trip, and what was measured lags behind, most of all where packets are lost. At least
FIRST_BYTES, and up to half a MiB or, if the round trip is long, enough for a link of 40 Mbit/s, up to one MiB: more
would only fill the queues of most links and be dropped there.

While an urgent file is under way, less urgent ones are courteous (see sharing): they keep the link full, no more.
"""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

from iot.transfer.rate import FULL_PACKETS, RateLimit

KIB = 1024
FLOOR_BYTES = 64 * KIB
FIRST_BYTES = 128 * KIB
START_BYTES = 512 * KIB
START_GAIN = 8.0
START_MAX_BYTES = 1024 * KIB
START_RATE = 5e6
SMALL_BLOCK = 32 * KIB - 128  # so that a request fits exactly into one SSH packet
GAIN = 1.5
GROWTH = 1.25
FLAT_ROUNDS = 3
SPARE_BLOCKS = 2
BLOCK_S = 0.005
RATE_MEMORY_S = 3.0


class Mark(NamedTuple):
    """The state when a request was sent: bytes answered by then, and when the last answer came."""

    sent_at: float
    delivered: int
    delivered_at: float


class Pace:
    """Measures one connection.

    max_bytes: upper limit of bytes in flight. max_block: largest payload per request that the server accepts.
    start_bytes: limit before anything was measured: what an earlier connection had found, if there was one.
    limit: the rate that must not be exceeded, together with the remote's other connections.
    """

    def __init__(
        self, max_bytes: int, max_block: int, start_bytes: int | None = None, limit: RateLimit | None = None
    ) -> None:
        self.max_bytes = max_bytes
        self._max_block = max_block
        self.limit = limit or RateLimit()
        self._charged = 0.0
        self.delivered = 0  # bytes answered so far
        self.in_flight = 0
        self.round_trip_s: float | None = None
        self.window = min(start_bytes or FIRST_BYTES, max_bytes)
        self._start_bytes = start_bytes or START_BYTES
        self._grows = True
        self._delivered_at = 0.0
        self._rates: deque[tuple[float, float]] = deque()
        self._round_ends_at = 0.0
        self._grown_to = 0.0
        self._flat_rounds = 0
        self.block = self.limit.block(min(SMALL_BLOCK, max_block))

    def allow_blocks(self, max_block: int) -> None:
        """The server accepts larger requests than assumed so far."""
        self._max_block = max_block

    @property
    def rate(self) -> float:
        """Bytes per second, the maximum of the last few seconds; 0 before the first measurement."""
        return self._rates[0][1] if self._rates else 0.0

    def has_room(self, cost: int, *, courteous: bool = False) -> bool:
        """Whether a request with a payload of `cost` bytes may be sent now. courteous: only if no queue builds up."""
        if courteous and self.in_flight + cost > self.rate * (self.round_trip_s or 0.0):
            return False
        return (not self.in_flight or self.in_flight + cost <= self.window) and not self.limit.wait_s()

    def limited_s(self, cost: int) -> float:
        """Seconds until the limit allows it, if that is all it waits for; 0 otherwise."""
        return self.limit.wait_s() if not self.in_flight or self.in_flight + cost <= self.window else 0.0

    def sent(self, now: float, cost: int, *, asks: bool = False) -> Mark:
        """A request with a payload of `cost` bytes is in flight from now on. asks: the other side sends the payload."""
        if cost and not self.in_flight:
            self._delivered_at = now
        self.in_flight += cost
        if cost:
            self.limit.spend(cost * FULL_PACKETS)
            self._charged += 0.0 if asks else cost * FULL_PACKETS
        return Mark(now, self.delivered, self._delivered_at)

    def carried(self, wire_bytes: int) -> None:
        """So much has been sent over the wire so far: what was not foreseen (the protocol's own bytes, small requests,
        retransmissions) is charged to the limit, too."""
        unforeseen = wire_bytes - self._charged
        if unforeseen > 0:
            self.limit.spend(unforeseen)
            self._charged += unforeseen

    def answered(self, mark: Mark, cost: int, now: float) -> None:
        """A request with a payload of `cost` bytes was answered."""
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
        """Called after each round trip: a rate that stops growing is the link's rate."""
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
        self.block = self.limit.block(min(self.block, self._max_block))
        least = FLOOR_BYTES
        if self._grows:
            most = max(self._start_bytes, int(min(START_RATE * self.round_trip_s, START_MAX_BYTES)))
            least = min(most, max(FIRST_BYTES, int(START_GAIN * self.rate * self.round_trip_s)))
        wanted = GAIN * self.rate * self.round_trip_s + SPARE_BLOCKS * max(self.block, self.rate * BLOCK_S)
        self.window = int(min(max(wanted, least), self.max_bytes))
