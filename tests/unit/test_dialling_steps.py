"""A race between addresses, step by step on a clock of the test's own."""

from __future__ import annotations

import errno
import os
import selectors
import socket
import threading
from itertools import pairwise
from typing import Any

import pytest

from iot.transfer import dialling as module
from iot.transfer.dialling import CALLS_MAX, REDIAL_GROWTH, SLICE_S, STAGGER_S, Address, Race, new_selector, resolved
from iot.transfer.errors import Cancelled, LinkLost

ONE, TWO = (Address(socket.AF_INET, socket.SOCK_STREAM, 6, "", (f"192.0.2.{number}", 22)) for number in (1, 2))


class Socket:
    """code: what a call returns; error: what the connection came to."""

    def __init__(self, code: int = errno.EINPROGRESS, error: int = 0) -> None:
        self.code, self.error, self.closed, self.blocking = code, error, 0, True

    def setblocking(self, blocking: bool) -> None:
        self.blocking = blocking

    def connect_ex(self, address: Any) -> int:
        assert not self.blocking
        return self.code

    def getsockopt(self, level: int, name: int) -> int:
        assert (level, name) == (socket.SOL_SOCKET, socket.SO_ERROR)
        return self.error

    def close(self) -> None:
        self.closed += 1


class Selector:
    """Answers with the sockets of `ready`, and lets the time go by that it is given."""

    def __init__(self) -> None:
        self.now, self.closed = 100.0, 0
        self.watched: dict[Any, Any] = {}
        self.ready: list[Any] = []
        self.pauses: list[float] = []

    def register(self, sock: Any, events: int, data: Any) -> None:
        assert events == selectors.EVENT_WRITE
        self.watched[sock] = data

    def unregister(self, sock: Any) -> None:
        del self.watched[sock]

    def select(self, timeout: float) -> list[Any]:
        self.pauses.append(round(timeout, 6))
        self.now += timeout
        ready, self.ready = self.ready, []
        return [(selectors.SelectorKey(each, 0, 0, self.watched[each]), 0) for each in ready if each in self.watched]

    def close(self) -> None:
        self.closed += 1


@pytest.fixture
def selector(monkeypatch: pytest.MonkeyPatch) -> Selector:
    selector = Selector()
    monkeypatch.setattr(module, "new_selector", lambda: selector)
    return selector


def race(selector: Selector, sockets: list[Any], *addresses: Address, **options: Any) -> Race:
    left = iter(sockets)
    made = options.pop("make", lambda *_: next(left))
    return Race(addresses, made, timeout_s=options.pop("timeout_s", 1.0), clock=lambda: selector.now, **options)


def nothing() -> None:
    pass


@pytest.mark.parametrize("code", [0, errno.EISCONN, errno.EINPROGRESS, errno.EWOULDBLOCK])
def test_the_one_that_answers_wins_and_stays_open(selector: Selector, code: int) -> None:
    one = Socket(code)
    selector.ready = [one]
    with race(selector, [one], ONE) as running:
        assert running.winner(nothing) is one  # type: ignore[comparison-overlap]
    assert (one.closed, selector.closed, running.failures) == (0, 1, [])


def test_the_next_is_called_after_its_time_and_each_has_all_of_its_own(selector: Selector) -> None:
    one, two, asked = Socket(), Socket(), []
    with race(selector, [one, two], ONE, TWO) as running:
        assert running.winner(lambda: asked.append(selector.now)) is None
    assert selector.pauses[:3] == pytest.approx([SLICE_S, SLICE_S, STAGGER_S - 2 * SLICE_S])
    assert running.failures == ["192.0.2.1: no answer in 1 s", "192.0.2.2: no answer in 1 s"]
    assert selector.now == pytest.approx(100.0 + STAGGER_S + 1.0 + SLICE_S, abs=SLICE_S)
    assert (one.closed, two.closed, selector.watched) == (1, 1, {})
    assert max(later - sooner for sooner, later in pairwise(asked)) <= SLICE_S + 1e-9


def test_a_call_that_fails_at_once_or_later_lets_the_next_begin(selector: Selector) -> None:
    one, two, late = Socket(errno.ECONNREFUSED), Socket(), Socket(error=errno.EHOSTUNREACH)
    selector.ready = [two]
    with race(selector, [one, two], ONE, TWO) as running:
        assert running.winner(nothing) is two  # type: ignore[comparison-overlap]
    assert running.failures == [f"192.0.2.1: {os.strerror(errno.ECONNREFUSED)}"]
    assert (one.closed, two.closed) == (1, 0)
    selector.ready = [late]
    with race(selector, [late], ONE) as running:
        assert running.winner(nothing) is None
    assert running.failures == [f"192.0.2.1: {os.strerror(errno.EHOSTUNREACH)}"]
    assert late.closed == 1


def test_an_address_that_does_not_answer_is_called_again_at_growing_pauses(selector: Selector) -> None:
    sockets: list[Socket] = []
    at: list[float] = []

    def make(*_: int) -> Any:
        at.append(selector.now - 100.0)
        sockets.append(Socket())
        return sockets[-1]

    with race(selector, [], ONE, make=make, timeout_s=60.0, redial_s=0.05) as running:
        assert running.winner(nothing) is None
    pauses = [later - sooner for sooner, later in pairwise(at)]
    assert pauses == pytest.approx([0.05 * REDIAL_GROWTH**number for number in range(CALLS_MAX - 1)])
    assert [each.closed for each in sockets] == [1] * CALLS_MAX


def test_of_two_calls_to_one_address_the_other_is_closed(selector: Selector) -> None:
    one, again = Socket(), Socket()

    def check() -> None:
        if selector.now > 100.04:
            selector.ready = [again]

    with race(selector, [one, again], ONE, redial_s=0.05) as running:
        assert running.winner(check) is again  # type: ignore[comparison-overlap]
    assert (one.closed, again.closed) == (1, 0)


def test_answers_to_an_address_that_has_failed_meanwhile_do_not_count(selector: Selector) -> None:
    refused, good = Socket(error=errno.ECONNREFUSED), Socket()

    def check() -> None:
        if selector.now > 100.04:
            selector.ready = [refused, good]

    with race(selector, [refused, good], ONE, redial_s=0.05) as running:
        assert running.winner(check) is None
    assert (refused.closed, good.closed) == (1, 1)


def test_what_the_check_raises_closes_all(selector: Selector) -> None:
    one = Socket()

    def check() -> None:
        if selector.now > 100.5:
            raise Cancelled("enough")

    with race(selector, [one], ONE) as running, pytest.raises(Cancelled):
        running.winner(check)
    assert (one.closed, selector.closed) == (1, 1)


def test_without_addresses_nobody_wins(selector: Selector) -> None:
    with race(selector, []) as running:
        assert running.winner(lambda: pytest.fail("nothing to check")) is None


# -- names


def test_the_resolver_is_asked_for_streams_in_a_thread_that_holds_nothing_up(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    def answer(*what: Any, **how: Any) -> list[Any]:
        asked.append((what, how, threading.current_thread().name, threading.current_thread().daemon))
        return [tuple(ONE), tuple(TWO)]

    monkeypatch.setattr(socket, "getaddrinfo", answer)
    assert resolved("h", 22, 5.0, nothing) == [ONE, TWO]
    assert asked == [(("h", 22), {"type": socket.SOCK_STREAM}, "iot-transfer resolving", True)]


@pytest.mark.parametrize("error", [OSError(-2, "Name or service not known"), UnicodeError("label too long")])
def test_a_name_without_an_address_is_told_with_the_reason(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def fails(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(socket, "getaddrinfo", fails)
    with pytest.raises(LinkLost, match=r"^cannot find the address of 'h': .*; check the name and the network$") as told:
        resolved("h", 22, 5.0, nothing)
    assert told.value.__cause__ is error


def test_any_number_of_descriptors_is_waited_for() -> None:
    with new_selector() as found:
        assert isinstance(found, selectors.PollSelector)
