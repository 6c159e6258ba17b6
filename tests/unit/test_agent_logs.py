"""A log that nobody reads loses lines, and says how many as soon as somebody reads again."""

from __future__ import annotations

import logging
import os
import select

from iot.spooler.process.logs import NonBlockingHandler

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
