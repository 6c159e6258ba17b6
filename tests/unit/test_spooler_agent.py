"""The loop against a remote that is a folder: losses, refusals, crashes between any two steps, bad disks."""

import os
import shutil
import sqlite3

import pytest
from quarantined import quarantined
from unit.folder_remote import FolderRemote

from iot.sftp.client import (
    DiskFull,
    Journal,
    LinkLost,
    LoginRefused,
    NoSpaceOnServer,
    PermissionDenied,
    SourceUnreadable,
    configured,  # noqa: F401 - loaded when it is configured, and by an ordinary user it cannot be read then
)
from iot.spooler.agent.agent import Agent
from iot.spooler.agent.draining import End
from iot.spooler.config.settings import Settings
from iot.spooler.leaving.release import release
from iot.spooler.outbox.intake import Clocks
from iot.spooler.queue.policy import State
from iot.spooler.queue.queue import QUEUE_SCHEMA
from iot.spooler.status.status import snapshot


class Loop:
    """Time passes only when the agent pauses, and a little with every look at the clock."""

    def __init__(self):
        self.now = 1000.0
        self.stop_at = 1e9
        self.stop = False
        self.asked = None

    def clock(self):
        self.now += 1e-5
        return self.now

    def wall(self):
        return self.now + 2e9

    def stopping(self):
        return self.stop or self.now > self.stop_at

    def alive(self):
        pass

    def pause(self, seconds):
        self.now += max(seconds, 0.001)

    def watch(self, descriptor, act):
        return lambda: None

    def woken(self):
        why, self.asked = self.asked, None
        return why

    def report(self, agent, *, changed, final=False):
        pass


class Rig:
    def __init__(self, tmp_path):
        self.base = tmp_path
        self.box = tmp_path / "box"
        self.box.mkdir()
        self.quarantine = tmp_path / "state" / "quarantine"
        self.remote = FolderRemote(tmp_path / "remote")
        self.loop = Loop()
        self.outbox = {"path": str(self.box), "destination": "/up", "settle_s": 0}
        self.retry = {}
        self.agent = None

    def run(self, *, drain=True):
        settings = Settings.model_validate(self.settings())
        journal = Journal(settings.state_dir, QUEUE_SCHEMA)
        try:
            clocks = Clocks(self.loop.clock, self.loop.wall)
            self.agent = Agent(settings, journal, self.remote, self.loop, clocks, lambda: 0.0, drain=drain)
            return self.agent.run()
        finally:
            for intake in self.agent.intakes if self.agent else ():  # as the kernel does when a process has died
                intake.outbox.release()
            journal.close()

    def settings(self):
        return {
            "state_dir": str(self.base / "state"),
            "server": {"host": "h"},
            "outbox": [self.outbox],
            "retry": self.retry,
            "small_file_bytes": 1000,
        }

    def put(self, name, content=b"x"):
        path = self.box / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        return path

    def left(self):
        return sorted(str(path.relative_to(self.box)) for path in self.box.rglob("*") if path.is_file())

    def arrived(self):
        root = self.base / "remote" / "up"
        return sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file())


@pytest.fixture
def rig(tmp_path):
    return Rig(tmp_path)


def test_drain_delivers_all_once_and_empties_the_outbox(rig):
    names = [f"d{number % 7}/f{number}" for number in range(700)]
    for name in names:
        rig.put(name)
    assert rig.run() is End.DRAINED
    assert rig.arrived() == sorted(names)
    assert len(rig.remote.deliveries) == len(rig.remote.settled) == 700
    assert rig.left() == []


def test_lost_links_are_outlived(rig):
    for number in range(50):
        rig.put(f"f{number}")
    rig.remote.lose_after = [5, 10, 3]
    rig.remote.cannot_connect = [LinkLost("no"), LinkLost("no")]
    assert rig.run() is End.DRAINED
    assert len(rig.remote.deliveries) == 50


def test_drain_ends_with_75_when_the_server_stays_away(rig):
    rig.put("f")
    rig.remote.cannot_connect = [LinkLost("no")] * 99
    assert rig.run() is End.REMAINS
    assert rig.left() == ["f"]
    assert len(rig.remote.cannot_connect) == 99 - 3


def test_refused_login_holds_the_server_and_is_not_tried_fast(rig):
    rig.put("f")
    rig.remote.cannot_connect = [LoginRefused("no")] * 9
    rig.loop.stop_at = rig.loop.now + 900 + 1800 + 60
    rig.run(drain=False)
    assert len(rig.remote.cannot_connect) == 9 - 2 - 1


def test_failing_file_blocks_nobody_and_goes_to_quarantine_with_a_reason(rig):
    for name in ("a", "sub/bad", "c"):
        rig.put(name)
    rig.remote.refuse["/up/sub/bad"] = PermissionDenied("no rights there")
    rig.retry = {"max_attempts": 4}
    rig.loop.stop_at = rig.loop.now + 3600
    rig.run(drain=False)
    assert rig.arrived() == ["a", "c"]
    assert rig.left() == []
    (bad,) = quarantined(rig.quarantine)
    assert (bad.path, bad.content) == ("sub/bad", b"x")
    assert "no rights there" in bad.record["reason"]
    assert (bad.record["attempts"], bad.record["destination"]) == (4, "/up/sub/bad")
    rig.remote.refuse.clear()
    rig.loop.stop_at = 1e9
    assert release([rig.quarantine], [rig.box]) == (1, 0)
    assert rig.run() is End.DRAINED
    assert rig.arrived() == ["a", "c", "sub/bad"]


def test_a_drain_says_that_something_remains_as_long_as_it_lies_in_quarantine(rig):
    rig.put("bad")
    rig.put("good")
    rig.remote.refuse["/up/bad"] = PermissionDenied("no")
    rig.retry = {"max_attempts": 2}
    assert rig.run() is End.REMAINS
    rig.remote.refuse.clear()
    assert rig.run() is End.REMAINS
    assert rig.agent.owed.quarantined == 1
    assert [file.path for file in quarantined(rig.quarantine)] == ["bad"]
    release([rig.quarantine], [rig.box])
    assert rig.run() is End.DRAINED
    assert rig.agent.owed.quarantined == 0


def test_what_is_taken_out_of_quarantine_by_hand_is_not_counted_for_ever(rig):
    folder = rig.quarantine / "0123456789abcdef"
    folder.mkdir(parents=True)
    (folder / "bad").touch()
    seen = []
    rig.loop.stop_at = rig.loop.now + 200

    def report(agent, *, changed, final=False):
        if rig.loop.now > rig.loop.stop_at - 100:
            shutil.rmtree(folder, ignore_errors=True)
        seen.append(agent.owed.quarantined)

    rig.loop.report = report
    rig.run(drain=False)
    assert (seen[0], seen[-1]) == (1, 0)


def test_strikes_persist_over_runs(rig):
    rig.put("bad")
    rig.remote.refuse["/up/bad"] = PermissionDenied("no")
    rig.retry = {"max_attempts": 5, "drain_attempts": 3}
    assert rig.run() is End.REMAINS
    assert rig.left() == ["bad"]
    assert rig.run() is End.REMAINS
    assert [file.path for file in quarantined(rig.quarantine)] == ["bad"]


def test_full_server_is_waited_for_without_a_strike(rig):
    rig.put("f")
    rig.remote.refuse["/up/f"] = NoSpaceOnServer("full")
    rig.retry = {"max_attempts": 2}
    rig.loop.stop_at = rig.loop.now + 7200
    rig.run(drain=False)
    assert rig.left() == ["f"]


def test_rewrite_of_the_same_size_after_delivery_is_delivered_again(rig):
    rig.outbox["after_upload"] = "keep"
    path = rig.put("f", b"1" * 4096)
    before = path.stat()
    assert rig.run() is End.DRAINED
    path.write_bytes(b"2" * 4096)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert rig.run() is End.DRAINED
    assert (rig.base / "remote/up/f").read_bytes() == b"2" * 4096
    assert rig.run() is End.DRAINED
    assert len(rig.remote.deliveries) == 2


def test_version_that_comes_during_the_transfer_is_sent_too_and_never_removed_unsent(rig):
    rig.put("f", b"old")
    changes = [b"new1", b"new-2"]

    def rewrite(job):
        if changes:
            rig.put("f", changes.pop(0))

    rig.remote.before = rewrite
    assert rig.run() is End.DRAINED
    assert (rig.base / "remote/up/f").read_bytes() == b"new-2"
    assert rig.left() == []


def test_file_that_vanishes_is_no_error(rig):
    rig.put("f")
    rig.put("g")
    rig.remote.before = lambda job: (rig.box / "f").unlink(missing_ok=True)
    assert rig.run() is End.DRAINED
    assert "g" in rig.arrived()


def test_a_file_that_was_tried_and_is_withdrawn_is_given_up_so_that_its_part_can_go(rig):
    rig.put("f")
    rig.put("g")
    rig.outbox["order"] = "name"
    rig.remote.slots = 1
    rig.remote.cannot_connect = [LinkLost("no answer")] * 10
    rig.run()
    assert rig.remote.given_up == []  # nothing was tried: nothing can be there

    def lose(job):
        (rig.box / "f").unlink(missing_ok=True)
        rig.remote.cancelled = True

    rig.remote.cannot_connect = []
    rig.remote.before = lose
    rig.remote.slots = 2
    rig.run()
    rig.remote.cancelled = False
    assert rig.run() is End.DRAINED
    assert rig.remote.given_up == [(str(rig.box / "f"), "/up/f")]


def test_a_link_that_is_lost_again_and_again_leaves_no_file_to_the_next_run(rig):
    """Every connection makes progress: then a drain goes on however often, also with the files that are in flight."""
    for number in range(60):
        rig.put(f"f{number:02}")
    rig.retry = {"drain_attempts": 3}
    rig.remote.slots = 50
    rig.remote.lose_after = [2] * 20
    assert rig.run() is End.DRAINED
    assert rig.left() == []
    assert rig.remote.lose_after == []


def test_a_drain_ends_when_no_connection_makes_progress_any_more(rig):
    for number in range(10):
        rig.put(f"f{number}")
    rig.retry = {"drain_attempts": 3}
    rig.remote.lose_after = [4, *[0] * 99]
    assert rig.run() is End.REMAINS
    assert len(rig.left()) == 6
    assert len(rig.remote.lose_after) == 99 - 3  # as many connections without progress as drain_attempts says


def test_a_corrected_destination_counts_for_all_that_is_queued(rig):
    for number in range(600):
        rig.put(f"f{number}")
    rig.outbox["destination"] = "/wrong"
    rig.remote.slots = 2

    def stop_in_the_middle(job):
        rig.loop.stop = len(rig.remote.deliveries) >= 5

    rig.remote.before = stop_in_the_middle
    assert rig.run(drain=False) is End.STOPPED
    old = set(rig.remote.deliveries)
    flying = 600 - len(rig.left()) - len(old)
    assert flying == 0
    rig.outbox["destination"] = "/up"
    rig.loop.stop = False
    rig.remote.before = lambda job: None
    assert rig.run() is End.DRAINED
    new = set(rig.remote.deliveries) - old
    assert all(dest.startswith("/up/") for dest in new)
    assert len(new) + len(old) == 600


def test_what_was_begun_keeps_its_destination_and_is_reported(rig, caplog):
    for name in ("begun", "queued"):
        rig.put(name)
    rig.outbox |= {"destination": "/wrong", "order": "name"}
    rig.retry = {"drain_attempts": 2}
    rig.remote.slots = 1

    def lose_the_answer(job):
        raise LinkLost("nobody knows whether it was published")

    rig.remote.before = lose_the_answer
    assert rig.run() is End.REMAINS
    rig.remote.before = lambda job: None
    rig.outbox["destination"] = "/up"
    seen = []
    rig.loop.report = lambda agent, **_: seen.append(
        sum(outbox["earlier_destination"] for outbox in snapshot(agent, 0.0, 0.0)["outboxes"])
    )
    assert rig.run() is End.DRAINED
    assert sorted(rig.remote.deliveries) == ["/up/queued", "/wrong/begun"]
    assert (seen[0], seen[-1]) == (1, 0)
    assert "earlier destination" in caplog.text
    assert "files=1" in caplog.text


def test_a_refused_file_follows_the_corrected_destination_and_its_part_may_go(rig):
    """What the server has answered for is not under way: nothing can stand at the old place but a part."""
    rig.put("f")
    rig.outbox["destination"] = "/wrong"
    rig.remote.refuse["/wrong/f"] = PermissionDenied("no rights")
    assert rig.run() is End.REMAINS
    assert rig.left() == ["f"]
    rig.outbox["destination"] = "/up"
    assert rig.run() is End.DRAINED
    assert rig.arrived() == ["f"]
    assert rig.remote.given_up == [(str(rig.box / "f"), "/wrong/f")]


def test_the_remote_is_asked_outside_every_transaction(rig, monkeypatch):
    """What a transaction did in the remote's memory would stay when it is rolled back."""
    rig.put("f")
    rig.put("gone")
    depth = []
    transact = Journal._transact

    def inside(journal, work):
        depth.append(1)
        try:
            return transact(journal, work)
        finally:
            depth.pop()

    asked = []
    monkeypatch.setattr(Journal, "_transact", inside)
    for name in ("settle", "give_up"):
        monkeypatch.setattr(rig.remote, name, lambda items, name=name: asked.append((name, len(depth))))
    rig.remote.before = lambda job: (rig.box / "gone").unlink(missing_ok=True)
    assert rig.run() is End.DRAINED
    assert ("give_up", 0) in asked
    assert ("settle", 0) in asked
    assert all(transactions == 0 for _, transactions in asked)


def test_what_the_remote_keeps_goes_only_after_the_delivery_is_on_record(rig, monkeypatch):
    """The checkpoint is what recognises a finished upload when its row still says that it was under way."""
    rig.put("f")
    journal_says = []

    def settle(results):
        db = sqlite3.connect(rig.base / "state" / "journal.db")
        journal_says.extend(row[0] for row in db.execute("SELECT state FROM entry"))
        db.close()

    monkeypatch.setattr(rig.remote, "settle", settle)
    assert rig.run() is End.DRAINED
    assert journal_says == [State.DELIVERED]


def test_archive_mode_moves_with_its_tree(rig):
    rig.outbox["after_upload"] = "archive"
    rig.put("a/b/f")
    assert rig.run() is End.DRAINED
    archived = [path for path in (rig.base / "state/archive/box").rglob("*") if path.is_file()]
    assert [str(path)[-5:] for path in archived if path.name == "f"] == ["a/b/f"]
    assert rig.left() == []
    assert rig.run() is End.DRAINED
    assert len(rig.remote.deliveries) == 1


def test_kept_files_are_compared_with_the_finals_after_a_lost_journal(rig):
    rig.outbox["after_upload"] = "keep"
    rig.put("f")
    rig.run()
    (rig.base / "state/journal.db").write_bytes(b"garbage" * 1000)
    for ending in ("-wal", "-shm"):
        (rig.base / f"state/journal.db{ending}").unlink(missing_ok=True)
    checks = []
    rig.remote.before = lambda job: checks.append(job.check_final)
    assert rig.run() is End.DRAINED
    assert checks == [True]


class Crash(BaseException):
    pass


@pytest.mark.parametrize("step", range(1, 40))
def test_crash_between_any_two_steps_loses_nothing(rig, step, monkeypatch):
    """Every system call of a removal and every commit is a place to die; the next run makes it good."""
    for number in range(3):
        rig.put(f"f{number}", str(number).encode())
    countdown = [step]

    def dying(call):
        def wrapped(*arguments, **keywords):
            countdown[0] -= 1
            if countdown[0] == 0:
                raise Crash
            return call(*arguments, **keywords)

        return wrapped

    from iot.spooler.leaving import removal

    monkeypatch.setattr(removal, "rename_noreplace", dying(removal.rename_noreplace))
    monkeypatch.setattr(removal.os, "unlink", dying(os.unlink))
    monkeypatch.setattr(removal.os, "fsync", dying(os.fsync))
    monkeypatch.setattr(Journal, "write", dying(Journal.write))
    try:
        rig.run()
    except Crash:
        pass
    monkeypatch.undo()
    rig.remote.cancelled = False
    assert rig.run() is End.DRAINED
    assert rig.arrived() == ["f0", "f1", "f2"]
    assert rig.left() == []
    assert all((rig.base / f"remote/up/f{number}").read_bytes() == str(number).encode() for number in range(3))


def test_small_file_overtakes_large_ones(rig):
    for number in range(5):
        rig.put(f"large{number}", b"x" * 5000)
    flying = []

    def look(job):
        rig.loop.now += 0.1
        flying.append(sum("large" in other.dest for other in [*rig.remote.in_flight, job]))
        if not (rig.box / "small").exists() and len(flying) == 1:
            rig.put("small")
            rig.agent.wake()

    rig.remote.before = look
    assert rig.run() is End.DRAINED
    assert max(flying) <= 2
    assert rig.remote.deliveries.index("/up/small") <= 2


def test_full_disk_holds_and_goes_on_when_there_is_room(rig, monkeypatch):
    for number in range(30):
        rig.put(f"f{number}")
    real, refusals = Journal.write, [3]

    def write(self, work):
        if rig.remote.deliveries and refusals[0]:
            refusals[0] -= 1
            raise DiskFull("full")
        return real(self, work)

    monkeypatch.setattr(Journal, "write", write)
    rig.loop.stop_at = rig.loop.now + 600
    rig.run(drain=False)
    assert len(rig.arrived()) == 30
    assert rig.left() == []


def test_what_was_in_flight_is_sent_also_when_the_disk_was_full_at_the_next_start(rig, monkeypatch):
    rig.put("f")

    def die(_job):
        raise Crash

    rig.remote.before = die
    with pytest.raises(Crash):
        rig.run()
    rig.agent.intakes[0].outbox.release()
    rig.remote.before = lambda _job: None
    real, full_until = Journal.write, rig.loop.now + 60

    def write(self, work):
        if rig.loop.now < full_until:
            raise DiskFull("full")
        return real(self, work)

    monkeypatch.setattr(Journal, "write", write)
    rig.loop.stop_at = rig.loop.now + 600
    rig.run(drain=False)
    assert (rig.arrived(), rig.left()) == (["f"], [])


def test_a_file_that_the_disk_does_not_give_is_told_and_tried_later_and_the_drain_ends(rig, caplog):
    rig.put("bad")
    rig.put("good")
    rig.remote.refuse["/up/bad"] = SourceUnreadable("cannot read bad: Input/output error")
    rig.retry = {"drain_attempts": 3}
    assert rig.run() is End.REMAINS
    assert (rig.left(), rig.arrived()) == (["bad"], ["good"])
    told = [record.getMessage() for record in caplog.records if "Input/output error" in record.getMessage()]
    assert len(told) == 3


def test_other_outboxes_go_on_when_one_is_missing(rig, tmp_path):
    rig.put("f")
    settings_outboxes = [rig.outbox, {"path": str(tmp_path / "none"), "destination": "/x", "settle_s": 0}]
    rig.outbox = settings_outboxes[0]
    settings = Settings.model_validate(
        {"state_dir": str(tmp_path / "state"), "server": {"host": "h"}, "outbox": settings_outboxes}
    )
    journal = Journal(settings.state_dir, QUEUE_SCHEMA)
    clocks = Clocks(rig.loop.clock, rig.loop.wall)
    agent = Agent(settings, journal, rig.remote, rig.loop, clocks, lambda: 0.0, drain=True)
    assert agent.run() is End.REMAINS
    journal.close()
    assert rig.arrived() == ["f"]
    assert [bool(intake.failed) for intake in agent.intakes] == [False, True]


def test_stop_keeps_what_is_in_flight_for_the_next_run(rig):
    for number in range(20):
        rig.put(f"f{number}")

    def stop(job):
        if len(rig.remote.deliveries) == 5:
            rig.loop.stop = True
            rig.remote.cancel()

    rig.remote.before = stop
    assert rig.run(drain=False) is End.STOPPED
    done = len(rig.arrived())
    assert done < 20
    assert len(rig.left()) == 20 - done
    rig.loop.stop = rig.remote.cancelled = False
    rig.remote.before = lambda job: None
    assert rig.run() is End.DRAINED
    assert len(rig.remote.deliveries) == 20


def test_nothing_is_written_while_idle(rig, monkeypatch):
    rig.outbox["after_upload"] = "keep"
    for number in range(20):
        rig.put(f"f{number}")
    rig.run()
    writes = []
    real = Journal.write
    monkeypatch.setattr(Journal, "write", lambda self, work: writes.append(work) or real(self, work))
    rig.loop.stop_at = rig.loop.now + 3600
    rig.run(drain=False)
    assert writes == []
