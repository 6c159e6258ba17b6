"""What the agent logs: its start and end, large files, what a journal and a terminal want; and nothing at rest."""

from __future__ import annotations

import logging
import os
import pty
import re
from pathlib import Path
from typing import Any

import pytest
from unit.agent_rig import Rig

from iot.spooler.agent.dispatch import TOLD_EVERY_S, Dispatcher
from iot.spooler.process.logs import FORMAT, JournalFormatter, NonBlockingHandler, formatter_for
from iot.transfer import Progress

MINUTE_S = 60.0


def record(level: int, message: str) -> logging.LogRecord:
    return logging.LogRecord("n", level, "f", 1, message, None, None)


@pytest.mark.parametrize(
    ("level", "priority"),
    [(logging.CRITICAL, 2), (logging.ERROR, 3), (logging.WARNING, 4), (logging.INFO, 6), (logging.DEBUG, 7), (1, 7)],
)
def test_a_journal_is_told_the_priority_of_every_line(level: int, priority: int) -> None:
    assert JournalFormatter("%(message)s").format(record(level, "one")) == f"<{priority}>one"
    failed = record(level, "two\x1b[2J")
    failed.exc_info = (ValueError, ValueError("of it"), None)
    lines = JournalFormatter("%(message)s").format(failed).split("\n")
    assert lines == [f"<{priority}>two\\x1b[2J", f"<{priority}>ValueError: of it"]


def test_only_the_stream_that_systemd_names_is_a_journal(tmp_path: Path) -> None:
    reader, writer = os.pipe()
    status = os.fstat(writer)
    mine = {"JOURNAL_STREAM": f"{status.st_dev}:{status.st_ino}"}
    assert isinstance(formatter_for(writer, mine), JournalFormatter)
    with (tmp_path / "log").open("w") as elsewhere:
        assert formatter_for(elsewhere.fileno(), mine).format(record(logging.INFO, "x")) == "INFO x"
        assert formatter_for(elsewhere.fileno(), {}).format(record(logging.INFO, "x")) == "INFO x"
    os.close(reader)
    os.close(writer)


def test_a_terminal_gets_the_time() -> None:
    here, there = pty.openpty()
    told = formatter_for(there, {}).format(record(logging.INFO, "x"))
    os.close(here)
    os.close(there)
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d INFO x", told)


def test_lines_that_were_lost_have_a_priority_too() -> None:
    reader, writer = os.pipe()
    handler = NonBlockingHandler(writer, queued_lines=0)
    handler.setFormatter(JournalFormatter(FORMAT))
    handler.emit(record(logging.INFO, "lost"))
    handler.close()
    assert os.read(reader, 4096) == b"<4>WARNING 1 log lines lost: nobody was reading\n"
    os.close(reader)
    os.close(writer)


def test_a_large_file_is_told_at_its_start_and_a_small_one_is_not(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    rig = Rig(tmp_path)
    rig.put("large", b"x" * 2000)
    rig.put("small", b"x")
    rig.run()
    told = [each.getMessage() for each in caplog.records if each.getMessage().startswith("sending ")]
    assert told == ["sending path=large bytes=2000"]


class Entry:
    path = b"large"


class Flight:
    entry = Entry()
    done_bytes = sent_bytes = 0
    progressed = False


def test_the_progress_of_a_large_file_is_told_every_minute(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    now, flight = [1000.0], Flight()
    nothing: Any = lambda *_: None  # noqa: E731
    follow = Dispatcher(nothing, [], *[nothing] * 6, lambda: now[0], nothing)._follow(flight)  # type: ignore[arg-type]
    for second in range(1, 151):
        now[0] += 1.0
        follow(Progress("large", 500 + second * 10, 10_000, resumed_at=500))
    told = [each.getMessage() for each in caplog.records]
    assert told == [
        "under way path=large done=1100 bytes=10000 percent=11 rate_bytes_per_s=10",
        "under way path=large done=1700 bytes=10000 percent=17 rate_bytes_per_s=10",
    ]
    assert TOLD_EVERY_S == MINUTE_S
    assert (flight.done_bytes, flight.sent_bytes) == (2000, 1500)  # the rate counts what this attempt has sent


def test_an_agent_at_rest_says_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    rig = Rig(tmp_path)
    rig.put("f")
    rig.loop.stop_at = rig.loop.now + MINUTE_S
    rig.run(drain=False)
    assert any("delivered path=f" in each.getMessage() for each in caplog.records)
    caplog.clear()
    rig.loop.stop_at = rig.loop.now + 3600
    rig.run(drain=False)
    assert [each.getMessage() for each in caplog.records] == []
