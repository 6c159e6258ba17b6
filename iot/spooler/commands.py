"""Programs that run beside the agent: a list of words, no shell, in a session of their own, with a time limit.

They are never waited for: how one stands is looked at now and then, and at its time limit it is killed with its
children. It reads nothing from us, and of what it writes only the last line is kept.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
from collections.abc import Mapping, Sequence
from typing import NamedTuple

__all__ = ["Command", "Ended", "environment", "executable", "plain_environment"]

OURS = ("SFTP_", "IOT_SPOOLER_", "CREDENTIALS_DIRECTORY", "NOTIFY_SOCKET", "WATCHDOG_")
PLAIN = ("PATH", "HOME", "USER", "LOGNAME", "LANG", "LC_ALL", "LC_CTYPE", "TZ", "TMPDIR")
DEAD_S = 1.0
"""A killed program that takes longer to die hangs in the kernel, and is not waited for."""
READ_BYTES = 64 * 1024
READS = 16
TAIL_BYTES = 4096


def environment(ours: Mapping[str, str]) -> dict[str, str]:
    """Our environment without what is meant for us alone."""
    return {name: value for name, value in ours.items() if not name.startswith(OURS)}


def plain_environment(ours: Mapping[str, str]) -> dict[str, str]:
    """The few variables of our environment that any program expects, and nothing else."""
    return {name: ours[name] for name in PLAIN if name in ours}


def executable(words: tuple[str, ...]) -> tuple[str, ...]:
    """The words, if they can be run or there are none. Raises: ValueError."""
    if any("\0" in word for word in words):
        raise ValueError("a word must not contain a NUL")
    if words and shutil.which(words[0]) is None:
        raise ValueError(f"{words[0]!r} is not an executable program")
    return words


class Ended(NamedTuple):
    """How a program ended.

    code: its exit code, or the negative number of the signal that ended it; None: it was killed at its time limit.
    said: the last line that it wrote, if anybody listened.
    """

    code: int | None
    said: str = ""


class Command:
    """A program that has been started.

    kill_at: when it is killed, on the clock that `poll` is asked with. heard: whether its output is listened to.

    Raises: OSError if it cannot be run.
    """

    def __init__(
        self, words: Sequence[str], environment: Mapping[str, str], kill_at: float, *, heard: bool = False
    ) -> None:
        self._kill_at = kill_at
        self._tail = b""
        self._process = subprocess.Popen(
            words,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE if heard else subprocess.DEVNULL,
            stderr=subprocess.STDOUT if heard else subprocess.DEVNULL,
            start_new_session=True,
            env=dict(environment),
        )
        self._output = self._process.stdout
        if self._output is not None:
            os.set_blocking(self._output.fileno(), False)

    def poll(self, now: float) -> Ended | None:
        """How it ended; None while it runs."""
        code = self._process.poll()
        self._listen()
        if code is None and now < self._kill_at:
            return None
        self.kill()
        return Ended(code, self._last_line())

    def kill(self) -> None:
        """And its children, also those that outlive it."""
        with contextlib.suppress(ProcessLookupError, PermissionError):  # none is left
            os.killpg(self._process.pid, signal.SIGKILL)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(DEAD_S)
        if self._output is not None:
            self._output.close()
            self._output = None

    def _listen(self) -> None:
        """Read what it has written, as far as that takes no time."""
        if self._output is None:
            return
        for _ in range(READS):
            try:
                news = os.read(self._output.fileno(), READ_BYTES)
            except BlockingIOError:
                return
            if not news:
                return
            self._tail = (self._tail + news)[-TAIL_BYTES:]

    def _last_line(self) -> str:
        lines = self._tail.decode("utf-8", "replace").split("\n")
        return next((line.strip() for line in reversed(lines) if line.strip()), "")
