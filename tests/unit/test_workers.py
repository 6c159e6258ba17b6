"""The workers of a far side by themselves: how many there are, when they go, and what ends them all."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from unit.workers_rig import Rig, Store, Transfer, blocks, ends, meeting

from iot.transfer.errors import Cancelled, LinkLost, NotFound, ServerBusy, Timeout
from iot.transfer.parallel import workers as module
from iot.transfer.parallel.ready import TOGETHER_BYTES, Running
from iot.transfer.parallel.work import Barrier, Linger
from iot.transfer.parallel.workers import ENDING_S, Workers


@pytest.fixture
def rig() -> Iterator[Rig]:
    rig = Rig()
    yield rig
    rig.workers.close()


# -- connections


def test_the_first_connection_that_fails_is_told_and_nothing_is_left(rig):
    rig.next = [Store(connecting=LinkLost("refused"))]
    with pytest.raises(LinkLost, match="refused"):
        rig.connect()
    rig.until(lambda: rig.stores[0].closed == 1)
    assert not rig.workers.usable


def test_an_error_that_is_none_of_ours_at_the_first_connection_is_raised_as_it_is(rig):
    rig.next = [Store(connecting=ZeroDivisionError())]
    with pytest.raises(ZeroDivisionError):
        rig.connect()
    assert not rig.workers.usable


def test_connecting_ticks_and_is_cancelled(rig):
    hanging = Store()
    hanging.connect = lambda: hanging.aborted.wait(20)
    rig.next, ticks = [hanging], []

    def tick() -> None:
        ticks.append(time.monotonic())
        if len(ticks) == 3:
            rig.stop.set()

    with pytest.raises(Cancelled):
        rig.workers.connect(tick)
    assert len(ticks) == 3
    assert hanging.aborted.is_set()


def test_a_result_comes_back_from_a_worker_with_a_store(rig):
    workers = rig.connect()
    transfer = Transfer(lambda transfer: iter_value(transfer.__dict__["store"]))
    assert workers.run_one(transfer) is rig.stores[0]
    assert transfer.released == 1
    with pytest.raises(NotFound, match="no"):
        workers.run_one(ends(NotFound("no")))
    assert workers.usable
    assert workers.capabilities.connections == 3


def iter_value(value: Any) -> Iterator[Any]:
    yield from ()
    return value


def test_more_connections_are_made_only_while_something_waits_and_no_more_than_allowed(rig):
    workers, gate = rig.connect(), threading.Event()
    jobs = [Running(ends(number, lambda: gate.wait(20)), tag=number) for number in range(5)]
    feed = iter(jobs)

    def tick() -> None:
        if len(rig.stores) == 3 and workers._in_turn == 3:
            gate.set()

    found = list(workers.run(feed, tick))
    assert sorted(each.result for each in found) == [0, 1, 2, 3, 4]
    assert len(rig.stores) == 3


def test_a_further_connection_that_is_refused_is_done_without(rig):
    rig.next = [Store(), Store(connecting=ServerBusy("421"))]
    workers, gate = rig.connect(), threading.Event()

    def tick() -> None:
        if len(rig.stores) == 2 and rig.stores[1].closed and workers._most == 1:
            gate.set()

    found = list(workers.run(iter([Running(ends(1, lambda: gate.wait(20))), Running(ends(2))]), tick))
    assert sorted(each.result for each in found) == [1, 2]
    assert len(rig.stores) == 2
    assert workers.usable


def test_when_the_far_side_is_busy_there_is_one_connection_less_down_to_one(rig):
    workers = rig.connect()
    for _ in range(2):
        workers._begin_worker()
    rig.until(lambda: workers._idle == 3)
    assert workers.fewer()
    assert workers._most == 2
    assert workers._dismissed == {rig.stores[2]}  # the newest first
    assert workers.fewer()
    assert not workers.fewer()
    assert workers._most == 1
    assert workers._dismissed == set(rig.stores[1:])
    list(workers.run(iter(meeting(3))))  # a dismissed worker goes after its turn
    rig.until(lambda: [store.closed for store in rig.stores] == [0, 1, 1])
    assert workers._stores == rig.stores[:1]


def test_idle_connections_go_and_the_first_is_kept_alive(rig, monkeypatch):
    monkeypatch.setattr(module, "IDLE_S", 0.02)
    workers = rig.connect()
    workers._begin_worker()
    rig.until(lambda: rig.stores[1].closed == 1 and rig.stores[0].checks >= 2)
    assert workers.usable
    assert workers._stores == [rig.stores[0]]
    assert rig.stores[0].closed == 0


@pytest.mark.parametrize("error", [LinkLost("gone"), ZeroDivisionError()])
def test_an_idle_connection_that_is_gone_is_known(rig, monkeypatch, error):
    monkeypatch.setattr(module, "IDLE_S", 0.02)
    rig.next = [Store(checking=error)]
    rig.connect()
    rig.until(lambda: not rig.workers.usable)
    rig.until(lambda: rig.stores[0].closed == 1)


def test_what_was_closed_is_not_usable(rig):
    workers = rig.connect()
    assert workers.usable
    workers.close()
    assert not workers.usable
    assert rig.stores[0].aborted.is_set()
    rig.until(lambda: rig.stores[0].closed == 1)
    assert rig.stores[0].checks == 0


# -- the loop


def test_the_caller_gets_a_turn_now_and_then_and_not_without_end(rig):
    workers, ticks = rig.connect(), []

    def tick() -> None:
        ticks.append(time.monotonic())
        if ticks[-1] - ticks[0] > 0.6:
            gate.set()

    gate = threading.Event()
    list(workers.run(iter([Running(ends(1, lambda: gate.wait(20)))]), tick))
    assert 2 <= len(ticks) < 30  # POLL_S apart


def test_a_record_is_committed_before_its_transfer_goes_on(rig):
    workers, seen = rig.connect(), []

    def steps(_: Any) -> Iterator[Any]:
        yield Barrier("record")
        seen.append(list(rig.commits))
        return "done"

    assert workers.run_one(Transfer(steps)) == "done"
    assert seen == [[["record"]]]


def test_who_lingers_takes_no_worker_and_goes_on_after_its_time(rig):
    rig.next = [Store(connections=1)]
    workers, order = rig.connect(), []

    def steps(_: Any) -> Iterator[Any]:
        order.append("begins")
        yield Linger(0.3)
        order.append("goes on")

    began = time.monotonic()
    jobs = [Running(Transfer(steps), tag=0), Running(ends(1, lambda: order.append("other")), (1,), tag=1)]
    found = list(workers.run(iter(jobs)))
    assert time.monotonic() - began >= 0.3
    assert order == ["begins", "other", "goes on"]
    assert [each.tag for each in found] == [1, 0]


def test_when_nothing_is_there_right_now_it_is_asked_for_again_a_little_later(rig):
    workers, asked = rig.connect(), []

    def feed() -> Iterator[Any]:
        for answer in (None, None, Running(ends(1))):
            asked.append(time.monotonic())
            yield answer

    ticks: list[int] = []
    assert [each.result for each in workers.run(feed(), lambda: ticks.append(1))] == [1]
    assert len(ticks) < 30  # nobody spins meanwhile
    assert all(0.2 < later - earlier < 5 for earlier, later in itertools.pairwise(asked))


@pytest.mark.parametrize("connections", [1, 3])
def test_few_large_transfers_are_admitted_at_a_time_and_many_small_ones(rig, connections):
    workers = rig.connect(connections)
    for size, most in ((0, module.IN_FLIGHT), (TOGETHER_BYTES // 8, 8), (TOGETHER_BYTES, 2 * connections)):
        gate, pulled = threading.Event(), []

        def feed(size: int = size, gate: threading.Event = gate, pulled: list[int] = pulled) -> Iterator[Any]:
            for number in range(module.IN_FLIGHT + 5):
                pulled.append(number)
                yield Running(ends(number, lambda: gate.wait(20)), payload_bytes=size)

        counts = []

        def tick(pulled: list[int] = pulled, counts: list[int] = counts, gate: threading.Event = gate) -> None:
            counts.append(len(pulled))
            if len(counts) > 3:
                gate.set()

        assert len(list(workers.run(feed(), tick))) == module.IN_FLIGHT + 5
        assert counts[3] == most
    assert workers._active_bytes == 0


# -- what ends them all


@pytest.mark.parametrize("error", [LinkLost("cut"), Timeout("silent")])
def test_a_lost_link_ends_every_transfer_with_that_error_and_gives_all_back(rig, error):
    rig.next = [Store(connections=2)]
    workers = rig.connect()
    waiting = Transfer(lambda _: iter([Linger(60.0)]))
    others = [blocks(), waiting, *(ends(number) for number in range(3))]
    gate = threading.Event()
    failing = ends(error, lambda: gate.wait(20))

    def tick() -> None:
        if workers._in_turn == 2 and len(workers._lingering) == 1:
            gate.set()

    jobs = [Running(waiting, tag="w"), Running(others[0], tag="b"), Running(failing, tag="f")]
    outcomes: list[Any] = []
    with pytest.raises(type(error)):
        outcomes.extend(workers.run(iter(jobs), tick))
    assert sorted((each.tag, each.error) for each in outcomes) == [("b", error), ("f", error), ("w", error)]
    assert (waiting.released, failing.released) == (1, 1)
    rig.until(lambda: others[0].released == 1)
    assert all(store.aborted.is_set() for store in rig.stores)
    assert not workers.usable


def test_a_cancel_ends_them_likewise(rig):
    workers, transfer = rig.connect(), blocks()
    outcomes: list[Any] = []
    with pytest.raises(Cancelled):
        outcomes.extend(workers.run(iter([Running(transfer, tag=1)]), rig.stop.set))
    assert [(each.tag, type(each.error)) for each in outcomes] == [(1, Cancelled)]


def test_a_failed_commit_ends_them_and_no_record_counts(rig):
    def fails(_: Any) -> None:
        raise LinkLost("disk")

    rig.commit, went_on = fails, []
    rig.workers = Workers(rig.make, commit=fails, stop=rig.stop, clock=time.monotonic)
    workers = rig.connect()

    def steps(_: Any) -> Iterator[Any]:
        yield Barrier("record")
        went_on.append(1)

    with pytest.raises(LinkLost, match="disk"):
        list(workers.run(iter([Running(Transfer(steps))])))
    assert went_on == []


def test_a_call_that_does_not_return_is_left_behind_after_a_second(rig):
    workers, gate = rig.connect(), threading.Event()
    deaf = ends(1, lambda: gate.wait(20))
    began, ticks, told = time.monotonic(), [], []

    def tick() -> None:
        ticks.append(time.monotonic())
        rig.stop.set()

    with pytest.raises(Cancelled):
        told.extend(workers.run(iter([Running(deaf, tag=1)]), tick))
    assert ENDING_S <= time.monotonic() - began < 10
    assert len(ticks) > 3  # also while it ends
    assert [(each.tag, type(each.error)) for each in told] == [(1, Cancelled)]
    gate.set()
    rig.until(lambda: deaf.released == 1 and workers._idle == 1)
    assert list(workers.run(iter(()))) == []  # and is not told again when it returns at last


def test_a_call_that_ends_late_still_says_how_far_it_came(rig):
    workers, said = rig.connect(), []

    def steps(transfer: Any) -> Iterator[Any]:
        yield from ()
        transfer.store.aborted.wait(20)
        time.sleep(0.2)
        workers.desk.post(lambda: said.append("so far"))
        workers.desk.delivered(7)
        raise LinkLost("aborted")

    with pytest.raises(Cancelled):
        list(workers.run(iter([Running(Transfer(steps))]), rig.stop.set))
    assert said == ["so far"]
    assert workers.delivered_bytes == 7


def test_a_caller_who_stops_asking_ends_them(rig):
    workers, transfer = rig.connect(), blocks()
    found = workers.run(iter([Running(ends(1)), Running(transfer)]))
    assert next(found).result == 1
    found.close()
    rig.until(lambda: transfer.released == 1)
    assert not workers.usable
