"""Where a queued file goes under another configuration: what was begun keeps its destination until it is answered."""

import sqlite3

import pytest
from unit.queue_rows import begun, entry

from iot.sftp.client import Fingerprint, Journal
from iot.spooler.queue.policy import Event, Verdict
from iot.spooler.queue.queue import QUEUE_SCHEMA, Queue


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


def test_a_file_of_an_outbox_that_is_no_longer_configured_goes_where_it_was_to_go_or_nowhere(journal):
    queue = Queue(journal)
    queue.outbox(b"/out", "/old")
    (row,) = begun(queue, entry(b"tried"))
    journal.write(lambda db: queue.fail(db, [(row, Verdict(Event.FAILED, 1, 1, 1.0), "no")], now=0.0))
    queue.add([entry(b"never")])
    queue = Queue(journal)
    queue.outbox(b"/other", "/new")
    queue.restart()
    found = {row.path: (row.destination, row.left_at) for row in queue.page(1, 0, 9)}
    assert found == {b"tried": ("/old/tried", None), b"never": ("", None)}


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
