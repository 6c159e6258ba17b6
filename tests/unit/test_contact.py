"""When a device was last connected: what is on record, and for how long it was away as far as that can be known."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from iot.spooler.server.availability import ServerState
from iot.spooler.server.herd import LONG_OUTAGE_S
from iot.spooler.state.contact import EVERY_S, FILE, LastContact
from iot.spooler.state.elapsed import Moment

THEN_S = 1e9
LAST = Moment("first", 500.0, THEN_S, True)


class Device:
    def __init__(self, folder: Path) -> None:
        self.folder, self.moment = folder, LAST
        self.asked: list[tuple[float, float | None]] = []
        self.ready_at = 70.0

    def process(self) -> LastContact:
        return LastContact(self.folder, lambda: self.moment)

    def power_up(self, now: float, away_s: float | None) -> bool:
        self.asked.append((now, away_s))
        return away_s != 5.0

    def record(self) -> Any:
        return json.loads((self.folder / FILE).read_text())

    def was_connected(self, at: Moment = LAST) -> None:
        self.moment = at
        self.process().follow(ServerState.CONNECTED, 0, 10.0)


@pytest.fixture
def device(tmp_path: Path) -> Device:
    return Device(tmp_path)


@pytest.mark.parametrize(
    ("then", "now", "away_s"),
    [
        (True, (True, 600.0), 600.0),
        (True, (True, -600.0), 0.0),
        (True, (False, LONG_OUTAGE_S + 1), LONG_OUTAGE_S + 1),
        (True, (False, LONG_OUTAGE_S), None),
        (True, (False, -600.0), None),
        (False, (True, 600.0), None),
        (False, (False, 9e9), None),
    ],
)
def test_how_long_it_was_away_is_told_as_far_as_both_clocks_are_right(device, then, now, away_s):
    device.was_connected(LAST._replace(synchronised=then))
    device.moment = Moment("second", 20.0, THEN_S + now[1], now[0])
    cut = device.process().begin()
    assert cut is not None
    assert cut.away_s == away_s


@pytest.mark.parametrize(("boot", "is_cut"), [("first", False), ("", False), ("second", True)])
def test_only_another_boot_is_a_power_cut(device, boot, is_cut):
    device.was_connected()
    device.moment = LAST._replace(boot=boot)
    assert (device.process().begin() is not None) is is_cut


def test_an_orderly_end_is_no_power_cut_and_counts_once(device):
    device.was_connected()
    contact = device.process()
    contact.begin()
    contact.end()
    assert device.record()["is_ended"] is True
    device.moment = LAST._replace(boot="second")
    assert device.process().begin() is None
    assert device.record() == {"moment": list(LAST), "is_ended": False}
    device.moment = LAST._replace(boot="third")
    assert device.process().begin() is not None


def test_a_device_without_any_contact_records_no_end(device):
    contact = device.process()
    assert contact.begin() is None
    contact.end()
    assert list(device.folder.iterdir()) == []


@pytest.mark.parametrize(
    "moment", ["x", 5, None, [1, 2.0, 3.0, True], ["b", 2.0, 3.0, 1], ["b", "x", 3.0, True], ["b", 2.0, 3.0]]
)
def test_a_reading_of_the_clocks_that_is_none_is_no_record(device, moment):
    (device.folder / FILE).write_text(json.dumps({"moment": moment, "is_ended": False}))
    device.moment = LAST._replace(boot="second")
    assert device.process().begin() is None


@pytest.mark.parametrize(
    ("away_s", "told"), [(7200.4, "away_s=7200 next_s=60"), (None, "away_s=unknown next_s=60"), (5.0, "")]
)
def test_a_wait_after_a_power_cut_is_told_with_its_reason(device, caplog, away_s, told):
    caplog.set_level("INFO")
    device.was_connected(LAST._replace(synchronised=away_s is not None))
    device.moment = Moment("second", 20.0, THEN_S + (away_s or 0.0), True)
    device.process().take_turn(device, 10.0)
    [(now, asked_s)] = device.asked
    assert (now, asked_s) == (10.0, pytest.approx(away_s) if away_s is not None else None)
    assert told in caplog.text
    assert bool(caplog.records) is bool(told)


def test_without_a_power_cut_nobody_is_asked_to_wait(device):
    device.process().take_turn(device, 10.0)
    assert device.asked == []


def test_only_what_a_connected_server_confirms_is_a_contact_and_not_too_often(device):
    contact = device.process()
    contact.follow(ServerState.CONNECTING, 1, 0.0)
    assert list(device.folder.iterdir()) == []
    contact.follow(ServerState.CONNECTED, 0, 0.0)
    assert device.record() == {"moment": list(LAST), "is_ended": False}
    for confirmed, now, is_noted in ((1, EVERY_S - 1, False), (0, EVERY_S, False), (1, EVERY_S, True)):
        (device.folder / FILE).unlink(missing_ok=True)
        contact.follow(ServerState.CONNECTED, confirmed, now)
        assert (device.folder / FILE).exists() is is_noted
    assert [path.name for path in device.folder.iterdir()] == [FILE]
