"""Whether the wall clock is synchronised, and which boot this is, as the kernel says it."""

import re

import pytest

from iot.spooler.state import elapsed
from iot.spooler.state.elapsed import Moment, Odometer


@pytest.mark.parametrize(("state", "told"), [(0, True), (2, True), (5, False)])
def test_adjtimex_says_whether_the_clock_is_synchronised(monkeypatch, state, told):
    monkeypatch.setattr(elapsed, "_adjtimex", lambda: lambda _: state)
    assert elapsed.is_synchronised() is told
    assert elapsed.observe().synchronised is told


@pytest.mark.parametrize("call", [None, lambda _: -1])
def test_where_adjtimex_is_refused_timesyncd_may_know_it_and_else_nobody(monkeypatch, tmp_path, call):
    """A unit with ProtectClock= may not call it."""
    monkeypatch.setattr(elapsed, "_adjtimex", lambda: call)
    monkeypatch.setattr(elapsed, "TIMESYNCD", str(tmp_path / "synchronized"))
    assert elapsed.is_synchronised() is None
    assert elapsed.observe().synchronised is False
    (tmp_path / "synchronized").touch()
    assert elapsed.is_synchronised() is True


def test_the_boot_id_is_eight_hex_digits_also_where_there_is_none(monkeypatch):
    assert re.fullmatch("[0-9a-f]{8}", elapsed.boot_id())
    monkeypatch.setattr(elapsed, "_boot", lambda: "")
    assert elapsed.boot_id() == "00000000"


@pytest.mark.parametrize(
    ("before", "now", "passed_s"), [(True, True, 1000.0), (True, False, 5.0), (False, True, 5.0), (False, False, 5.0)]
)
def test_across_a_reboot_the_wall_clock_counts_only_if_it_was_synchronised_before_and_after(before, now, passed_s):
    earlier, later = Moment("a", 77.0, 1e9, before), Moment("b", 5.0, 1e9 + 1000.0, now)
    assert elapsed.elapsed_s(earlier, later) == passed_s


def test_a_clock_that_goes_back_makes_nothing_younger() -> None:
    assert elapsed.elapsed_s(Moment("a", 77.0, 1e9, True), Moment("a", 76.0, 1e9, True)) == 0
    assert elapsed.elapsed_s(Moment("a", 77.0, 1e9, True), Moment("b", 5.0, 1e9 - 1000, True)) == 5.0


def test_where_the_kernel_names_no_boot_it_may_be_another_one_at_any_time() -> None:
    for boots in (("", "b"), ("a", "")):
        before, now = Moment(boots[0], 77.0, 1e9, False), Moment(boots[1], 500.0, 1e9 + 1000, False)
        assert elapsed.elapsed_s(before, now) == 0
    assert elapsed.elapsed_s(Moment("", 77.0, 1e9, False), Moment("", 500.0, 1e9 + 1000, False)) == 0


def test_seconds_add_up_over_processes_and_boots() -> None:
    moments = iter(
        [
            Moment("b", 10.0, 50.0, False),
            Moment("b", 12.0, 52.0, False),
            Moment("b", 15.0, 1e9, True),
            Moment("b", 16.0, 1e9 + 1, True),
        ]
    )
    odometer = Odometer(lambda: next(moments))
    assert odometer.now_s() == 2.0
    odometer.restore(100.0, Moment("a", 7000.0, 1e9 - 500.0, True))
    assert odometer.moment == Moment("b", 15.0, 1e9, True)
    assert odometer.now_s() == 100.0 + 500.0 + 1.0
