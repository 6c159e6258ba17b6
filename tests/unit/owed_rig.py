"""What is owed to outboxes that are not there: a queue, a census and leavers of a test."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from iot.spooler.leaving import owed as module
from iot.spooler.leaving.owed import Owed
from iot.spooler.leaving.removal import Outcome
from iot.spooler.leaving.unlinking import Unlinking
from iot.spooler.outbox.departure import Why
from iot.spooler.outbox.scan import SourceFailed
from iot.spooler.queue.policy import State
from iot.spooler.queue.queue import Entry
from iot.transfer import Fingerprint

__all__ = ["HOLD_S", "Census", "Rig", "entry"]

HOLD_S = 60.0


def entry(number: int, outbox: int = 1, **more: Any) -> Entry:
    plain = Entry(
        number, outbox, b"f%d" % number, State.DELIVERED, Fingerprint(3, 7), False, 5, f"/up/f{number}",
        None, None, 0, 1.0, False, None, 2, 0, 0, None,
    )  # fmt: skip
    return plain._replace(**more)


class Census:
    def __init__(self) -> None:
        self.files, self.failed, self.begun, self.left = 0, None, 0, 0

    def begin(self) -> None:
        self.begun += 1
        self.left = 6

    def step(self) -> bool:
        self.left -= self.left > 0
        return self.left > 0

    def finish(self) -> None:
        self.left = 0


class Rig:
    """Everything around it in memory; `answers` says what comes of each entry that is to leave."""

    def __init__(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        self.answers: dict[int, Any] = {}
        self.asked: list[tuple[list[int], str, bool]] = []
        self.forgotten: list[int] = []
        self.looked_again: list[bytes] = []
        self.rows: dict[State, list[Entry]] = {}
        self.known: dict[bytes, Any] = {}
        self.folder, self.unreadable = tmp_path, False
        self.intakes = [self._intake(number) for number in (1, 2)]
        self.census = Census()
        self.budgets: list[float] = []
        self.archive = SimpleNamespace(tidy=self.budgets.append)
        self.delivered, self.given_up = {1: "delivered", 2: "delivered"}, {1: "given up", 2: "given up"}
        self.dropped = {1: "dropped", 2: "dropped"}
        leaving = SimpleNamespace(
            delivered=self.delivered, given_up=self.given_up, dropped=self.dropped, archives=(self.archive,),
            census=self.census,
        )  # fmt: skip
        queue = SimpleNamespace(
            forget=lambda db, entries: self.forgotten.extend(each.id for each in entries),
            owed=lambda state, limit, after: [each for each in self.rows.get(state, []) if each.id > after][:limit],
            known=lambda _, paths: {path: self.known[path] for path in paths if path in self.known},
        )
        journal = SimpleNamespace(write=lambda work: work("db"))
        clocks = SimpleNamespace(monotonic=lambda: self.now, wall=lambda: 1.7e9)
        monkeypatch.setattr(module, "take_away", self._take_away)
        self.owed = Owed(journal, queue, self.intakes, leaving, clocks)

    def _intake(self, number: int) -> Any:
        def opened() -> int:
            if self.unreadable:
                raise SourceFailed("outbox /box: no")
            return os.open(self.folder, os.O_RDONLY)

        return SimpleNamespace(
            number=number,
            settings=SimpleNamespace(label=f"box{number}", hold_s=HOLD_S),
            left=lambda entry: None,  # it has no markers
            outbox=SimpleNamespace(open=opened, forget=self.looked_again.append, leftovers=[]),
            departure=lambda *, rested: rested,
        )

    def _take_away(self, root: int, items: list[Any], leaver: str, rested: bool, unlink: Any) -> Outcome:
        self.asked.append(([item.key for item in items], leaver, rested))
        self.items = items
        outcome = Outcome([], [], [])
        for item in items:
            answer = self.answers.get(item.key, "done")
            if answer == "done":
                outcome.done.append(item.key)
            elif answer == "unlink":
                unlink(Unlinking(os.open(self.folder, os.O_RDONLY), {item.key: b"private"}, []))
            elif isinstance(answer, Why):
                outcome.stays.append((item.key, answer))
            else:
                outcome.failed.append((item.key, OSError(answer, os.strerror(answer))))
        return outcome

    def leave(self, *numbers: int, answer: Any = "done") -> None:
        self.answers.update(dict.fromkeys(numbers, answer))
        self.owed.leave([entry(number) for number in numbers], [], {})
