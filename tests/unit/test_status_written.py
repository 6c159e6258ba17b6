"""When the status is written, what of it, and the rates that are counted between two writes."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from unit.test_status_figures import Figures, flight, inbox

from iot.spooler.outbox.intake import Clocks
from iot.spooler.status.status import COST_SHARE, MEMORY_EVERY_S, RATE_S, STATE_EVERY_S, Rate, StatusFile


@pytest.fixture
def figures() -> Figures:
    return Figures()


class Written:
    """A status file on a clock of its own. cost_s: how long a write takes."""

    def __init__(self, base: Path, figures: Figures, *, in_memory: bool = True) -> None:
        self.figures, self.path = figures, base / "status.json"
        self.now, self.cost_s = 1000.0, 0.0
        self.file = StatusFile(self.path, Clocks(lambda: self.now, lambda: self.now + 0.12345), in_memory=in_memory)
        self.made = 0

    def report(self, *, changed: bool, final: bool = False) -> bool:
        return self.file.report(self._agent(), changed=changed, final=final)

    def _agent(self) -> Any:
        agent = self.figures.agent()
        queue = agent.queue.totals

        def totals() -> list[Any]:
            self.made += 1
            self.now += self.cost_s
            return list(queue())

        agent.queue.totals = totals
        return agent

    def content(self) -> dict[str, Any]:
        content: dict[str, Any] = json.loads(self.path.read_text())
        return content


@pytest.mark.parametrize(("in_memory", "every_s"), [(True, MEMORY_EVERY_S), (False, STATE_EVERY_S)])
def test_a_change_is_written_once_and_the_next_one_not_before_its_time(
    tmp_path: Path, figures: Figures, in_memory: bool, every_s: float
) -> None:
    written = Written(tmp_path, figures, in_memory=in_memory)
    assert not written.report(changed=False)
    assert written.file.due_s() == float("inf")
    assert written.report(changed=True)
    assert written.file.due_s() == float("inf")
    assert not written.report(changed=True)
    assert written.file.due_s() == pytest.approx(every_s)
    written.now += every_s - 0.01
    assert not written.report(changed=False)
    assert written.file.due_s() == pytest.approx(0.01)
    written.now += 5.01
    assert written.file.due_s() == 0.0
    assert written.report(changed=False)
    assert not written.report(changed=False)
    assert written.made == 2


def test_what_is_due_at_this_moment_is_written_and_the_last_word_at_any(tmp_path: Path, figures: Figures) -> None:
    written = Written(tmp_path, figures)
    assert written.report(changed=False, final=True)
    assert not written.report(changed=True)
    assert written.report(changed=False, final=True)
    written.now += MEMORY_EVERY_S
    assert written.report(changed=True)


def test_a_status_that_is_slow_to_make_is_made_more_rarely(tmp_path: Path, figures: Figures) -> None:
    written = Written(tmp_path, figures)
    written.cost_s = 0.5
    written.report(changed=True)
    written.report(changed=True)
    assert written.file.due_s() == pytest.approx(0.5 * (COST_SHARE - 1))


def test_while_bytes_move_it_is_due_although_nobody_tells_a_change(tmp_path: Path, figures: Figures) -> None:
    written = Written(tmp_path, figures)
    figures.flights = [flight(7, 200, 0)]
    written.report(changed=True)
    written.now += 1
    assert not written.report(changed=False)
    figures.flights = [flight(7, 200, 50, 50)]
    written.report(changed=True)
    written.now += 1
    assert written.report(changed=False)
    written.now += 2 * RATE_S
    assert written.report(changed=False)
    assert not written.report(changed=False)


def test_the_file_tells_when_it_was_written_and_the_last_one_that_it_is(tmp_path: Path, figures: Figures) -> None:
    written = Written(tmp_path, figures)
    written.file.keep(tmp_path / "kept.json")
    assert not (tmp_path / "kept.json").exists()  # there is no last word yet
    written.report(changed=True)
    assert written.content() == {**(written.file.latest or {}), "updated_at": 1000.123}
    assert written.path.read_text() == json.dumps(written.content(), indent=1) + "\n"
    written.now += 1
    written.file.keep(tmp_path / "kept.json")
    kept = json.loads((tmp_path / "kept.json").read_text())
    assert kept == {**written.content(), "updated_at": 1001.123, "ended": True}


def test_on_flash_a_look_that_has_found_nothing_is_not_written(tmp_path: Path, figures: Figures) -> None:
    figures.inboxes = [inbox(3, "in", last_look_at=10.0)]
    flash = Written(tmp_path, figures, in_memory=False)
    memory = Written(tmp_path / "none", figures)
    memory.path = memory.file._path = tmp_path / "memory.json"
    for written in (flash, memory):
        written.report(changed=True)
        figures.inboxes[0].last_look_at = 20.0
        written.now += 60
        assert written.report(changed=True)
    looks = [written.content()["inboxes"][0]["last_look_at"] for written in (flash, memory)]
    assert looks == [10, 20]
    assert flash.file.latest is not None
    assert flash.file.latest["inboxes"][0]["last_look_at"] == 20


def test_everybody_may_read_it_whatever_the_process_creates_its_files_with(tmp_path: Path, figures: Figures) -> None:
    before = os.umask(0o077)
    try:
        Written(tmp_path, figures).report(changed=True)
    finally:
        os.umask(before)
    assert (tmp_path / "status.json").stat().st_mode & 0o777 == 0o644


def test_a_status_that_could_not_be_written_is_written_the_next_time(tmp_path: Path, figures: Figures) -> None:
    written = Written(tmp_path / "missing", figures)
    assert written.report(changed=True)
    (tmp_path / "missing").mkdir()
    written.now += 60
    assert written.report(changed=True)
    assert written.content()["pid"] == os.getpid()


def test_a_rate_counts_what_is_just_within_its_time_and_nothing_older() -> None:
    rate = Rate()
    rate.add(0.0, 0)
    assert not rate.moves
    rate.add(1.0, 1000)
    assert rate.moves
    assert rate.add(RATE_S, 2000) == 200
    assert rate.add(RATE_S + 0.5, 2000) == round(1000 / (RATE_S - 0.5))
    assert Rate().add(5.0, 5000) == 0


def test_what_falls_behind_itself_has_begun_anew() -> None:
    rate = Rate()
    for now, done in ((0.0, 100), (1.0, 300)):
        rate.add(now, done)
    assert rate.add(2.0, 200) == 0
    assert rate.add(3.0, 250) == 50


def test_many_bytes_in_no_time_are_a_rate_all_the_same() -> None:
    rate = Rate()
    rate.add(1.0, 0)
    assert rate.add(1.0, 10) == 10_000


def test_once_nothing_is_left_to_send_the_rate_is_zero_at_once(tmp_path: Path) -> None:
    status = StatusFile(tmp_path / "status.json", Clocks(lambda: 0.0, lambda: 0.0), in_memory=True)
    for now, files, done in ((0.0, 1, 0), (1.0, 1, 1000), (2.0, 0, 2000)):
        content: dict[str, Any] = {"backlog": {"files": files, "bytes": 9}, "current": [], "in_flight": 1}
        status._add_rates(content, now, done)
    assert (content["rate_bytes_per_s"], content["backlog"]["left_s"]) == (0, None)
