"""A budget of an outbox: what is beyond it is dropped, nothing else is, and what was dropped is told to the server."""

import json
import os
import sqlite3

import pytest
from unit.agent_rig import Rig

from iot.sftp.client import Journal, LinkLost
from iot.spooler.agent import assembly
from iot.spooler.agent.draining import End
from iot.spooler.budget import tombstones
from iot.spooler.budget.excess import NOTHING, Space, beyond_backlog, beyond_space
from iot.spooler.config.budget import BudgetSettings
from iot.spooler.config.load import BadConfiguration, load
from iot.spooler.leaving.owed import Owed
from iot.spooler.leaving.removal import PRIVATE_PREFIX
from iot.spooler.state.elapsed import Moment


@pytest.fixture
def rig(tmp_path):
    return Rig(tmp_path)


def offline(rig):
    rig.remote.cannot_connect = [LinkLost("no")] * 1000


def waiting(rig):
    """What is in the outbox, while nothing can be sent."""
    offline(rig)
    rig.loop.stop_at = rig.loop.now + 30
    rig.run(drain=False)
    return rig.left()


def put_in_order(rig, *names, size=100):
    """Each is queued by a run of its own, so that the order is certain."""
    for name in names:
        rig.put(name, b"x" * size)
        os.utime(rig.box / name, (1000, 1000))


def lists(rig):
    """The lines of all lists that have arrived."""
    root = rig.base / "remote" / "up"
    files = sorted(root.glob("box-dropped-*.jsonl"))
    return [json.loads(line) for file in files for line in file.read_text().splitlines()]


@pytest.mark.parametrize(("evict", "left"), [("oldest", ["c", "d"]), ("newest", ["a", "b"]), ("none", list("abcd"))])
@pytest.mark.parametrize("limit", [{"max_files": 2}, {"max_bytes": 250}])
def test_what_is_beyond_the_backlogs_limit_is_dropped_from_the_end_that_is_said(rig, evict, left, limit):
    rig.outbox["budget"] = {**limit, "evict": evict}
    for name in "abcd":
        put_in_order(rig, name)
        rig.outbox["budget"] = {"max_files": 100}
        waiting(rig)
    rig.outbox["budget"] = {**limit, "evict": evict}
    assert waiting(rig) == left


def test_what_was_dropped_is_told_to_the_server_with_why_once(rig):
    rig.outbox["budget"] = {"max_files": 1}
    put_in_order(rig, "a", "sub/b", "c")
    waiting(rig)
    rig.remote.cannot_connect = []
    rig.loop.stop_at = rig.loop.now + 100
    rig.run(drain=False)
    assert rig.left() == []
    told = lists(rig)
    assert sorted(line["path"] for line in told) == ["a", "sub/b"] or len(told) == 2
    assert {line["reason"] for line in told} == {"more than max_files = 1"}
    assert {line["bytes"] for line in told} == {100}
    assert all(line["mtime_ns"] == 1000 * 10**9 for line in told)
    rig.run(drain=False)
    assert len(lists(rig)) == 2


def test_a_drain_tells_it_too(rig):
    rig.outbox["budget"] = {"max_files": 1}
    put_in_order(rig, "a", "b", "c")
    assert rig.run() is End.DRAINED
    delivered = [name for name in rig.arrived() if not name.startswith("box-dropped")]
    assert len(delivered) + len(lists(rig)) == 3
    assert delivered


def test_urgent_files_are_spared_unless_it_is_said_and_go_last_then(rig):
    rig.outbox |= {"urgent": ["u*"], "budget": {"max_files": 2}}
    put_in_order(rig, "u1", "u2", "u3", "n1", "n2")
    assert waiting(rig) == ["u1", "u2", "u3"]
    figures = rig.agent.budget.figures(rig.agent.intakes[0].number)
    assert figures == {"dropped": 2, "dropped_bytes": 200, "over_budget": "more than max_files = 2"}
    rig.outbox["budget"] = {"max_files": 2, "evict_urgent": "newest"}
    assert waiting(rig) == ["u1", "u2"]


def test_preserved_files_are_never_dropped(rig):
    rig.outbox["budget"] = {"max_files": 1, "preserve": ["keep/*"], "ttl_s": 5}
    put_in_order(rig, "keep/1", "keep/2", "x", "y")
    assert waiting(rig) == ["keep/1", "keep/2"]


def test_the_marker_that_a_batch_waits_for_is_not_dropped(rig):
    rig.outbox |= {"batch_marker": "*.done", "budget": {"max_files": 2, "evict": "newest"}}
    put_in_order(rig, "a", "b", "z.done")
    assert "z.done" in waiting(rig)


def test_nothing_but_queued_files_leaves(rig):
    rig.outbox |= {"include": ["*.csv"], "budget": {"max_files": 1}}
    put_in_order(rig, "other.txt", "a.csv", "b.csv", "c.csv")
    left = waiting(rig)
    assert "other.txt" in left
    assert len(left) == 2


def test_a_new_version_is_not_dropped_for_the_old_one(rig, monkeypatch):
    """It is written at the last moment: after the decision, before the file leaves."""
    rig.outbox["budget"] = {"max_files": 1}
    put_in_order(rig, "a", "b")
    drop = Owed.drop

    def late(owed, entries):
        for entry in entries:
            (rig.box / entry.path.decode()).write_bytes(b"new version")
        drop(owed, entries)

    monkeypatch.setattr(Owed, "drop", late)
    offline(rig)
    rig.loop.stop_at = rig.loop.now + 0.5
    rig.run(drain=False)
    assert min(path.read_bytes() for path in rig.box.iterdir()) == b"new version"


def test_a_file_in_flight_is_not_dropped(rig):
    """Both are handed out; while they are, a third comes, which is the only one that may go."""
    rig.outbox["budget"] = {"max_files": 1}
    rig.put("a", b"x" * 2000)
    seen = []

    def slowly(job):
        if not seen:
            rig.put("b", b"y" * 2000)
            rig.put("c", b"z" * 2000)
            for _ in range(200):
                rig.loop.now += 0.1
                rig.agent._tick(busy=True)
        seen.append(os.path.basename(job.source))
        assert os.path.exists(job.source)

    rig.remote.before = slowly
    rig.loop.stop_at = rig.loop.now + 200
    rig.run(drain=False)
    assert seen[0] == "a"
    assert "a" in rig.arrived()
    assert [line["path"] for line in lists(rig)] == ["b", "c"]


@pytest.mark.parametrize("clock", ["right", "1970", "jumps"])
def test_a_file_that_waits_for_longer_than_its_time_to_live_is_dropped_whatever_the_clock_says(rig, clock, monkeypatch):
    wall = {"right": 2e9, "1970": 100.0, "jumps": 100.0}[clock]

    def look():
        jump = 2e9 if clock == "jumps" and rig.loop.now > 1010 else 0.0
        return Moment("boot", rig.loop.now, wall + jump + rig.loop.now, clock == "right")

    monkeypatch.setattr(assembly, "observe", look)
    rig.outbox["budget"] = {"ttl_s": 100}
    put_in_order(rig, "a")
    offline(rig)
    rig.loop.stop_at = 1090
    rig.run(drain=False)
    assert rig.left() == ["a"]
    rig.loop.stop_at = 1120
    rig.run(drain=False)
    assert rig.left() == []


def test_what_expires_goes_to_quarantine_where_that_is_said(rig, monkeypatch):
    monkeypatch.setattr(assembly, "observe", lambda: Moment("boot", rig.loop.now, 0.0, False))
    rig.outbox["budget"] = {"ttl_s": 5, "expired": "quarantine"}
    put_in_order(rig, "a")
    assert waiting(rig) == []
    [record] = rig.quarantine.glob("*.json")
    assert json.loads(record.read_text())["reason"] == "waited for longer than ttl_s = 5"
    assert not (rig.base / "state" / "dropped").exists()


@pytest.mark.parametrize("table", ["age_mark SET up_to = up_to + 100", "odometer SET since_boot_s = 1.0"])
def test_a_damaged_row_makes_no_file_look_old(rig, monkeypatch, table):
    monkeypatch.setattr(assembly, "observe", lambda: Moment("boot", 1e6 + rig.loop.now, 0.0, False))
    rig.outbox["budget"] = {"ttl_s": 100}
    put_in_order(rig, "a")
    waiting(rig)
    with sqlite3.connect(rig.base / "state" / "journal.db") as db:
        db.execute(f"UPDATE {table}")
    db.close()
    rig.loop.stop_at = rig.loop.now + 90
    offline(rig)
    rig.run(drain=False)
    assert rig.left() == ["a"]


def test_the_disk_is_kept_free_as_far_as_files_that_wait_can(rig):
    """No disk is almost empty, so this budget takes everything that may be dropped."""
    rig.outbox |= {"urgent": ["u"], "budget": {"min_free_percent": 99.999}}
    put_in_order(rig, "a", "b", "u")
    assert waiting(rig) == ["u"]
    assert "min_free_percent" in rig.agent.budget.figures(rig.agent.intakes[0].number)["over_budget"]


def test_no_more_is_dropped_than_the_disk_lacks():
    space = Space(bytes=100_000, free_bytes=4_000, inodes=100, free_inodes=8, block_bytes=1000)
    lacks_bytes = beyond_space(BudgetSettings(min_free_percent=10), space)
    assert (lacks_bytes.files, lacks_bytes.bytes) == (0, 6_000)
    assert not lacks_bytes.without(5_001, 1000).is_over
    assert lacks_bytes.without(5_000, 1000).is_over
    lacks_inodes = beyond_space(BudgetSettings(min_free_inodes=10), space)
    assert (lacks_inodes.files, lacks_inodes.bytes) == (2, 0)
    assert beyond_space(BudgetSettings(min_free_inodes=10), space._replace(inodes=0)) is NOTHING
    assert beyond_space(BudgetSettings(min_free_percent=4, min_free_inodes=8), space) is NOTHING


def test_both_limits_of_the_backlog_count_at_once():
    excess = beyond_backlog(BudgetSettings(max_files=2, max_bytes=100), files=3, size=150)
    assert excess.without(10, 1).is_over
    assert not excess.without(50, 1).is_over


def test_lists_do_not_fill_the_disk_while_the_server_stays_away(rig, monkeypatch):
    monkeypatch.setattr(tombstones, "LISTS_MAX", 2)
    monkeypatch.setattr(tombstones, "LIST_ROWS", 2)
    monkeypatch.setattr(tombstones, "ROWS_MAX", 3)
    rig.outbox["budget"] = {"max_files": 1}
    put_in_order(rig, *(f"f{number:02}" for number in range(20)))
    offline(rig)
    rig.loop.stop_at = rig.loop.now + 1000
    rig.run(drain=False)
    assert len(list((rig.base / "state" / "dropped" / "box").iterdir())) == 2
    rig.remote.cannot_connect = []
    rig.loop.stop_at = rig.loop.now + 1000
    rig.run(drain=False)
    told = lists(rig)
    counted = sum(line.get("more_files", 1) for line in told)
    assert counted == 19
    assert any("more_files" in line for line in told)


def test_the_log_names_a_few_and_counts_the_rest(rig, caplog):
    rig.outbox["budget"] = {"max_files": 1}
    put_in_order(rig, *(f"f{number:02}" for number in range(30)))
    waiting(rig)
    dropped = [record.getMessage() for record in caplog.records if record.getMessage().startswith("dropped ")]
    assert len(dropped) == 11
    assert dropped[-1] == 'dropped more outbox=box files=19 reason="more than max_files = 1"'


def test_an_agent_at_rest_writes_nothing(rig, monkeypatch):
    """All limits are watched, one file waits outside its window, and an hour passes."""
    monkeypatch.setattr(assembly, "observe", lambda: Moment("boot", rig.loop.now, 0.0, False))
    rig.outbox["budget"] = {"max_files": 1, "min_free_percent": 0.001, "min_free_inodes": 1, "ttl_s": 10_000}
    rig.outbox["schedule"] = ["Mon 00:00-00:01"]
    put_in_order(rig, "a", "b")
    writes = []
    write = Journal.write

    def noted(journal, work):
        writes.append(rig.loop.now)
        return write(journal, work)

    monkeypatch.setattr(Journal, "write", noted)
    start = rig.loop.now
    rig.loop.stop_at = start + 3600
    rig.run(drain=False)
    assert len(rig.left()) == 1
    assert [at - start for at in writes if start + 200 < at < start + 3600] == []


HEAD = """
state_dir = "/state"
[server]
host = "h"
[[outbox]]
path = "/box"
destination = "/up"
"""


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ('evict = "newest"', "evict has no effect without one of max_bytes, max_files, min_free_percent, min_free_"),
        ('evict_urgent = "newest"\nttl_s = 5', "evict_urgent has no effect without one of max_bytes"),
        ('expired = "drop"\nmax_files = 3', "expired has no effect without ttl_s"),
        ('preserve = ["*.x"]', "preserve has no effect where nothing is ever dropped"),
        ('log_destination = "/x"\nmax_files = 3\nevict = "none"', "log_destination has no effect where nothing is"),
        ('preserve = ["re:("]\nmax_files = 3', "outbox[0].budget.preserve = (...): 're:(': not a regular expression"),
        ('log_destination = "{nobody}"\nmax_files = 3', "outbox[0].budget.log_destination = '{nobody}': unknown {no"),
        ("min_free_percent = 100", "outbox[0].budget.min_free_percent = 100: must be less than 100"),
        ("max_files = 0", "outbox[0].budget.max_files = 0: must be at least 1"),
        ("max_size = 3", "outbox[0].budget.max_size: no such setting; perhaps outbox.budget.max_"),
        ('max_files = "3"', "outbox[0].budget.max_files = '3': must be a whole number, without quotes"),
        ('evict = "all"\nmax_files = 3', "outbox[0].budget.evict = 'all': must be 'oldest', 'newest' or 'none'"),
    ],
)
def test_a_setting_that_is_wrong_or_without_effect_is_reported_with_its_name(tmp_path, table, words):
    path = tmp_path / "c.toml"
    path.write_text(f"{HEAD}[outbox.budget]\n{table}\n")
    with pytest.raises(BadConfiguration) as caught:
        load(path, {})
    [line] = caught.value.problems
    assert words in line


def test_a_time_to_live_that_a_batch_outlasts_is_a_contradiction(tmp_path):
    path = tmp_path / "c.toml"
    path.write_text(f"{HEAD}batch_interval_s = 60.0\n[outbox.budget]\nttl_s = 60.0\n")
    with pytest.raises(BadConfiguration) as caught:
        load(path, {})
    [line] = caught.value.problems
    assert line.startswith("outbox[0].batch_interval_s = 60.0 and outbox[0].budget.ttl_s = 60.0: ")


def test_a_crash_between_the_decision_and_the_removal_repeats_the_removal_and_tells_it_once(rig, monkeypatch):
    rig.outbox["budget"] = {"max_files": 1}
    put_in_order(rig, "a", "b")
    with monkeypatch.context() as crash:

        def die(*_):
            raise KeyboardInterrupt

        crash.setattr(Owed, "drop", die)
        offline(rig)
        with pytest.raises(KeyboardInterrupt):
            rig.run(drain=False)
    assert rig.left() == ["a", "b"]
    rig.remote.cannot_connect = []
    rig.loop.stop_at = rig.loop.now + 100
    rig.run(drain=False)
    assert rig.left() == []
    assert [line["path"] for line in lists(rig)] in (["a"], ["b"])
    assert len([name for name in rig.arrived() if not name.startswith("box-dropped")]) == 1


def test_private_names_do_not_stay(rig):
    rig.outbox["budget"] = {"max_files": 1}
    put_in_order(rig, *(f"f{number}" for number in range(50)))
    waiting(rig)
    assert not [name for name in os.listdir(rig.box) if name.encode().startswith(PRIVATE_PREFIX)]
