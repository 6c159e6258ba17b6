"""What has surely waited for its time to live, by marks on a clock of the test's own, also after a restart."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from iot.spooler.budget.ages import STEPS, Ages
from iot.spooler.state.elapsed import Moment
from iot.transfer import Journal

BOOT = "0b5e26f8-3a64-4e37-9c35-8d7f8cbb63a2"
LIMIT_S = 1000.0


class Line:
    """Files that come one after the other. newest: the row of the last one."""

    def __init__(self, journal: Journal) -> None:
        self.journal = journal
        self.now = 50.0
        self.newest = 0
        self.restarts()

    def restarts(self) -> None:
        queue: Any = SimpleNamespace(newest=lambda number: self.newest)
        moment = lambda: Moment(BOOT, self.now, 1e9 + self.now, False)  # noqa: E731
        self.ages = Ages({1: LIMIT_S}, queue, self.journal, moment)

    def comes(self, newest: int, at_s: float) -> None:
        """A file is queued, and the ages look; at_s: after the beginning."""
        self.newest, self.now = newest, 50.0 + at_s
        self.ages.look()


@pytest.fixture
def line(journal: Journal) -> Line:
    return Line(journal)


def test_a_file_is_too_old_when_its_time_to_live_is_over_and_not_before(line: Line) -> None:
    line.comes(5, 0.0)
    line.now = 50.0 + LIMIT_S - 1
    assert line.ages.expired_up_to(1) == 0
    line.now += 1
    assert line.ages.expired_up_to(1) == 5


def test_what_is_too_old_stays_so_when_others_come_also_after_a_restart(line: Line) -> None:
    """It may be in flight for longer than that, and come back."""
    line.comes(5, 0.0)
    line.comes(9, LIMIT_S)
    assert line.ages.expired_up_to(1) == 5
    line.comes(12, LIMIT_S + 100.0)
    assert line.ages.expired_up_to(1) == 5
    line.ages.close()
    line.restarts()
    assert line.ages.expired_up_to(1) == 5
    line.comes(12, 2 * LIMIT_S)
    assert line.ages.expired_up_to(1) == 9


def test_a_mark_is_made_seldom_and_only_where_something_has_come(line: Line) -> None:
    def marks() -> list[int]:
        return [row["up_to"] for row in line.journal.read("SELECT up_to FROM age_mark ORDER BY up_to")]

    line.comes(5, 0.0)
    line.comes(6, LIMIT_S / STEPS - 1)
    assert marks() == [5]
    line.comes(6, LIMIT_S / STEPS)
    line.comes(6, 2 * LIMIT_S / STEPS)
    assert marks() == [5, 6]
    line.now = 50.0 + LIMIT_S / STEPS + LIMIT_S
    assert line.ages.expired_up_to(1) == 6  # a look at rest makes nothing younger
    line.comes(20, 1.5 * LIMIT_S)
    assert marks() == [6, 20]  # whatever is older than needed makes an older one superfluous


def test_before_anything_has_come_there_is_no_mark_and_the_first_row_of_all_gets_one(line: Line) -> None:
    line.comes(0, 0.0)
    assert line.journal.read("SELECT up_to FROM age_mark") == []
    line.comes(1, 1.0)
    line.now += LIMIT_S
    assert line.ages.expired_up_to(1) == 1
