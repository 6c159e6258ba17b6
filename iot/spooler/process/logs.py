"""Logging to standard error that never blocks the agent: losing log lines is better than delaying deliveries.

The reader of standard error may stall: a full pipe, a terminal after Ctrl-S, journald being restarted. Writes block
then, so a separate thread does them. Lines that do not fit into its queue are dropped and counted.

The journal gets the priority of each line (sd-daemon(3), "<N>" in front), a terminal the time.
"""

from __future__ import annotations

import logging
import os
import queue
import select
import threading
from collections.abc import Mapping

from iot.transfer import TerminalSafeFormatter

__all__ = ["JournalFormatter", "NonBlockingHandler", "formatter_for"]

QUEUED_LINES = 1000
LAST_WORDS_S = 1.0
LOST = "%d log lines lost: nobody was reading"
PRIORITIES = ((logging.CRITICAL, 2), (logging.ERROR, 3), (logging.WARNING, 4), (logging.INFO, 6), (logging.DEBUG, 7))
"""Of syslog(3), the first that fits."""
FORMAT = "%(levelname)s %(message)s"


class JournalFormatter(TerminalSafeFormatter):
    """Each line with its priority: the journal takes it off and keeps it."""

    def format(self, record: logging.LogRecord) -> str:
        priority = next((number for level, number in PRIORITIES if record.levelno >= level), 7)
        return "\n".join(f"<{priority}>{line}" for line in super().format(record).split("\n"))


def formatter_for(fd: int, environment: Mapping[str, str]) -> logging.Formatter:
    """How lines are written to this file."""
    if _is_journal(fd, environment.get("JOURNAL_STREAM", "")):
        return JournalFormatter(FORMAT)
    if os.isatty(fd):
        return TerminalSafeFormatter(f"%(asctime)s {FORMAT}", "%Y-%m-%d %H:%M:%S")
    return TerminalSafeFormatter(FORMAT)


def _is_journal(fd: int, stream: str) -> bool:
    """Whether this is the stream that systemd has named: a shell between it and us may have led it elsewhere."""
    status = os.fstat(fd)
    return stream == f"{status.st_dev}:{status.st_ino}"


class NonBlockingHandler(logging.Handler):
    """fd: where the lines go. Its flags are not changed, because other processes share them."""

    def __init__(self, fd: int, *, queued_lines: int = QUEUED_LINES) -> None:
        super().__init__()
        self._fd = fd
        self._lines: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._room = queued_lines
        self._lost = 0
        self._writer = threading.Thread(target=self._write, name="iot-spooler log", daemon=True)
        self._writer.start()

    def emit(self, record: logging.LogRecord) -> None:
        try:
            line = self.format(record) + "\n"
        except Exception:  # noqa: BLE001 - logging's own way to report a bad log call
            self.handleError(record)
            return
        if self._lines.qsize() >= self._room:
            self._lost += 1
            return
        self._tell_lost()
        self._put(line)

    def close(self) -> None:
        """Give the last lines a moment to be written; the process exits in any case."""
        self._tell_lost()
        self._lines.put(None)
        self._writer.join(LAST_WORDS_S)
        super().close()

    def _tell_lost(self) -> None:
        if self._lost:
            lost = logging.LogRecord(__name__, logging.WARNING, __file__, 0, LOST, (self._lost,), None)
            self._put(self.format(lost) + "\n")
            self._lost = 0

    def _put(self, line: str) -> None:
        self._lines.put(line.encode("utf-8", "backslashreplace"))

    def _write(self) -> None:
        while (line := self._lines.get()) is not None:
            rest = memoryview(line)
            try:
                while rest:
                    rest = rest[self._write_some(rest) :]
            except OSError:
                pass  # the reader is gone for good, and there is nowhere else to report it

    def _write_some(self, rest: memoryview) -> int:
        try:
            return os.write(self._fd, rest)
        except BlockingIOError:  # whoever shares the file has made it non-blocking: then the waiting is ours
            waiting = select.poll()
            waiting.register(self._fd, select.POLLOUT)
            waiting.poll()
            return 0
