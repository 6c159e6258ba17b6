"""What ends a pause of the loop early: a poke, or a descriptor that has something to read.

Who wants to be woken by a descriptor (events of a file system, a socket) watches it. What is to be done then is done by
the loop itself, in its thread: after a pause, and between two steps while it is busy. So it must not block.
"""

from __future__ import annotations

import contextlib
import os
import selectors
from collections.abc import Callable

__all__ = ["Wakeups"]


class Wakeups:
    """One set of descriptors for the life of the process."""

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()
        self._poked, self._poke = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self.watch(self._poked, self._drain)

    def poke(self) -> None:
        """End the pause, or the next one. It may be called from a signal handler and from any thread."""
        with contextlib.suppress(BlockingIOError):  # the pipe is full of pokes already
            os.write(self._poke, b"!")

    def watch(self, descriptor: int, act: Callable[[], None]) -> Callable[[], None]:
        """`act` whenever the descriptor has something to read -> what ends that; to be called before it is closed.

        Raises: PermissionError for what can always be read, such as a file.
        """
        self._selector.register(descriptor, selectors.EVENT_READ, act)
        return lambda: self._unwatch(descriptor)

    def wait(self, seconds: float) -> list[Callable[[], None]]:
        """Sleep until somebody pokes, something can be read, or so many seconds are over -> what is to be done now."""
        return [key.data for key, _ in self._selector.select(seconds)]

    def close(self) -> None:
        self._selector.close()
        os.close(self._poked)
        os.close(self._poke)

    # -- inside

    def _drain(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.read(self._poked, 4096)

    def _unwatch(self, descriptor: int) -> None:
        with contextlib.suppress(KeyError):  # ended already
            self._selector.unregister(descriptor)
