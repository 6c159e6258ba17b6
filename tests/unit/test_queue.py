"""The queue: what is on disk after each step, order, and rows that outlive their process."""

import itertools
import os
import sqlite3

import pytest

from iot.sftp.client import DiskFull, Fingerprint, Journal
from iot.spooler.queue import rows
from iot.spooler.queue.policy import NEVER, TRANSITIONS, Allowed, Event, State, Verdict
from iot.spooler.queue.queue import QUEUE_SCHEMA, NewEntry, Queue, Success


@pytest.fixture
def journal(tmp_path):
    journal = Journal(tmp_path / "state", QUEUE_SCHEMA)
    yield journal
    journal.close()


def entry(path=b"f", size=10, rank=0, priority=5, large=False, outbox=1):
    return NewEntry(outbox, path, Fingerprint(size, 2, 3, 2**64 - 5), large, priority, rank, 100.0)


def heads(queue, large=False):
    return [item.path for item in queue.heads(1, large=large, limit=100)]


def begun(queue, *entries):
    queue.add(entries)
    return queue.begin(queue.heads(1, large=False, limit=100))


def delivered(queue, journal, *rows):
    return journal.write(lambda db: queue.deliver(db, [Success(row, Event.SENT, "size", 1.0) for row in rows]))


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


def test_a_file_not_begun_follows_the_rule_in_force_and_one_that_is_keeps_its_own(journal):
    queue = Queue(journal)
    queue.outbox(b"/out", "/old")
    begun(queue, entry(b"begun"))
    queue.add([entry(b"queued")])
    queue = Queue(journal)
    queue.outbox(b"/out", "/new")
    queue.restart()
    assert {row.path: row.destination for row in queue.page(1, 0, 9)} == {
        b"begun": "/old/begun",
        b"queued": "/new/queued",
    }
    assert [(total.files, total.earlier) for total in queue.totals()] == [(2, 1)]


@pytest.mark.parametrize("event", [Event.INTERRUPTED, Event.POSTPONED])
def test_while_no_answer_came_for_it_a_file_keeps_its_destination(journal, event):
    queue = Queue(journal)
    queue.outbox(b"/out", "/old")
    (row,) = begun(queue, entry())
    journal.write(lambda db: queue.fail(db, [(row, Verdict(event, 0, 0, 1.0), None)], now=0.0))
    queue.outbox(b"/out", "/new")
    assert queue.page(1, 0, 9)[0].destination == "/old/f"


def test_a_refusal_that_names_a_file_whose_name_is_no_utf_8_is_kept(journal):
    queue = Queue(journal)
    queue.outbox(b"/out", "/old")
    (row,) = begun(queue, entry())
    told = os.fsdecode(b"/out/\xff\xfe: no rights")
    journal.write(lambda db: queue.fail(db, [(row, Verdict(Event.FAILED, 1, 1, 1.0), told)], now=0.0))
    assert queue.page(1, 0, 9)[0].error == "/out/\\xff\\xfe: no rights"


def test_an_answer_that_refused_a_file_lets_it_follow_the_configuration_and_tells_where_a_part_may_be(journal):
    queue = Queue(journal)
    queue.outbox(b"/out", "/old")
    (row,) = begun(queue, entry())
    journal.write(lambda db: queue.fail(db, [(row, Verdict(Event.FAILED, 1, 1, 1.0), "no rights")], now=0.0))
    assert queue.page(1, 0, 9)[0].left_at is None
    queue.outbox(b"/out", "/new")
    queue.restart()
    (row,) = queue.heads(1, large=False, limit=9)
    assert (row.destination, row.left_at) == ("/new/f", "/old/f")
    (row,) = queue.begin([row])
    queue.outbox(b"/out", "/newest")
    assert queue.page(1, 0, 9)[0].destination == "/new/f"  # begun there now


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


OLD_JOURNAL = """
CREATE TABLE room (name TEXT PRIMARY KEY, version INTEGER NOT NULL, compatible_from INTEGER NOT NULL) WITHOUT ROWID;
INSERT INTO room VALUES ('queue', 1, 1);
CREATE TABLE outbox (id INTEGER PRIMARY KEY, path BLOB NOT NULL UNIQUE);
INSERT INTO outbox VALUES (1, CAST('/out' AS BLOB)), (2, CAST('/other' AS BLOB));
CREATE TABLE file (
    id INTEGER PRIMARY KEY, outbox INTEGER NOT NULL, path BLOB NOT NULL, mtime_ns INTEGER NOT NULL,
    ctime_ns INTEGER NOT NULL, inode INTEGER NOT NULL, destination BLOB NOT NULL, check_final INTEGER NOT NULL);
CREATE UNIQUE INDEX file_path ON file (outbox, path);
CREATE TABLE entry (
    id INTEGER PRIMARY KEY, outbox INTEGER NOT NULL, state INTEGER NOT NULL, size INTEGER NOT NULL,
    large INTEGER NOT NULL, priority INTEGER NOT NULL, rank NOT NULL, first_seen REAL NOT NULL,
    attempts INTEGER NOT NULL DEFAULT 0, failures INTEGER NOT NULL DEFAULT 0,
    strikes INTEGER NOT NULL DEFAULT 0, next_attempt REAL, error TEXT);
CREATE INDEX entry_ready ON entry (outbox, large, priority, rank) WHERE state = 0;
CREATE INDEX entry_waiting ON entry (next_attempt) WHERE state = 2;
CREATE INDEX entry_owed ON entry (state) WHERE state IN (3, 5);
CREATE TABLE delivered (id INTEGER PRIMARY KEY, at REAL NOT NULL, proof TEXT NOT NULL);
"""


def test_a_journal_of_0_1_0_is_upgraded_in_place_and_what_was_begun_keeps_its_destination(tmp_path):
    db = sqlite3.connect(tmp_path / "journal.db")
    db.executescript(OLD_JOURNAL)
    rows = [  # path, state, attempts, destination
        (b"queued", 0, 0, b"/old/queued"),
        (b"flying", 1, 1, b"/old/2020-01-01/flying"),
        (b"sub/waiting", 2, 3, b"/old/sub/waiting"),
        (b"gone \xff", 3, 1, b"/old/gone \xff"),
        (b"kept", 4, 1, b"kept"),
        (b"odd", 0, 1, b"no such path"),
        (b"odder", 0, 1, b""),
    ]
    for number, (path, state, attempts, destination) in enumerate(rows, 1):
        db.execute("INSERT INTO file VALUES (?, 1, ?, 2, 3, -5, ?, 0)", (number, path, destination))
        db.execute(
            "INSERT INTO entry VALUES (?, 1, ?, 10, 0, 5, 7, 100, ?, 0, 2, NULL, 'why')", (number, state, attempts)
        )
    db.commit()
    db.close()
    journal = Journal(tmp_path, QUEUE_SCHEMA)
    assert journal.moved_aside is None
    queue = Queue(journal)
    assert queue.outbox(b"/out", "/new") == (1, False)
    queue.restart()
    found = {row.path: row for row in queue.page(1, 0, 99)}
    assert {path: row.destination for path, row in found.items()} == {
        b"queued": "/new/queued",
        b"flying": "/old/2020-01-01/flying",
        b"sub/waiting": "/old/sub/waiting",
        b"gone \xff": "/old/gone \udcff",
        b"kept": "kept",
        b"odd": "/new/odd",
        b"odder": "/new/odder",
    }
    assert {row.fingerprint for row in found.values()} == {Fingerprint(10, 2, 3, 2**64 - 5)}
    assert [(row.strikes, row.error) for row in found.values()] == [(2, "why")] * 7
    queue.add([entry(b"new")])
    assert queue.known(1, [b"new"])[b"new"].id == 8
    journal.close()


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


def test_a_name_that_was_decided_is_kept_with_the_row_until_the_server_answers(journal):
    queue = Queue(journal)
    queue.outbox(b"/out", "by number", decided=True)
    queue.add([entry()])
    (row,) = queue.heads(1, large=False, limit=9)
    assert row.destination == ""
    (row,) = queue.begin([row._replace(destination="/up/1\udcff/f")])
    queue.outbox(b"/out", "by hash", decided=True)
    queue.restart()
    (row,) = queue.heads(1, large=False, limit=9)
    assert (row.destination, row.left_at) == ("/up/1\udcff/f", None)
    (row,) = queue.begin([row])
    journal.write(lambda db: queue.fail(db, [(row, Verdict(Event.FAILED, 1, 1, 1.0), "no")], now=0.0))
    queue.restart()
    (row,) = queue.heads(1, large=False, limit=9)
    assert (row.destination, row.left_at) == ("", "/up/1\udcff/f")  # by the naming in force, and the part may go


def test_a_row_under_a_naming_that_an_older_version_does_not_know_is_damaged_to_it_and_found_again(journal):
    queue = Queue(journal)
    queue.outbox(b"/out", "by number", decided=True)
    queue.add([entry()])
    queue.begin([row._replace(destination="/up/1/f") for row in queue.heads(1, large=False, limit=9)])
    older = "SELECT 1 FROM entry WHERE rule NOT IN (SELECT rule.id FROM rule WHERE typeof(base) = 'blob')"
    assert len(journal.read(older)) == 1
    queue.restart()
    assert queue.count(1) == 1


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
