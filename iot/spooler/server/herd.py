"""How the agents of a fleet stay out of each other's way after what befell all of them: a power cut, a dead server.

Each draws its waits at random. A generator that starts alike on each device, as on cloned images at boot, would send
them all at the same second; so the name of the device is part of each draw.

After an outage of more than LONG_OUTAGE_S the first wait lies anywhere within `retry.herd_window_s`: the one that
begins while the server is still away, the one after the network has come back, and the one after power has.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable

__all__ = ["LONG_OUTAGE_S", "HerdWindow", "Phased"]

LONG_OUTAGE_S = 3600.0
PHASE_BYTES = 6
PHASES = float(256**PHASE_BYTES)
UNKNOWN_SHARE = 0.1
"""Of the window, for a power cut that may have been short: nobody knows the time yet."""


class Phased:
    """Random numbers within [0, 1) that differ between devices even where `random` gives all of them the same ones.

    The n-th number is that of `random`, moved around the circle by a phase hashed from the device's name and n. It is
    as evenly distributed as the better of the two.
    """

    def __init__(self, device_id: str, random: Callable[[], float]) -> None:
        self._device_id = device_id.encode("utf-8", "surrogateescape")
        self._random = random
        self._drawn = 0

    def __call__(self) -> float:
        self._drawn += 1
        digest = hashlib.sha256(b"%d %b" % (self._drawn, self._device_id)).digest()
        phase = int.from_bytes(digest[:PHASE_BYTES], "big") / PHASES
        return (phase + self._random()) % 1.0


class HerdWindow:
    """The spread of the first try after a long outage, which begins with a failure, not with a lack of work.

    window_s: 0 for none. Times are seconds of the monotonic clock.
    """

    def __init__(self, window_s: float, random: Callable[[], float]) -> None:
        self.window_s = window_s
        self._random = random
        self._began_at: float | None = None
        self._is_scattered = self._is_next_set = False

    def answered(self) -> None:
        """The outage is over."""
        self._began_at, self._is_scattered, self._is_next_set = None, False, False

    def failed(self, now: float) -> float | None:
        """A try has failed -> the wait that takes the place of the usual one, once in a long outage; or None.

        All who lost the server together try it in step until they have waited at random for long enough.
        """
        self._is_next_set = False
        if self._began_at is None:
            self._began_at = now
        if self._is_scattered or not self.is_long(now):
            return None
        self._is_scattered = True
        return self._delay_s()

    def is_long(self, now: float) -> bool:
        """Whether an outage goes on that calls for a spread."""
        return bool(self.window_s) and self._began_at is not None and now - self._began_at > LONG_OUTAGE_S

    def network_up(self) -> float | None:
        """The network is there again -> the wait until a try.

        None: its time is set already; a network that comes and goes does not put it off.
        """
        if self._is_next_set:
            return None
        self._is_next_set = True
        return self._delay_s()

    def power_up(self, away_s: float | None) -> float | None:
        """The device was without power for `away_s`, None: for an unknown time -> the wait until a try, or None."""
        if not self.window_s or (away_s is not None and away_s <= LONG_OUTAGE_S):
            return None
        return self._delay_s() * (UNKNOWN_SHARE if away_s is None else 1.0)

    def take_over(self, earlier: HerdWindow) -> None:
        """Go on as one with other settings would have."""
        self._began_at = earlier._began_at
        self._is_scattered, self._is_next_set = earlier._is_scattered, earlier._is_next_set

    def _delay_s(self) -> float:
        return self.window_s * self._random()
