"""Connections made in a thread of their own: the caller goes on meanwhile, and nothing is left behind."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from iot.sftp.client import standby as module
from iot.sftp.client.connector import SILENT_S, Connector
from iot.sftp.client.session import Making
from iot.sftp.client.settings import ClientOptions
from iot.sftp.client.standby import REDIAL_S, REFUSED_PAUSE_S, Connecting, Standby
from iot.transfer.errors import Cancelled, LinkLost, LoginRefused
from iot.transfer.rate import Meter, RateLimit
from iot.transfer.stop import StopFlag

ENOUGH_S = 10.0


class Session:
    def __init__(self, round_trip_s: float | None = None) -> None:
        self.pace = SimpleNamespace(window=7, round_trip_s=round_trip_s)
        self.closed = False

    def close(self) -> None:
        self.closed = True


class Network:
    """Connections as the test lets them be made: `pass_one` ends one that is being made."""

    def __init__(self) -> None:
        self.makings: list[Making] = []
        self.made: list[Session] = []
        self.free = True
        self._gate = threading.Semaphore(0)
        self.error: Exception | None = None

    def make(self, making: Making) -> Any:
        self.makings.append(making)
        while not (self.free or self._gate.acquire(timeout=0.01)):
            if making.stop.is_set():
                raise LinkLost("stopped")
        if self.error is not None:
            raise self.error
        self.made.append(Session())
        return self.made[-1]

    def pass_one(self) -> None:
        self._gate.release()


@pytest.fixture
def network() -> Network:
    return Network()


@pytest.fixture
def stop() -> StopFlag:
    return StopFlag()


@pytest.fixture
def links(network: Network, stop: StopFlag) -> Iterator[Connector]:
    links = Connector(network.make, ClientOptions(backoff_s=0), stop, RateLimit(), Meter())
    yield links
    links.close()
    until(lambda: not threads())


def nothing() -> None:
    pass


def until(done: Callable[[], bool]) -> None:
    give_up_at = time.monotonic() + ENOUGH_S
    while not done():
        assert time.monotonic() < give_up_at
        time.sleep(0.005)


def threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("iot-sftp")]


def test_the_callers_tick_runs_every_quarter_of_a_second_while_connecting(links: Connector, network: Network) -> None:
    network.free = False
    ticks: list[float] = [time.monotonic()]

    def tick() -> None:
        ticks.append(time.monotonic())
        if len(ticks) > 10:
            network.pass_one()

    assert links.session(tick) is network.made[0]
    pauses_s = [later - earlier for earlier, later in itertools.pairwise(ticks)]
    assert min(pauses_s) < 0.25, pauses_s  # on a busy machine some are longer


def test_a_cancel_ends_connecting_at_once_and_nothing_is_left_behind(
    links: Connector, network: Network, stop: StopFlag
) -> None:
    network.free = False
    cancelled: list[float] = []

    def cancel() -> None:
        stop.set()
        cancelled.append(time.monotonic())

    threading.Timer(0.2, cancel).start()
    with pytest.raises(Cancelled):
        next(iter(links.attempts()))
    assert time.monotonic() - cancelled[0] < 3  # 0.1 s on a machine that has nothing else to do
    assert links.current is None
    until(lambda: not threads())


def test_a_connection_that_stands_after_the_caller_has_gone_is_closed(links: Connector, network: Network) -> None:
    network.free = False

    def tick() -> None:
        network.free = True
        until(lambda: bool(network.made))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        links.session(tick)
    until(lambda: network.made[0].closed)
    assert links.current is None


def test_a_connection_that_is_made_only_after_it_was_abandoned_is_closed(stop: StopFlag) -> None:
    made, goes_on = Session(), threading.Event()

    def make(_: StopFlag) -> Any:
        goes_on.wait(ENOUGH_S)
        return made

    connecting = Connecting(make, stop)
    connecting.start()
    connecting.abandon()
    goes_on.set()
    until(lambda: made.closed)
    assert connecting.session is None


def test_a_cancel_is_not_kept_waiting_by_a_call_that_does_not_notice_it(stop: StopFlag) -> None:
    goes_on = threading.Event()

    def make(_: StopFlag) -> Any:
        goes_on.wait(ENOUGH_S)
        return Session()

    connecting = Connecting(make, stop)
    connecting.start()
    stop.set()
    with pytest.raises(Cancelled):
        connecting.wait(nothing, ENOUGH_S / 2)
    connecting.abandon()
    goes_on.set()
    until(lambda: not threads())


def test_what_failed_in_the_thread_is_raised_to_the_caller(links: Connector, network: Network) -> None:
    network.error = ZeroDivisionError("any error at all")
    with pytest.raises(ZeroDivisionError):
        links.session(nothing)


def test_a_connection_once_made_is_kept_and_its_window_is_known_to_the_next(links: Connector, network: Network) -> None:
    assert links.session(nothing) is links.session(nothing)
    links.drop()
    links.session(nothing)
    assert [making.start_bytes for making in network.makings] == [None, 7]
    assert network.made[0].closed


def test_a_standby_is_tried_only_when_the_link_is_silent(links: Connector, network: Network) -> None:
    links.session(nothing)
    assert not links.fell_silent(SILENT_S * 0.9)
    assert len(network.makings) == 1
    assert not threads()
    network.free = False
    links.fell_silent(SILENT_S * 1.1)
    until(lambda: len(network.makings) == 2)
    assert network.makings[1].beside is not None


def test_a_slow_link_is_given_some_round_trips_before_it_counts_as_silent(links: Connector, network: Network) -> None:
    links.session(nothing)
    network.made[0].pace.round_trip_s = 2.0
    assert not links.fell_silent(5.9)
    assert len(network.makings) == 1


def test_the_standby_takes_over_when_the_silent_connection_is_dropped(links: Connector, network: Network) -> None:
    links.session(nothing)
    until(lambda: links.fell_silent(SILENT_S * 2))
    assert links.another_stands
    links.drop()
    assert links.session(nothing) is network.made[1]
    assert len(network.makings) == links.made == 2
    assert not network.made[1].closed
    assert not links.another_stands


def test_a_standby_that_is_logging_in_already_is_waited_for(links: Connector, network: Network) -> None:
    links.session(nothing)
    network.free = False
    links.fell_silent(SILENT_S * 2)
    until(lambda: len(network.makings) == 2)
    beside = network.makings[1].beside
    assert beside is not None
    beside.on_dialled()
    links.drop()
    ticks: list[int] = []

    def tick() -> None:
        ticks.append(1)
        network.pass_one()

    assert links.session(tick) is network.made[1]
    assert ticks


def test_a_standby_is_abandoned_when_the_old_connection_answers_again(links: Connector, network: Network) -> None:
    links.session(nothing)
    until(lambda: links.fell_silent(SILENT_S * 2))
    assert not links.fell_silent(0.0)
    assert network.made[1].closed
    assert not links.another_stands
    assert links.session(nothing) is network.made[0]
    assert links.made == 1


def test_a_standby_that_is_still_dialling_is_abandoned_too(links: Connector, network: Network) -> None:
    links.session(nothing)
    network.free = False
    links.fell_silent(SILENT_S * 2)
    until(lambda: len(network.makings) == 2)
    links.fell_silent(0.0)
    until(lambda: not threads())
    assert len(network.made) == 1


def test_close_abandons_the_standby(links: Connector, network: Network) -> None:
    links.session(nothing)
    until(lambda: links.fell_silent(SILENT_S * 2))
    links.close()
    assert all(session.closed for session in network.made)
    assert len(network.made) == 2


def test_a_standby_dials_again_after_a_lost_call_and_gives_up_after_a_refused_login(
    links: Connector, network: Network
) -> None:
    links.session(nothing)
    network.error = LinkLost("no answer")
    links.fell_silent(SILENT_S * 2)
    until(lambda: len(network.makings) >= 3)
    network.error = LoginRefused("no")
    until(lambda: not threads())
    tried = len(network.makings)
    time.sleep(0.6)
    assert len(network.makings) == tried


@pytest.mark.parametrize(("round_trip_s", "quiet_s", "redial_s"), [(None, SILENT_S, REDIAL_S), (2.0, 6.0, 4.0)])
def test_a_standby_is_dialled_at_the_pace_of_the_link(
    links: Connector, network: Network, round_trip_s: float | None, quiet_s: float, redial_s: float
) -> None:
    links.session(nothing)
    network.made[0].pace.round_trip_s = round_trip_s
    links.fell_silent(quiet_s)
    until(lambda: len(network.makings) == 2)
    beside = network.makings[1].beside
    assert beside is not None
    assert beside.redial_s == redial_s


@pytest.mark.parametrize("has_dialled_before", [False, True])
def test_a_standby_that_only_dials_is_not_waited_for(
    links: Connector, network: Network, has_dialled_before: bool
) -> None:
    links.session(nothing)
    network.free = False
    links.fell_silent(SILENT_S * 2)
    until(lambda: len(network.makings) == 2)
    if has_dialled_before:
        beside = network.makings[1].beside
        assert beside is not None
        beside.on_dialled()
        network.error = LinkLost("while it logged in")
        network.pass_one()
        until(lambda: len(network.makings) == 3)
        network.error = None
    tries = len(network.makings)
    links.drop()
    waited_for_it: list[int] = []

    def tick() -> None:
        if len(network.makings) == tries:
            waited_for_it.append(1)
        elif Standby.name not in threads():  # what was given up takes the place of nobody
            network.pass_one()

    assert links.session(tick) is network.made[1]
    assert waited_for_it == []
    assert network.makings[-1].beside is None


class Stop:
    """In place of a StopFlag: notes how long it is waited for."""

    waits: list[float]
    ends_after = 4

    def __init__(self, above: StopFlag) -> None:
        Stop.waits = []

    def is_set(self) -> bool:
        return len(Stop.waits) >= Stop.ends_after

    def set(self) -> None: ...

    def wait(self, seconds: float) -> None:
        Stop.waits.append(seconds)


@pytest.mark.parametrize(("took_s", "pause_s"), [(0.0, REFUSED_PAUSE_S), (0.125, REFUSED_PAUSE_S - 0.125), (9.0, 0.0)])
def test_between_two_tries_of_a_standby_there_is_a_pause(
    monkeypatch: pytest.MonkeyPatch, stop: StopFlag, took_s: float, pause_s: float
) -> None:
    now = 100.0

    def make(*_: Any) -> Any:
        nonlocal now
        now += took_s
        raise LinkLost("no answer")

    monkeypatch.setattr(module, "StopFlag", Stop)
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: now))
    standby = Standby(make, stop, 0.0)
    until(lambda: not standby._thread.is_alive())
    assert Stop.waits == [pause_s] * Stop.ends_after
    assert not standby.stands
