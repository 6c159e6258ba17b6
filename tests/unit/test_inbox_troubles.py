"""An inbox whose folder, disk or records are not as they should be, or which has a busy sender beside it."""

from __future__ import annotations

import hashlib
import os
import sqlite3

from unit.inbox_lab import InboxLab
from unit.inbox_watched import Wrapped

from iot.spooler.agent.draining import End
from iot.spooler.inbox.place import Content, Place
from iot.transfer import DiskFull, Failure

# -- what goes wrong here


def test_a_missing_folder_is_waited_for_and_never_made(tmp_path):
    lab = InboxLab(tmp_path)
    lab.here.rmdir()
    lab.put("a", b"one")
    assert lab.run() is End.REMAINS
    assert not lab.here.exists()
    lab.here.mkdir()
    assert lab.run() is End.DRAINED
    assert lab.published() == {"a": b"one"}


def test_a_folder_in_the_way_is_named_and_holds_up_no_other(tmp_path):
    lab = InboxLab(tmp_path, after_download="delete")
    (lab.here / "a").mkdir()
    lab.put("a", b"one")
    lab.put("b", b"two")
    lab.run()
    assert lab.published() == {"b": b"two"}
    assert "cannot be published" in lab.not_taken()["a"]
    assert (lab.server / "a").exists()


def test_no_symlink_leads_out_of_the_inbox(tmp_path):
    lab = InboxLab(tmp_path, recursive=True)
    (tmp_path / "outside").mkdir()
    (lab.here / "deep").symlink_to(tmp_path / "outside")
    (tmp_path / "outside" / "secret").write_text("mine")
    (lab.here / "a").symlink_to(tmp_path / "outside" / "secret")
    lab.put("deep/b", b"two")
    lab.put("a", b"one")
    lab.run()
    assert (tmp_path / "outside" / "secret").read_text() == "mine"
    assert os.listdir(tmp_path / "outside") == ["secret"]
    assert (lab.here / "a").read_bytes() == b"one"
    assert not (lab.here / "a").is_symlink()


def test_a_folder_that_others_may_write_to_is_refused_where_a_hook_judges(tmp_path):
    lab = InboxLab(tmp_path, before_publish=["true"])
    lab.here.chmod(0o777)
    lab.put("a", b"one")
    assert lab.run() is End.REMAINS
    assert "chmod +t" in (lab.agent.pull.inboxes[0].error or "")
    lab.here.chmod(0o1777)
    assert lab.run() is End.DRAINED


def test_damaged_records_are_dropped_and_their_files_looked_at_again(tmp_path):
    lab = InboxLab(tmp_path)
    lab.put("a", b"one")
    lab.run()
    [path] = (tmp_path / "state").glob("*.db")
    with sqlite3.connect(path) as db:
        db.execute("UPDATE inbox_file SET state = 7, bytes = 'x'")
    lab.run()
    assert lab.rows()["a"][0] == "taken"


def test_what_has_left_the_server_leaves_the_journal(tmp_path):
    lab = InboxLab(tmp_path)
    lab.put("a", b"one").rename(lab.server / "b")
    lab.run()
    (lab.server / "b").unlink()
    lab.run()
    assert lab.rows() == {}
    assert lab.published() == {"b": b"one"}


def test_a_full_disk_makes_the_inbox_wait_and_uploads_go_on(tmp_path):
    lab = InboxLab(tmp_path)
    lab.put("a", b"one")
    (lab.box / "up").write_bytes(b"up")
    failures, tries = [], []

    def wrap(remote):
        class Full(Wrapped):
            def download_many(self, jobs, **named):
                if len(failures) < 3:
                    for job in jobs:
                        failures.append(1)
                        tries.append(lab.loop.now)
                        yield Failure(job.key, job.source, job.dest, DiskFull("no space"))
                else:
                    yield from remote.download_many(jobs, **named)

        return Full(remote)

    lab.loop.stop_at = lab.loop.now + 1000
    lab.run(drain=False, wrap=wrap)
    assert lab.published() == {"a": b"one"}
    assert (tmp_path / "server/up/up").exists()
    assert len(failures) == 3
    assert tries[1] - tries[0] >= 1  # retry.base_s
    assert tries[2] - tries[1] >= 2


# -- beside uploads


class Slow(Wrapped):
    """Each upload takes a second."""

    def __init__(self, remote, lab):
        super().__init__(remote)
        self._lab = lab
        self.sent = 0

    def upload_many(self, jobs, **named):
        def one_a_second():
            for job in jobs:
                self.sent += job is not None
                self._lab.loop.now += 1
                yield job

        return self._remote.upload_many(one_a_second(), **named)


def sending_slowly(lab, slow, **outbox):
    """A hundred files wait to be sent."""
    for number in range(100):
        (lab.box / f"u{number}").write_bytes(b"x")
    lab.put("a", b"one")
    given = {"path": str(lab.box), "destination": "/up", "settle_s": 0, **outbox}
    lab.more = {"outbox": [given]}

    def wrap(remote):
        slow.append(Slow(remote, lab))
        return slow[0]

    return wrap


def test_a_device_that_always_sends_gets_its_files_in_a_turn(tmp_path):
    lab, slow, sent_before = InboxLab(tmp_path), [], []
    wrap = sending_slowly(lab, slow)
    lab.loop.report = lambda *_, **__: sent_before.append(slow[0].sent) if lab.published() else None
    lab.loop.stop_at = lab.loop.now + 300
    lab.run(drain=False, wrap=wrap)
    assert lab.published() == {"a": b"one"}
    assert 29 <= sent_before[0] < 100
    assert len(list((tmp_path / "server/up").iterdir())) == 100


def test_what_is_urgent_is_sent_also_in_the_turn_of_an_inbox(tmp_path):
    lab, slow = InboxLab(tmp_path), []
    wrap = sending_slowly(lab, slow, urgent=["u*"])
    lab.loop.stop_at = lab.loop.now + 90
    lab.run(drain=False, wrap=wrap)
    assert slow[0].sent >= 85
    assert lab.published() == {}


def test_an_inbox_at_rest_writes_nothing(tmp_path):
    lab = InboxLab(tmp_path, poll_s=60)
    lab.more = {"scan_s": 3600}
    lab.put("a", b"one")
    lab.run()
    looks, states = [], []
    files = [path for path in (tmp_path / "state").rglob("*") if path.name.startswith("journal")]

    def scanned(*_):
        looks.append(1)
        states.append([(path.name, path.stat().st_mtime_ns, path.stat().st_size) for path in files if path.exists()])

    lab.loop.stop_at = lab.loop.now + 600
    lab.run(drain=False, wrap=lambda remote: Wrapped(remote, scan=scanned))
    assert len(looks) >= 9
    assert states[1] == states[-1]
    assert states[1]


def test_sealing_twice_is_sealing_once(tmp_path):
    """The journal could not be written in between."""
    place, content = Place(tmp_path, judged=False), Content(b"a", hashlib.sha256(b"one").hexdigest())
    place.prepare()
    with open(place.fetching_path(b"a"), "wb") as file:
        file.write(b"one")
    assert place.seal([content, Content(b"never fetched", content.sha256)]).keys() == {b"never fetched"}
    assert place.seal([content]) == {}
    assert place.publish([content]) == {}
    assert (tmp_path / "a").read_bytes() == b"one"
