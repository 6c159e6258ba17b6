"""Which transfer a worker takes next, and when records that wait are committed: pure rules, by a clock of our own."""

from __future__ import annotations

import threading
import time

import pytest

from iot.transfer.errors import LinkLost, NotFound
from iot.transfer.group_commit import COMPANY_JOBS, WAIT_MAX_S, GroupCommit
from iot.transfer.parallel.ready import TOGETHER_BYTES, Finished, Ready, Running
from iot.transfer.parallel.work import Linger

LARGE = TOGETHER_BYTES + 1


class Transfer:
    """Waits once, then ends with `last`."""

    def __init__(self, last: object = "done") -> None:
        self.last, self.released, self.stores = last, 0, []

    def run(self):
        try:
            self.stores.append(self.store)
            yield Linger(1.0)
            self.stores.append(self.store)
            if isinstance(self.last, BaseException):
                raise self.last
            return self.last
        finally:
            self.ended = True

    def release(self) -> None:
        self.released += 1


def running(size: int = 0, urgency: tuple[int, ...] = (0,)) -> Running:
    return Running(Transfer(), urgency, payload_bytes=size)


# -- a transfer


def test_each_turn_has_the_store_of_its_worker_and_the_end_tells_the_result_once():
    transfer = Transfer()
    one = Running(transfer, tag="tag")
    assert one.turn("store 1") == Linger(1.0)
    assert transfer.released == 0
    assert one.turn("store 2") == Finished("tag", "done", None)
    assert (transfer.stores, transfer.released) == (["store 1", "store 2"], 1)


def test_an_error_of_ours_is_the_outcome_and_any_other_is_raised_with_all_given_back():
    error = NotFound("no")
    transfer = Transfer(error)
    one = Running(transfer, tag="tag")
    one.turn("store")
    assert one.turn("store") == Finished("tag", None, error)
    assert transfer.released == 1
    transfer = Transfer(ZeroDivisionError())
    one = Running(transfer)
    one.turn("store")
    with pytest.raises(ZeroDivisionError):
        one.turn("store")
    assert transfer.released == 1


def test_what_is_given_up_where_it_waits_ends_and_gives_back():
    transfer = Transfer()
    one = Running(transfer)
    one.turn("store")
    one.end()
    assert (transfer.ended, transfer.released) == (True, 1)


@pytest.mark.parametrize(("size", "large"), [(TOGETHER_BYTES, False), (LARGE, True)])
def test_what_is_large(size, large):
    assert running(size).large is large


# -- the queue


def test_the_most_urgent_comes_first_and_among_equals_the_first():
    ready = Ready()
    order = [running(urgency=(2, 0)), running(urgency=(1, 1)), running(urgency=(1, 0)), running(urgency=(1, 0))]
    for one in order:
        ready.put(one)
    assert len(ready) == 4
    assert [ready.take(0) for _ in range(4)] == [order[2], order[3], order[1], order[0]]
    assert len(ready) == 0
    assert ready.take(0) is None


def test_a_large_one_never_takes_the_last_free_worker():
    ready = Ready()
    large = [running(LARGE) for _ in range(3)]
    small = running(urgency=(9,))
    for one in (*large, small):
        ready.put(one)
    assert ready.take(0) is large[0]
    assert ready.take(0) is small  # less urgent, and yet
    assert ready.take(0) is None
    ready.back(large[0])
    assert ready.take(0) is large[1]
    ready.most_large = 2
    assert ready.take(0) is large[2]


def test_between_small_and_large_urgency_decides():
    ready = Ready()
    large, small, later = running(LARGE, (1,)), running(0, (2,)), running(0, (0,))
    for one in (large, small):
        ready.put(one)
    assert ready.take(0) is large
    ready.back(large)
    ready.put(large)
    ready.put(later)
    assert [ready.take(0), ready.take(0), ready.take(0)] == [later, large, small]


def test_a_small_one_that_comes_back_makes_no_room_for_a_large_one():
    ready = Ready()
    ready.put(small := running())
    ready.put(first := running(LARGE))
    ready.put(running(LARGE))
    assert {ready.take(0), ready.take(0)} == {small, first}
    ready.back(small)
    assert ready.take(0) is None


def test_a_closed_queue_gives_nothing_and_tells_what_nobody_has_taken():
    ready = Ready()
    left = [running(), running(LARGE)]
    for one in left:
        ready.put(one)
    assert not ready.closed
    assert set(ready.close()) == set(left)
    assert ready.closed
    assert len(ready) == 0
    ready.put(running())
    assert ready.take(10.0) is None  # at once


@pytest.mark.parametrize("what", ["put", "back", "close"])
def test_a_worker_that_waits_is_woken(what):
    ready, took = Ready(), []
    if what == "back":
        for _ in range(2):
            ready.put(running(LARGE))
        first = ready.take(0)
    worker = threading.Thread(target=lambda: took.append(ready.take(20.0)))
    worker.start()
    while not ready._changed._waiters:
        time.sleep(0.001)
    {"put": lambda: ready.put(running()), "back": lambda: ready.back(first), "close": ready.close}[what]()
    worker.join(10.0)
    assert not worker.is_alive()
    assert (took[0] is None) is (what == "close")


# -- records that wait


def commits() -> tuple[GroupCommit[str], list[list[int]]]:
    done: list[list[int]] = []
    return GroupCommit(lambda records: done.append(list(records))), done


def test_nobody_waits_for_nothing():
    group, done = commits()
    assert group.wait_s(0.0, others=5) is None
    assert group.commit() == []
    group.add("a", 1, started_at=0.0, now=1.0)
    assert group.wait_s(1.0, others=0) == 0.0  # nobody else could come
    assert (group.commit(), done) == (["a"], [[], [1]])
    assert group.wait_s(1.0, others=5) is None


def test_a_job_waits_for_half_of_its_own_time_and_never_long():
    group, _ = commits()
    group.add("quick", 1, started_at=10.0, now=10.1)
    assert group.wait_s(10.1, others=100) == pytest.approx(0.05)
    assert group.wait_s(10.12, others=100) == pytest.approx(0.03)
    assert group.wait_s(11.0, others=100) == 0.0
    group.commit()
    group.add("slow", 2, started_at=0.0, now=20.0)
    assert group.wait_s(20.0, others=100) == pytest.approx(WAIT_MAX_S)
    group.add("quicker", 3, started_at=19.9, now=20.0)  # the first to be due decides for all
    assert group.wait_s(20.0, others=100) == pytest.approx(0.05)
    group.add("slow too", 4, started_at=0.0, now=20.0)
    assert group.wait_s(20.0, others=100) == pytest.approx(0.05)


@pytest.mark.parametrize(
    ("waiting", "others", "enough"), [(2, 10, False), (2, 9, True), (63, 400, False), (64, 400, True)]
)
def test_a_quarter_of_those_under_way_is_company_enough(waiting, others, enough):
    group, done = commits()
    for number in range(waiting):
        group.add(str(number), number, started_at=0.0, now=100.0)
    assert (group.wait_s(100.0, others=others) == 0.0) is enough
    assert COMPANY_JOBS == 64
    assert group.commit() == [str(number) for number in range(waiting)]
    assert done == [list(range(waiting))]


def test_after_a_failed_commit_nobody_goes_on_and_nothing_is_committed_later():
    def fails(_: object) -> None:
        raise LinkLost("no")

    group = GroupCommit(fails)
    group.add("a", 1, started_at=0.0, now=1.0)
    with pytest.raises(LinkLost):
        group.commit()
    assert group.wait_s(1.0, others=0) is None


def test_what_was_given_up_is_not_committed_and_makes_nothing_due():
    group, done = commits()
    group.add("a", 1, started_at=0.99, now=1.0)
    group.clear()
    assert group.wait_s(1.0, others=0) is None
    group.add("b", 2, started_at=0.0, now=2.0)
    assert group.wait_s(2.0, others=9) == pytest.approx(WAIT_MAX_S)
    assert group.commit() == ["b"]
    assert done == [[2]]
