"""How a transfer is shown: a bar on a terminal, a line now and then elsewhere, or nothing."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from iot.transfer.model import Progress, ProgressCallback
from iot.transfer.terminal import human_bytes, terminal_safe

__all__ = ["LineDisplay", "PercentDisplay", "progress_display"]

LINE_EVERY_S = 30.0
REDRAW_EVERY_S = 0.1


class LineDisplay:
    """For logs: one line every half minute, so that a long transfer can be seen to live."""

    def __init__(self, name: str, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._name = terminal_safe(name)
        self._clock = clock
        self._next_s = clock() + LINE_EVERY_S

    def __call__(self, progress: Progress) -> None:
        now_s = self._clock()
        if now_s >= self._next_s:
            self._next_s = now_s + LINE_EVERY_S
            print(f"{self._name}: {_share(progress)}", file=sys.stderr, flush=True)

    def close(self) -> None:
        """Nothing is left open."""


class PercentDisplay:
    """For a terminal without tqdm: one line that is written over."""

    def __init__(self, name: str, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._name = terminal_safe(name)
        self._clock = clock
        self._next_s = 0.0
        self._drawn = False

    def __call__(self, progress: Progress) -> None:
        now_s = self._clock()
        if now_s < self._next_s and progress.done_bytes < progress.total_bytes:
            return
        self._next_s = now_s + REDRAW_EVERY_S
        self._drawn = True
        sys.stderr.write(f"\r\x1b[K{self._name}: {_share(progress)}")
        sys.stderr.flush()

    def close(self) -> None:
        """Leave the last state standing and start a new line."""
        if self._drawn:
            sys.stderr.write("\n")


class BarDisplay:
    """For a terminal with tqdm (the extra `cli`): bar, rate, time left."""

    def __init__(self, name: str, tqdm: Any) -> None:
        self._name = terminal_safe(name)
        self._tqdm = tqdm
        self._bar: Any = None

    def __call__(self, progress: Progress) -> None:
        if self._bar is None:
            size = shutil.get_terminal_size()  # 80 x 24 where a serial console says 0 x 0, for which tqdm draws nothing
            self._bar = self._tqdm(
                total=progress.total_bytes,
                initial=progress.resumed_at,  # the rate counts this run alone
                desc=self._name,
                unit="B",
                unit_scale=True,
                unit_divisor=1024,
                file=sys.stderr,
                ncols=size.columns,
                nrows=size.lines,
            )
        self._bar.update(progress.done_bytes - self._bar.n)

    def close(self) -> None:
        """Leave the bar standing."""
        if self._bar is not None:
            self._bar.close()


@contextmanager
def progress_display(name: str, *, quiet: bool = False) -> Iterator[ProgressCallback | None]:
    """The progress callback that fits where standard error goes."""
    display = None if quiet else _display(name)
    try:
        yield display
    finally:
        if display is not None:
            display.close()


def _display(name: str) -> BarDisplay | PercentDisplay | LineDisplay:
    if not sys.stderr.isatty():
        return LineDisplay(name)
    try:
        from tqdm import tqdm
    except ImportError:
        return PercentDisplay(name)
    return BarDisplay(name, tqdm)


def _share(progress: Progress) -> str:
    percent = 100 * progress.done_bytes // progress.total_bytes if progress.total_bytes else 100
    return f"{percent} %, {human_bytes(progress.done_bytes)} of {human_bytes(progress.total_bytes)}"
