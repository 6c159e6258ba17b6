"""One file or folder that cannot be sent is named, held, and in nobody's way; attempts are recorded before each try."""

import os
import sqlite3

import pytest
from unit.agent_rig import Rig
from unit.other_user import without_capabilities

from iot.sftp.client import LinkLost, ServerRefused
from iot.spooler.agent.draining import End
from iot.spooler.status.status import snapshot


class Died(BaseException):
    """In the place of SIGKILL: nothing is recorded after it."""


@pytest.fixture
def rig(tmp_path):
    return Rig(tmp_path)


def attempts(rig):
    db = sqlite3.connect(rig.base / "state" / "journal.db")
    rows = dict(db.execute("SELECT path, attempts FROM file JOIN entry USING (id)"))
    db.close()
    return {path.decode(): count for path, count in rows.items()}


@pytest.mark.parametrize("name", ["0-first", "9-last"])
@pytest.mark.parametrize("large", [False, True])
def test_a_file_that_ends_the_process_each_time_it_is_sent_does_not_keep_the_others_from_it(rig, name, large):
    others = [f"{number}" for number in range(1, 9)]
    size = 2000 if large else 1
    for each in (*others, name):
        rig.put(each, b"x" * size)
        os.utime(rig.box / each, (1000 + int(each[0]),) * 2)

    def die(job):
        if job.dest.endswith(name):
            raise Died

    rig.remote.before = die
    for _ in range(8):
        rig.loop.stop_at = rig.loop.now + 100
        with pytest.raises(Died):
            rig.run(drain=False)
    assert rig.arrived() == others
    assert rig.left() == [name]


def test_an_attempt_is_on_record_before_it_begins_and_counts_on_after_each_crash(rig):
    rig.put("f")
    seen = []

    def die(job):
        seen.append(attempts(rig)["f"])
        raise Died

    rig.remote.before = die
    for _ in range(5):
        with pytest.raises(Died):
            rig.run()
    assert seen == [1, 2, 3, 4, 5]


def test_strikes_outlive_a_crash_so_that_a_refused_file_is_given_up_in_the_end(rig):
    """The process dies after every single refusal."""
    rig.retry = {"max_attempts": 3, "base_s": 1000.0, "cap_s": 1000.0}
    rig.put("f")
    rig.remote.refuse["/up/f"] = ServerRefused("File too large")
    for seconds in (5, 1005, 1005):  # its wait goes on in the next process
        rig.loop.stop_at = rig.loop.now + seconds
        rig.run(drain=False)
    [record] = rig.quarantine.glob("*.json")
    assert "File too large" in record.read_text()
    assert rig.left() == []


def test_a_file_above_the_servers_limit_waits_its_turn_and_the_others_are_sent_meanwhile(rig):
    rig.retry = {"max_attempts": 3}
    rig.put("0-huge", b"x" * 5000)
    for number in range(1, 6):
        rig.put(f"{number}-small")
        rig.put(f"{number}-large", b"x" * 2000)
    rig.remote.refuse["/up/0-huge"] = ServerRefused("File too large")
    rig.loop.stop_at = rig.loop.now + 2
    rig.run(drain=False)
    assert len(rig.arrived()) == 10
    assert rig.left() == ["0-huge"]
    assert rig.agent.outcomes.last_error == "0-huge: ServerRefused: File too large"


def test_a_server_that_cuts_the_link_at_one_file_does_not_keep_the_others_from_it(rig):
    """As sshd does for a file above its own limit of sizes."""
    rig.put("0-huge", b"x" * 5000)
    for number in range(1, 6):
        rig.put(f"{number}-large", b"x" * 2000)
    rig.remote.refuse["/up/0-huge"] = LinkLost("cut")
    rig.loop.stop_at = rig.loop.now + 600
    rig.run(drain=False)
    assert len(rig.arrived()) == 5
    assert rig.left() == ["0-huge"]


def test_an_unreadable_folder_is_named_in_the_status_and_the_rest_is_sent(rig):
    rig.put("good/a")
    rig.put("closed/b")
    told = []

    def work():
        os.chmod(rig.box / "closed", 0)
        rig.loop.report = lambda agent, **_: told.append(snapshot(agent, 0.0, rig.loop.now)["outboxes"][0])
        rig.loop.stop_at = rig.loop.now + 30
        rig.run(drain=False)
        assert rig.arrived() == ["good/a"]
        assert told[-1]["error"] == '"folder closed: Permission denied"'
        os.chmod(rig.box / "closed", 0o700)
        rig.loop.stop_at = 1e9
        assert rig.run() is End.DRAINED

    without_capabilities(work)
    assert rig.arrived() == ["closed/b", "good/a"]


def test_a_name_that_cannot_be_sent_goes_to_quarantine_with_the_reason_and_the_rest_is_sent(rig):
    rig.outbox["rules"] = [{"match": "*", "action": "replace", "regex": "^bad$", "value": ".."}]
    rig.put("bad")
    rig.put("good")
    rig.loop.stop_at = rig.loop.now + 30
    rig.run(drain=False)
    assert rig.arrived() == ["good"]
    assert rig.left() == []
    [record] = rig.quarantine.glob("*.json")
    assert "bad" in record.read_text()
    assert rig.agent.outcomes.last_error.startswith("bad: ")
