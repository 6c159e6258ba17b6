"""How fast a remote may send and fetch, and how much its wire has carried.

The limit counts what the wire carries: payload, what the protocol and TLS or SSH add, the headers of packets, and what
TCP sends twice. What can be foreseen is charged before it is sent; the rest as soon as the system tells of it.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    from pydantic_core import core_schema

__all__ = ["FULL_PACKETS", "Meter", "Metered", "Rate", "RateLimit", "Wire", "parse_rate"]

FULL_PACKETS = 1500 / 1448
"""What a byte of a long stream weighs on the wire: IPv4 and TCP take 52 of 1500 bytes."""
BURST_S = 0.1
"""What was not used of so many seconds may be made up for."""
LEAST_RATE = 1000.0
LEAST_BLOCK = 1024
BLOCK_S = 0.25
"""A block takes no longer than this at the limit, so that an urgent file need not wait for it."""
UNITS = {"bit/s": 1 / 8, "b/s": 1.0, "byte/s": 1.0}
PREFIXES = {"": 1, "k": 1e3, "m": 1e6, "g": 1e9, "ki": 1024, "mi": 1024**2, "gi": 1024**3}
RATE = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*(?:([kmg]i?)?(bit/s|byte/s|b/s))?", re.IGNORECASE)


def parse_rate(value: object) -> float:
    """Bytes a second, from a number or a text such as "2 Mbit/s" or "250 kB/s". Raises: ValueError."""
    found = RATE.fullmatch(str(value).strip()) if not isinstance(value, bool) else None
    if found is None:
        raise ValueError('must be bytes a second, or a text such as "2 Mbit/s" or "250 kB/s"')
    number, prefix, unit = found.groups()
    rate = float(number) * PREFIXES[(prefix or "").lower()] * (UNITS[unit.lower()] if unit else 1.0)
    if rate < LEAST_RATE:
        raise ValueError('must be at least 1000 bytes a second ("8 kbit/s"); without a limit leave it out')
    return rate


class Rate(float):
    """Bytes a second, as a setting: see parse_rate."""

    __slots__ = ()

    @classmethod
    def __get_pydantic_core_schema__(cls, *_: object) -> core_schema.CoreSchema:
        from pydantic_core import core_schema

        return core_schema.no_info_plain_validator_function(lambda value: cls(parse_rate(value)))


class RateLimit:
    """A token bucket; thread-safe. Whoever wants to send waits until nothing is owed, and may then owe a little.

    rate: bytes of the wire a second; None: unlimited. clock: seconds, monotonic.
    """

    def __init__(self, rate: float | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self._rate = rate
        self._clock = clock
        self._level = 0.0
        self._filled_at = clock()
        self._turn = threading.Lock()

    @property
    def rate(self) -> float | None:
        return self._rate

    def change(self, rate: float | None) -> None:
        """What is owed is paid at the new rate."""
        with self._turn:
            self._fill()
            self._rate = rate

    def wait_s(self) -> float:
        """Seconds until more may be sent; 0: now."""
        if self._rate is None:
            return 0.0
        with self._turn:
            self._fill()
            return max(-self._level / self._rate, 0.0) if self._rate else 0.0

    def spend(self, count: float) -> None:
        """So many bytes go over the wire."""
        if self._rate is None:
            return
        with self._turn:
            self._fill()
            self._level -= count

    def block(self, most: int) -> int:
        """The size of a block that suits the limit."""
        return most if self._rate is None else min(most, max(int(self._rate * BLOCK_S), LEAST_BLOCK))

    def _fill(self) -> None:
        now = self._clock()
        rate = self._rate
        if rate is None:
            self._level = 0.0
        else:
            self._level = min(self._level + (now - self._filled_at) * rate, rate * BURST_S)
        self._filled_at = now


class Wire(NamedTuple):
    """Bytes that the wire has carried, headers and retransmissions included."""

    sent: int = 0
    received: int = 0

    def plus(self, other: Wire) -> Wire:
        return Wire(self.sent + other.sent, self.received + other.received)


class Metered(Protocol):
    """What every remote does about its wire; from any thread."""

    def limit_rate(self, bytes_per_s: float | None) -> None:
        """From now on the wire carries at most so much, whatever is under way; None: no limit."""

    @property
    def wire(self) -> Wire:
        """What the wire has carried for this remote so far, as far as the system tells."""

    @property
    def connections(self) -> int:
        """How many connections were used so far, one after the other; 0 where several are used at once."""


class Carrier(Protocol):
    """A connection. over: it is closed, and `wire` no longer changes."""

    @property
    def wire(self) -> Wire: ...

    @property
    def over(self) -> bool: ...


class Meter:
    """All connections of a remote together; thread-safe."""

    def __init__(self) -> None:
        self._carriers: list[Carrier] = []
        self._past = Wire()
        self._turn = threading.Lock()

    def follow(self, carrier: Carrier) -> None:
        with self._turn:
            self._carriers.append(carrier)

    def add(self, wire: Wire) -> None:
        """What a connection that does not tell by itself has carried."""
        with self._turn:
            self._past = self._past.plus(wire)

    @property
    def wire(self) -> Wire:
        """Never decreases."""
        with self._turn:
            total, going = self._past, []
            for carrier in self._carriers:
                over = carrier.over  # before its last figure is taken
                total = total.plus(carrier.wire)
                if over:
                    self._past = self._past.plus(carrier.wire)
                else:
                    going.append(carrier)
            self._carriers = going
            return total
