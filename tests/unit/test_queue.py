"""The queue: what is on disk after each step, order, and rows that outlive their process."""

import itertools
import os

import pytest
from unit.queue_rows import begun, delivered, entry, heads

from iot.sftp.client import DiskFull, Fingerprint, Journal
from iot.spooler.queue import rows
from iot.spooler.queue.policy import NEVER, TRANSITIONS, Allowed, Event, State, Verdict
from iot.spooler.queue.queue import QUEUE_SCHEMA, Queue, Success


def test_entry_comes_back_as_it_went_in(journal):
    queue = Queue(journal)
    assert queue.outbox(b"/out\xff", "/up/\udcff") == (1, True)
    assert queue.outbox(b"/out\xff", "/up/\udcff") == (1, False)
    queue.add([entry(b"\xff\n")])
    (row,) = queue.heads(1, large=False, limit=1)
    assert (row.path, row.fingerprint) == (b"\xff\n", Fingerprint(10, 2, 3, 2**64 - 5))
    assert row.destination == "/up/\udcff/\udcff\n"
    assert queue.known(1, [b"\xff\n", b"other"])[b"\xff\n"].fingerprint == row.fingerprint


def test_heads_come_by_priority_then_rank_and_large_ones_apart(journal):
    queue = Queue(journal)
    queue.add([entry(b"c", rank=3), entry(b"a", rank=9, priority=0), entry(b"b", rank=-1), entry(b"L", large=True)])
    assert heads(queue) == [b"a", b"b", b"c"]
    assert heads(queue, large=True) == [b"L"]


def test_no_more_heads_are_read_than_have_so_many_bytes_together(journal, monkeypatch):
    queue = Queue(journal)
    queue.add([entry(bytes([letter]), rank=letter, size=10) for letter in b"abcdef"])
    made = []
    real = rows.fingerprint_from
    monkeypatch.setattr(rows, "fingerprint_from", lambda row: made.append(row) or real(row))
    for most_bytes, few in ((1, 1), (10, 1), (11, 2), (30, 3), (1000, 6)):
        made.clear()
        assert len(queue.heads(1, large=False, limit=9, most_bytes=most_bytes)) == len(made) == few
    assert len(queue.heads(1, large=False, limit=4, most_bytes=1000)) == 4


def test_delivered_row_stays_until_the_removal_is_durable(journal):
    queue = Queue(journal)
    (row,) = begun(queue, entry())
    assert (row.state, row.attempts) == (State.SENDING, 1)
    (row,) = delivered(queue, journal, row)
    assert [item.id for item in queue.owed(State.DELIVERED, 10)] == [row.id]
    journal.write(lambda db: queue.forget(db, [row]))
    assert queue.count(1) == 0


def test_a_new_version_has_a_number_of_its_own_and_what_comes_late_for_the_old_one_cannot_reach_it(journal):
    queue = Queue(journal)
    (row,) = begun(queue, entry(size=10))
    (row,) = delivered(queue, journal, row)
    queue.add([entry(size=11)])
    assert [item.fingerprint.size for item in queue.owed(State.DELIVERED, 9)] == [10]  # it has still to leave
    journal.write(lambda db: queue.forget(db, [row]))
    (new,) = queue.heads(1, large=False, limit=9)
    assert new.fingerprint.size == 11
    assert new.id > row.id
    assert queue.known(1, [b"f"])[b"f"].id == new.id


@pytest.mark.parametrize("state", [State.READY, State.WAITING, State.KEPT])
def test_a_new_version_takes_the_place_of_one_that_nobody_has_in_hand(journal, state):
    queue = Queue(journal)
    if state is State.READY:
        queue.add([entry(size=10)])
    else:
        (row,) = begun(queue, entry(size=10))
        if state is State.KEPT:
            journal.write(lambda db: queue.deliver(db, [Success(row, Event.SENT_TO_KEEP, "size", 1.0)]))
        else:
            journal.write(lambda db: queue.fail(db, [(row, Verdict(Event.FAILED, 1, 1, 30.0), "Boom")], now=0.0))
    (before,) = queue.page(1, 0, 9)
    assert before.state is state
    queue.add([entry(size=11)])
    (row,) = queue.page(1, 0, 9)
    assert (row.state, row.fingerprint.size, row.attempts, row.error) == (State.READY, 11, 0, None)
    assert row.id > before.id
    assert [journal.read(f"SELECT count(*) FROM {table}")[0][0] for table in ("file", "delivered")] == [1, 0]


def test_no_number_is_given_twice_also_after_a_restart(tmp_path):
    seen = []
    for _ in range(3):
        journal = Journal(tmp_path, QUEUE_SCHEMA)
        queue = Queue(journal)
        for turn in range(2):
            rows = delivered(queue, journal, *begun(queue, entry(b"f%d" % turn)))
            seen += [row.id for row in rows]
            journal.write(lambda db, rows=rows, queue=queue: queue.forget(db, rows))
        assert queue.count(1) == 0
        journal.close()
    assert len(seen) == len(set(seen)) == 6


def test_a_number_that_was_not_written_is_not_lost_from_the_record(journal, monkeypatch):
    """A transaction that fails after numbers were reserved: those that follow are reserved again."""
    queue = Queue(journal)

    with monkeypatch.context() as patch:
        commit = journal._transact

        def undone(work):
            def then_fail(db):
                work(db)
                raise DiskFull("no room")

            return commit(then_fail)

        patch.setattr(journal, "_transact", undone)
        with pytest.raises(DiskFull):
            queue.add([entry()])
    queue.add([entry()])
    (row,) = queue.page(1, 0, 9)
    assert row.id < journal.read("SELECT next FROM number")[0]["next"]


@pytest.mark.parametrize("damage", ["'text'", "-7", "9223372036854775807", "1.5"])
def test_a_damaged_count_of_numbers_stands_in_nobodys_way(tmp_path, damage):
    journal = Journal(tmp_path, QUEUE_SCHEMA)
    Queue(journal).add([entry(b"a"), entry(b"b")])
    journal.write(lambda db: db.execute(f"UPDATE number SET next = {damage}"))
    Queue(journal).add([entry(b"c")])
    assert [row.id for row in Queue(journal).page(1, 0, 9)] == [1, 2, 3]
    journal.close()


@pytest.mark.parametrize(("state", "event"), [*itertools.product(list(State)[:-1], Event)])
def test_the_journal_takes_a_transition_only_out_of_the_state_that_it_leaves(journal, state, event):
    """Every pair, in the table or not, on real rows: the wrong ones raise and change nothing."""
    queue = Queue(journal)
    queue.add([entry()])
    journal.write(lambda db: db.execute("UPDATE entry SET state = ?", (state,)))
    (row,) = queue.page(1, 0, 9)
    if (state, event) in TRANSITIONS:
        journal.write(lambda db: queue._move(db, event, [row]))
        after = [item.state for item in queue.page(1, 0, 9)]
        assert after == ([] if TRANSITIONS[state, event] is State.GONE else [TRANSITIONS[state, event]])
        assert journal.read("SELECT count(*) FROM file")[0][0] == len(after)
    else:
        with pytest.raises(ValueError, match=event.name):
            journal.write(lambda db: queue._move(db, event, [row]))
        assert [item.state for item in queue.page(1, 0, 9)] == [state]
    left = {source for source, cause in TRANSITIONS if cause is event} - {state}
    for claimed in left:  # what memory says is not what is on the disk
        queue.add([entry()]) if queue.count(1) == 0 else None
        journal.write(lambda db: db.execute("UPDATE entry SET state = ?", (state,)))
        (row,) = queue.page(1, 0, 9)
        with pytest.raises(ValueError, match=claimed.name):
            journal.write(lambda db, claimed=claimed, row=row: queue._move(db, event, [row._replace(state=claimed)]))
        assert [item.state for item in queue.page(1, 0, 9)] == [state]


def test_nothing_of_a_settlement_stands_when_one_of_its_rows_is_elsewhere(journal):
    queue = Queue(journal)
    rows = begun(queue, entry(b"a"), entry(b"b"))
    delivered(queue, journal, rows[1])
    with pytest.raises(ValueError, match="1 of 2 entries were not SENDING"):
        delivered(queue, journal, *rows)
    assert [row.state for row in queue.page(1, 0, 9)] == [State.SENDING, State.DELIVERED]


@pytest.mark.parametrize(
    "time_ns", [-(2**63), -(2**63) - 1, 2**63 - 1, 2**63, 13_569_465_600 * 10**9, -(2**63) * 10**9, 2**63 * 10**9 - 1]
)
def test_any_time_that_a_file_can_have_comes_back_exactly(journal, time_ns):
    queue = Queue(journal)
    version = Fingerprint(10, time_ns, -time_ns, 5)
    queue.add([entry()._replace(fingerprint=version)])
    queue.restart()
    assert queue.known(1, [b"f"])[b"f"].fingerprint == version
    assert queue.heads(1, large=False, limit=1)[0].fingerprint == version


def test_a_refusal_that_names_a_file_whose_name_is_no_utf_8_is_kept(journal):
    queue = Queue(journal)
    queue.outbox(b"/out", "/old")
    (row,) = begun(queue, entry())
    told = os.fsdecode(b"/out/\xff\xfe: no rights")
    journal.write(lambda db: queue.fail(db, [(row, Verdict(Event.FAILED, 1, 1, 1.0), told)], now=0.0))
    assert queue.page(1, 0, 9)[0].error == "/out/\\xff\\xfe: no rights"


@pytest.mark.parametrize(
    ("event", "attempts", "unanswered"),
    [
        (Event.FAILED, 2, 0),
        (Event.GIVEN_UP, 2, 0),
        (Event.POSTPONED, 2, 2),
        (Event.INTERRUPTED, 2, 2),
        (Event.SKIPPED, 2, 1),
        (Event.RELEASED, 1, 1),
    ],
)
def test_an_attempt_counts_and_is_unanswered_as_far_as_it_went(journal, event, attempts, unanswered):
    queue = Queue(journal)
    queue.outbox(b"/out", "/up")
    (row,) = begun(queue, entry())
    journal.write(lambda db: queue.fail(db, [(row, Verdict(Event.INTERRUPTED, 0, 0), None)], now=0.0))
    (row,) = queue.begin(queue.heads(1, large=False, limit=9))
    journal.write(lambda db: queue.fail(db, [(row, Verdict(event, 1, 1, 1.0), None)], now=0.0))
    (row,) = queue.page(1, 0, 9)
    assert (row.attempts, row.unanswered) == (attempts, unanswered)


def test_what_was_claimed_and_never_handed_out_was_no_attempt(journal):
    queue = Queue(journal)
    queue.outbox(b"/out", "/old")
    (row,) = begun(queue, entry())
    journal.write(lambda db: queue.fail(db, [(row, Verdict(Event.RELEASED, 0, 0), None)], now=0.0))
    queue.outbox(b"/out", "/new")
    (row,) = queue.page(1, 0, 9)
    assert (row.state, row.attempts, row.unanswered, row.destination) == (State.READY, 0, 0, "/new/f")


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
    assert not queue.any_ready({1: Allowed()})
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


def test_a_version_that_changed_under_way_is_dropped_and_no_other(journal):
    queue = Queue(journal)
    rows = begun(queue, entry())
    queue.add([entry(b"g")])
    queue.drop(rows, Event.CHANGED)
    assert [item.path for item in queue.page(1, 0, 9)] == [b"g"]


def test_claims_use_the_index(journal):
    plan = journal.read(
        "EXPLAIN QUERY PLAN SELECT id FROM entry WHERE state = 0 AND outbox = ? AND large = ?"
        " ORDER BY priority, rank LIMIT 5",
        1,
        0,
    )
    assert ["entry_ready" in row["detail"] for row in plan] == [True]


@pytest.mark.parametrize("act", ["deliver", "fail"])
def test_a_row_that_was_dropped_as_damaged_while_it_was_sent_is_no_bug(journal, act):
    queue = Queue(journal)
    rows = begun(queue, entry(b"a"), entry(b"b"))
    journal.write(lambda db: db.execute("UPDATE entry SET size = 'x' WHERE id = ?", (rows[0].id,)))
    assert [row.path for row in queue.page(1, 0, 9)] == [b"b"]  # the other one is dropped here
    if act == "deliver":
        done = delivered(queue, journal, *rows)
    else:
        failed = [(row, Verdict(Event.FAILED, 1, 1, 1.0), None) for row in rows]
        done = journal.write(lambda db: queue.fail(db, failed, now=0.0))
    assert [row.path for row in done] == [b"b"]


@pytest.fixture
def one_of_each(journal):
    """A row in each state, in the order of the states, and one of another outbox."""
    queue = Queue(journal)
    queue.add([entry(b"%d" % number, size=10 + number) for number in range(7)])
    queue.add([entry(outbox=2)])
    for row in queue.page(1, 0, 9):
        journal.write(lambda db, row=row: db.execute("UPDATE entry SET state = ? WHERE id = ?", (row.id - 1, row.id)))
    assert [row.state for row in queue.page(1, 0, 9)] == list(State)[:-1]
    return queue


def test_what_waits_or_is_sent_is_the_backlog_and_only_what_waits_may_be_dropped(one_of_each):
    assert one_of_each.backlog(1) == (3, 10 + 11 + 12)
    for newest_first, states in ((False, [State.READY, State.WAITING]), (True, [State.WAITING, State.READY])):
        assert [row.state for row in one_of_each.idle(1, 0, 99, 9, newest_first=newest_first)] == states
    assert [row.id for row in one_of_each.idle(1, 1, 4, 9, newest_first=False)] == [3]
    assert one_of_each.idle(1, 1, 3, 9, newest_first=False) == []


def test_the_bounds_of_what_waits_are_those_of_a_batch(one_of_each):
    """Above the last row of the batch before, up to its own last row."""
    assert one_of_each.waiting(1, 0, 3) == (2, 10 + 12)
    assert one_of_each.waiting(1, 1, 3) == (1, 12)
    assert one_of_each.waiting(1, 0, 2) == (1, 10)
    between = {(above, up_to) for above in range(5) for up_to in range(5) if one_of_each.waits_between(1, above, up_to)}
    assert between == {(above, up_to) for above in range(3) for up_to in range(above + 1, 5)}  # 2 is being sent
    assert (one_of_each.newest(1), one_of_each.newest(2), one_of_each.newest(3)) == (7, 8, 0)


@pytest.mark.parametrize(("event", "state"), [(Event.EVICTED, State.DROPPED), (Event.EXPIRED, State.QUARANTINED)])
def test_what_is_dropped_and_what_is_given_up_as_too_old_have_to_leave_for_different_places(
    one_of_each, journal, event, state
):
    idle = one_of_each.idle(1, 0, 99, 9, newest_first=False)
    gone = journal.write(lambda db: one_of_each.evict(db, idle, event, "why"))
    assert [row.state for row in gone] == [state, state]
    assert {row.id for row in idle} < {row.id for row in one_of_each.owed(state, 9)}
    assert {row.error for row in one_of_each.entries([row.id for row in idle])} == {"why"}


def test_who_asks_for_a_try_ends_all_waits_but_those_for_the_next_run(journal):
    queue = Queue(journal)
    first, second = begun(queue, entry(b"a"), entry(b"b"))
    failed = [(first, Verdict(Event.FAILED, 1, 1, 30.0), None), (second, Verdict(Event.FAILED, 1, 1, NEVER), None)]
    journal.write(lambda db: queue.fail(db, failed, now=0.0))
    ready = queue.made_ready
    queue.release([2])
    assert queue.made_ready == ready
    queue.release([1])
    assert (heads(queue), queue.made_ready) == ([b"a"], ready + 1)
