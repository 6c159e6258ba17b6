"""The journal cannot be written: no jobs start for a while, and files stay where they are."""

from __future__ import annotations

import logging
from collections.abc import Callable
from types import TracebackType

from iot.spooler.naming import shown
from iot.transfer import LocalStateError

__all__ = ["LocalHold"]

log = logging.getLogger(__name__)

HOLD_S = 5.0


class LocalHold:
    """What this device itself is in the way of. A with-block does what needs the journal: one that cannot be written
    begins a hold, and is logged.

    clock: seconds, monotonic. on_change: called when the hold begins or is seen again. until: when the next try is due,
    on that clock. error: what is wrong; None when nothing is.
    """

    def __init__(self, clock: Callable[[], float], on_change: Callable[[], None]) -> None:
        self.error: str | None = None
        self.until = float("-inf")
        self._now = clock
        self._on_change = on_change

    @property
    def is_on(self) -> bool:
        return self._now() < self.until

    def __enter__(self) -> None:
        """Nothing to do: what counts is how the block ends."""

    def __exit__(self, _: type[BaseException] | None, error: BaseException | None, __: TracebackType | None) -> bool:
        if isinstance(error, LocalStateError):
            self.begin(error)
            return True
        if error is None and self.error is not None and not self.is_on:
            log.info("journal writable again")
            self.error = None
        return False

    def begin(self, error: LocalStateError) -> None:
        """Log it, if it is another error than before, and start nothing for HOLD_S."""
        words = f"{type(error).__name__}: {error}"
        if self.error != words:
            log.error("held by this device error=%s", shown(words))
        self.error = words
        self.until = self._now() + HOLD_S
        self._on_change()
