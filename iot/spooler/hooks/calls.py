"""Calls of hooks: a bounded number at a time, the others in line, by urgency."""

from __future__ import annotations

import heapq
import logging
import os
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from iot.spooler.commands import Command, Ended
from iot.spooler.naming import shown
from iot.transfer import brief, terminal_safe

__all__ = ["Call", "Calls", "fault", "local_path", "variables"]

log = logging.getLogger(__name__)

FIRST_LOOK_S = 0.01
LAST_LOOK_S = 0.25
LOOK_SHARE = 8.0
"""A call that has run for a while is looked at less often: after an eighth of that time."""
SAID_MAX = 200
ERROR_MAX = 1000


class Call(NamedTuple):
    """key: the caller's own. hook: its name in the configuration. about: the variables that tell what it is about.
    path: for the log."""

    key: int
    hook: str
    words: Sequence[str]
    about: Mapping[str, str]
    path: bytes
    priority: int = 0


class _Running(NamedTuple):
    call: Call
    command: Command
    since: float


class Calls:
    """at_once: calls that run at a time. limit_s: seconds until one is killed. environment: what each of them gets."""

    def __init__(
        self, at_once: int, limit_s: float, environment: Mapping[str, str], clock: Callable[[], float]
    ) -> None:
        self._at_once = at_once
        self._limit_s = limit_s
        self._environment = environment
        self._now = clock
        self._line: list[tuple[int, int, Call]] = []
        self._count = 0
        self._running: list[_Running] = []

    def __len__(self) -> int:
        """How many run or wait in line."""
        return len(self._line) + len(self._running)

    def ask(self, call: Call) -> None:
        """Have it run. The most urgent one is next, and of equal ones that which was asked for first."""
        self._count += 1
        heapq.heappush(self._line, (call.priority, self._count, call))

    def look(self) -> list[tuple[Call, Ended | OSError]]:
        """Those that have ended since the last look, or could not be run; then the next ones are started."""
        over = self.ended()
        while self._line and len(self._running) < self._at_once:
            call = heapq.heappop(self._line)[2]
            error = self._start(call)
            if error is not None:
                over.append((call, error))
        return over

    def ended(self) -> list[tuple[Call, Ended | OSError]]:
        """Those that have ended since the last look; no others are started."""
        over: list[tuple[Call, Ended | OSError]] = []
        still = []
        for each in self._running:
            ended = each.command.poll(self._now())
            if ended is None:
                still.append(each)
            else:
                over.append((each.call, ended))
                _tell(each.call, ended, self._now() - each.since)
        self._running = still
        return over

    def look_in_s(self) -> float:
        """Seconds until it is worth while to look again."""
        if not self._running:
            return 0.0 if self._line else float("inf")
        newest = min(self._now() - each.since for each in self._running)
        return min(max(newest / LOOK_SHARE, FIRST_LOOK_S), LAST_LOOK_S)

    def is_running(self) -> bool:
        return bool(self._running)

    def close(self) -> None:
        """Kill what runs; what waits in line never runs."""
        for each in self._running:
            log.warning("hook killed at the stop hook=%s path=%s", each.call.hook, shown(each.call.path))
            each.command.kill()
        self._running.clear()
        self._line.clear()

    def _start(self, call: Call) -> OSError | None:
        now = self._now()
        given = {**self._environment, **call.about}
        try:
            command = Command(call.words, given, now + self._limit_s, heard=True)
        except OSError as error:
            log.warning("hook cannot be run hook=%s path=%s reason=%s", call.hook, shown(call.path), _reason(error))
            return error
        self._running.append(_Running(call, command, now))
        return None


def fault(call: Call, ended: Ended | OSError, limit_s: float) -> str | None:
    """What is wrong with how a call ended, in words; None if it succeeded."""
    if isinstance(ended, OSError):
        return f"hook {call.hook}: cannot be run: {_reason(ended)}"
    if ended.code == 0:
        return None
    if ended.code is None:
        how = f"did not end in {limit_s:g} s"
    else:
        how = f"exit code {ended.code}" if ended.code > 0 else f"signal {-ended.code}"
    said = terminal_safe(brief(ended.said, SAID_MAX))
    return f"hook {call.hook}: {how}" + (f": {said}" if said else "")


def local_path(folder: bytes, path: bytes) -> str:
    """That of a file in this folder; of the folder itself, where the path is empty."""
    return os.fsdecode(os.path.join(folder, path) if path else folder)


def variables(
    path: str,
    remote_path: str,
    size: int,
    *,
    result: str = "",
    error: str = "",
    sha256: str | None = None,
    files: int | None = None,
) -> dict[str, str]:
    """What a hook is told. path: absolute, so no name is ever taken for an option. files: those of a batch. Texts
    without NUL."""
    return {
        **({} if files is None else {"IOT_FILES": str(files)}),
        "IOT_PATH": path,
        "IOT_REMOTE_PATH": remote_path,
        "IOT_RESULT": result,
        "IOT_ERROR": brief(error, ERROR_MAX).replace("\0", ""),
        "IOT_BYTES": str(size),
        "IOT_SHA256": sha256 or "",
    }


def _tell(call: Call, ended: Ended, seconds: float) -> None:
    """Its last line is told at level debug if it succeeded."""
    well = ended.code == 0
    log.log(
        logging.DEBUG if well else logging.WARNING,
        "hook ended hook=%s path=%s exit=%s s=%.1f said=%s",
        call.hook,
        shown(call.path),
        "killed" if ended.code is None else ended.code,
        seconds,
        shown(brief(ended.said, SAID_MAX)),
    )


def _reason(error: OSError) -> str:
    return error.strerror or os.strerror(error.errno or 0)
