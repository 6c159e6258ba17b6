"""A log that nobody reads loses lines, and says how many as soon as somebody reads again."""

from __future__ import annotations

import logging
import os
import pty
import re
import select
import sys
from collections.abc import Iterator
from types import SimpleNamespace

import pytest

from iot.spooler.process import logs
from iot.spooler.process.logs import JournalFormatter, NonBlockingHandler, formatter_for

ROOM, LINES = 5, 40
LONG = "x" * 30_000
"""A few fill the pipe."""


def test_how_many_lines_were_lost_is_said_before_the_next_that_is_not() -> None:
    reader, writer = os.pipe()
    handler = NonBlockingHandler(writer, queued_lines=ROOM)
    try:
        for _ in range(LINES):
            handler.emit(record(LONG))
        heard = ""
        while handler._lines.qsize():
            heard += os.read(reader, 65536).decode()
        handler.emit(record("again"))
        while "again\n" not in heard:
            heard += os.read(reader, 65536).decode()
        *whole, lost, again = heard.splitlines()
        assert again == "again"
        assert 0 < len(whole) < LINES
        assert lost == f"{LINES - len(whole)} log lines lost: nobody was reading"
    finally:
        handler.close()
        os.close(reader)
        os.close(writer)


def test_where_others_have_made_the_file_non_blocking_its_reader_still_gets_every_line() -> None:
    """Its flags are those of every process that shares it: of a program in Node that started the agent, for one."""
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    handler = NonBlockingHandler(writer, queued_lines=LINES)
    try:
        for number in range(LINES):
            handler.emit(record(f"{number} {LONG}"))
        heard = ""
        while heard.count("\n") < LINES and select.select([reader], [], [], 10.0)[0]:
            heard += os.read(reader, 65536).decode()
        assert heard.splitlines() == [f"{number} {LONG}" for number in range(LINES)]
    finally:
        handler.close()
        os.close(reader)
        os.close(writer)


def record(message: str) -> logging.LogRecord:
    return logging.LogRecord("n", logging.INFO, "f", 1, message, None, None)


@pytest.mark.parametrize(
    ("level", "priority"),
    [
        (logging.CRITICAL, 2),
        (logging.ERROR, 3),
        (logging.WARNING, 4),
        (logging.INFO + 5, 6),
        (logging.DEBUG, 7),
        (5, 7),
    ],
)
def test_the_journal_gets_each_line_with_the_priority_of_its_level(level: int, priority: int) -> None:
    line = logging.LogRecord("n", level, "f", 1, "words", None, None)
    assert JournalFormatter("%(message)s").format(line) == f"<{priority}>words"


def test_a_traceback_is_as_urgent_as_its_first_line() -> None:
    try:
        raise ZeroDivisionError
    except ZeroDivisionError:
        line = logging.LogRecord("n", logging.ERROR, "f", 1, "failed", None, sys.exc_info())
    assert {each[:3] for each in JournalFormatter("%(message)s").format(line).split("\n")} == {"<3>"}


def test_a_terminal_gets_the_time_and_the_journal_and_any_other_reader_have_their_own() -> None:
    reader, writer = os.pipe()
    here, there = pty.openpty()
    try:
        status = os.fstat(writer)
        stream = f"{status.st_dev}:{status.st_ino}"
        assert isinstance(formatter_for(writer, {"JOURNAL_STREAM": stream}), JournalFormatter)
        for environment in ({}, {"JOURNAL_STREAM": f"{stream}1"}):
            plain = formatter_for(writer, environment)
            assert not isinstance(plain, JournalFormatter)
            assert plain.format(record("words")) == "INFO words"
        told = formatter_for(there, {}).format(record("words"))
        assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d INFO words", told)
    finally:
        for file in (reader, writer, here, there):
            os.close(file)


@pytest.fixture
def pipe() -> Iterator[tuple[int, NonBlockingHandler]]:
    reader, writer = os.pipe()
    handler = NonBlockingHandler(writer)
    yield reader, handler
    handler.close()
    os.close(reader)
    os.close(writer)


def test_at_the_end_the_last_lines_are_written_and_a_second_end_does_no_harm(
    pipe: tuple[int, NonBlockingHandler],
) -> None:
    reader, handler = pipe
    handler.emit(record("last \ud800 words"))
    handler._lost = 2
    for _ in range(2):
        handler.close()
    assert os.read(reader, 65536) == b"last \\ud800 words\n2 log lines lost: nobody was reading\n"
    assert not handler._writer.is_alive()
    assert handler not in logging._handlerList


def test_a_process_that_ends_does_not_wait_for_its_log(pipe: tuple[int, NonBlockingHandler]) -> None:
    assert pipe[1]._writer.daemon


def test_a_call_that_cannot_be_formatted_is_reported_and_the_next_line_comes(
    pipe: tuple[int, NonBlockingHandler], monkeypatch: pytest.MonkeyPatch
) -> None:
    reader, handler = pipe
    wrong: list[logging.LogRecord] = []
    monkeypatch.setattr(handler, "handleError", wrong.append)
    handler.emit(logging.LogRecord("n", logging.INFO, "f", 1, "%d", ("no number",), None))
    handler.emit(record("next"))
    assert os.read(reader, 65536) == b"next\n"
    assert len(wrong) == 1


def test_a_reader_that_has_gone_ends_nothing() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    handler = NonBlockingHandler(writer)
    for _ in range(2):
        handler.emit(record("nobody hears it"))
    handler.close()
    os.close(writer)
    assert not handler._writer.is_alive()


def test_at_the_end_a_reader_that_stalls_is_not_waited_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "LAST_WORDS_S", 0.01)
    reader, writer = os.pipe()
    handler = NonBlockingHandler(writer)
    for _ in range(5):
        handler.emit(record(LONG))
    handler.close()
    assert handler._writer.is_alive()
    os.close(reader)
    handler._writer.join(10)
    os.close(writer)


def test_lost_lines_are_told_once(pipe: tuple[int, NonBlockingHandler]) -> None:
    reader, handler = pipe
    handler._lost = 1
    for words in ("one", "two"):
        handler.emit(record(words))
    heard = b""
    while b"two" not in heard:
        heard += os.read(reader, 65536)
    assert heard == b"1 log lines lost: nobody was reading\none\ntwo\n"


def test_a_file_that_takes_nothing_now_is_waited_for_and_not_asked_again_and_again(
    pipe: tuple[int, NonBlockingHandler], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> int:
        raise BlockingIOError

    asked: list[tuple[object, ...]] = []
    waiting = SimpleNamespace(register=lambda *given: asked.append(given), poll=lambda: asked.append(("poll",)))
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", full)
        patch.setattr(select, "poll", lambda: waiting)
        assert pipe[1]._write_some(memoryview(b"x")) == 0
    assert asked == [(pipe[1]._fd, select.POLLOUT), ("poll",)]
