"""The quota of the wire, on a fake clock: counted, kept over restarts, reset with the calendar, shown."""

from __future__ import annotations

import itertools
import logging
from pathlib import Path

from unit.test_windows import BERLIN, HOUR_S, YEAR_S, Box, at

from iot.spooler.agent.agent import Wake
from iot.spooler.gates.quota import KEPT, QuotaGate
from iot.spooler.queue.policy import Admission
from iot.transfer import Journal, Wire

KIB = 1024
NOON = at("2026-11-27 12:00")


class Meter:
    """A gate, its journal, and what the wire has carried."""

    def __init__(self, folder: Path, **limits: int) -> None:
        self.folder, self.limits = folder, limits
        self.start()

    def start(self) -> None:
        self.journal = Journal(self.folder)
        self.wire = Wire()
        beyond = {1: Admission.NONE, 2: Admission.URGENT}
        self.gate = QuotaGate(self.limits, beyond, BERLIN, self.journal, lambda: self.wire)
        self.writes = 0
        write = self.journal.write

        def counted(work):
            self.writes += 1
            return write(work)

        self.journal.write = counted  # type: ignore[method-assign]

    def carry(self, count: int, wall: float = NOON, now: float = 0.0) -> str:
        """-> why an outbox must wait"""
        self.wire = Wire(self.wire.sent + count, self.wire.received)
        self.gate.look(wall, now)
        return self.gate.of(1, flushed=False).reason

    def crash(self) -> None:
        self.journal.close()
        self.start()

    def used(self, wall: float = NOON) -> list[int]:
        return [figure["used_bytes"] for figure in self.gate.figures(wall)]


def test_used_up_it_holds_each_outbox_as_that_says_until_midnight(tmp_path):
    meter = Meter(tmp_path, day=1000 * KIB)
    assert meter.carry(999 * KIB) == ""
    assert meter.carry(1 * KIB) == "the quota of 1000.0 KiB a day is used up until Sat 00:00"
    assert meter.gate.of(1, flushed=True).admission is Admission.NONE
    assert meter.gate.of(2, flushed=False).admission is Admission.URGENT
    assert meter.carry(0, at("2026-11-27 23:59:59")) != ""
    assert meter.carry(0, at("2026-11-28 00:00")) == ""
    assert meter.used() == [0]


def test_a_month_ends_with_the_month_of_the_time_zone(tmp_path):
    meter = Meter(tmp_path, day=10_000 * KIB, month=1000 * KIB)
    assert meter.carry(1000 * KIB) == "the quota of 1000.0 KiB a month is used up until Tue 00:00"
    assert meter.carry(0, at("2026-11-30 23:59:59")) != ""
    assert meter.carry(0, at("2026-12-01 00:00")) == ""


def test_every_month_ends_with_its_last_day_whatever_day_it_is(tmp_path):
    meter = Meter(tmp_path, month=1000 * KIB)
    starts = [at(f"{year}-{month:02}-01 00:00") for year in (2027, 2028) for month in range(1, 13)]
    for begins, ends in itertools.pairwise(starts):
        for wall in (begins, begins + 10 * 24 * HOUR_S, ends - 1):
            assert [each["resets_at"] for each in meter.gate.figures(wall)] == [ends]
    meter.journal.close()


def test_both_directions_count(tmp_path):
    meter = Meter(tmp_path, day=1000 * KIB)
    meter.wire = Wire(0, 1000 * KIB)
    assert meter.carry(0) != ""


def test_a_crash_forgets_at_most_a_hundredth(tmp_path):
    meter = Meter(tmp_path, day=10_000 * KIB)
    meter.carry(0)
    for _ in range(37):
        meter.carry(250 * KIB // 4)
    before = meter.used()[0]
    meter.crash()
    meter.carry(0)
    assert before - 100 * KIB <= meter.used()[0] <= before


def test_of_two_quotas_the_smaller_one_says_how_much_a_crash_may_forget(tmp_path):
    meter = Meter(tmp_path, day=1000 * KIB, month=100_000 * KIB)
    meter.carry(0)
    for _ in range(10):
        meter.carry(5 * KIB)
    meter.crash()
    meter.carry(0)
    assert meter.used()[0] >= 40 * KIB


def test_it_is_written_seldom_and_not_at_all_at_rest(tmp_path):
    meter = Meter(tmp_path, day=10_000 * KIB)
    for second in range(3600):
        meter.carry(3, now=float(second))  # keepalives
    assert meter.writes == 0
    for number in range(5000):
        meter.carry(KIB, now=3600 + number / 1000)
    assert meter.writes <= 50
    meter.gate.save()
    meter.crash()
    meter.carry(0)
    assert meter.used() == [5000 * KIB + 3 * 3600]


def test_a_clock_that_jumps_and_is_corrected_neither_resets_nor_starves_it(tmp_path):
    meter = Meter(tmp_path, day=1000 * KIB, month=5000 * KIB)
    meter.carry(900 * KIB)
    meter.carry(0, NOON + YEAR_S)
    assert meter.carry(50 * KIB, NOON + YEAR_S) == ""
    assert meter.used(NOON + YEAR_S) == [50 * KIB] * 2
    meter.carry(0)
    assert meter.used() == [900 * KIB] * 2
    meter.carry(0, NOON - 50 * YEAR_S)
    meter.carry(0)
    assert meter.carry(100 * KIB) != ""


def test_only_the_last_periods_are_kept(tmp_path):
    meter = Meter(tmp_path, day=1000 * KIB, month=9000 * KIB)
    for day in range(40):
        meter.carry(20 * KIB, NOON + day * 24 * HOUR_S, now=100.0 * day)
        meter.gate.save()
    assert len(meter.journal.read("SELECT period FROM carried")) == KEPT
    last = NOON + 39 * 24 * HOUR_S
    meter.carry(7 * KIB, last)
    meter.gate.save()
    before = meter.used(last)
    meter.crash()
    meter.carry(0, last)
    assert meter.used(last) == before
    assert before[0] == 7 * KIB


def test_without_a_quota_nothing_is_counted_or_written(tmp_path):
    meter = Meter(tmp_path)
    assert meter.carry(10**12) == ""
    assert meter.gate.figures(NOON) == []
    assert not meter.journal.read("SELECT 1 FROM sqlite_master WHERE name = 'carried'")


def test_beyond_the_quota_only_what_is_urgent_goes_and_the_rest_after_midnight(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    box = Box(tmp_path, "2026-11-27 22:00")
    box.top = {"quota_day": 3000}
    box.outbox |= {"urgent": ["alarm"], "beyond_quota": "urgent", "order": "name"}
    box.remote.slots = 1
    for name in ("f1", "f2", "f3", "f4"):
        box.put(name, bytes(1200))
    box.loop.later(HOUR_S, lambda: box.put("alarm", bytes(10)))

    def flush() -> None:
        box.loop.asked = Wake.FLUSH  # which does not go beyond a quota

    box.loop.later(1.5 * HOUR_S, flush)
    box.remote.before = lambda job: (box.sent.append((job.dest.rpartition("/")[2], box.loop.shows())), tick(box))
    box.run_for(2.5)
    assert box.remote.deliveries == ["/up/f1", "/up/f2", "/up/f3", "/up/alarm", "/up/f4"]
    assert box.sent[-1][1] == "Sat 00:00:00"
    assert 'sends only what is urgent outbox=box reason="the quota of 2.9 KiB a day is used up' in caplog.text
    (figure,) = box.loop.last["quota"]
    assert (figure["per"], figure["bytes"], figure["used_bytes"]) == ("day", 3000, 1200)


def tick(box: Box) -> None:
    """A file takes a while."""
    box.loop.now += 0.1
    box.agent._tick_while_busy()


def test_what_is_not_recorded_yet_belongs_to_the_day_that_ends(tmp_path):
    meter = Meter(tmp_path, day=10_000 * KIB)
    meter.carry(0)
    meter.carry(10 * KIB)  # too little to be recorded at once
    meter.carry(0, NOON + 24 * 3600)
    assert meter.used(NOON + 24 * 3600) == [0]
    meter.carry(0, NOON)  # the clock is corrected
    assert meter.used() == [10 * KIB]


def test_what_another_connection_has_carried_counts_too_and_is_kept(tmp_path):
    """The question to the server that is not used, for instance."""
    meter = Meter(tmp_path, day=1000 * KIB)
    meter.gate.carried_also(Wire(100 * KIB, 50 * KIB))  # before the first look, too
    meter.carry(100 * KIB)
    meter.gate.carried_also(Wire(50 * KIB, 0))
    assert meter.used() == [300 * KIB]
    meter.gate.close()
    meter.crash()
    meter.carry(0)
    assert meter.used() == [300 * KIB]
    unlimited = Meter(tmp_path / "other")
    unlimited.gate.carried_also(Wire(1, 1))
    unlimited.gate.close()
    assert unlimited.writes == 0


def test_what_was_carried_is_recorded_ten_seconds_after_there_is_enough_of_it(tmp_path):
    meter = Meter(tmp_path, day=100_000 * KIB)
    meter.carry(0)
    meter.carry(16 * KIB, now=100.0)  # not enough to be recorded before the end
    meter.carry(0, now=1000.0)
    assert meter.writes == 0
    meter.carry(1, now=2000.0)
    meter.carry(5 * KIB, now=2009.9)
    assert meter.writes == 0
    meter.carry(0, now=2010.0)
    meter.carry(0, now=9000.0)
    assert meter.writes == 1
    meter.carry(17 * KIB, now=10_000.0)
    meter.carry(0, now=10_010.0)
    assert meter.writes == 2


def test_a_hundredth_of_the_quota_is_recorded_at_once(tmp_path):
    meter = Meter(tmp_path, day=1000 * KIB)
    meter.carry(0)
    meter.carry(10 * KIB)
    assert meter.writes == 0
    meter.carry(1)
    assert meter.writes == 1


def test_it_is_looked_at_again_at_midnight_or_never_without_a_quota(tmp_path):
    meter = Meter(tmp_path, month=1000 * KIB)
    assert meter.gate.look(at("2026-11-27 23:59:50"), 0.0) == 10.0
    assert Meter(tmp_path / "other").gate.look(NOON, 0.0) == float("inf")


def test_the_first_of_two_quotas_that_are_used_up_says_until_when(tmp_path):
    meter = Meter(tmp_path, day=1000 * KIB, month=1000 * KIB)
    assert "a day is used up until Sat 00:00" in meter.carry(1000 * KIB)
    assert meter.carry(0, at("2026-11-28 12:00")).endswith("a month is used up until Tue 00:00")
