"""An inbox: what is fetched, when, what the hook decides, and what happens on the server afterwards."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import os
import sqlite3
import sys
import textwrap
import time

import pytest
from unit.inbox_lab import InboxLab

from iot.spooler.agent.agent import Wake
from iot.spooler.agent.draining import End
from iot.spooler.config.settings import Settings
from iot.spooler.inbox.inbox import Inbox
from iot.spooler.inbox.place import Content, Place
from iot.spooler.outbox.intake import Clocks
from iot.spooler.queue.policy import Backoff
from iot.spooler.queue.queue import QUEUE_SCHEMA
from iot.transfer import DiskFull, Failure, Journal, LinkLost

PYTHON = sys.executable


class Wrapped:
    """A remote that calls `on_<method>` of a test before its own method."""

    def __init__(self, remote, **hooks):
        self._remote, self._hooks = remote, hooks

    def __getattr__(self, name):
        value = getattr(self._remote, name)
        hook = self._hooks.get(name)
        if hook is None or not callable(value):
            return value

        def call(*words, **named):
            hook(*words)
            return value(*words, **named)

        return call


def counting(lab, calls):
    """Counts the files that are fetched."""

    def wrap(remote):
        class Counting(Wrapped):
            def download_many(self, jobs, **named):
                def counted():
                    for job in jobs:
                        calls.append(os.path.basename(job.source))
                        yield job

                return remote.download_many(counted(), **named)

        return Counting(remote)

    return wrap


# -- what is fetched


def test_files_of_the_server_appear_whole_with_their_time(tmp_path):
    lab = InboxLab(tmp_path, recursive=True)
    there = lab.put("a.conf", b"one")
    lab.put("deep/er/b.conf", b"two")
    assert lab.run() is End.DRAINED
    assert lab.published() == {"a.conf": b"one", "deep/er/b.conf": b"two"}
    assert int((lab.here / "a.conf").stat().st_mtime) == int(there.stat().st_mtime)
    assert lab.hidden() == []


def test_subfolders_are_left_alone_unless_asked_for(tmp_path):
    lab = InboxLab(tmp_path)
    lab.put("deep/b.conf", b"two")
    lab.run()
    assert lab.published() == {}


def test_patterns_choose_and_unfinished_and_hidden_names_are_passed_over(tmp_path):
    lab = InboxLab(tmp_path, include=["*.conf", "*.part", "*.tmp", "*.hidden"], exclude=["old*"])
    for name in ("a.conf", "old.conf", "a.txt", "b.part", "c.TMP", ".d.hidden", ".iot-inbox.conf"):
        lab.put(name, b"x")
    lab.run()
    assert lab.published() == {"a.conf": b"x"}


def test_what_is_kept_on_the_server_is_fetched_once_also_after_the_consumer_took_it(tmp_path):
    lab, calls = InboxLab(tmp_path), []
    lab.put("a", b"one")
    lab.run(wrap=counting(lab, calls))
    (lab.here / "a").unlink()
    lab.run(wrap=counting(lab, calls))
    assert calls == ["a"]
    assert lab.published() == {}


def test_a_changed_file_is_fetched_again_and_replaces_the_old_one_with_its_rights(tmp_path):
    lab = InboxLab(tmp_path)
    lab.put("a", b"one")
    lab.run()
    (lab.here / "a").chmod(0o600)
    lab.put("a", b"two", age_s=1800)
    lab.run()
    assert lab.published() == {"a": b"two"}
    assert (lab.here / "a").stat().st_mode & 0o777 == 0o600


def test_a_lost_journal_fetches_nothing_that_is_there_already(tmp_path):
    lab, calls = InboxLab(tmp_path), []
    lab.put("a", b"one")
    lab.run(wrap=counting(lab, calls))
    lab.lose_journal()
    lab.run(wrap=counting(lab, calls))
    assert calls == ["a"]
    assert lab.rows()["a"][0] == "taken"


def test_a_file_of_another_time_and_equal_content_is_not_replaced(tmp_path):
    lab = InboxLab(tmp_path)
    lab.put("a", b"one")
    (lab.here / "a").write_bytes(b"one")
    before = (lab.here / "a").stat().st_ino
    lab.run()
    assert (lab.here / "a").stat().st_ino == before
    assert lab.rows()["a"][0] == "taken"


def test_two_looks_must_agree_before_a_file_is_fetched(tmp_path):
    lab = InboxLab(tmp_path, settle_s=50, poll_s=1000)
    lab.put("a", b"one")
    looks, fetched_at = [], []

    def scanned(*_):
        looks.append(lab.loop.now)
        if len(looks) == 2:
            lab.put("a", b"more", age_s=1800)  # it is still being written
        if len(looks) > 20:
            lab.loop.stop = True

    def wrap(remote):
        return Wrapped(remote, scan=scanned, download_many=lambda *_: fetched_at.append(lab.loop.now))

    lab.run(wrap=wrap)
    assert lab.published() == {"a": b"more"}
    assert len(looks) >= 3
    assert fetched_at[0] - looks[0] >= 100


def test_a_look_in_between_does_not_shorten_the_time_to_settle(tmp_path):
    lab = InboxLab(tmp_path, settle_s=50, poll_s=1000)
    lab.put("a", b"one")
    looks, fetched_at = [], []

    def scanned(*_):
        looks.append(lab.loop.now)
        if len(looks) <= 3:
            lab.loop.asked = Wake.TRY  # somebody asks again and again

    def wrap(remote):
        return Wrapped(remote, scan=scanned, download_many=lambda *_: fetched_at.append(lab.loop.now))

    lab.run(wrap=wrap)
    assert looks[2] - looks[0] < 10
    assert fetched_at[0] - looks[0] >= 50


def test_polls_are_on_the_grid_of_poll_s_and_a_wake_looks_at_once(tmp_path):
    lab = InboxLab(tmp_path, poll_s=600)
    looks = []

    def scanned(*_):
        looks.append(lab.loop.now)
        lab.loop.stop = len(looks) == 3
        if len(looks) == 2:
            lab.loop.asked = Wake.TRY

    lab.run(drain=False, wrap=lambda remote: Wrapped(remote, scan=scanned))
    assert looks[1] - looks[0] == pytest.approx(600, abs=1)
    assert looks[2] - looks[1] < 1


@pytest.mark.parametrize("years", [-1, 1])
def test_a_clock_that_jumps_by_a_year_neither_hastens_nor_delays_a_poll(tmp_path, years):
    lab, looks, jumped = InboxLab(tmp_path, poll_s=600), [], []
    lab.loop.wall = lambda: lab.loop.now + 2e9 + sum(jumped)
    lab.put("a", b"one")

    def scanned(*_):
        looks.append(lab.loop.now)
        lab.loop.stop = len(looks) == 5
        if len(looks) == 2:
            jumped.append(years * 365 * 86400)

    lab.run(drain=False, wrap=lambda remote: Wrapped(remote, scan=scanned))
    assert [after - before for before, after in itertools.pairwise(looks)] == pytest.approx([600] * 4, abs=1)
    assert lab.published() == {"a": b"one"}


def test_nothing_is_fetched_outside_the_window_and_a_look_follows_its_opening(tmp_path):
    lab = InboxLab(tmp_path, schedule=["08:00-09:00"], poll_s=7 * 86400)
    lab.more = {"time_zone": "UTC", "scan_s": 3600}
    lab.put("a", b"one")
    looks = []

    def scanned(*_):
        looks.append(lab.loop.wall() % 86400 / 3600)
        lab.loop.stop = len(looks) == 2

    lab.run(drain=False, wrap=lambda remote: Wrapped(remote, scan=scanned))
    assert looks == pytest.approx([8.0, 8.0], abs=0.02)


# -- checksums


def test_a_file_waits_for_its_checksum_file_and_is_compared_with_it(tmp_path):
    lab = InboxLab(tmp_path, checksum="wait", settle_s=1e4)
    lab.put("a", b"one")
    lab.run()
    assert lab.published() == {}
    lab.put("a.sha256", hashlib.sha256(b"one").hexdigest().encode() + b"  a\n")
    lab.run()
    assert lab.published() == {"a": b"one"}


def test_a_wrong_checksum_is_named_and_costs_no_second_download_until_something_changes(tmp_path):
    lab, calls = InboxLab(tmp_path, checksum="wait"), []
    lab.put("a", b"one")
    lab.put("a.sha256", b"0" * 64 + b"  a\n")
    lab.run(wrap=counting(lab, calls))
    lab.run(wrap=counting(lab, calls))
    assert (calls, lab.published(), lab.hidden()) == (["a"], {}, [])
    assert "SHA-256" in lab.not_taken()["a"]
    lab.put("a.sha256", hashlib.sha256(b"one").hexdigest().encode() + b"  a\n", age_s=60)
    lab.run()
    assert lab.published() == {"a": b"one"}


def test_a_missing_checksum_is_an_error_by_setting_and_others_go_on(tmp_path):
    lab = InboxLab(tmp_path, checksum="require")
    lab.put("a", b"one")
    lab.run()
    assert "missing" in lab.not_taken()["a"]


# -- the hook


def hook(script):
    return [PYTHON, "-c", f"import os, sys; path = os.environ['IOT_PATH']; {script}"]


def test_the_hook_sees_the_whole_file_before_anybody_else(tmp_path):
    seen, name = str(tmp_path / "seen"), str(tmp_path / "here/a")
    script = f"open({seen!r}, 'w').write(open(path).read() + str(os.path.exists({name!r})))"
    lab = InboxLab(tmp_path, before_publish=hook(script))
    lab.put("a", b"one")
    lab.run()
    assert (tmp_path / "seen").read_text() == "oneFalse"
    assert lab.published() == {"a": b"one"}


def test_a_refused_file_never_appears_and_is_fetched_again_only_when_it_changes(tmp_path):
    lab, calls = InboxLab(tmp_path, before_publish=hook("sys.exit(open(path).read() != 'good')")), []
    lab.put("a", b"bad")
    lab.put("b", b"good")
    lab.run(wrap=counting(lab, calls))
    lab.run(wrap=counting(lab, calls))
    assert (sorted(calls), lab.published(), lab.hidden()) == (["a", "b"], {"b": b"good"}, [])
    assert lab.rows()["a"][0] == "refused"
    assert (lab.server / "a").exists()
    lab.put("a", b"good", age_s=1800)
    lab.run()
    assert lab.published() == {"a": b"good", "b": b"good"}


@pytest.mark.parametrize("script", ["sys.exit(75)", "os.kill(os.getpid(), 9)", "import time; time.sleep(60)"])
def test_a_hook_that_judges_nothing_is_asked_again_and_the_file_is_not_fetched_again(tmp_path, script):
    mark = str(tmp_path / "mark")
    once = f"import time\nif os.path.exists({mark!r}): sys.exit(0)\nopen({mark!r}, 'w').close()\n"
    words = [PYTHON, "-c", "import os, sys\n" + once + script]
    lab, calls = InboxLab(tmp_path, before_publish=words, before_publish_limit_s=3600), []
    lab.put("a", b"one")
    lab.loop.pause = lambda seconds: (time.sleep(0.02), setattr(lab.loop, "now", lab.loop.now + max(seconds, 5)))
    while not lab.published():
        lab.run(wrap=counting(lab, calls))
    assert calls == ["a"]


def test_a_verdict_is_about_the_bytes_that_were_judged_also_when_newer_ones_arrive_meanwhile(tmp_path):
    """The next try of the hook falls due during a look, which finds another version: it is fetched while that runs."""
    first, judging, arrived = (str(tmp_path / name) for name in ("first", "judging", "arrived"))
    script = f"""
        import os, sys, time
        if open(os.environ["IOT_PATH"]).read() == "evil": sys.exit(1)
        if not os.path.exists({first!r}): sys.exit(open({first!r}, "w").close() or 75)
        open({judging!r}, "w").close()
        while not os.path.exists({arrived!r}): time.sleep(0.01)
    """
    lab = InboxLab(tmp_path, before_publish=[PYTHON, "-c", textwrap.dedent(script)], before_publish_limit_s=3600)
    settings = Settings.model_validate(lab.settings())
    with contextlib.closing(Journal(settings.state_dir, QUEUE_SCHEMA)) as journal:
        remote = settings.server.remote(journal, "gw")
        clock = Clocks(lambda: lab.loop.now, lab.loop.wall)
        inbox = Inbox(settings.inbox[0], -1, "gw", journal, clock, Backoff(100, 100), os.environ, lambda: 0.0)

        def steps_until(is_so):
            end = time.monotonic() + 20
            while not is_so():
                assert time.monotonic() < end, (inbox.held, lab.published())
                inbox.step()
                time.sleep(0.005)

        def fetch():
            inbox.look(remote, lambda: None)
            return remote.download_many([inbox.next_job(lambda: False)], tick=lambda: None)

        lab.put("a", b"good")
        [outcome] = fetch()
        inbox.ended("a", outcome)
        steps_until(lambda: "a" in inbox.held)
        lab.put("a", b"evil", age_s=1800)
        lab.loop.now += 1000
        fetched = fetch()
        steps_until(lambda: os.path.exists(judging))
        [outcome] = fetched
        open(arrived, "w").close()
        inbox.ended("a", outcome)
        steps_until(lambda: "a" in inbox.held and "exit code 1" in inbox.held["a"])
        inbox.look(remote, lambda: None)
        remote.close()
    assert set(lab.published().values()) <= {b"good"}
    assert lab.rows()["a"][0] == "refused"
    assert lab.hidden() == []


# -- on the server


def test_a_taken_file_is_deleted_there_with_its_checksum(tmp_path):
    lab = InboxLab(tmp_path, after_download="delete", checksum="wait")
    lab.put("a", b"one")
    lab.put("a.sha256", hashlib.sha256(b"one").hexdigest().encode() + b"  a\n")
    lab.run()
    assert lab.published() == {"a": b"one"}
    assert list(lab.server.iterdir()) == []


def test_a_taken_file_is_moved_there_under_its_path(tmp_path):
    lab = InboxLab(tmp_path, after_download="move", move_to="/done", recursive=True)
    lab.put("x/a", b"one")
    lab.run()
    assert (tmp_path / "server/done/x/a").read_bytes() == b"one"
    assert not (lab.server / "x/a").exists()


def test_a_file_that_changed_since_is_not_deleted_but_fetched(tmp_path):
    lab = InboxLab(tmp_path, after_download="delete")
    lab.put("a", b"one")
    stats = []

    def changed(*_):
        stats.append(1)
        if len(stats) == 1:
            lab.put("a", b"two!", age_s=1800)

    lab.run(wrap=lambda remote: Wrapped(remote, stat=changed))
    assert (lab.server / "a").read_bytes() == b"two!"
    lab.run()
    assert lab.published() == {"a": b"two!"}
    assert not (lab.server / "a").exists()


@pytest.mark.parametrize("method", ["stat", "delete", "download_many", "scan"])
def test_a_link_that_is_lost_at_any_step_loses_nothing(tmp_path, method):
    lab, failures = InboxLab(tmp_path, after_download="delete"), []
    lab.put("a", b"one")

    def lost(*_):
        if len(failures) < 2:
            failures.append(1)
            raise LinkLost("cut")

    assert lab.run(wrap=lambda remote: Wrapped(remote, **{method: lost})) is End.DRAINED
    assert lab.published() == {"a": b"one"}
    assert not (lab.server / "a").exists()
    assert failures


def test_a_lost_journal_deletes_nothing_whose_content_was_not_compared(tmp_path):
    lab = InboxLab(tmp_path, after_download="delete")
    there = lab.put("a", b"one")
    here = lab.here / "a"
    here.write_bytes(b"xxx")  # the same size and time
    os.utime(here, (there.stat().st_mtime, there.stat().st_mtime))
    lab.run()
    assert lab.published() == {"a": b"one"}


class Died(BaseException):
    """The process is gone."""


@pytest.mark.parametrize("after", ["keep", "delete"])
@pytest.mark.parametrize("call", range(1, 12))
def test_an_end_at_any_write_to_the_journal_loses_nothing(tmp_path, monkeypatch, after, call):
    from iot.spooler.inbox.records import Records

    lab, writes = InboxLab(tmp_path, after_download=after), []
    lab.put("a", b"one")
    lab.put("b", b"two")
    write = Records.write

    def dying(self, records):
        fresh = list(records)
        if fresh:
            writes.append(1)
            if len(writes) == call // 2 + 1 and call % 2:
                raise Died
        write(self, fresh)
        if fresh and len(writes) == call // 2 and not call % 2:
            raise Died

    monkeypatch.setattr(Records, "write", dying)
    try:
        lab.run()
    except Died:
        pass
    for name, content in (("a", b"one"), ("b", b"two")):
        assert (lab.server / name).exists() or lab.published().get(name) == content
    monkeypatch.setattr(Records, "write", write)
    lab.run()
    assert lab.published() == {"a": b"one", "b": b"two"}
    assert [path.name for path in sorted(lab.server.iterdir())] == ([] if after == "delete" else ["a", "b"])
    assert lab.hidden() == []


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
