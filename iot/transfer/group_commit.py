"""Records that jobs wait for: gathered for a moment, so that many share one commit.

A commit costs a device the same for one record as for a hundred. So a job that wants its record durable waits for
others, but never long: a quarter of those under way is enough company, and nobody waits longer than a small share of
the time that it has been under way already: on a link where a file takes a second that is not felt, and on a quick one
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
        """A job waits from now on (seconds, monotonic); started_at: since when it has been under way."""
        self._waiting.append((job, record))
        self._due_at = min(self._due_at, now + min((now - started_at) * WAIT_SHARE, WAIT_MAX_S))

    def wait_s(self, now: float, *, others: int) -> float | None:
        """For how long the commit can still wait, or None when nobody waits; others: jobs that might join."""
        if not self._waiting:
            return None
        if not others or len(self._waiting) >= min(COMPANY_JOBS, (len(self._waiting) + others) // COMPANY_PART):
            return 0.0
        return max(0.0, self._due_at - now)

    def commit(self) -> list[J]:
        """-> the jobs that may go on. Raises: what the commit raises; then nobody may."""
        waiting, self._waiting, self._due_at = self._waiting, [], float("inf")
        self._commit([record for _, record in waiting])
        return [job for job, _ in waiting]

    def clear(self) -> None:
        self._waiting.clear()
        self._due_at = float("inf")
