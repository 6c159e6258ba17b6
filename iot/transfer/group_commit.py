"""Group commit: records that jobs wait for are collected briefly, so that many share one commit.

On a device, a commit costs the same for one record as for a hundred. So a job that needs a durable record waits for
others, but never for long: it stops waiting once a quarter of the running jobs have joined, or after a small share of
the time that it has been running already. On a link where a file takes a second that goes unnoticed, and on a fast one
it is milliseconds.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Generic, TypeVar

J = TypeVar("J")

COMPANY_JOBS = 64
COMPANY_PART = 4
WAIT_SHARE = 0.5
WAIT_MAX_S = 0.2


class GroupCommit(Generic[J]):
    """commit: makes records durable."""

    def __init__(self, commit: Callable[[Sequence[Any]], None]) -> None:
        self._commit = commit
        self._waiting: list[tuple[J, Any]] = []
        self._due_at = float("inf")

    def add(self, job: J, record: Any, *, started_at: float, now: float) -> None:
        """A job starts waiting (times are monotonic seconds). started_at: when it began."""
        self._waiting.append((job, record))
        self._due_at = min(self._due_at, now + min((now - started_at) * WAIT_SHARE, WAIT_MAX_S))

    def wait_s(self, now: float, *, others: int) -> float | None:
        """How long the commit can still wait, or None if nobody waits. others: jobs that might join."""
        if not self._waiting:
            return None
        if not others or len(self._waiting) >= min(COMPANY_JOBS, (len(self._waiting) + others) // COMPANY_PART):
            return 0.0
        return max(0.0, self._due_at - now)

    def commit(self) -> list[J]:
        """-> the jobs that may continue. Raises: the error of the commit; then none may."""
        waiting, self._waiting, self._due_at = self._waiting, [], float("inf")
        self._commit([record for _, record in waiting])
        return [job for job, _ in waiting]

    def clear(self) -> None:
        self._waiting.clear()
        self._due_at = float("inf")
