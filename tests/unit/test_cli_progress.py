"""The bar and the lines of put and get, as text, at 80 columns."""

from __future__ import annotations

import os
import shutil
import sys
from typing import Any

import pytest

from iot.sftp.client.cli.progress import BAR_MAX, NAME_MAX, Bar, Display, Meter, Quiet, _duration, display
from iot.transfer.model import Progress

MIB = 1024 * 1024


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def at(done: float, total: float = 40 * MIB, resumed: int = 0) -> Progress:
    return Progress("f", int(done), int(total), resumed)


def test_the_bar_of_one_file_has_rate_time_left_and_where_it_resumed(clock: Clock) -> None:
    meter = Meter(40 * MIB, 1, clock=clock)
    meter.plan("f", 40 * MIB)
    meter.progressed("f", at(10 * MIB, resumed=10 * MIB))
    assert meter.line(79, "big.bin") == (
        "big.bin  [====               ]  25 %  10.0 MiB of 40.0 MiB  resumed at 10.0 MiB"
    )
    for second in range(1, 6):
        clock.now = second
        meter.progressed("f", at((10 + 2 * second) * MIB, resumed=10 * MIB))
    line = meter.line(79, "big.bin")
    assert "50 %  20.0 MiB of 40.0 MiB  2.0 MiB/s  0:10 left  resumed at 10.0 MiB" in line
    assert len(line) <= 79


def test_the_bar_of_many_files_counts_them(clock: Clock) -> None:
    meter = Meter(4 * MIB, 4, clock=clock)
    for name in "abcd":
        meter.plan(name, MIB)
    clock.now = 1
    meter.progressed("a", at(MIB, MIB))
    meter.finished("a", MIB)
    assert meter.line(79) == "1/4 files  [====              ]  25 %  1.0 MiB of 4.0 MiB  1.0 MiB/s  0:03 left"
    meter.finished("b", 0)
    assert "33 %  1.0 MiB of 3.0 MiB" in meter.line(79)


def test_the_rate_is_that_of_the_last_seconds(clock: Clock) -> None:
    meter = Meter(1000 * MIB, 1, clock=clock)
    meter.plan("f", 1000 * MIB)
    for second in range(1, 40):
        clock.now = second
        meter.progressed("f", at(10 * MIB * min(second, 20) + max(0, second - 20) * MIB, 1000 * MIB))
    assert "1.0 MiB/s" in meter.line(79)


def test_a_file_that_turns_out_larger_never_passes_a_hundred_percent(clock: Clock) -> None:
    meter = Meter(0, 1, clock=clock)
    meter.progressed("f", at(500, 500))
    assert "100 %" in meter.line(79)
    meter.progressed("f", at(600, 1200))
    assert "50 %" in meter.line(79)


@pytest.mark.parametrize("columns", [1, 20, 40, 79, 200])
def test_a_line_fits(columns: int, clock: Clock) -> None:
    meter = Meter(10**15, 12345, clock=clock)
    clock.now = 1
    meter.progressed("f", at(10**14, 10**15, resumed=10**9))
    assert len(meter.line(columns)) <= columns


def test_lines_come_seldom_where_there_is_no_terminal(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    shown = Display(Meter(100, 1, clock=clock), "a\x1b", clock=clock)
    told = shown.of("f", 100)
    for second in range(95):
        clock.now = float(second)
        told(at(second, 100))
    lines = capsys.readouterr().err.splitlines()
    assert lines == [
        "a\\x1b, 30 %, 30 B of 100 B, 1 B/s, 1:10 left",
        "a\\x1b, 60 %, 60 B of 100 B, 1 B/s, 0:40 left",
        "a\\x1b, 90 %, 90 B of 100 B, 1 B/s, 0:10 left",
    ]


def test_the_bar_gives_way_to_a_line_and_leaves_nothing(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    bar = Bar(Meter(100, 1, clock=clock), "f", clock=clock)
    clock.now = 1
    bar.of("f", 100)(at(50, 100))
    bar.say("g is done")
    bar.close()
    drawn = capsys.readouterr().err
    assert drawn.startswith("\r\x1b[Kf")
    assert drawn.endswith("\r\x1b[Kg is done\n")


# -- numbers


def test_an_empty_transfer_is_done_when_its_files_are(clock: Clock) -> None:
    meter = Meter(0, 1, clock=clock)
    assert meter.percent == 0
    meter.finished("f", 0)
    assert meter.percent == 100


def test_what_is_sent_of_a_file_that_was_done_before_counts_as_resumed(clock: Clock) -> None:
    meter = Meter(100, 2, clock=clock)
    meter.plan("f", 60)
    meter.progressed("f", at(30, 60, resumed=20))
    assert meter.resumed_bytes == 20
    meter.finished("f", 60)
    assert (meter.resumed_bytes, meter.parts()[:3]) == (20, ["1/2 files", "60 %", "60 B of 100 B"])
    meter.finished("f", 10)
    assert (meter.resumed_bytes, meter.parts()[2]) == (10, "10 B of 50 B")


def test_a_file_that_was_never_begun_is_finished_with_what_was_sent_of_it(clock: Clock) -> None:
    meter = Meter(100, 2, clock=clock)
    meter.plan("f", 60)
    meter.finished("f", 0)
    assert (meter.percent, meter.parts()[2]) == (0, "0 B of 40 B")


def test_a_rate_needs_time_and_bytes_to_go_by(clock: Clock) -> None:
    meter = Meter(100, 1, clock=clock)
    meter.plan("f", 100)
    meter.progressed("f", at(50, 100))
    assert len(meter.parts("f")) == 3
    clock.now = 2.0
    assert meter.parts("f")[3:] == ["25 B/s", "0:02 left"]
    idle = Meter(100, 1, clock=clock)
    clock.now = 4.0
    idle.progressed("f", at(50, 100, resumed=50))
    assert idle.parts("f")[3:] == ["resumed at 50 B"]


def test_a_byte_is_a_rate_and_an_empty_file_has_a_size(clock: Clock) -> None:
    meter = Meter(100, 1, clock=clock)
    meter.plan("f", 100)
    clock.now = 1.0
    meter.progressed("f", at(1, 100))
    assert meter.parts("f")[3] == "1 B/s"
    empty = Meter(0, 1, clock=clock)
    empty.progressed("f", at(0, 0))
    assert empty.parts("f")[2] == "0 B of 0 B"


def test_no_more_than_all_is_done_whatever_was_planned(clock: Clock) -> None:
    meter = Meter(10, 1, clock=clock)
    meter.plan("f", 100)
    meter.progressed("f", at(50, 100))
    assert meter.percent == 100


def test_only_the_last_ten_seconds_count(clock: Clock) -> None:
    meter = Meter(10_000, 1, clock=clock)
    for second, done in ((0, 0), (1, 1000), (10, 1900), (11, 2000)):
        clock.now = float(second)
        meter.progressed("f", at(done, 10_000))
    assert meter.parts("f")[3] == "100 B/s", "from the second on which is ten seconds ago"
    clock.now = 30.0
    meter.progressed("f", at(3900, 10_000))
    assert meter.parts("f")[3] == "100 B/s"


def test_one_file_is_named_and_many_are_counted(clock: Clock) -> None:
    assert Meter(0, 1, clock=clock).parts("n" * 99)[0] == "n" * NAME_MAX
    assert Meter(0, 2, clock=clock).parts("n")[0] == "0/2 files"
    assert Meter(0, 0, clock=clock).parts()[0] == "0/0 files"


@pytest.mark.parametrize(("columns", "bar"), [(29, None), (30, 4), (31, 5), (50, 24), (99, BAR_MAX)])
def test_a_bar_is_as_wide_as_there_is_room_and_left_out_where_there_is_little(
    clock: Clock, columns: int, bar: int | None
) -> None:
    meter = Meter(100, 1, clock=clock)
    meter.plan("f", 100)
    meter.progressed("f", at(50, 100))
    line = meter.line(columns, "f")
    assert len(line) <= columns
    if bar is None:
        assert line == "f  50 %  50 B of 100 B"
    else:
        assert line == f"f  [{'=' * (bar // 2)}{' ' * (bar - bar // 2)}]  50 %  50 B of 100 B"


@pytest.mark.parametrize(
    ("seconds", "told"),
    [(0, "0:00"), (59.9, "0:59"), (61, "1:01"), (3599, "59:59"),
     (7199, "1:59:59"), (7200, "2:00:00"), (7325, "2:02:05"),
     (1e12, "999:00:00")],
)  # fmt: skip
def test_a_duration_has_hours_where_it_needs_them(seconds: float, told: str) -> None:
    assert _duration(seconds) == told


# -- where it is shown


class Terminal:
    """Standard error; what was flushed is seen."""

    def __init__(self, *, terminal: bool = True) -> None:
        self.terminal, self.waits, self.seen = terminal, "", ""

    def isatty(self) -> bool:
        return self.terminal

    def write(self, text: str) -> None:
        self.waits += text

    def flush(self) -> None:
        self.seen, self.waits = self.seen + self.waits, ""


def test_a_bar_is_drawn_at_once_and_then_ten_times_a_second(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setattr(shutil, "get_terminal_size", lambda: os.terminal_size((40, 24)))
    bar = Bar(Meter(100, 1, clock=clock), "f\x1b", clock=clock)
    told = bar.of("f", 100)
    for now in (0.0, 0.05, 0.099, 0.11, 0.2, 0.22):
        clock.now = now
        told(at(50, 100))
    assert terminal.seen.count("\r\x1b[K") == 3
    assert {len(line) for line in terminal.seen.split("\r\x1b[K")[1:]} == {39}, "a line that is full would wrap"
    assert "f\\x1b  " in terminal.seen


def test_a_bar_that_was_never_drawn_leaves_nothing_to_clear(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    bar = Bar(Meter(100, 1, clock=clock), "f", clock=clock)
    bar.clear()
    assert terminal.waits == ""
    bar.of("f", 100)(at(50, 100))
    bar.clear()
    bar.close()
    assert terminal.waits == "\r\x1b[K"


def test_a_line_is_told_after_half_a_minute_and_then_every_half_minute(clock: Clock, capsys) -> None:
    shown = Display(Meter(100, 1, clock=clock), "f", clock=clock)
    told = shown.of("f", 100)
    for now, lines in ((29.9, 0), (30.0, 1), (59.9, 1), (60.0, 2)):
        clock.now = now
        told(at(50, 100))
        assert capsys.readouterr().err.count("\n") == int(lines > 0 and now % 30 == 0)
    shown.say("g\x1b is done")
    shown.clear()
    assert capsys.readouterr().err == "g\\x1b is done\n"


def test_who_wants_quiet_is_told_nothing(clock: Clock, capsys) -> None:
    shown = Quiet(Meter(100, 1, clock=clock), "f", clock=clock)
    clock.now = 99.0
    shown.of("f", 100)(at(50, 100))
    shown.say("f is done")
    shown.close()
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("quiet", "terminal", "kind"),
    [(True, True, Quiet), (True, False, Quiet), (False, True, Bar), (False, False, Display)],
)
def test_what_is_shown_fits_where_it_goes_and_is_cleared_whatever_happens(
    monkeypatch: pytest.MonkeyPatch, quiet: bool, terminal: bool, kind: type[Any]
) -> None:
    ended: list[str] = []
    monkeypatch.setattr(sys, "stderr", Terminal(terminal=terminal))
    monkeypatch.setattr(Display, "close", lambda _: ended.append("closed"))

    def broken() -> None:
        with display(7, 1, "f", quiet=quiet) as shown:
            assert type(shown) is kind
            assert shown.meter.parts(shown._name)[::2] == ["f", "0 B of 7 B"]
            raise KeyError

    with pytest.raises(KeyError):
        broken()
    assert ended == ["closed"]
