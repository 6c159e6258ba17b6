"""The queue: what is on disk after each step, order, and rows that outlive their process."""

import pytest

from iot.sftp.client import Fingerprint, Journal
from iot.sftp.spooler.policy import Event, State, Verdict
from iot.sftp.spooler.queue import NEVER, QUEUE_SCHEMA, Delivery, NewEntry, Queue


@pytest.fixture
def journal(tmp_path):
    journal = Journal(tmp_path / "state", QUEUE_SCHEMA)
    yield journal
    journal.close()


def entry(path=b"f", size=10, rank=0, priority=5, large=False, outbox=1):
    return NewEntry(outbox, path, Fingerprint(size, 2, 3, 2**64 - 5), large, priority, rank, "/up/\udcff", 100.0)


def heads(queue, large=False):
    return [item.path for item in queue.heads(1, large=large, limit=100)]


def begun(queue, *entries):
    queue.add(entries)
    rows = queue.heads(1, large=False, limit=100)
    queue.begin(rows)
    return queue.page(1, 0, 100)


def test_entry_comes_back_as_it_went_in(journal):
    queue = Queue(journal)
    assert queue.outbox(b"/out\xff") == (1, True)
    assert queue.outbox(b"/out\xff") == (1, False)
    queue.add([entry(b"\xff\n")])
    (row,) = queue.heads(1, large=False, limit=1)
    assert (row.path, row.fingerprint, row.destination) == (b"\xff\n", Fingerprint(10, 2, 3, 2**64 - 5), "/up/\udcff")
    assert queue.known(1, [b"\xff\n", b"other"])[b"\xff\n"].fingerprint == row.fingerprint


def test_heads_come_by_priority_then_rank_and_large_ones_apart(journal):
    queue = Queue(journal)
    queue.add([entry(b"c", rank=3), entry(b"a", rank=9, priority=0), entry(b"b", rank=-1), entry(b"L", large=True)])
    assert heads(queue) == [b"a", b"b", b"c"]
    assert heads(queue, large=True) == [b"L"]


def test_delivered_row_stays_until_the_removal_is_durable(journal):
    queue = Queue(journal)
    (row,) = begun(queue, entry())
    assert (row.state, row.attempts) == (State.SENDING, 1)
    journal.write(lambda db: queue.deliver(db, [Delivery(row, Event.SENT, "size", 1.0)]))
    assert [item.id for item in queue.owed(State.DELIVERED, 10)] == [row.id]
    journal.write(lambda db: queue.forget(db, [row.id]))
    assert queue.count(1) == 0


def test_new_version_after_the_delivery_is_not_forgotten_with_the_old_one(journal):
    queue = Queue(journal)
    (row,) = begun(queue, entry(size=10))
    journal.write(lambda db: queue.deliver(db, [Delivery(row, Event.SENT, "size", 1.0)]))
    queue.add([entry(size=11)])
    journal.write(lambda db: queue.forget(db, [row.id]))
    assert [item.fingerprint.size for item in queue.heads(1, large=False, limit=9)] == [11]


def test_row_in_flight_is_not_renewed(journal):
    queue = Queue(journal)
    begun(queue, entry(size=10))
    queue.add([entry(size=11)])
    (row,) = queue.page(1, 0, 9)
    assert (row.state, row.fingerprint.size) == (State.SENDING, 10)


def test_waits_end_on_the_monotonic_clock_and_attempts_persist(journal, tmp_path):
    queue = Queue(journal)
    (row,) = begun(queue, entry())
    journal.write(lambda db: queue.fail(db, [(row, Verdict(Event.FAILED, 1, 1, 30.0), "Boom")], now=50.0))
    assert queue.wake(79.0) == 80.0
    assert heads(queue) == []
    assert queue.wake(80.0) is None
    (again,) = queue.heads(1, large=False, limit=1)
    assert (again.attempts, again.strikes, again.error) == (1, 1, "Boom")


def test_left_for_the_next_run_and_ready_in_it(journal):
    queue = Queue(journal)
    (row,) = begun(queue, entry())
    journal.write(lambda db: queue.fail(db, [(row, Verdict(Event.FAILED, 3, 3, NEVER), "Boom")], now=0.0))
    assert queue.wake(1e9) is None
    assert not queue.any_ready([1])
    queue.restart()
    assert [(item.failures, item.strikes) for item in queue.heads(1, large=False, limit=1)] == [(0, 3)]


def test_queue_survives_its_process(tmp_path):
    journal = Journal(tmp_path, QUEUE_SCHEMA)
    begun(Queue(journal), entry())
    journal.close()
    again = Journal(tmp_path, QUEUE_SCHEMA)
    queue = Queue(again)
    queue.restart()
    assert heads(queue) == [b"f"]
    again.close()


def test_vanished_rows_go_but_not_those_in_flight(journal):
    queue = Queue(journal)
    begun(queue, entry())
    queue.add([entry(b"g")])
    ids = [item.id for item in queue.page(1, 0, 9)]
    queue.drop(ids, Event.CHANGED)
    assert [item.path for item in queue.page(1, 0, 9)] == [b"g"]


def test_claims_use_the_index(journal):
    plan = journal.read(
        "EXPLAIN QUERY PLAN SELECT id FROM entry WHERE state = 0 AND outbox = ? AND large = ?"
        " ORDER BY priority, rank LIMIT 5",
        1,
        0,
    )
    assert ["entry_ready" in row["detail"] for row in plan] == [True]
