"""When the server has last confirmed something: so that a device knows after a power cut for how long it was away.

A power cut often takes a whole street or plant, whose devices then start in the same second. An agent that was stopped
in an orderly way, or that starts again within one boot, has not come through one and does not wait.

Most devices have no right time yet when the agent starts. A clock that is not synchronised but shows a later time than
the record has gone on in between at least for that long, or a battery has kept it; if it shows less, nothing is known.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from iot.spooler.naming import shown
from iot.spooler.server.availability import Availability, ServerState
from iot.spooler.server.herd import LONG_OUTAGE_S
from iot.spooler.state.elapsed import Moment, observe

__all__ = ["FILE", "LastContact", "PowerCut"]

log = logging.getLogger(__name__)

FILE = "contact.json"
EVERY_S = 900.0
"""Between two records while files are being sent; at rest nothing is written."""


class PowerCut(NamedTuple):
    """away_s: seconds since the last contact; None: nobody knows, it may have been short."""

    away_s: float | None


class LastContact:
    """The record of one state directory. look: reads the clocks."""

    def __init__(self, state_dir: Path, look: Callable[[], Moment] = observe) -> None:
        self._path = state_dir / FILE
        self._look = look
        self._last: Moment | None = None
        self._confirmed = -1
        self._next_at = float("-inf")
        self._can_write = True

    def begin(self) -> PowerCut | None:
        """The agent starts -> the power cut that it comes out of, if it does."""
        try:
            found = json.loads(self._path.read_bytes())
            last, is_ended = _moment(found["moment"]), bool(found["is_ended"])
        except (OSError, ValueError, TypeError, KeyError):
            return None  # there was no contact yet; a broken record is written anew at the next one
        self._last = last
        now = self._look()
        if is_ended:
            self._write(is_ended=False)
            return None
        if not now.boot or now.boot == last.boot:
            return None
        return PowerCut(_away_s(last, now))

    def take_turn(self, server: Availability, now: float) -> None:
        """The agent starts: after a power cut its first try waits, since other devices may start in the same second."""
        cut = self.begin()
        if cut is not None and server.power_up(now, cut.away_s):
            away = "unknown" if cut.away_s is None else f"{cut.away_s:.0f}"
            next_s = server.ready_at - now
            log.info("after a power cut this device waits for its turn away_s=%s next_s=%.0f", away, next_s)

    def follow(self, state: ServerState, confirmed: int, now: float) -> None:
        """Record a contact. confirmed: a number that grows with what the server has confirmed; now: monotonic."""
        if state is ServerState.CONNECTED and confirmed != self._confirmed and now >= self._next_at:
            self._confirmed, self._next_at = confirmed, now + EVERY_S
            self._last = self._look()
            self._write(is_ended=False)

    def end(self) -> None:
        """The agent is being stopped in an orderly way."""
        if self._last is not None:
            self._write(is_ended=True)

    def _write(self, *, is_ended: bool) -> None:
        if not self._can_write:
            return
        fresh = self._path.with_suffix(".new")
        try:
            fresh.write_text(json.dumps({"moment": self._last, "is_ended": is_ended}), encoding="ascii")
            fresh.rename(self._path)
        except OSError as error:
            self._can_write = False  # said once
            log.warning("cannot record the last contact error=%s", shown(str(error)))


def _moment(values: list[object]) -> Moment:
    """Raises: ValueError, TypeError."""
    boot, since_boot_s, wall_s, synchronised = values
    if not isinstance(boot, str) or not isinstance(synchronised, bool):
        raise TypeError("not a reading of the clocks")
    return Moment(boot, float(since_boot_s), float(wall_s), synchronised)  # type: ignore[arg-type]


def _away_s(last: Moment, now: Moment) -> float | None:
    if not last.synchronised:
        return None
    away_s = now.wall_s - last.wall_s
    return max(away_s, 0.0) if now.synchronised or away_s > LONG_OUTAGE_S else None
