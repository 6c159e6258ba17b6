"""What the agent needs of the process around its loop, and what that may ask of the agent."""

from __future__ import annotations

import enum
from collections.abc import Callable
from typing import Protocol, TypeVar

__all__ = ["Loop", "Wake"]

Agent_contra = TypeVar("Agent_contra", contravariant=True)


class Wake(enum.Enum):
    """TRY: the network may be there again: scan, and try the server at once or, after a long outage, when it is this
    device's turn. NUDGE: that, but a hold goes on, since nobody has looked at why it is. FLUSH: somebody asks: scan,
    try the server at once, and send past the schedule."""

    NUDGE = enum.auto()
    TRY = enum.auto()
    FLUSH = enum.auto()


class Loop(Protocol[Agent_contra]):
    """The process around the loop."""

    def stopping(self) -> bool: ...

    def alive(self) -> None:
        """The loop has made progress: the watchdog may be fed."""

    def pause(self, seconds: float) -> None:
        """Wait for at most so many seconds, or until somebody wakes the loop or the kernel tells of an outbox."""

    def watch(self, descriptor: int, act: Callable[[], None]) -> Callable[[], None]:
        """Call `act`, in the loop's thread, when the descriptor has something to read -> what ends that."""

    def woken(self) -> Wake | None:
        """What somebody has asked for since the last call."""

    def report(self, agent: Agent_contra, *, changed: bool, final: bool = False) -> None:
        """Publish the status if it is due. changed: something happened since the last call; final: publish now."""
