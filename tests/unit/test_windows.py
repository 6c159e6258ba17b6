"""An outbox with a schedule: what waits, what is suspended, what a flush sends, and what a jump of the clock does."""

from __future__ import annotations

import logging
import os
from datetime import datetime
from zoneinfo import ZoneInfo

import pytest
from unit.agent_rig import Loop, Rig

from iot.sftp.client import Cancelled
from iot.spooler.agent.agent import Wake
from iot.spooler.agent.draining import End
from iot.spooler.queue.policy import State
from iot.spooler.status.status import snapshot

BERLIN = ZoneInfo("Europe/Berlin")
HOUR_S = 3600.0
YEAR_S = 365 * 24 * HOUR_S


def at(text: str) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=BERLIN).timestamp()


class Clocked(Loop):
    """A wall clock of its own; acts: (monotonic time, what is done then)."""

    def __init__(self, start: str) -> None:
        super().__init__()
        self.ahead = at(start) - self.now
        self.acts: list = []

    def wall(self) -> float:
        return self.now + self.ahead

    def shows(self) -> str:
        return f"{datetime.fromtimestamp(self.wall(), BERLIN):%a %H:%M:%S}"

    def later(self, seconds: float, act) -> None:
        self.acts.append((self.now + seconds, act))
        self.acts.sort(key=lambda item: item[0])

    def report(self, agent, *, changed, final=False) -> None:
        """Keep the last status, and the states of the rows."""
        if final:
            self.last = snapshot(agent, self.wall(), self.now)
            self.states = {entry.state for entry in agent.queue.page(1, 0, 9)}

    def pause(self, seconds: float) -> None:
        until = self.now + max(seconds, 0.001)
        while self.acts and self.acts[0][0] <= until:
            moment, act = self.acts.pop(0)
            self.now = max(self.now, moment)
            act()
            if self.asked is not None:
                return
        self.now = max(self.now, until)


class Box(Rig):
    def __init__(self, tmp_path, start: str, *schedule: str) -> None:
        super().__init__(tmp_path)
        self.loop = Clocked(start)
        self.outbox["schedule"] = schedule
        self.scan_s = 300.0
        self.more: list = []
        self.rates: list[str] = []
        self.top: dict = {}
        self.sent: list[tuple[str, str]] = []
        self.remote.before = lambda job: self.sent.append((os.path.basename(job.source), self.loop.shows()))

    def run_for(self, hours: float) -> None:
        self.loop.stop_at = self.loop.now + hours * HOUR_S
        self.run(drain=False)

    def settings(self):
        own = {"time_zone": "Europe/Berlin", "scan_s": self.scan_s, "rates": self.rates}
        return {**super().settings(), **own, **self.top, "outbox": [self.outbox, *self.more]}


@pytest.fixture
def friday_noon(tmp_path):
    return Box(tmp_path, "2026-11-27 12:00", "Mon-Fri 20:00-22:00")


def test_a_file_waits_for_the_window_and_goes_as_it_opens(friday_noon, caplog):
    caplog.set_level(logging.INFO)
    friday_noon.put("f")
    friday_noon.run_for(11)
    assert friday_noon.sent == [("f", "Fri 20:00:00")]
    told = [line.message for line in caplog.records if line.message.startswith("outbox ")]
    assert told == [
        'outbox suspended outbox=box reason="outside its window, opens 20:00"',
        "outbox started outbox=box was=suspended",
        'outbox suspended outbox=box reason="outside its window, opens Mon 20:00"',
    ]


def test_a_window_begins_with_a_look_into_the_outbox(friday_noon):
    """The polls align to its start: what came after the last one is not late."""
    friday_noon.scan_s = 47.0  # polls at 19:59:24 and 20:00:11
    friday_noon.loop.later(8 * HOUR_S - 30, lambda: friday_noon.put("late"))
    friday_noon.run_for(8.1)
    assert friday_noon.sent == [("late", "Fri 20:00:00")]


def test_what_is_in_flight_when_the_window_ends_is_suspended_and_goes_on_in_the_next_one(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    box = Box(tmp_path, "2026-11-27 21:59:59", "Mon-Fri 20:00-22:00")
    box.put("big", bytes(5000))
    box.put("later", bytes(5000))
    seen = []

    def before(job) -> None:
        seen.append((os.path.basename(job.source), box.loop.shows(), job.suspended()))
        if len(seen) == 1:
            box.loop.now += 2
            box.agent._tick_while_busy()
            assert job.suspended()
            box.remote.refuse[job.dest] = Cancelled("suspended")
            box.loop.later(HOUR_S, box.remote.refuse.clear)

    box.remote.before = before
    box.remote.slots = 1
    box.run_for(71)
    assert [(name, shown) for name, shown, _ in seen] == [
        ("big", "Fri 21:59:59"),
        ("big", "Mon 20:00:00"),
        ("later", "Mon 20:00:00"),
    ]
    assert box.arrived() == ["big", "later"]
    assert "suspended path=big" in caplog.text
    assert "failed path" not in caplog.text


def test_what_was_claimed_when_the_window_ended_lets_the_others_go(tmp_path):
    box = Box(tmp_path, "2026-11-27 21:59:59", "Mon-Fri 20:00-22:00")
    for number in range(4):
        box.put(f"f{number}")
    box.remote.slots = 1
    delivered = []

    def before(job) -> None:
        delivered.append(os.path.basename(job.source))
        box.loop.now += 2
        box.agent._tick_while_busy()

    box.remote.before = before
    box.run_for(1)
    assert delivered == ["f0"]
    assert box.loop.states == {State.READY}


def test_a_flush_sends_what_is_there_past_the_schedule_and_nothing_else(friday_noon):
    friday_noon.put("now")

    def flush() -> None:
        friday_noon.loop.asked = Wake.FLUSH

    friday_noon.loop.later(HOUR_S, flush)
    friday_noon.loop.later(2 * HOUR_S, lambda: friday_noon.put("not yet"))
    friday_noon.run_for(9)
    assert friday_noon.sent == [("now", "Fri 13:00:00"), ("not yet", "Fri 20:00:00")]


class Producer:
    """Adds two files for each that is sent."""

    def __init__(self, box: Box, files: int) -> None:
        self.box = box
        self.made = 0
        self.first = [f"first{number}" for number in range(files)]
        for name in self.first:
            box.put(name)
        box.remote.slots = 2
        box.remote.before = self.before

    def before(self, job) -> None:
        self.box.sent.append((os.path.basename(job.source), self.box.loop.shows()))
        self.box.loop.now += 0.5
        for _ in range(2 if self.made < 600 else 0):
            self.made += 1
            self.box.put(f"more{self.made}")
        self.box.agent.intakes[0].wake()
        self.box.agent._tick_while_busy()

    def flush(self) -> None:
        self.box.loop.asked = Wake.FLUSH

    def names(self) -> set[str]:
        return {name for name, _ in self.box.sent}


def test_a_flush_ends_however_fast_files_keep_coming(friday_noon):
    producer = Producer(friday_noon, 50)
    friday_noon.loop.later(HOUR_S, producer.flush)
    friday_noon.run_for(1.5)
    assert producer.names() >= set(producer.first)
    assert len(friday_noon.sent) < 75  # those that came until it was scanned and settled, too


def test_the_next_flush_sends_what_has_come_since(friday_noon):
    producer = Producer(friday_noon, 50)
    friday_noon.loop.later(HOUR_S, producer.flush)
    friday_noon.run_for(1.5)
    there = set(friday_noon.left())
    friday_noon.loop.later(HOUR_S, producer.flush)
    friday_noon.run_for(1.5)
    assert there
    assert producer.names() >= there


def test_a_flush_asked_for_while_one_goes_on_counts_from_now(friday_noon):
    producer = Producer(friday_noon, 50)
    friday_noon.loop.later(HOUR_S, producer.flush)
    before, count = producer.before, 0
    there: set[str] = set()

    def again(job) -> None:
        nonlocal count
        count += 1
        before(job)
        if count == 40:
            there.update(name for name in friday_noon.left() if not name.startswith(".iot-sent."))  # those are sent
            producer.flush()

    friday_noon.remote.before = again
    friday_noon.run_for(1.5)
    assert len(there) > 50
    assert producer.names() >= there


def test_a_window_that_opens_during_a_flush_lets_go_what_came_after_it(tmp_path):
    box = Box(tmp_path, "2026-11-27 19:59:50", "Mon-Fri 20:00-22:00")
    producer = Producer(box, 50)
    box.loop.asked = Wake.FLUSH
    box.run_for(1.5)
    assert len(producer.names()) == 50 + 600
    assert box.left() == []


def test_a_wake_up_by_the_network_does_not_send_past_the_schedule(friday_noon):
    friday_noon.put("f")

    def wake() -> None:
        friday_noon.loop.asked = Wake.TRY

    friday_noon.loop.later(HOUR_S, wake)
    friday_noon.run_for(9)
    assert friday_noon.sent == [("f", "Fri 20:00:00")]


@pytest.mark.parametrize("jump_s", [YEAR_S, -YEAR_S, 40 * YEAR_S, -50 * YEAR_S])
def test_a_clock_that_jumps_and_is_corrected_costs_no_window(friday_noon, jump_s):
    friday_noon.put("f")

    def jump(seconds: float):
        def act() -> None:
            friday_noon.loop.ahead += seconds

        return act

    friday_noon.loop.later(HOUR_S, jump(jump_s))
    friday_noon.loop.later(1.5 * HOUR_S, jump(-jump_s))
    friday_noon.run_for(9)
    assert friday_noon.sent == [("f", "Fri 20:00:00")]


def test_a_clock_that_is_set_while_nothing_happens_is_noticed_within_a_minute(tmp_path):
    """A device without a battery clock starts in 1970."""
    box = Box(tmp_path, "1970-01-05 12:00", "Mon-Fri 20:00-22:00")
    box.scan_s = HOUR_S
    box.put("f")

    def set_clock() -> None:
        box.loop.ahead = at("2026-11-27 21:00") - box.loop.now

    box.loop.later(HOUR_S, set_clock)
    box.run_for(5)
    assert [name for name, _ in box.sent] == ["f"]
    assert box.sent[0][1] < "Fri 21:01:00"


def test_the_timetable_of_the_rate_reaches_the_remote_and_the_status(friday_noon):
    friday_noon.rates = ["20:30-21:00 1 Mbit/s"]
    friday_noon.run_for(8.75)
    assert friday_noon.remote.rates == [125_000.0]
    assert friday_noon.loop.last["rate_limit_bytes_per_s"] == 125_000.0
    friday_noon.run_for(0.5)
    assert friday_noon.remote.rates == [125_000.0, 125_000.0, None]  # the first of the next agent is the second


def test_status_says_why_an_outbox_waits_and_until_when(friday_noon):
    friday_noon.put("f")
    friday_noon.run_for(1)
    (outbox,) = friday_noon.loop.last["outboxes"]
    assert (outbox["state"], outbox["files"]) == ("suspended", 1)
    assert outbox["waits_because"] == "outside its window, opens 20:00"


def test_a_drain_leaves_what_is_outside_its_window_and_says_that_something_remains(friday_noon):
    friday_noon.put("f")
    assert friday_noon.run() is End.REMAINS
    assert friday_noon.left() == ["f"]


def test_one_outbox_waits_and_the_other_is_sent(tmp_path):
    box = Box(tmp_path, "2026-11-27 12:00", "20:00-22:00")
    other = tmp_path / "other"
    other.mkdir()
    (other / "g").write_bytes(b"x")
    box.more = [{"path": str(other), "destination": "/other", "settle_s": 0}]
    box.put("f")
    box.run_for(1)
    assert box.sent == [("g", "Fri 12:00:00")]
