"""At level debug the log says why a file is sent, or not yet: once for each change, and nothing at rest."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from iot.sftp.client import Journal
from iot.spooler import decisions
from iot.spooler.config.outboxes import OutboxSettings
from iot.spooler.decisions import MOST, Decisions
from iot.spooler.outbox.intake import Clocks, Intake
from iot.spooler.queue.policy import Event, State
from iot.spooler.queue.queue import Queue, Success

START = 1000.0
WALL = 2e9


class Lab:
    """An outbox whose clocks are moved by hand."""

    def __init__(self, folder: Path, journal: Journal, caplog: pytest.LogCaptureFixture, **settings: Any) -> None:
        self.box = folder / "box"
        self.box.mkdir()
        self.queue = Queue(journal)
        self.now = START
        self._caplog = caplog
        caplog.set_level(logging.DEBUG, "iot.spooler.decisions")
        given = {"path": str(self.box), "destination": "/up", "settle_s": 5, **settings}
        clocks = Clocks(lambda: self.now, lambda: self.now - START + WALL)
        self.intake = Intake(
            OutboxSettings.model_validate(given),
            self.queue,
            clocks,
            device_id="d",
            scan_s=2,
            small_file_bytes=1,
            journal_lost=False,
        )

    def write(self, name: str, content: str = "x") -> Path:
        (self.box / name).write_text(content)
        os.utime(self.box / name, (WALL + self.now - START,) * 2)
        return self.box / name

    def told(self, seconds: float = 3.0) -> list[str]:
        """The reasons that are told while so much time passes."""
        self._caplog.clear()
        end = self.now + seconds
        while self.now < end:
            self.intake.step(busy=False)
            self.now += 0.1
        lines = [record.getMessage() for record in self._caplog.records]
        return [re.sub(r"decision outbox=box path=(\S+) reason=", r"\1: ", line) for line in lines]


@pytest.fixture
def lab(tmp_path: Path, journal: Journal, caplog: pytest.LogCaptureFixture) -> Iterator[Lab]:
    lab = Lab(tmp_path, journal, caplog, exclude=["*.tmp"])
    yield lab
    lab.intake.close()
    lab.intake.outbox.release()


def test_a_file_settles_and_is_queued_and_each_is_told_once(lab: Lab) -> None:
    lab.write("f")
    assert lab.told() == ["f: settling for_s=5.0"]
    assert lab.told(1.0) == []
    assert lab.told(10.0) == ["f: queued priority=5 bytes=1"]
    assert lab.told(1000.0) == []


def test_what_no_pattern_wants_is_told_once(lab: Lab) -> None:
    lab.write("f.tmp")
    assert lab.told() == ['f.tmp: "not sent, by the patterns include and exclude"']
    assert lab.told(1000.0) == []


@pytest.mark.parametrize(
    ("settings", "name", "reason"),
    [
        ({"ready": "renamed"}, "a.tmp", "not sent, a name of what is not finished, by ready = "),
        ({"ready": "marker", "ready_marker": "{name}.done"}, "a.done", "not sent, a marker"),
        ({"ready": "renamed", "exclude": ["*.csv"]}, "a.csv", "not sent, by the patterns include and exclude"),
    ],
)
def test_the_reason_why_a_name_is_not_sent_is_the_true_one(
    tmp_path: Path, journal: Journal, caplog: pytest.LogCaptureFixture, settings: Any, name: str, reason: str
) -> None:
    lab = Lab(tmp_path, journal, caplog, **settings)
    lab.write(name)
    (told,) = lab.told()
    assert reason in told
    lab.intake.close()
    lab.intake.outbox.release()


def test_a_file_that_is_open_for_writing_is_told_so(lab: Lab) -> None:
    path = lab.write("f")
    with path.open("a"):
        lab.told()
        assert lab.told(10.0) == ['f: "open for writing"']
        assert lab.told(1000.0) == []
    assert lab.told(100.0) == ["f: queued priority=5 bytes=1"]


def test_a_delivered_version_that_is_the_same_is_told_so(
    tmp_path: Path, journal: Journal, caplog: pytest.LogCaptureFixture
) -> None:
    lab = Lab(tmp_path, journal, caplog, after_upload="keep")
    lab.write("f")
    lab.told(20.0)
    [entry] = lab.queue.heads(lab.intake.number, large=False, limit=1)
    [begun] = lab.queue.begin([entry._replace(destination="/up/f", rule=None)])
    journal.write(lambda db: lab.queue.deliver(db, [Success(begun, Event.SENT_TO_KEEP, "size", 1.0, None)]))
    lab.intake.wake()
    assert lab.told(10.0) == ['f: "not sent again, the delivered version is the same"']
    assert lab.told(1000.0) == []
    lab.intake.close()
    lab.intake.outbox.release()


def test_a_file_that_comes_again_is_told_again(lab: Lab) -> None:
    lab.write("f.tmp")
    assert len(lab.told(30.0)) == 1
    (lab.box / "f.tmp").unlink()
    lab.intake.wake()
    assert lab.told(30.0) == []
    lab.write("f.tmp")
    lab.intake.wake()
    assert len(lab.told(30.0)) == 1


def test_nothing_is_kept_or_told_above_level_debug(lab: Lab, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "iot.spooler.decisions")
    lab.write("f")
    assert lab.told(100.0) == []
    assert lab.intake.decisions._told == {}


def test_every_state_that_a_file_can_have_in_the_queue_has_its_words(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "iot.spooler.decisions")
    decisions = Decisions("box")
    for state in set(State) - {State.GONE}:
        decisions.tell_state(b"f", state)
    assert len(caplog.records) == len(State) - 1


def test_the_reasons_of_very_many_files_do_not_fill_the_memory(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "iot.spooler.decisions")
    logging.getLogger("iot.spooler.decisions").propagate = False
    try:
        decisions = Decisions("box")
        for number in range(MOST + 10):
            decisions.tell(b"%d" % number, "queued")
        assert len(decisions._told) == MOST
    finally:
        logging.getLogger("iot.spooler.decisions").propagate = True


def test_of_more_files_than_are_kept_nothing_is_told_but_of_the_first_ones(monkeypatch, caplog) -> None:
    caplog.set_level("DEBUG", "iot.spooler.decisions")
    monkeypatch.setattr(decisions, "MOST", 1)
    told = decisions.Decisions("box")
    for path, reason in ((b"a", "one"), (b"b", "one"), (b"a", "two")):
        told.tell(path, reason)
    assert caplog.messages == [f"decision outbox=box path=a reason={reason}" for reason in ("one", "two")]
