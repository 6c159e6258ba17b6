"""Whose fault an error is, and when a server may be tried again."""

from __future__ import annotations

import pytest

from iot.spooler.queue.policy import Backoff, FailureKind
from iot.spooler.server.availability import Availability, ServerState, failure_kind
from iot.transfer import (
    Cancelled,
    DiskFull,
    LinkLost,
    LoginRefused,
    NoSpaceOnServer,
    PermissionDenied,
    SourceChanged,
    SourceUnreadable,
    Timeout,
)


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (SourceChanged("x"), FailureKind.CHANGED),
        (LinkLost("x"), FailureKind.LINK),
        (Timeout("x"), FailureKind.LINK),
        (SourceUnreadable("x"), FailureKind.TRANSIENT),
        (Cancelled("x"), FailureKind.STOPPED),
        (LoginRefused("x"), FailureKind.STOPPED),
        (DiskFull("x"), FailureKind.STOPPED),
        (PermissionDenied("x"), FailureKind.PERMANENT),
        (NoSpaceOnServer("x"), FailureKind.TRANSIENT),
    ],
)
def test_each_kind_of_error_says_whose_fault_it_is(error, kind):
    assert failure_kind(error) is kind


@pytest.fixture
def server() -> Availability:
    return Availability(Backoff(10.0, 60.0), Backoff(900.0, 3600.0), lambda: 0.0)


def test_the_first_loss_after_progress_is_followed_by_a_try_at_once_later_ones_by_a_wait(server):
    assert (server.state, server.ready_at) == (ServerState.DISCONNECTED, float("-inf"))
    server.progressed()
    assert server.state is ServerState.CONNECTED
    waits = []
    for now in (100.0, 200.0, 300.0):
        server.lost(LinkLost("cut"), now)
        waits.append(server.ready_at - now)
    assert (waits, server.failures) == ([0.0, 10.0, 20.0], 2)
    assert (server.state, server.last_error) == (ServerState.DISCONNECTED, "LinkLost: cut")
    server.progressed()
    assert (server.failures, server.last_error) == (0, None)


def test_a_server_that_never_answered_is_waited_for(server):
    server.lost(LinkLost("no"), 100.0)
    assert (server.ready_at, server.failures) == (110.0, 1)
    server.wake()
    assert server.ready_at == float("-inf")


def test_a_refused_login_holds_the_server_longer_each_time_also_after_it_was_released(server):
    for number, wait_s in ((1, 900.0), (2, 1800.0)):
        server.lost(LoginRefused("no"), 100.0)
        assert (server.state, server.holds, server.ready_at) == (ServerState.HELD, number, 100.0 + wait_s)
    assert server.wake() is True
    assert server.ready_at == float("-inf")
    assert (server.holds, server.failures) == (2, 0)
    server.progressed()
    assert server.holds == 0


@pytest.mark.parametrize("is_told", [True, False])
def test_a_held_server_that_is_then_not_reached_at_all_is_down_and_its_next_hold_is_the_longer_one(server, is_told):
    """A remote that dials on its own tells of no try."""
    server.lost(LoginRefused("no"), 100.0)
    if is_told:
        server.tried()
        assert server.state is ServerState.CONNECTING
    server.lost(LinkLost("gone"), 1000.0)
    assert (server.state, server.holds, server.failures) == (ServerState.DISCONNECTED, 1, 1)
    assert (server.down_since, server.held_since, server.ready_at) == (1000.0, 100.0, 1010.0)
    assert server.wake() is False  # a wait was over, and no hold
    server.lost(LoginRefused("no"), 2000.0)
    assert (server.state, server.down_since, server.ready_at) == (ServerState.HELD, None, 2000.0 + 1800.0)


@pytest.mark.parametrize("is_told", [True, False])
def test_a_held_server_that_lets_us_in_is_connected(server, is_told):
    server.lost(LoginRefused("no"), 100.0)
    if is_told:
        server.tried()
    server.answered()
    assert (server.state, server.held_since) == (ServerState.CONNECTED, None)


def test_a_connection_that_has_answered_stays_one_when_there_is_nothing_more_to_do(server):
    server.tried()
    assert server.state is ServerState.CONNECTING
    server.ended()
    assert server.state is ServerState.DISCONNECTED
    server.tried()
    server.answered()
    server.ended()
    assert server.state is ServerState.CONNECTED
    server.tried()
    assert server.state is ServerState.CONNECTED


def test_a_connection_is_told_when_it_is_tried_and_once_when_it_is_made(server, caplog):
    caplog.set_level("DEBUG", "iot.spooler.server.availability")
    told = {}
    for step in (
        server.tried,
        server.answered,
        server.answered,
        lambda: server.lost(LinkLost("gone"), 100.0),
        server.tried,
        server.ended,
    ):
        caplog.clear()
        step()
        told[len(told)] = [record.message for record in caplog.records if record.message.startswith("link con")]
    assert list(told.values()) == [["link connecting"], ["link connected"], [], [], ["link connecting"], []]


def test_a_hold_of_an_earlier_process_goes_on_and_the_next_one_is_longer(server):
    server.lost(LinkLost("gone"), 50.0)
    server.remembered("LoginRefused: no", 2, 500.0, 100.0)
    assert (server.state, server.held_since, server.down_since) == (ServerState.HELD, 100.0, None)
    assert (server.last_error, server.holds, server.ready_at) == ("LoginRefused: no", 2, 500.0)
    server.lost(LoginRefused("no"), 600.0)
    assert (server.holds, server.held_since, server.ready_at) == (3, 100.0, 600.0 + 3600.0)


def test_only_a_backoff_is_a_wait_and_it_is_over_when_its_time_has_come(server):
    assert not server.waits(100.0)
    server.lost(LinkLost("gone"), 100.0)
    assert [server.waits(now) for now in (100.0, 109.9, 110.0)] == [True, True, False]
    server.lost(LoginRefused("no"), 100.0)
    assert not server.waits(100.0)


def test_a_server_confirms_until_it_is_lost(server):
    assert not server.confirms
    server.progressed()
    assert server.confirms
    server.lost(LinkLost("gone"), 100.0)
    assert not server.confirms


def test_a_server_that_asks_to_be_left_alone_is_not_down_and_its_failures_are_forgotten(server):
    for error in (LoginRefused("no"), LinkLost("gone"), LinkLost("gone")):
        server.lost(error, 100.0)
    server.asked_to_wait(200.0, 60.0)
    assert (server.state, server.failures, server.holds) == (ServerState.DISCONNECTED, 0, 0)
    assert (server.ready_at, server.down_since, server.held_since) == (260.0, None, None)
    assert server.last_error == "the server asks to come back in 60 s"
