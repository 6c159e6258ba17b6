"""Text that came from elsewhere, made fit for a terminal, a log line and a message."""

from __future__ import annotations

import logging
import sys

import pytest

from iot.transfer.terminal import (
    TerminalSafeFormatter,
    brief,
    counted_files,
    did_you_mean,
    human_bytes,
    in_our_words,
    quoted,
    terminal_safe,
)


@pytest.mark.parametrize(
    ("text", "safe"),
    [
        ("plain täxt", "plain täxt"),
        ("", ""),
        ("a\tb\nc", "a\\tb\\nc"),
        ("\x1b[31mred", "\\x1b[31mred"),
        ("\u202etxt", "\\u202etxt"),
        ("\udc80\udcff", "\\x80\\xff"),
        ("\udc7f\udd00", "\\udc7f\\udd00"),
        ("a\u00a0b", "a\\xa0b"),
    ],
)
def test_what_could_move_the_cursor_or_reorder_text_is_escaped(text: str, safe: str) -> None:
    assert terminal_safe(text) == safe


def record_of(message: str, *arguments: object, failed: bool = False) -> logging.LogRecord:
    info = None
    if failed:
        try:
            raise ValueError("bad\x1bnews")
        except ValueError:
            info = sys.exc_info()
    return logging.LogRecord("iot", logging.INFO, __file__, 1, message, arguments, info)


def test_an_event_stays_on_one_line_whatever_is_in_its_values() -> None:
    record = record_of("path=%s", "a\nb\x1b")
    assert TerminalSafeFormatter("%(levelname)s %(message)s").format(record) == "INFO path=a\\nb\\x1b"
    assert record.getMessage() == "path=a\nb\x1b"  # others that handle it have it as it was
    assert TerminalSafeFormatter().format(record_of("100 %s", "%d")) == "100 %d"


def test_a_traceback_keeps_its_lines_and_is_escaped_even_if_another_formatter_was_first() -> None:
    record = record_of("failed", failed=True)
    logging.Formatter().format(record)
    lines = TerminalSafeFormatter().format(record).split("\n")
    assert lines[:2] == ["failed", "Traceback (most recent call last):"]
    assert lines[-1] == "ValueError: bad\\x1bnews"


def test_long_text_is_cut_and_marked() -> None:
    assert brief("x" * 200) == "x" * 200
    assert brief("x" * 201) == "x" * 200 + "..."
    assert brief("abcdef", 3) == "abc..."
    assert brief("abc", 3) == "abc"


def test_a_name_is_quoted_and_what_is_no_text_in_it_escaped() -> None:
    assert quoted(b"a b") == "'a b'"
    assert quoted("ü\n".encode() + b"\xff") == "'ü\\n\\\\xff'"


def test_a_word_is_answered_with_the_nearest_known_one() -> None:
    assert did_you_mean("statu", ["check", "status", "stat"]) == "; did you mean status?"
    assert did_you_mean("xyz", ["check", "status"]) == ""


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ("Input should be a valid integer, unable to parse string as an integer", "must be a whole number"),
        ("Input should be a valid number", "must be a number"),
        ("Input should be a valid boolean, unable to interpret input", "must be true or false"),
        ("Input should be a valid string", "must be text"),
        ("Input should be greater than or equal to 1", "must be at least 1"),
        ("Input should be less than or equal to 9", "must be at most 9"),
        ("Input should be 'a' or 'b'", "must be 'a' or 'b'"),
        ("String should have at least 1 character", "must have at least 1 character"),
        ("Value error, must be a name", "must be a name"),
        ("Field required", "Field required"),
    ],
)
def test_what_pydantic_says_is_said_in_our_words(theirs: str, ours: str) -> None:
    assert in_our_words(theirs) == ours


def test_one_file_is_no_files() -> None:
    assert [counted_files(count) for count in (0, 1, 2)] == ["0 files", "1 file", "2 files"]


@pytest.mark.parametrize(
    ("count", "shown"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        (1536, "1.5 KiB"),
        (1024**2 - 1, "1024.0 KiB"),
        (1024**2, "1.0 MiB"),
        (1024**3, "1.0 GiB"),
        (1024**4, "1.0 TiB"),
        (5000 * 1024**4, "5000.0 TiB"),
    ],
)
def test_a_byte_count_is_shown_as_people_read_it(count: int, shown: str) -> None:
    assert human_bytes(count) == shown
