"""How workers share what is to do: nobody waits for nothing, nobody waits for ever, and each end is told once."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from unit.workers_rig import LONG_S, Rig, Store, Transfer, blocks, ends, meeting

from iot.transfer.errors import Cancelled, LinkLost, NotFound
from iot.transfer.parallel import workers as module
from iot.transfer.parallel.ready import TOGETHER_BYTES, Running
from iot.transfer.parallel.work import Barrier, Linger

SOON_S = 8.0


class Clock:
    """Stands still unless it is moved."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def rig(clock: Clock) -> Iterator[Rig]:
    rig = Rig(clock)
    yield rig
    rig.workers.close()


@pytest.fixture
def took() -> Callable[[], float]:
    began = time.monotonic()
    return lambda: time.monotonic() - began


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who waits for what does not come, or for a call that does not end, waits for very long."""
    monkeypatch.setattr(module, "POLL_S", LONG_S / 2)
    monkeypatch.setattr(module, "ENDING_S", LONG_S / 2)


def wait_until(what: Callable[[], bool]) -> None:
    end = time.monotonic() + LONG_S
    while not what():
        assert time.monotonic() < end
        time.sleep(0.001)


def tags(found: Any) -> list[Any]:
    return sorted(each.tag for each in found)


# -- how many connections


def test_transfers_one_after_the_other_need_one_connection(rig):
    workers = rig.connect()
    for number in range(3):
        assert workers.run_one(ends(number)) == number
    assert len(rig.stores) == 1


@pytest.mark.parametrize("count", [2, 3])
def test_who_would_have_to_wait_gets_a_connection_of_its_own(rig, count):
    workers = rig.connect()
    for _ in range(2):
        assert tags(workers.run(iter(meeting(count)))) == list(range(count))
        assert len(rig.stores) == count


def test_connections_that_went_as_idle_are_made_again_when_they_are_needed_and_not_before(rig, monkeypatch):
    monkeypatch.setattr(module, "IDLE_S", 0.05)
    workers = rig.connect()
    list(workers.run(iter(meeting(3))))
    rig.until(lambda: len(workers._stores) == 1)
    workers.run_one(ends())
    assert len(workers._stores) == 1
    assert tags(workers.run(iter(meeting(3)))) == [0, 1, 2]


def test_while_a_connection_is_being_made_no_further_one_is_begun(rig):
    rig.next = [Store(), Store()]
    first, second = rig.next
    making = threading.Event()
    second.connect = lambda: making.wait(LONG_S)
    gate, ticks = threading.Event(), []

    def tick() -> None:
        ticks.append(len(rig.stores))
        if len(ticks) > 5:
            making.set()
            gate.set()

    jobs = [Running(ends(number, lambda: gate.wait(LONG_S)), tag=number) for number in range(4)]
    assert tags(rig.connect().run(iter(jobs), tick)) == [0, 1, 2, 3]
    assert max(ticks) == 2
    assert first is rig.stores[0]


def test_after_one_connection_less_is_asked_for_none_is_made_instead(rig):
    workers = rig.connect()
    list(workers.run(iter(meeting(3))))
    gate, ticks = threading.Event(), []

    def tick() -> None:
        ticks.append(1)
        if len(ticks) > 3:
            gate.set()

    workers.fewer()
    jobs = [Running(ends(number, lambda: gate.wait(LONG_S)), tag=number) for number in range(6)]
    assert tags(workers.run(iter(jobs), tick)) == list(range(6))
    assert len(rig.stores) == 3


@pytest.mark.parametrize(("connections", "at_once"), [(1, 1), (2, 1), (3, 2)])
def test_large_transfers_leave_one_connection_to_small_ones_and_all_of_them_come(rig, connections, at_once):
    workers, lock, under_way, most = rig.connect(connections), threading.Lock(), set(), []
    together = threading.Barrier(at_once)

    def large(number: int) -> Running:
        def work() -> None:
            with lock:
                under_way.add(number)
                most.append(len(under_way))
            together.wait(LONG_S)
            time.sleep(0.02)
            with lock:
                under_way.discard(number)

        return Running(ends(number, work), tag=number, payload_bytes=TOGETHER_BYTES + 1)

    assert tags(workers.run(large(number) for number in range(4))) == list(range(4))
    assert max(most) == at_once


# -- whose turn it is


@pytest.mark.usefixtures("patient")
def test_a_transfer_that_ends_is_told_at_once(rig, took):
    workers = rig.connect()
    for number in range(3):
        workers.run_one(ends(number))
    assert tags(workers.run(iter(meeting(3)))) == [0, 1, 2]
    assert took() < SOON_S


@pytest.mark.usefixtures("patient")
def test_when_a_result_was_taken_the_next_transfer_is_asked_for_at_once_whatever_was_said_before(rig, took):
    def feed() -> Iterator[Running | None]:
        yield Running(ends(), tag=1)
        yield None  # and the clock stands still
        yield Running(ends(), tag=2)

    assert tags(rig.connect().run(feed())) == [1, 2]
    assert took() < SOON_S


def test_all_calls_that_are_queued_are_made_in_one_turn(rig):
    workers, calls, ticks = rig.connect(), [], []

    def feed() -> Iterator[Running]:
        for number in range(500):
            workers.desk.post(lambda number=number: calls.append(number))
        yield Running(ends())

    list(workers.run(feed(), lambda: ticks.append(1)))
    assert calls == list(range(500))
    assert len(ticks) < 20


def test_a_lone_record_waits_for_no_company(rig, clock):
    """By a clock that stands still, a wait would have no end."""
    workers = rig.connect()

    def steps(_: Any) -> Iterator[Any]:
        clock.now += 10.0
        yield Barrier("record")

    for _ in range(2):
        workers.run_one(Transfer(steps))
    assert rig.commits == [["record"], ["record"]]


@pytest.mark.parametrize(("others", "is_committed"), [(8, True), (9, False)])
def test_records_wait_for_those_under_way_and_those_that_are_ready(rig, clock, others, is_committed):
    """Two records wait while ten other transfers might join: then not even a quarter has come."""
    workers, gate, seen = rig.connect(1), threading.Event(), []

    def steps(_: Any) -> Iterator[Any]:
        clock.now += 1.0
        yield Barrier("record")

    def tick() -> None:
        if workers._in_turn == 1 and len(workers._waiting) + len(rig.commits) and len(workers._ready) >= others:
            seen.append(bool(rig.commits))
        if len(seen) > 3:
            gate.set()

    jobs = [Running(Transfer(steps), (0,)), Running(Transfer(steps), (1,))]
    jobs += [Running(ends(after=lambda: gate.wait(LONG_S)), (2,)), *(Running(ends(), (3,)) for _ in range(others))]
    for _ in workers.run(iter(jobs), tick):
        gate.set()
    assert seen[3:4] == [is_committed]


def test_who_lingers_goes_on_exactly_when_its_time_is_over(rig, clock):
    def steps(_: Any) -> Iterator[Any]:
        yield Linger(5.0)

    def tick() -> None:
        if rig.workers._lingering:
            clock.now = 105.0

    list(rig.connect().run(iter([Running(Transfer(steps))]), tick))


def test_those_that_linger_hold_up_no_other_but_for_very_many(rig, monkeypatch):
    monkeypatch.setattr(module, "IN_FLIGHT", 2)
    monkeypatch.setattr(module, "LINGERING", 3)
    pulled: list[int] = []

    def feed() -> Iterator[Running]:
        for number in range(20):
            pulled.append(number)
            yield Running(Transfer(lambda _: iter([Linger(60.0)])))

    def tick() -> None:
        if len(rig.workers._lingering) == 5:
            rig.stop.set()

    with pytest.raises(Cancelled):
        list(rig.connect().run(feed(), tick))
    assert len(pulled) == 5


# -- the end


@pytest.mark.usefixtures("patient")
def test_a_lost_link_waits_for_nobody_and_gives_back_all_that_waited(rig, took):
    """One lingers, one is about to wait for its record, and one was never begun."""
    workers, gate, large = rig.connect(2), threading.Event(), TOGETHER_BYTES + 1

    def asks_late(transfer: Any) -> Iterator[Any]:
        transfer.store.aborted.wait(LONG_S)
        yield Barrier("record")

    def tick() -> None:
        if workers._in_turn == 2 and workers._lingering:
            gate.set()

    lingers, late, never_begun = Transfer(lambda _: iter([Linger(60.0)])), Transfer(asks_late), ends()
    failing = ends(LinkLost("cut"), lambda: gate.wait(LONG_S))
    jobs = [Running(lingers, (0,), tag=0), Running(late, (1,), tag=1, payload_bytes=large)]
    jobs += [Running(never_begun, (2,), tag=2, payload_bytes=large), Running(failing, (3,), tag=3)]
    found: list[Any] = []
    with pytest.raises(LinkLost):
        found.extend(workers.run(iter(jobs), tick))
    assert sorted((each.tag, str(each.error)) for each in found) == [(number, "cut") for number in range(4)]
    assert [each.released for each in (lingers, late, never_begun, failing)] == [1, 1, 1, 1]
    assert rig.commits == []
    assert took() < SOON_S


@pytest.mark.parametrize("outcome", ["done", NotFound("gone")])
def test_what_ends_by_itself_while_all_is_given_up_keeps_its_outcome(rig, outcome):
    workers = rig.connect(2)

    def steps(transfer: Any) -> Iterator[Any]:
        yield from ()
        began.set()
        transfer.store.aborted.wait(LONG_S)
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome

    began = threading.Event()
    jobs = [Running(Transfer(steps), tag=0), Running(ends(LinkLost("cut"), lambda: began.wait(LONG_S)), tag=1)]
    found: dict[Any, Any] = {}
    with pytest.raises(LinkLost):
        found.update((each.tag, each.error or each.result) for each in workers.run(iter(jobs)))
    assert found[0] is outcome


def test_a_cancel_is_seen_while_there_is_nothing_to_do(rig):
    def feed() -> Iterator[None]:
        while True:
            yield None

    with pytest.raises(Cancelled):
        list(rig.connect().run(feed(), rig.stop.set))


def test_what_was_ready_when_the_connections_were_closed_is_given_back(rig, clock):
    workers, second = rig.connect(1), ends()
    jobs = [Running(blocks(), (0,), tag=0), Running(second, (1,), tag=1)]

    def tick() -> None:
        clock.now += 1.0
        if workers._in_turn:
            workers.close()

    found: list[Any] = []
    with pytest.raises(LinkLost, match="aborted"):
        found.extend(workers.run(iter(jobs), tick))
    assert tags(found) == [0, 1]
    assert second.released == 1


def test_a_result_that_nobody_took_is_not_that_of_a_later_call(rig):
    workers = rig.connect(1)

    def feed() -> Iterator[Running]:
        yield Running(ends(), tag=1)
        yield Running(ends(), tag=2)
        wait_until(lambda: workers._calls.qsize() == 4)  # both have begun and ended

    first = workers.run(feed())
    assert next(first).tag == 1
    first.close()
    assert tags(workers.run(iter([Running(ends(), tag=3)]))) == [3]


def test_the_first_reason_is_the_one_that_is_told(rig):
    workers = rig.connect()
    for text in ("first", "second"):
        workers._lose(LinkLost(text))
    with pytest.raises(LinkLost, match="first"):
        list(workers.run(iter([Running(blocks())])))
