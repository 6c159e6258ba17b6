"""Who is using a client's single connection: one call at a time, or one batch that yields its outcomes."""

from __future__ import annotations

import contextlib
import inspect
import threading
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass
from typing import Generic, TypeVar

from iot.transfer.errors import ConfigurationError

T = TypeVar("T")

POLL_S = 0.05
BATCH = "upload_many or download_many is running on this client: finish or close it first, or use a second client"
INSIDE = "this call was made from within another operation of this client: use a second client"
TWICE = "another thread is already waiting for an outcome of this iterator: take outcomes one at a time"


@dataclass(frozen=True)
class _Claim:
    thread: int
    batch: bool


class Ownership:
    """A claim belongs to a call or a batch, not to a thread: whichever thread ends it frees the client."""

    def __init__(self) -> None:
        self._claim: _Claim | None = None
        self._freed = threading.Condition()

    @property
    def batch_runs(self) -> bool:
        claim = self._claim
        return claim is not None and claim.batch

    @contextlib.contextmanager
    def held(self, *, batch: bool = False, from_inside: bool = False) -> Iterator[None]:
        """Calls wait for calls of other threads. Nobody waits for a batch, because only its caller can end it.

        batch: claim the client for a batch. from_inside: also grant the claim to a callback of a batch, or of an
        operation of the same thread.

        Raises: ConfigurationError if a batch is running, or the same thread is inside an operation.
        """
        claim = _Claim(threading.get_ident(), batch)
        try:
            self._take(claim, from_inside=from_inside)
            yield
        finally:
            if self._claim is claim:
                self._claim = None  # comes first: a KeyboardInterrupt may cut off the rest
            with self._freed:
                self._freed.notify_all()

    def _take(self, claim: _Claim, *, from_inside: bool) -> None:
        with self._freed:
            while (other := self._claim) is not None:
                if from_inside and (other.batch or other.thread == claim.thread):
                    return
                if other.batch or other.thread == claim.thread:
                    raise ConfigurationError(BATCH if other.batch else INSIDE)
                self._freed.wait(POLL_S)
            self._claim = claim


class Outcomes(Iterator[T], Generic[T]):
    """The outcomes of a batch; any thread may take the next one, and close it.

    claim: holds the client from the first outcome until the batch has ended. run: begins it.
    """

    def __init__(
        self, claim: Callable[[], contextlib.AbstractContextManager[None]], run: Callable[[], Iterable[T]]
    ) -> None:
        self._steps = _claimed(claim, run)
        self._thread: int | None = None

    @property
    def calls_from_here(self) -> bool:
        """Whether this thread is in a callback of the batch."""
        return self._running and self._thread == threading.get_ident()

    @property
    def _running(self) -> bool:
        return inspect.getgeneratorstate(self._steps) == inspect.GEN_RUNNING

    def __next__(self) -> T:
        """Raises: ConfigurationError while another thread, or a callback of the batch, is taking one."""
        if self._running:
            raise ConfigurationError(TWICE)
        self._thread = threading.get_ident()
        try:
            return next(self._steps)
        except ValueError as error:
            raise _explained(error) from error

    def close(self) -> None:
        """End the batch; what was sent is kept for a resume. Raises: ConfigurationError like `next`."""
        try:
            self._steps.close()
        except ValueError as error:
            raise _explained(error) from error


def _claimed(
    claim: Callable[[], contextlib.AbstractContextManager[None]], run: Callable[[], Iterable[T]]
) -> Generator[T, None, None]:
    with claim():
        yield from run()


def _explained(error: ValueError) -> Exception:
    """Translate Python's refusal to re-enter a running generator; any other ValueError comes from a callback."""
    return ConfigurationError(TWICE) if str(error) == "generator already executing" else error
