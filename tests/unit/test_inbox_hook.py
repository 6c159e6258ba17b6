"""What the hook of an inbox decides, and what happens on the server afterwards."""

from __future__ import annotations

import contextlib
import hashlib
import os
import textwrap
import time

import pytest
from unit.inbox_lab import InboxLab
from unit.inbox_watched import PYTHON, Wrapped, counting, hook

from iot.spooler.agent.draining import End
from iot.spooler.config.settings import Settings
from iot.spooler.inbox.inbox import Inbox
from iot.spooler.outbox.intake import Clocks
from iot.spooler.queue.policy import Backoff
from iot.spooler.queue.queue import QUEUE_SCHEMA
from iot.transfer import Journal, LinkLost

# -- the hook


def test_the_hook_sees_the_whole_file_before_anybody_else(tmp_path):
    seen, name = str(tmp_path / "seen"), str(tmp_path / "here/a")
    script = f"open({seen!r}, 'w').write(open(path).read() + str(os.path.exists({name!r})))"
    lab = InboxLab(tmp_path, before_publish=hook(script), before_publish_limit_s=86400)
    lab.put("a", b"one")
    lab.run()
    assert (tmp_path / "seen").read_text() == "oneFalse"
    assert lab.published() == {"a": b"one"}


def test_a_refused_file_never_appears_and_is_fetched_again_only_when_it_changes(tmp_path):
    words = hook("sys.exit(open(path).read() != 'good')")
    lab, calls = InboxLab(tmp_path, before_publish=words, before_publish_limit_s=86400), []
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
