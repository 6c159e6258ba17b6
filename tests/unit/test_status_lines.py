"""Each line of the status table: what it says in which case, and what it leaves out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from unit.test_status_screen import CONTENT, OUTBOX

from iot.spooler.status.screen import read, table

INBOX: dict[str, Any] = {
    "name": "orders",
    "state": "started",
    "state_reason": None,
    "state_since": 1.0,
    "last_look_at": 970,
    "taken": 3,
    "pending": 2,
    "current": [],
    "waiting": 1,
    "not_taken": 0,
    "reasons": {},
    "waits_because": None,
    "error": None,
}


def lines(label: str, more: dict[str, Any], wall: float = 1000.0) -> list[str]:
    """The lines of a label, each joined to one, of a status in which this is different."""
    found: list[str] = []
    for line in table({**CONTENT, **more}, running=True, wall=wall).splitlines():
        if line[:12].strip():
            found.append(line)
        else:
            found[-1] += line[11:]
    return [line[12:] for line in found if line[:12].rstrip() == label]


def outbox_line(**more: Any) -> str:
    (line,) = lines("outbox", {"outboxes": [{**OUTBOX, "never_sent": {}, **more}]})
    return line.removeprefix("measurements: ")


def inbox_line(**more: Any) -> str:
    (line,) = lines("inbox", {"inboxes": [{**INBOX, **more}]})
    return line


@pytest.mark.parametrize("content", [b"{", b"\xff{}", b"[]", b"1"])
def test_what_is_no_status_is_none(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "status.json").write_bytes(content)
    assert read(tmp_path / "status.json") is None


def test_a_status_is_read_and_one_that_is_not_there_is_none(tmp_path: Path) -> None:
    (tmp_path / "status.json").write_text('{"pid": 1}')
    assert read(tmp_path / "status.json") == {"pid": 1}
    assert read(tmp_path / "none.json") is None


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (-5, "0 s"),
        (0, "0 s"),
        (1, "1 s"),
        (59, "59 s"),
        (60, "1 min 0 s"),
        (3599, "59 min 59 s"),
        (3600, "1 h 0 min"),
        (3661, "1 h 1 min"),
        (86399, "23 h 59 min"),
        (86400, "1 d 0 h"),
        (2 * 86400 + 7199, "2 d 1 h"),
    ],
)
def test_a_time_has_its_two_largest_parts(seconds: int, words: str) -> None:
    backlog = {"files": 1, "bytes": 2, "oldest_at": None, "left_s": seconds}
    assert lines("backlog", {"backlog": backlog}) == [f"1 file, 2 B, {words} left"]


def test_a_word_that_is_too_long_for_the_line_stays_whole_so_that_it_can_be_copied() -> None:
    path = "a-b" * 40
    line = next(
        line for line in table({**CONTENT, "last_error": path}, running=True, wall=0.0).splitlines() if path in line
    )
    assert line.strip().removeprefix("last error").strip() == path
    assert lines("last error", {"last_error": "word " * 12 + "eleven-long"}) == ["word " * 12 + "eleven-long"]


@pytest.mark.parametrize(
    ("updated_at", "words"),
    [(985.1, "updated 14 s ago"), (985.0, "nothing has changed for 15 s"), (None, "updated 0 s ago")],
)
def test_an_agent_that_has_written_nothing_for_a_while_is_at_rest(updated_at: float | None, words: str) -> None:
    content = {name: value for name, value in CONTENT.items() if name != "updated_at"}
    when = {} if updated_at is None else {"updated_at": updated_at}
    assert table({**content, **when}, running=True, wall=1000.0).splitlines()[0].endswith(f"process 4711, {words}")


def test_a_backlog_without_a_file_has_no_oldest_one_and_no_time_left() -> None:
    assert lines("backlog", {"backlog": {"files": 0, "bytes": 0, "oldest_at": None}}) == ["0 files, 0 B"]


@pytest.mark.parametrize(("limit", "words"), [(None, ""), (2048.7, " of 2.0 KiB/s at most")])
def test_the_rate_is_shown_with_its_limit(limit: float | None, words: str) -> None:
    assert lines("rate", {"rate_limit_bytes_per_s": limit}) == [f"120.0 KiB/s{words}, 2 in flight"]


def test_each_quota_has_a_line() -> None:
    day = {"per": "day", "used_bytes": 10, "bytes": 1024, "resets_at": 1061}
    told = lines("quota", {"quota": [day, {**day, "per": "month", "resets_at": 87400}]})
    assert told == [
        "10 B of 1.0 KiB this day, resets in 1 min 1 s",
        "10 B of 1.0 KiB this month, resets in 1 d 0 h",
    ]
    assert lines("quota", {}) == []


def test_the_last_error_is_told() -> None:
    assert lines("last error", {"last_error": "no answer"}) == ["no answer"]


def test_of_a_file_in_flight_that_has_not_begun_only_the_size_is_told() -> None:
    begun = {"path": "a", "bytes": 2048, "done_bytes": 0}
    assert lines("sending", {"current": [begun]}) == ["a: 0 %, 0 B of 2.0 KiB"]
    assert lines("sending", {"current": [{**begun, "rate_bytes_per_s": 5}]}) == ["a: 0 %, 0 B of 2.0 KiB, 5 B/s"]


def test_an_outbox_at_rest_tells_its_figures_and_nothing_else() -> None:
    figures = "12 files, 9.0 MiB, 1 not ready (1 open for writing), 0 waiting, 0 kept, 0 held, completeness known"
    assert outbox_line() == f"started, {figures}"
    assert outbox_line(waiting=4, kept=5, held=6).endswith(", 4 waiting, 5 kept, 6 held, completeness known")


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"hooks": 2}, "2 hooks to end"),
        ({"scanned_often_because": "no inotify"}, "scanned often (no inotify)"),
        ({"events_lost": 3}, "3 times events lost"),
        ({"earlier_destination": 7}, "7 to an earlier destination"),
        ({"never_sent": {"symlink": 3, "fifo": 1}}, "4 never sent (symlink: 3, fifo: 1)"),
        ({"dropped": 2, "dropped_bytes": 1024}, "2 dropped (1.0 KiB)"),
        ({"over_budget": "all kept"}, "over budget and nothing more may be dropped: all kept"),
        ({"waits_because": "outside its window"}, "outside its window"),
        (
            {"shares_destination_with": ["a", "b"]},
            "same destination as a, b: files of the same name overwrite each other",
        ),
    ],
)
def test_what_is_special_about_an_outbox_is_told_last(more: dict[str, Any], words: str) -> None:
    assert outbox_line(**more) == f"{outbox_line()}, {words}"


def test_all_that_is_special_about_an_outbox_is_told_together() -> None:
    told = outbox_line(dropped=1, dropped_bytes=1, over_budget="all kept", waits_because="no quota", error="read-only")
    assert told.endswith(
        "known, 1 dropped (1 B), over budget and nothing more may be dropped: all kept, no quota (read-only)"
    )


def test_a_file_that_misses_its_marker_counts_once_more() -> None:
    assert " 2 not ready (1 open for writing, 1 without a marker), " in outbox_line(without_marker=1)
    older = {name: value for name, value in OUTBOX.items() if name != "without_marker"}
    (line,) = lines("outbox", {"outboxes": [older]})
    assert " 1 not ready (1 open for writing), " in line


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"state": "started", "state_since": 1.0, "source_failures": 3}, "started"),
        ({"state": "suspended", "state_since": None}, "suspended"),
        ({"state": "suspended", "state_since": 900.0}, "suspended for 1 min 40 s"),
        ({"state": "source failed", "state_since": 990.0, "source_failures": 0}, "source failed for 10 s"),
        (
            {"state": "source failed", "state_since": 990.0, "source_failures": 2},
            "source failed for 10 s, tried 2 times",
        ),
    ],
)
def test_a_state_but_started_tells_for_how_long(more: dict[str, Any], words: str) -> None:
    assert outbox_line(**more).partition(", 12 files")[0] == words


@pytest.mark.parametrize(
    ("state", "waits_because", "error", "words"),
    [
        ("suspended", "by an operator", None, ", by an operator"),
        ("stopped", "by an operator", None, ", by an operator"),
        ("stopped", None, None, " (why)"),
        ("suspended", None, "why", " (why)"),
        ("source failed", "no quota", None, ", no quota (why)"),
        ("source failed", None, "other", " (other) (why)"),
    ],
)
def test_the_reason_of_a_state_is_told_once(
    state: str, waits_because: str | None, error: str | None, words: str
) -> None:
    told = {"state": state, "state_reason": "why", "waits_because": waits_because, "error": error}
    assert outbox_line(**told).rpartition("completeness known")[2] == words
    assert inbox_line(**told).rpartition("0 not taken")[2] == words


def test_an_inbox_tells_when_it_was_looked_at_and_what_it_has_taken() -> None:
    told = "3 files taken since start, 2 to fetch, 1 waiting, 0 not taken"
    assert inbox_line() == f"orders: started, looked at 30 s ago, {told}"
    assert inbox_line(last_look_at=None) == f"orders: started, not looked at yet, {told}"


def test_what_an_inbox_does_not_take_is_told_with_its_reason() -> None:
    reasons = {"a": "too large", "b": "a link"}
    assert inbox_line(not_taken=2, reasons=reasons).endswith(" 2 not taken (a: too large; b: a link)")


def test_what_an_inbox_fetches_follows_it() -> None:
    item = {"path": "a", "bytes": 4, "done_bytes": 1, "percent": 25, "rate_bytes_per_s": 1, "left_s": 3}
    inboxes = {"inboxes": [{**INBOX, "current": [item]}]}
    assert lines("fetching", inboxes) == ["a: 25 %, 1 B of 4 B, 1 B/s, 3 s left"]
    assert table({**CONTENT, **inboxes}, running=True, wall=0.0).splitlines()[-1].startswith("fetching    a: ")


def test_a_reachable_server_that_is_not_used_shows_neither_a_time_nor_an_error() -> None:
    other = {"server": "a:22", "table": "server", "next_attempt_at": None, "error": None}
    for more, words in (({}, ""), ({"next_attempt_at": 1005}, ", asked in 5 s"), ({"error": "no"}, " (no)")):
        connection = {**CONTENT["connection"], "other_server": {**other, **more}}
        assert lines("not used", {"connection": connection}) == [f"[server] a:22{words}"]
