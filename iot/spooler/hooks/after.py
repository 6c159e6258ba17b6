"""The hooks `after_success`, `after_failure` and `after_batch`: told what has become of a file or a batch, once that is
recorded.

They decide nothing: one that fails is logged. A delivered file leaves its outbox only after its hook has ended, so that
the hook finds it there; so does the marker of a batch. The hook of a batch comes after those of its files.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Mapping, Sequence

from iot.spooler.config.hooks import HookSettings
from iot.spooler.hooks.calls import Call, Calls, local_path, variables
from iot.spooler.hooks.due import Due, DueCall
from iot.spooler.queue.policy import Event
from iot.spooler.queue.queue import Entry
from iot.transfer import Journal, TransferResult

__all__ = ["AFTER_BATCH", "After"]

AFTER_BATCH = "after_batch"
AFTER = ("after_success", "after_failure", AFTER_BATCH)
PAGE = 32
DROP_S = 1.0
"""What has ended is dropped so many seconds later, with what has ended by then."""


class After:
    """hooks: of the outboxes that have any of these, by number. folders: of the same outboxes.

    on_done: called with the numbers of entries whose hook has ended: they may leave their outbox.
    """

    def __init__(
        self,
        hooks: Mapping[int, HookSettings],
        folders: Mapping[int, bytes],
        environment: Mapping[str, str],
        journal: Journal,
        clock: Callable[[], float],
    ) -> None:
        self._hooks = hooks
        self._folders = folders
        self._now = clock
        self._due = Due(journal, list(hooks)) if hooks else None
        self._calls = {number: Calls(hook.at_once, hook.limit_s, environment, clock) for number, hook in hooks.items()}
        self._asked_to = dict.fromkeys(hooks, 0)
        self._more = set(hooks)
        self._last_of_batch: set[int] = set()
        self._entries: dict[int, int] = {}
        self._ended: list[int] = []
        self._drop_at = float("inf")

    # -- what has happened: within one Journal.write

    def delivered(self, db: sqlite3.Connection, deliveries: Iterable[tuple[Entry, TransferResult]]) -> None:
        self._add(
            db,
            (
                _call(entry, "after_success", "delivered", "", result.published_as, result.sha256)
                for entry, result in deliveries
                if self._has(entry, "after_success")
            ),
        )

    def failed(self, db: sqlite3.Connection, failures: Iterable[tuple[Entry, Event, str | None]]) -> None:
        results = {Event.FAILED: "failed", Event.SKIPPED: "failed", Event.GIVEN_UP: "quarantined"}
        self._add(
            db,
            (
                _call(entry, "after_failure", results[event], words or "", "", None)
                for entry, event, words in failures
                if event in results and self._has(entry, "after_failure")
            ),
        )

    def batch_over(self, db: sqlite3.Connection, call: DueCall) -> None:
        self._add(db, [call])

    def wants_digest(self, outbox: int) -> bool:
        """Whether a hook of this outbox is told the digest of what was sent."""
        return outbox in self._hooks and bool(self._hooks[outbox].after_success)

    def waited_for(self, entries: Sequence[Entry]) -> set[int]:
        """The numbers of those that have to stay in their outbox until their hook has ended."""
        return self._due.waited_for([entry.id for entry in entries]) if self._due and entries else set()

    # -- the loop's part

    def look(self) -> list[int]:
        """Run what is due, and drop what has ended -> the entries that need not wait any more.

        Raises: DiskFull, JournalUnavailable.
        """
        for number, calls in self._calls.items():
            room = 1 if number in self._last_of_batch else PAGE // 2
            if number in self._more and len(calls) < room:
                self._load(number, calls)
            for call, _ in calls.look():
                self._take(call.key)
        if self._now() >= self._drop_at or (self._ended and not self._under_way()):
            return self._drop()
        return []

    def look_in_s(self) -> float:
        waits = [calls.look_in_s() for calls in self._calls.values()]
        waits += [0.0 for number, calls in self._calls.items() if number in self._more and not len(calls)]
        return max(min([*waits, self._drop_at - self._now()], default=float("inf")), 0.0)

    def pending(self, outbox: int) -> int:
        """How many calls of this outbox have not ended."""
        return self._due.count(outbox) if self._due and outbox in self._hooks else 0

    def is_idle(self) -> bool:
        return not self._more and not self._under_way() and not self._ended

    def listen(self) -> None:
        """Take note of what has ended, and start nothing."""
        for calls in self._calls.values():
            for call, _ in calls.ended():
                self._take(call.key)

    def drop_ended(self) -> list[int]:
        """At the end: as `look`, but at once. Raises: DiskFull, JournalUnavailable."""
        return self._drop() if self._ended else []

    @property
    def all_calls(self) -> list[Calls]:
        return list(self._calls.values())

    # -- inside

    def _has(self, entry: Entry, hook: str) -> bool:
        return entry.outbox in self._hooks and bool(getattr(self._hooks[entry.outbox], hook))

    def _add(self, db: sqlite3.Connection, calls: Iterable[DueCall]) -> None:
        due = list(calls)
        if due and self._due:
            self._due.add(db, due)
            self._more.update(call.outbox for call in due)

    def _load(self, number: int, calls: Calls) -> None:
        assert self._due is not None
        page = self._due.page(number, self._asked_to[number], PAGE)
        if len(page) < PAGE:
            self._more.discard(number)
        self._last_of_batch.discard(number)
        for due in page:
            if due.hook == AFTER_BATCH and len(calls):
                self._last_of_batch.add(number)
                self._more.add(number)
                break
            self._asked_to[number] = due.id
            self._entries[due.id] = due.entry
            words = getattr(self._hooks[number], due.hook) if due.hook in AFTER else ()
            if words:
                calls.ask(Call(due.id, due.hook, words, self._about(due), due.path))
            else:
                self._take(due.id)  # it was taken out of the configuration

    def _about(self, due: DueCall) -> dict[str, str]:
        return variables(
            local_path(self._folders[due.outbox], due.path),
            due.destination,
            due.size,
            result=due.result,
            error=due.error,
            sha256=due.sha256,
            files=due.files if due.hook == AFTER_BATCH else None,
        )

    def _take(self, key: int) -> None:
        """This call is over."""
        if not self._ended:
            self._drop_at = self._now() + DROP_S
        self._ended.append(key)

    def _under_way(self) -> bool:
        return any(len(calls) for calls in self._calls.values())

    def _drop(self) -> list[int]:
        assert self._due is not None
        self._due.drop(self._ended)
        entries = [self._entries.pop(key) for key in self._ended]
        self._ended.clear()
        self._drop_at = float("inf")
        return entries


def _call(entry: Entry, hook: str, result: str, error: str, published_as: str, sha256: str | None) -> DueCall:
    destination = published_as or entry.destination
    size = entry.fingerprint.size
    return DueCall(entry.outbox, entry.id, hook, entry.path, destination, result, error, size, sha256 or "")
