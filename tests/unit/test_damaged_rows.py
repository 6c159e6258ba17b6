"""A row of the queue that makes no sense is dropped with a word, and its file is found again: nobody waits for ever."""

import sqlite3

import pytest
from quarantined import quarantined
from unit.agent_rig import Rig

from iot.sftp.client import LinkLost
from iot.spooler.agent.draining import End

NAMES = ["a", "b", "c"]


@pytest.fixture
def rig(tmp_path):
    """Three files that an earlier run has left in the queue."""
    rig = Rig(tmp_path)
    for name in NAMES:
        rig.put(name, name.encode() * 10)
    rig.remote.cannot_connect = [LinkLost("down")] * 3
    assert rig.run() is End.REMAINS
    return rig


def damage(rig, *statements):
    db = sqlite3.connect(rig.base / "state" / "journal.db")
    with db:
        for statement in statements:
            assert db.execute(statement).rowcount == 1, statement
    db.close()


COLUMNS = {
    "entry": "state size large priority first_seen attempts failures strikes outbox next_attempt rule unanswered"
    " destination wait_s",
    "file": "outbox path mtime_ns ctime_ns inode check_final hash8",
}


@pytest.mark.parametrize("bad", ["'text'", "x'00ff'", "1.5", "99", "-7", "''"])
@pytest.mark.parametrize(
    ("table", "column"), [(table, column) for table in COLUMNS for column in COLUMNS[table].split()]
)
def test_whatever_stands_in_a_row_every_file_arrives(rig, caplog, table, column, bad):
    if column == "path" and bad == "''":
        bad = "x''"
    damage(rig, f"UPDATE {table} SET {column} = {bad} WHERE id = 2")
    assert rig.run() is End.DRAINED
    assert rig.arrived() == NAMES
    assert rig.left() == []
    if bad in ("'text'", "''", "x''") or (bad == "99" and column in ("state", "large")):
        assert "damaged rows dropped from the queue rows=1" in caplog.text


@pytest.mark.parametrize("path", ["../../etc/passwd", "/etc/passwd", "b/", "b//b", "b/./b"])
def test_a_path_that_leaves_the_outbox_is_no_path(rig, caplog, path):
    damage(rig, f"UPDATE file SET path = CAST('{path}' AS BLOB) WHERE id = 2")
    assert rig.run() is End.DRAINED
    assert rig.arrived() == NAMES
    assert "damaged rows dropped from the queue rows=1" in caplog.text


def test_where_a_rule_of_destinations_was_lost_the_files_follow_the_one_in_force(rig):
    damage(rig, "UPDATE entry SET rule = 1, unanswered = 1 WHERE id = 2", "DELETE FROM rule")
    assert rig.run() is End.DRAINED
    assert rig.arrived() == NAMES


@pytest.mark.parametrize("table", ["entry", "file"])
def test_half_a_row_is_none(rig, table):
    damage(rig, f"DELETE FROM {table} WHERE id = 2")
    assert rig.run() is End.DRAINED
    assert rig.arrived() == NAMES


def test_an_error_that_is_no_text_is_shown_as_far_as_it_is(rig):
    damage(rig, "UPDATE entry SET error = CAST(x'ff41' AS TEXT), state = 5 WHERE id = 2")
    assert rig.run() is End.REMAINS
    assert [file.record["reason"] for file in quarantined(rig.quarantine)] == ["\N{REPLACEMENT CHARACTER}A"]


def test_what_was_delivered_under_a_damaged_row_is_compared_and_not_taken_for_new(rig, tmp_path):
    """The row said that it was delivered; the folder cannot know."""
    rig.outbox["after_upload"] = "keep"
    assert rig.run() is End.DRAINED
    damage(rig, "UPDATE entry SET state = 77 WHERE id = 2")
    asked = []
    rig.remote.before = lambda job: asked.append((job.dest, job.check_final))
    assert rig.run() is End.DRAINED
    assert asked == [("/up/b", True)]


def test_a_row_that_is_damaged_during_the_run_is_dropped_too(rig):
    def flip(job):
        rig.remote.before = lambda job: None
        damage(rig, "UPDATE entry SET state = 88 WHERE id = (SELECT max(id) FROM entry)")

    rig.remote.before = flip
    rig.remote.lose_after = [1]
    assert rig.run() is End.DRAINED
    assert rig.left() == []
    assert rig.arrived() == NAMES


def test_rows_of_an_outbox_that_is_not_used_any_more_are_not_waited_for(rig, tmp_path):
    """Before, the agent connected again and again with nothing to send, and a drain never ended."""
    connections = []
    connect = rig.remote.upload_many

    def counted(*arguments, **keywords):
        connections.append(1)
        assert len(connections) < 3, "it spins"
        return connect(*arguments, **keywords)

    rig.remote.upload_many = counted
    (tmp_path / "other").mkdir()
    rig.outbox = {"path": str(tmp_path / "other"), "destination": "/up"}
    assert rig.run() is End.DRAINED
    assert rig.left() == NAMES
