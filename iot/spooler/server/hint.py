"""What a server asks of all devices, in a small file in the login folder that is read after each connect.

    {"retry_after_s": 3600, "max_rate": "1 Mbit/s"}

retry_after_s: end the connection, and come back after so many seconds; up to a third more, different for each device.
max_rate: send no faster than this; it lowers the rate that is configured and never raises it.

The server is asked for little and trusted with little: what is missing, unreadable, too long or out of range is ignored
or cut, with one warning for each content.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from iot.spooler.naming import shown
from iot.transfer import parse_rate

__all__ = ["MOST_BYTES", "RETRY_MAX_S", "Hint", "Hints", "Reader", "hint_from"]

log = logging.getLogger(__name__)

MOST_BYTES = 4096
RETRY_MAX_S = 86400
SPREAD = 1 / 3


class Reader(Protocol):
    """What is asked of a remote."""

    def read_small(self, path: bytes, most_bytes: int, *, tick: Callable[[], None] = lambda: None) -> bytes | None: ...

    def disconnect(self) -> None: ...

    @property
    def connections(self) -> int: ...


@dataclass(frozen=True, slots=True)
class Hint:
    """retry_after_s: 0 for none. max_rate: bytes a second; None for no limit."""

    retry_after_s: float = 0.0
    max_rate: float | None = None


def hint_from(content: bytes) -> tuple[Hint, list[str]]:
    """-> what it asks for, as far as it can be followed; and what is wrong with it."""
    if len(content) > MOST_BYTES:
        return Hint(), [f"longer than {MOST_BYTES} bytes"]
    try:
        values = json.loads(content)
    except (ValueError, RecursionError):
        return Hint(), ["not JSON"]
    if not isinstance(values, dict):
        return Hint(), ["not a JSON object"]
    problems: list[str] = []
    return Hint(
        _retry_after_s(values.get("retry_after_s"), problems), _rate(values.get("max_rate"), problems)
    ), problems


def _retry_after_s(value: object, problems: list[str]) -> float:
    if value is None:
        return 0.0
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not value >= 0:
        problems.append("retry_after_s must be a number of seconds, from 0")
        return 0.0
    if value > RETRY_MAX_S:
        problems.append(f"retry_after_s is cut to {RETRY_MAX_S}")
    return float(min(value, RETRY_MAX_S))


def _rate(value: object, problems: list[str]) -> float | None:
    if value is None:
        return None
    try:
        rate = parse_rate(value) if isinstance(value, (int, float, str)) else math.inf
    except ValueError:
        rate = math.inf
    if math.isfinite(rate):
        return rate
    problems.append('max_rate must be a rate of at least 8 kbit/s, such as "1 Mbit/s"')
    return None


class Hints:
    """The hint of one server, as this device follows it.

    path: of the file, on the server. device_id: decides how much later than others this device comes back.
    lower: is told the rate that the server asks for; None for none.
    """

    def __init__(self, remote: Reader, path: str, device_id: str, lower: Callable[[float | None], None]) -> None:
        self._remote = remote
        self._path = path.encode()
        digest = hashlib.sha256(device_id.encode()).digest()
        self._factor = 1 + SPREAD * int.from_bytes(digest[:4], "big") / 2**32
        self._lower = lower
        self._is_due = True
        self._read_on = 0
        self._told: bytes | None = None

    def connection_lost(self) -> None:
        self._is_due = True

    @property
    def is_due(self) -> bool:
        """Whether it is to be read before anything else is begun: also on a standby connection that has taken over."""
        return self._is_due or self._remote.connections != self._read_on

    def look(self, tick: Callable[[], None]) -> float:
        """Read it once for each connection -> seconds for which the server asks to be left alone; 0 for none.

        tick: see Remote. Raises: what a lost link and a refused login raise.
        """
        if not self.is_due:
            return 0.0
        content = self._remote.read_small(self._path, MOST_BYTES, tick=tick)
        self._is_due, self._read_on = False, self._remote.connections
        hint, problems = (Hint(), []) if content is None else hint_from(content)
        if problems and content != self._told:
            words = "hint of the server not followed as it stands path=%s reason=%s"
            log.warning(words, self._shown_path(), shown("; ".join(problems)))
        self._told = content
        self._lower(hint.max_rate)
        if hint.retry_after_s:
            self._is_due = True
            self._remote.disconnect()
        return hint.retry_after_s * self._factor

    def _shown_path(self) -> str:
        return shown(self._path.decode())
