"""The hook `before_publish`: it judges a file that is complete and has no name yet."""

from __future__ import annotations

import enum
import os
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from iot.spooler.commands import Ended
from iot.spooler.hooks.calls import Call, Calls, fault, variables
from iot.spooler.inbox.records import Record

__all__ = ["Judge", "Verdict"]

AT_ONCE = 1
HOOK = "before_publish"
NOT_YET = 75
"""The exit code EX_TEMPFAIL of sysexits.h: try again later."""


class Verdict(enum.Enum):
    """UNKNOWN: the hook has judged nothing: it hangs, crashes, is missing, or asks for more time."""

    GOOD = enum.auto()
    BAD = enum.auto()
    UNKNOWN = enum.auto()


class Judged(NamedTuple):
    record: Record
    verdict: Verdict
    reason: str


class Judge:
    """command: the words of the hook. environment: what it gets besides what it is told about the file."""

    def __init__(
        self, command: Sequence[str], limit_s: float, environment: Mapping[str, str], clock: Callable[[], float]
    ) -> None:
        self._command = command
        self._limit_s = limit_s
        self._calls = Calls(AT_ONCE, limit_s, environment, clock)
        self._records: dict[int, Record] = {}
        self._asked = 0

    def __contains__(self, path: bytes) -> bool:
        return any(record.path == path for record in self._records.values())

    def ask(self, record: Record, local_path: str, remote_path: str) -> None:
        """Have this file judged, unless it is being judged already."""
        if record.path in self:
            return
        self._asked += 1
        self._records[self._asked] = record
        about = variables(local_path, remote_path, record.size, sha256=record.sha256)
        about["IOT_NAME"] = os.fsdecode(record.path)
        self._calls.ask(Call(self._asked, HOOK, self._command, about, record.path))

    def judged(self) -> list[Judged]:
        """Those whose hook has ended since the last call."""
        return [self._judged(call, ended) for call, ended in self._calls.look()]

    def look_in_s(self) -> float:
        return self._calls.look_in_s()

    def close(self) -> None:
        """Kill what runs: it is asked again by the next agent."""
        self._calls.close()
        self._records.clear()

    def _judged(self, call: Call, ended: Ended | OSError) -> Judged:
        record = self._records.pop(call.key)
        reason = fault(call, ended, self._limit_s)
        if reason is None:
            return Judged(record, Verdict.GOOD, "")
        bad = isinstance(ended, Ended) and ended.code is not None and ended.code > 0 and ended.code != NOT_YET
        return Judged(record, Verdict.BAD if bad else Verdict.UNKNOWN, reason)
