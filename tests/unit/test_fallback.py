"""Which of two servers is used, on a fake clock: what counts as down, and how the way back is found."""

from __future__ import annotations

from dataclasses import replace

import pytest

from iot.spooler.queue.policy import Backoff
from iot.spooler.server.availability import Availability
from iot.spooler.server.fallback import BACK_MAX_S, PROBATION_S, SPREAD, Failover, FailoverRules, Step
from iot.transfer import HostKeyMismatch, LinkLost, LoginRefused, ServerBusy, Timeout, TransferError

AFTER_S, BACK_S, CHECK_S, CAP_S, HOLD_S = 900.0, 120.0, 60.0, 900.0, 600.0
DOWN = LinkLost("no answer")
REFUSED = LoginRefused("not you")


class Pair:
    """The policy, the server in use and the other one, which answers with `other`."""

    def __init__(self, *, when_held: bool = False, is_second: bool = False, chance: float = 0.0) -> None:
        rules = FailoverRules(AFTER_S, BACK_S, when_held, Backoff(CHECK_S, CAP_S), Backoff(HOLD_S, HOLD_S))
        self.failover = Failover(rules, lambda: chance, is_second=is_second)
        self.link = self.fresh()
        self.other: TransferError | None = None
        self.now = 0.0
        self.asked_at: list[float] = []

    def fresh(self) -> Availability:
        return Availability(Backoff(1.0, 60.0), Backoff(HOLD_S, HOLD_S), lambda: 0.0)

    def lost(self, error: TransferError = DOWN) -> None:
        self.link.lost(error, self.now)

    def passes(self, seconds: float, *, may_send: bool = True) -> bool:
        """-> whether the server is being left by then"""
        end = self.now + seconds
        while self.now < end and self.failover.leaving_since is None:
            if self.failover.look(self.link, self.now, may_send=may_send) is Step.PROBE:
                self.asked_at.append(self.now)
                self.failover.asked(self.other, self.link, self.now)
            self.now += 1.0
        return self.failover.leaving_since is not None


@pytest.mark.parametrize("error", [DOWN, Timeout("silent"), ServerBusy("full")])
def test_a_server_that_is_down_for_long_is_left_for_one_that_answers(error: TransferError) -> None:
    pair = Pair()
    pair.lost(error)
    assert not pair.passes(AFTER_S - 1)
    assert pair.asked_at == []
    assert pair.passes(3)


def test_devices_leave_a_server_one_after_the_other() -> None:
    early, late = Pair(), Pair(chance=0.999)
    for pair in (early, late):
        pair.lost()
        assert pair.passes(2 * AFTER_S)
    assert late.now - early.now == pytest.approx(SPREAD * AFTER_S, abs=3)


def test_what_it_confirms_in_between_begins_the_time_anew() -> None:
    pair = Pair()
    for _ in range(5):
        pair.lost()
        assert not pair.passes(AFTER_S - 10)
        pair.link.progressed()
    assert pair.asked_at == []
    pair.lost()
    pair.passes(AFTER_S - 10)
    pair.link.answered()  # that it refuses a file is an answer, too
    assert not pair.passes(100)


def test_a_server_that_asks_to_be_left_alone_is_not_down() -> None:
    pair = Pair()
    pair.lost()
    pair.link.asked_to_wait(0.0, 86400.0)
    assert not pair.passes(4 * AFTER_S)


@pytest.mark.parametrize("error", [REFUSED, HostKeyMismatch("another key")])
def test_a_held_server_is_left_only_where_that_is_asked_for(error: TransferError) -> None:
    pair, asked_for = Pair(), Pair(when_held=True)
    for each in (pair, asked_for):
        each.lost(error)
    assert not pair.passes(10 * AFTER_S)
    assert asked_for.passes(AFTER_S + 2)


def test_a_refusal_after_an_outage_is_no_outage_any_more() -> None:
    pair = Pair()
    pair.lost()
    pair.passes(AFTER_S - 5)
    pair.lost(REFUSED)
    assert not pair.passes(HOLD_S)
    pair.lost()  # it begins anew
    assert not pair.passes(AFTER_S - 1)


def test_while_both_are_down_nothing_changes_and_the_other_one_is_asked_ever_more_rarely() -> None:
    pair = Pair()
    pair.other = DOWN
    pair.lost()
    assert not pair.passes(86400)
    waits = [after - before for before, after in zip(pair.asked_at, pair.asked_at[1:], strict=False)]
    assert waits[:5] == [60, 120, 240, 480, 900]
    assert set(waits[5:]) == {900}
    pair.other = None
    assert pair.passes(CAP_S + 2)


def test_another_server_that_refuses_us_is_asked_as_rarely_as_one_that_is_held() -> None:
    pair = Pair()
    pair.other = REFUSED
    pair.lost()
    pair.passes(AFTER_S + 3 * HOLD_S + 10)
    waits = [after - before for before, after in zip(pair.asked_at, pair.asked_at[1:], strict=False)]
    assert waits == [HOLD_S] * 3


def test_nobody_is_asked_while_nothing_may_be_sent() -> None:
    pair = Pair(is_second=True)
    assert not pair.passes(5000, may_send=False)
    assert pair.asked_at == []


def test_the_way_back_is_taken_when_the_first_server_has_answered_twice() -> None:
    pair = Pair(is_second=True)
    pair.failover.is_second = False
    pair.lost()
    pair.failover.switched(pair.link, pair.now)
    pair.link.progressed()
    assert pair.passes(10_000)
    assert pair.asked_at == [CHECK_S, CHECK_S + BACK_S]


def test_a_first_server_that_comes_and_goes_is_not_gone_back_to() -> None:
    pair = Pair(is_second=True)
    pair.link.progressed()
    for _ in range(20):
        pair.other = None
        assert not pair.passes(BACK_S - 10)
        pair.other = DOWN
        assert not pair.passes(CAP_S)


def test_a_first_server_that_lets_us_in_and_confirms_nothing_is_gone_back_to_ever_later() -> None:
    """Its disk hangs, for instance: a login does not show that."""
    pair = Pair(is_second=True)
    stays = []
    for _ in range(12):
        began, pair.link = pair.now, pair.fresh()
        pair.link.progressed()
        assert pair.passes(86400)
        stays.append(pair.now - began)
        pair.failover.switched(pair.link, pair.now)
        pair.link = pair.fresh()
        pair.lost(Timeout("no answer to a write"))
        assert pair.passes(PROBATION_S + 5)
        pair.failover.switched(pair.link, pair.now)
    assert stays[1:4] == pytest.approx([CHECK_S + times * BACK_S for times in (2, 4, 8)], abs=5)
    assert stays[-1] == pytest.approx(CHECK_S + BACK_MAX_S, abs=5)
    pair.link = pair.fresh()
    pair.link.progressed()
    assert pair.passes(86400)
    pair.failover.switched(pair.link, pair.now)
    pair.link = pair.fresh()
    pair.link.progressed()  # it works, so all is forgotten
    pair.passes(1)
    pair.lost()
    assert not pair.passes(AFTER_S - 10)
    assert pair.passes(20)
    pair.failover.switched(pair.link, pair.now)
    pair.link = pair.fresh()
    began = pair.now
    assert pair.passes(86400)
    assert pair.now - began == pytest.approx(CHECK_S + BACK_S, abs=5)


@pytest.mark.parametrize("error", [DOWN, REFUSED])
def test_a_second_server_that_fails_is_left_as_soon_as_the_first_answers(error: TransferError) -> None:
    pair = Pair(is_second=True)
    pair.lost(error)
    assert pair.passes(2)
    assert len(pair.asked_at) == 1


def test_a_held_first_server_is_not_asked_before_its_hold_is_over() -> None:
    """Each question is a login: another one in vain could have this address banned."""
    pair = Pair(when_held=True)
    pair.lost(REFUSED)
    pair.passes(AFTER_S + 2)
    pair.lost(REFUSED)
    held_until = pair.link.ready_at
    pair.failover.switched(pair.link, pair.now)
    pair.link = pair.fresh()
    pair.asked_at.clear()
    pair.passes(2 * HOLD_S)
    assert pair.asked_at[0] == pytest.approx(held_until, abs=1)


def test_who_asks_for_a_try_has_the_other_server_asked_at_once() -> None:
    pair = Pair()
    pair.other = DOWN
    pair.lost()
    pair.passes(AFTER_S + 100)
    pair.failover.wake()
    asked = len(pair.asked_at)
    pair.passes(1)
    assert len(pair.asked_at) == asked + 1


def test_the_time_of_the_next_look_is_told() -> None:
    pair = Pair()
    assert pair.failover.next_s(pair.link, 0.0) == float("inf")
    pair.lost()
    assert pair.failover.next_s(pair.link, 100.0) == AFTER_S - 100
    pair.other = DOWN
    pair.passes(AFTER_S + 1)
    assert pair.failover.next_s(pair.link, AFTER_S) == CHECK_S


def test_the_time_of_the_next_look_is_not_told_while_the_other_server_is_asked() -> None:
    pair = Pair()
    pair.lost()
    assert pair.failover.next_s(pair.link, 2 * AFTER_S) == 0
    assert pair.failover.look(pair.link, 2 * AFTER_S, may_send=True) is Step.PROBE
    assert pair.failover.next_s(pair.link, 2 * AFTER_S) == float("inf")  # its answer ends the pause


def test_what_the_other_server_said_in_an_earlier_outage_puts_off_nothing() -> None:
    pair = Pair()
    pair.other = REFUSED
    pair.lost()
    pair.passes(AFTER_S + HOLD_S - 10)
    pair.lost()
    pair.passes(20)
    assert len(pair.asked_at) == 2
    pair.link.progressed()
    pair.passes(1)
    pair.failover._rules = replace(pair.failover._rules, after_s=10.0)
    pair.lost()
    pair.passes(12)
    assert len(pair.asked_at) == 3


def test_a_server_that_was_held_and_refuses_again_is_asked_more_rarely_than_at_first() -> None:
    pair = Pair(when_held=True)
    pair.failover._rules = replace(pair.failover._rules, hold=Backoff(HOLD_S, 100 * HOLD_S))
    for _ in range(3):
        pair.lost(REFUSED)
    pair.failover.switched(pair.link, 0.0)
    pair.link = pair.fresh()
    pair.link.progressed()
    pair.other = REFUSED
    pair.passes(30 * HOLD_S)
    assert pair.asked_at[1] - pair.asked_at[0] == 8 * HOLD_S


def test_a_try_that_was_asked_for_does_not_put_off_the_way_back() -> None:
    pair = Pair(is_second=True)
    pair.link.progressed()
    pair.passes(BACK_S - 20)
    pair.failover.wake()
    assert pair.passes(22)
    assert pair.asked_at == [0, BACK_S - 20, BACK_S]


def test_an_answer_ends_the_ever_rarer_questions() -> None:
    pair = Pair(is_second=True)
    pair.link.progressed()
    pair.other = DOWN
    pair.passes(20 * CAP_S)
    pair.other = None
    pair.failover.wake()
    pair.passes(1)
    pair.other = DOWN
    pair.passes(BACK_S + CHECK_S + 2)
    first, *_, last = [after - before for before, after in zip(pair.asked_at[-3:], pair.asked_at[-2:], strict=False)]
    assert (first, last) == (BACK_S, CHECK_S)


def test_an_outage_begins_with_short_waits_however_long_the_one_before_was() -> None:
    pair = Pair()
    pair.other = DOWN
    pair.lost()
    pair.passes(AFTER_S + 10 * CAP_S)
    pair.link.progressed()
    pair.passes(1)
    pair.asked_at.clear()
    pair.lost()
    pair.passes(AFTER_S + 4 * CHECK_S)
    assert [moment - pair.asked_at[0] for moment in pair.asked_at] == [0, CHECK_S, 3 * CHECK_S]


def test_devices_that_left_a_server_in_some_order_leave_it_in_another_one_the_next_time() -> None:
    pair = Pair(chance=0.0)
    pair.failover._random = lambda: 0.999
    for _ in range(2):  # to the second server, and back
        pair.failover.switched(pair.link, pair.now)
    pair.link = pair.fresh()
    pair.link.progressed()
    pair.passes(1)
    pair.lost()
    assert not pair.passes(AFTER_S + 0.9 * SPREAD * AFTER_S)
    assert pair.passes(0.2 * SPREAD * AFTER_S)
