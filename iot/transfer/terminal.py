"""Text for a terminal or a log: what a server, a file name or an exception put into it cannot act on either."""

from __future__ import annotations

import copy
import logging

__all__ = ["TerminalSafeFormatter", "brief", "human_bytes", "quoted", "terminal_safe"]

BRIEF = 200
"""Characters that `brief` leaves of a text."""


def terminal_safe(text: str) -> str:
    """A text that cannot move the cursor, colour or reorder a terminal: such characters become escapes."""
    if text.isprintable():  # nearly always, and looked at in one go
        return text
    return "".join(char if char.isprintable() else _escaped(char) for char in text)


class TerminalSafeFormatter(logging.Formatter):
    """Escapes whatever is logged, by whom ever: one event stays one line, and a traceback's lines stay its own."""

    def format(self, record: logging.LogRecord) -> str:
        plain = copy.copy(record)
        plain.msg, plain.args = terminal_safe(record.getMessage()), ()
        plain.exc_text = None  # another formatter may have left it there as it was
        return "\n".join(terminal_safe(line) for line in super().format(plain).split("\n"))


def brief(text: str, most: int = BRIEF) -> str:
    """What somebody else has written, cut to a length that fits into a message."""
    return text if len(text) <= most else f"{text[:most]}..."


def quoted(name: bytes) -> str:
    """A name or path of bytes as it stands in a message: in quotes, what is no text as an escape."""
    return repr(name.decode("utf-8", "backslashreplace"))


def human_bytes(count: float) -> str:
    """A count of bytes for people: 1536 -> "1.5 KiB"."""
    value = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if value < 1024:
            return f"{value:.0f} B" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} TiB"


def _escaped(char: str) -> str:
    if "\udc80" <= char <= "\udcff":  # a byte that is not UTF-8, as surrogateescape keeps it
        return f"\\x{ord(char) - 0xDC00:02x}"
    return repr(char)[1:-1]  # the codec unicode_escape is a file, which a user without rights may not be able to read
