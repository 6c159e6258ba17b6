"""The demo's output: a progress line that is redrawn on a terminal, or one line a second; and a table at the end."""

from __future__ import annotations

import sys
import textwrap
import time
from collections.abc import Sequence

__all__ = ["ProgressLine", "percent", "print_table"]

MIB = 1024 * 1024
DRAW_EVERY_S = 0.2
LINE_EVERY_S = 1.0
WIDTH = 80
BAR_WIDTH = 30
WRONG_SHOWN = 20
CLEAR_LINE = "\r\x1b[K"


class ProgressLine:
    """The progress line; events are printed above it."""

    def __init__(self) -> None:
        self._live = sys.stdout.isatty()
        self._began_s = time.monotonic()
        self._next_s = 0.0

    def due(self) -> bool:
        """Whether it is time to redraw."""
        return time.monotonic() >= self._next_s

    def show(self, files: int, files_total: int, count: int, total: int, *, last: bool = False) -> None:
        """Draw the numbers of published files and of bytes on the server, each with its total."""
        now_s = time.monotonic()
        self._next_s = now_s + (DRAW_EVERY_S if self._live else LINE_EVERY_S)
        filled = BAR_WIDTH * count // max(1, total)
        line = (
            f"[{'#' * filled}{'.' * (BAR_WIDTH - filled)}] {count / MIB:5.1f} of {total / MIB:.1f} MiB,"
            f" {files:3d} of {files_total} files, {now_s - self._began_s:4.1f} s"
        )
        print(f"{CLEAR_LINE}{line}" if self._live else line, end="\n" if last or not self._live else "", flush=True)

    def event(self, text: str) -> None:
        """Print an event on its own line."""
        print(f"{CLEAR_LINE if self._live else ''}  * {text}", flush=True)
        self._next_s = 0.0


def print_table(rows: Sequence[tuple[str, str]], wrong: Sequence[str]) -> None:
    """Names and values in two columns, within WIDTH, then the errors."""
    indent = max(len(name) for name, _ in rows) + 4
    print()
    for name, value in rows:
        first, *more = textwrap.wrap(value, WIDTH - indent)
        print(f"{f'  {name}':<{indent}}{first}")
        for line in more:
            print(f"{'':<{indent}}{line}")
    for line in wrong[:WRONG_SHOWN]:
        print(f"  WRONG {line}")


def percent(part: int, whole: int) -> str:
    return f"{100 * part / whole:.2f} %"
