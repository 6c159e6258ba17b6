"""Text that is safe for a terminal or a log, whatever a server, a file name or an exception put into it."""

from __future__ import annotations

import copy
import logging
import re
from collections.abc import Iterable

__all__ = [
    "TerminalSafeFormatter",
    "brief",
    "counted_files",
    "did_you_mean",
    "human_bytes",
    "in_our_words",
    "quoted",
    "terminal_safe",
]

BRIEF = 200
"""Default length limit of `brief`, in characters."""

WORDS = (
    (r"^Input should be a valid integer.*", "must be a whole number"),
    (r"^Input should be a valid number.*", "must be a number"),
    (r"^Input should be a valid boolean.*", "must be true or false"),
    (r"^Input should be a valid string.*", "must be text"),
    (r"^Input should be a valid tuple", "must be a list"),
    (r"^Input should be greater than or equal to", "must be at least"),
    (r"^Input should be less than or equal to", "must be at most"),
    (r"^Input is not a valid path.*", "must be a path"),
    (r"^(Input|String) should\b", "must"),
)
"""What pydantic says, and how it is said here."""


def terminal_safe(text: str) -> str:
    """Escape characters that could move the cursor, or colour or reorder the text of a terminal."""
    if text.isprintable():  # the common case, and fast to check
        return text
    return "".join(char if char.isprintable() else _escaped(char) for char in text)


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """What to add to the message that there is no such word: the known one that was probably meant; "" if none is."""
    import difflib  # only for what is wrong

    near = difflib.get_close_matches(word, list(known), 1)
    return f"; did you mean {near[0]}?" if near else ""


class TerminalSafeFormatter(logging.Formatter):
    """Escapes every log record, whoever wrote it: an event stays on one line, and a traceback keeps its lines."""

    def format(self, record: logging.LogRecord) -> str:
        plain = copy.copy(record)
        plain.msg, plain.args = terminal_safe(record.getMessage()), ()
        plain.exc_text = None  # another formatter may have stored it unescaped
        return "\n".join(terminal_safe(line) for line in super().format(plain).split("\n"))


def brief(text: str, most: int = BRIEF) -> str:
    """Truncate foreign text to a length that fits into a message."""
    return text if len(text) <= most else f"{text[:most]}..."


def quoted(name: bytes) -> str:
    """A name or path for a message: in quotes, with invalid UTF-8 escaped."""
    return repr(name.decode("utf-8", "backslashreplace"))


def in_our_words(message: str) -> str:
    """What pydantic says about a value, as this program says it."""
    message = message.removeprefix("Value error, ")
    for theirs, ours in WORDS:
        message = re.sub(theirs, ours, message)
    return message


def counted_files(count: int) -> str:
    return "1 file" if count == 1 else f"{count} files"


def human_bytes(count: float) -> str:
    """A byte count for people: 1536 -> "1.5 KiB"."""
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
