"""Whether the wall clock is synchronised, and which boot this is, as the kernel says it."""

import re

import pytest

from iot.spooler.state import elapsed
from iot.spooler.state.elapsed import Moment


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
    assert elapsed.elapsed_s(Moment("", 77.0, 1e9, False), Moment("", 500.0, 1e9 + 1000, False)) == 0
