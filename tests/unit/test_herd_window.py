"""The devices of a fleet come back one after the other, and a single one does not wait without need."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from iot.spooler.queue.policy import Backoff
from iot.spooler.server.availability import Availability, ServerState
from iot.spooler.server.herd import LONG_OUTAGE_S, HerdWindow, Phased
from iot.spooler.state.contact import EVERY_S, FILE, LastContact
from iot.spooler.state.elapsed import Moment
from iot.transfer import LinkLost, LoginRefused, ServerBusy

WINDOW_S = 1200.0
HOUR_S = 3600.0
CAP_S = 900 + 0.5 * 270
DOWN = LinkLost("no answer")
BUSY = ServerBusy("too many connections")


class Chance:
    """Always the same number, which a test may set."""

    now = 0.5

    def __call__(self) -> float:
        return self.now


def availability(chance: Chance | None = None, window_s: float = WINDOW_S) -> Availability:
    return Availability(Backoff(1.0, 900.0), Backoff(900.0, 3600.0), chance or Chance(), herd_window_s=window_s)


def away_for(seconds: float, server: Availability) -> float:
    """Its server goes away at 0 and each try fails for so long -> when the last failed."""
    server.progressed()
    now = 0.0
    while now <= seconds:
        server.lost(DOWN, now)
        last, now = now, max(server.ready_at, now + 0.001)
    return last


def spread_of(phases: list[float]) -> float:
    """The widest gap around the circle: 1 if all are the same."""
    ordered = sorted(phases)
    return max(after - before for before, after in zip(ordered, [*ordered[1:], ordered[0] + 1], strict=True))


def test_devices_whose_generators_start_alike_draw_different_numbers() -> None:
    """500 cloned images: no part of the circle is left out in the first draw, nor do two devices stay close in all."""
    devices = [Phased(f"device-{number}", lambda: 0.25) for number in range(500)]
    for _ in range(3):
        assert spread_of([device() for device in devices]) < 0.03
    one, other = Phased("a", lambda: 0.25), Phased("a", lambda: 0.25)
    assert [one() for _ in range(9)] == [other() for _ in range(9)]


def test_devices_of_one_name_differ_by_chance() -> None:
    devices = [Phased("device", lambda number=number: number / 500) for number in range(500)]
    assert spread_of([device() for device in devices]) < 0.01


def test_a_draw_is_within_its_bounds_also_at_the_end_of_the_circle() -> None:
    for random in (0.0, 0.5, 1 - 2**-53):
        assert all(0 <= Phased(f"d{number}", lambda random=random: random)() < 1 for number in range(2000))


def test_once_in_a_long_outage_the_wait_lies_anywhere_within_the_window() -> None:
    """At chance 0.5 usual waits at the cap are CAP_S."""
    server = availability()
    waits: list[float] = []
    now = 0.0
    while now < 4 * HOUR_S:
        server.lost(DOWN, now)
        waits.append(server.ready_at - now)
        now = server.ready_at
    assert waits.count(WINDOW_S / 2) == 1
    assert sum(waits[: waits.index(WINDOW_S / 2)]) > LONG_OUTAGE_S
    assert max(waits) == CAP_S


def test_a_short_outage_knows_no_window() -> None:
    server = availability()
    now = away_for(1800, server)
    assert server.network_up(now) is False
    assert server.ready_at == float("-inf")


def test_a_network_that_is_there_again_leads_to_a_try_in_its_turn_and_a_flapping_one_does_not_put_it_off() -> None:
    chance = Chance()
    server = availability(chance)
    now = away_for(2 * HOUR_S, server)
    chance.now = 0.1
    server.network_up(now)
    assert server.ready_at == now + 120
    chance.now = 0.9
    for second in range(60):
        server.network_up(now + second)
        assert server.ready_at == now + 120
    server.network_up(now + 130)  # its time has come, but there was nothing to send yet
    assert server.ready_at == now + 120


def test_a_try_that_is_due_earlier_stays_where_it_is() -> None:
    server = availability()
    now = away_for(2 * HOUR_S, server)
    due = server.ready_at
    server.network_up(due - 1)
    assert (server.ready_at, now < due) == (due, True)


def test_who_asks_gets_a_try_at_once_also_after_a_long_outage() -> None:
    server = availability()
    now = away_for(2 * HOUR_S, server)
    server.network_up(now)
    server.wake()
    assert server.ready_at == float("-inf")


def test_an_outage_is_over_with_the_first_answer() -> None:
    for answer in (Availability.progressed, lambda server: server.lost(BUSY, 2 * HOUR_S)):
        server = availability()
        now = away_for(2 * HOUR_S, server)
        answer(server)
        server.network_up(now)
        assert server.ready_at == float("-inf")


def test_a_time_without_work_is_no_outage() -> None:
    server = availability()
    server.progressed()
    server.network_up(9 * HOUR_S)
    assert server.ready_at == float("-inf")
    server.lost(DOWN, 9 * HOUR_S)
    server.network_up(9 * HOUR_S + 1)
    assert server.ready_at == float("-inf")


def test_without_a_window_nothing_is_spread() -> None:
    server = availability(window_s=0.0)
    now = away_for(2 * HOUR_S, server)
    assert server.ready_at == now + CAP_S
    server.network_up(now)
    assert server.ready_at == float("-inf")
    assert server.power_up(0.0, None) is False


def test_the_outage_is_that_of_the_next_agent_of_the_process_too() -> None:
    server, other = availability(), availability()
    now = away_for(2 * HOUR_S, server)
    other.take_over(server)
    other.ready_at = float("-inf")
    other.network_up(now)
    assert other.ready_at == now + WINDOW_S / 2


def test_a_busy_server_is_there_and_is_waited_for_from_the_first_wait_on() -> None:
    """Of a long outage nothing is left but those who come too early: they do not wait a quarter of an hour again."""
    server = availability()
    now = away_for(HOUR_S, server)
    waits = []
    for _ in range(4):
        server.lost(BUSY, now)
        waits.append(server.ready_at - now)
    assert waits == [1.5, 3, 6, 12]
    assert server.state is ServerState.DISCONNECTED


# -- after a power cut


class Device:
    """Its clocks are moved by hand."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.moment = Moment("first", 500.0, 1e9, True)
        self.contact = LastContact(folder, lambda: self.moment)

    def runs(self) -> Availability:
        """A new process."""
        self.contact = LastContact(self.folder, lambda: self.moment)
        server = availability()
        self.contact.take_turn(server, 10.0)
        return server

    def meets_server(self) -> None:
        self.contact.follow(ServerState.CONNECTED, 1, 10.0)

    def loses_power(self, seconds: float, *, synchronised: bool, clock_goes_on: bool = True) -> None:
        wall = self.moment.wall_s + (seconds if clock_goes_on else 0)
        self.moment = Moment(f"{self.moment.boot}.", 20.0, wall, synchronised)

    def wait_s(self) -> float:
        return max(self.runs().ready_at - 10.0, 0.0)


@pytest.fixture
def device(tmp_path: Path) -> Device:
    return Device(tmp_path)


@pytest.mark.parametrize(
    ("seconds", "synchronised", "clock_goes_on", "wait_s"),
    [
        (2 * HOUR_S, True, True, WINDOW_S / 2),
        (2 * HOUR_S, False, True, WINDOW_S / 2),  # a battery keeps the clock
        (2 * HOUR_S, False, False, WINDOW_S / 20),  # it may have been short
        (600, True, True, 0),
        (600, False, True, WINDOW_S / 20),
    ],
)
def test_after_a_power_cut_the_first_try_waits_as_far_as_it_is_known_to_have_been_long(
    device: Device, seconds: float, synchronised: bool, clock_goes_on: bool, wait_s: float
) -> None:
    device.runs()
    device.meets_server()
    device.loses_power(seconds, synchronised=synchronised, clock_goes_on=clock_goes_on)
    assert device.wait_s() == pytest.approx(wait_s)


def test_a_device_that_was_never_connected_tries_at_once(device: Device) -> None:
    device.runs()
    device.loses_power(2 * HOUR_S, synchronised=False)
    assert device.wait_s() == 0
    assert list(device.folder.iterdir()) == []


def test_who_was_stopped_in_an_orderly_way_or_starts_within_the_same_boot_tries_at_once(device: Device) -> None:
    device.runs()
    device.meets_server()
    device.moment = device.moment._replace(wall_s=device.moment.wall_s + 2 * HOUR_S)
    assert device.wait_s() == 0
    device.contact.end()
    device.loses_power(2 * HOUR_S, synchronised=True)  # switched off
    assert device.wait_s() == 0
    device.loses_power(2 * HOUR_S, synchronised=True)  # and this time not
    assert device.wait_s() == pytest.approx(WINDOW_S / 2)


def test_a_hold_is_not_cut_short(device: Device) -> None:
    server = availability()
    server.lost(LoginRefused("no"), 0.0)
    assert (server.power_up(0.0, 2 * HOUR_S), server.ready_at) == (False, 900 + 450)


@pytest.mark.parametrize(
    "content", ["", "{", "[]", '{"moment": null, "is_ended": 0}', '{"moment": [1, 2, 3, 4], "is_ended": 0}', "\xff"]
)
def test_a_broken_record_is_as_none_and_is_written_anew(device: Device, content: str) -> None:
    (device.folder / FILE).write_text(content, encoding="latin-1")
    assert device.wait_s() == 0
    device.meets_server()
    assert json.loads((device.folder / FILE).read_text())["moment"][0] == "first"


def test_the_record_is_renewed_at_most_every_quarter_of_an_hour_and_at_rest_never(device: Device) -> None:
    writes: list[float] = []

    def look() -> Moment:
        writes.append(0.0)
        return device.moment

    contact = LastContact(device.folder, look)
    for second in range(3600):
        contact.follow(ServerState.CONNECTED, second, float(second))
    assert len(writes) == HOUR_S / EVERY_S
    for second in range(3600, 7200):
        contact.follow(ServerState.CONNECTED, 3599, float(second))
    assert len(writes) == HOUR_S / EVERY_S + 1  # what the last quarter of an hour confirmed


def test_a_folder_that_cannot_be_written_to_is_told_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    contact = LastContact(tmp_path / "missing", lambda: Moment("b", 1.0, 1.0, True))
    for number in range(3):
        contact.follow(ServerState.CONNECTED, number, number * EVERY_S)
    contact.end()
    assert len(caplog.records) == 1


# -- the window alone


def window() -> HerdWindow:
    return HerdWindow(WINDOW_S, Chance())


def after_a_long_outage(herd: HerdWindow) -> float | None:
    assert herd.failed(0.0) is None
    return herd.failed(LONG_OUTAGE_S + 1)


def test_each_long_outage_has_a_spread_of_its_own() -> None:
    herd = window()
    for _ in range(2):
        assert after_a_long_outage(herd) == WINDOW_S / 2
        assert herd.failed(LONG_OUTAGE_S + 2) is None
        herd.answered()


def test_a_network_that_comes_after_another_failure_sets_the_time_anew() -> None:
    herd = window()
    assert (herd.network_up(), herd.network_up()) == (WINDOW_S / 2, None)
    herd.failed(0.0)
    assert herd.network_up() == WINDOW_S / 2


def test_the_next_agent_does_not_spread_what_was_spread() -> None:
    earlier, later = window(), window()
    after_a_long_outage(earlier)
    later.take_over(earlier)
    assert later.is_long(LONG_OUTAGE_S + 1)
    assert later.failed(LONG_OUTAGE_S + 2) is None


def test_the_draws_of_one_device_differ_where_its_generator_says_the_same() -> None:
    device = Phased("a", lambda: 0.25)
    assert len({device() for _ in range(9)}) == 9
