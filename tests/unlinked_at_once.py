"""For runs that are repeated step by step: what leaves an outbox is unlinked in the thread that takes it out."""

from __future__ import annotations

from collections.abc import Sequence

from iot.spooler.leaving.unlinking import Unlinking

__all__ = ["UnlinkedAtOnce"]


class UnlinkedAtOnce:
    """In place of an Unlinker."""

    def __init__(self) -> None:
        self._finished: list[Unlinking] = []

    def start(self, work: Unlinking) -> None:
        work.run()
        self._finished.append(work)

    def finished(self, *, wait: bool = False) -> Sequence[Unlinking]:
        finished, self._finished = self._finished, []
        return finished
