"""Commands that decide whether files may be sent: the state of a battery, a temperature, whether the link is metered.

A command is a list of words, run without a shell, in a process group of its own, without our passwords in its
environment. It is never waited for: its exit code is looked at as it comes, and at its time limit it is killed with its
children. What is not known holds files back, so that a broken command costs no money; the reason says so.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Callable, Mapping, Sequence

from iot.spooler.gates import Held, held
from iot.spooler.queue.policy import Admission

__all__ = ["CommandGate", "environment"]

POLL_S = 0.25
OURS = ("SFTP_", "IOT_SPOOLER_", "CREDENTIALS_DIRECTORY", "NOTIFY_SOCKET", "WATCHDOG_")


def environment(ours: Mapping[str, str]) -> dict[str, str]:
    """What a command gets of our environment."""
    return {name: value for name, value in ours.items() if not name.startswith(OURS)}


class CommandGate:
    """Runs a command every so many seconds, and holds files back as its exit code says.

    beyond: what of each outbox, by number, is still sent while the command holds it back. holds: whether this exit code
    holds back. reason: why, for people; the exit code is added.
    """

    def __init__(
        self,
        command: Sequence[str],
        beyond: Mapping[int, Admission],
        holds: Callable[[int], bool],
        reason: str,
        *,
        every_s: float,
        limit_s: float,
        environment: Mapping[str, str],
    ) -> None:
        self._command = command
        self._beyond = beyond
        self._holds = holds
        self._words = reason
        self._every_s = every_s
        self._limit_s = limit_s
        self._environment = environment
        self._process: subprocess.Popen[bytes] | None = None
        self._kill_at = 0.0
        self._next_at = float("-inf")
        self._reason = f"{reason}: not known yet"

    def look(self, wall: float, now: float) -> float:
        if self._process is None and now >= self._next_at:
            self._start(now)
        if self._process is not None:
            self._poll(self._process, now)
        return POLL_S if self._process is not None else max(self._next_at - now, 0.0)

    def of(self, outbox: int, *, flushed: bool) -> Held:
        """A flush does not overrule it."""
        return held(self._beyond[outbox], self._reason)

    def close(self) -> None:
        """End what still runs."""
        if self._process is not None:
            self._kill(self._process)

    # -- inside

    def _start(self, now: float) -> None:
        self._next_at, self._kill_at = now + self._every_s, now + self._limit_s
        try:
            self._process = subprocess.Popen(
                self._command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
                env=dict(self._environment),
            )
        except OSError as error:
            self._reason = f"{self._words}: {self._command[0]} cannot be run: {error.strerror}"

    def _poll(self, process: subprocess.Popen[bytes], now: float) -> None:
        code = process.poll()
        if code is None:
            if now >= self._kill_at:
                self._kill(process)
                self._reason = f"{self._words}: {self._command[0]} did not end in {self._limit_s:g} s"
            return
        self._kill(process)
        ended = f"exit code {code}" if code >= 0 else f"signal {-code}"
        self._reason = f"{self._words} ({ended})" if code < 0 or self._holds(code) else ""

    def _kill(self, process: subprocess.Popen[bytes]) -> None:
        """And its children, also those that outlive it."""
        with contextlib.suppress(ProcessLookupError, PermissionError):  # none is left
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        self._process = None
