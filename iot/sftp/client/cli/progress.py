"""How a transfer is shown: one bar for all files on a terminal, a line now and then elsewhere, or nothing."""

from __future__ import annotations

import shutil
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from iot.sftp.client.cli.output import say
from iot.transfer.model import Progress, ProgressCallback
from iot.transfer.terminal import human_bytes, terminal_safe

__all__ = ["Display", "Meter", "display"]

LINE_EVERY_S = 30.0
REDRAW_EVERY_S = 0.1
RATE_OVER_S = 10.0
BAR_MAX = 24
BAR_MIN = 4
NAME_MAX = 24
HOUR_S = 3600
NOTHING = (0, 0)
"""Bytes done and resumed of a file that was not begun."""


class Meter:
    """How far all files together are. Pure but for the clock.

    total_bytes, files: as planned; a file that turns out larger raises the total.
    """

    def __init__(self, total_bytes: int, files: int, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._total_bytes = total_bytes
        self._files = files
        self._clock = clock
        self._planned: dict[object, int] = {}
        self._at: dict[object, tuple[int, int]] = {}
        self._done_bytes = self.resumed_bytes = 0
        self._finished = 0
        self._samples: deque[tuple[float, int]] = deque([(clock(), 0)])

    def plan(self, key: object, size: int) -> None:
        """What `total_bytes` counts for this file."""
        self._planned[key] = size

    def progressed(self, key: object, progress: Progress) -> None:
        self._set(
            key,
            max(progress.total_bytes, self._planned.get(key, progress.total_bytes)),
            progress.done_bytes,
            progress.resumed_at,
        )
        now = self._clock()
        self._samples.append((now, self._done_bytes - self.resumed_bytes))
        while len(self._samples) > 2 and self._samples[1][0] <= now - RATE_OVER_S:
            self._samples.popleft()

    def finished(self, key: object, size: int) -> None:
        """size: as it was sent; 0 for a file that was not. What was planned for it is corrected."""
        self._set(key, size, size, min(size, self._at.get(key, NOTHING)[1]))
        self._finished += 1

    def _set(self, key: object, total: int, done: int, resumed: int) -> None:
        done_before, resumed_before = self._at.get(key, NOTHING)
        self._total_bytes += total - self._planned.get(key, 0)
        self._done_bytes += done - done_before
        self.resumed_bytes += resumed - resumed_before
        self._planned[key], self._at[key] = total, (done, resumed)

    def line(self, columns: int, name: str = "") -> str:
        """At most so many columns, with a bar where there is room. name: of the only file."""
        parts = self.parts(name)
        text = "  ".join(parts)
        room = min(BAR_MAX, columns - len(text) - len("[]  "))
        if room < BAR_MIN:
            return text[:columns]
        filled = room * self.percent // 100
        return f"{parts[0]}  [{'=' * filled}{' ' * (room - filled)}]  {'  '.join(parts[1:])}"

    @property
    def percent(self) -> int:
        if not self._total_bytes:
            return 100 if self._finished else 0
        return min(100, 100 * self._done_bytes // self._total_bytes)

    def parts(self, name: str = "") -> list[str]:
        """What there is to say, the most important first."""
        label = name[:NAME_MAX] if self._files == 1 else f"{self._finished}/{self._files} files"
        parts = [label, f"{self.percent} %", f"{human_bytes(self._done_bytes)} of {human_bytes(self._total_bytes)}"]
        parts += self._pace(self._done_bytes)
        if self.resumed_bytes:
            parts.append(f"resumed at {human_bytes(self.resumed_bytes)}")
        return parts

    def _pace(self, done: int) -> list[str]:
        """Rate and time left, once there is something to go by; the rate counts this run alone."""
        (since, before), now = self._samples[0], self._clock()
        moved = done - self.resumed_bytes - before
        if now <= since or moved <= 0:
            return []
        rate = moved / (now - since)
        return [f"{human_bytes(rate)}/s", f"{_duration((self._total_bytes - done) / rate)} left"]


class Display:
    """Where standard error goes to no terminal: a line every half minute, so that a long transfer can be seen to live.

    name: of the only file.
    """

    every_s, first_s = LINE_EVERY_S, LINE_EVERY_S

    def __init__(self, meter: Meter, name: str = "", *, clock: Callable[[], float] = time.monotonic) -> None:
        self.meter = meter
        self._name = terminal_safe(name)
        self._clock = clock
        self._next_s = clock() + self.first_s

    def of(self, key: object, size: int) -> ProgressCallback:
        """The progress callback of one file. size: what the total counts for it."""
        self.meter.plan(key, size)

        def progressed(progress: Progress) -> None:
            self.meter.progressed(key, progress)
            if self._clock() >= self._next_s:
                self._next_s = self._clock() + self.every_s
                self._draw()

        return progressed

    def say(self, text: str) -> None:
        """A line of its own."""
        say(text)

    def clear(self) -> None:
        """Make room for something else on the terminal."""

    def close(self) -> None:
        self.clear()

    def _draw(self) -> None:
        print(", ".join(self.meter.parts(self._name)), file=sys.stderr, flush=True)


class Bar(Display):
    """On a terminal: one line that is written over, below the lines of the files that are done."""

    every_s, first_s = REDRAW_EVERY_S, 0.0
    _drawn = False

    def say(self, text: str) -> None:
        self.clear()
        say(text)

    def _draw(self) -> None:
        columns = shutil.get_terminal_size().columns  # 80 where a serial console says 0
        sys.stderr.write(f"\r\x1b[K{self.meter.line(columns - 1, self._name)}")
        sys.stderr.flush()
        self._drawn = True

    def clear(self) -> None:
        if self._drawn:
            sys.stderr.write("\r\x1b[K")
            self._drawn = False


class Quiet(Display):
    """Says nothing."""

    def say(self, text: str) -> None:
        """Nobody wants to know."""

    def _draw(self) -> None:
        """Nobody wants to know."""


@contextmanager
def display(total_bytes: int, files: int, name: str = "", *, quiet: bool = False) -> Iterator[Display]:
    """The display that fits where standard error goes. name: of the only file."""
    kind = Quiet if quiet else Bar if sys.stderr.isatty() else Display
    shown = kind(Meter(total_bytes, files), name)
    try:
        yield shown
    finally:
        shown.close()


def _duration(seconds: float) -> str:
    whole = int(min(seconds, 999 * HOUR_S))
    hours, rest = divmod(whole, HOUR_S)
    return f"{hours}:{rest // 60:02d}:{rest % 60:02d}" if hours else f"{rest // 60}:{rest % 60:02d}"
