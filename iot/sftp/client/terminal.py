"""Text for a terminal or a log: what a server, a file name or an exception put into it cannot act on either."""

from __future__ import annotations

import copy
import logging

__all__ = ["TerminalSafeFormatter", "terminal_safe"]


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


def _escaped(char: str) -> str:
    if "\udc80" <= char <= "\udcff":  # a byte that is not UTF-8, as surrogateescape keeps it
        return f"\\x{ord(char) - 0xDC00:02x}"
    return char.encode("unicode_escape", "surrogatepass").decode("ascii")
