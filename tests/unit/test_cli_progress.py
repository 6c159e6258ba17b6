"""The bar and the lines of put and get, as text, at 80 columns."""

from __future__ import annotations

import pytest

from iot.sftp.client.cli.progress import Bar, Display, Meter
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
