"""A process of the tests ends with them, also when they are killed by SIGKILL and can end nothing themselves.

    guard = Guard(process.pid)
    ...
    guard.dismiss()              # before the process is ended: its number may be another one's after that

PR_SET_PDEATHSIG would not do: it comes already when the thread that started the process ends (prctl(2)), and tests
restart servers in threads. So a shell waits for the end of a pipe that is open as long as we live.
"""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["Guard"]

WATCH = 'read -r _; kill -9 "$0"'


class Guard:
    def __init__(self, pid: int) -> None:
        self._watcher = subprocess.Popen(
            ["sh", "-c", WATCH, str(pid)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # what a terminal sends to us is not for it
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.dismiss()

    def dismiss(self) -> None:
        self._watcher.kill()
        self._watcher.communicate()
