"""The loop against a remote that is a folder: crashes between any two steps, full and broken disks, a stop."""

import os
import sqlite3

import pytest
from unit.agent_rig import Rig

from iot.sftp.client import (
    DiskFull,
    Journal,
    SourceUnreadable,
    configured,  # noqa: F401 - loaded when it is configured, and by an ordinary user it cannot be read then
)
from iot.spooler.agent.agent import Agent
from iot.spooler.agent.draining import End
from iot.spooler.config.settings import Settings
from iot.spooler.outbox.intake import Clocks
from iot.spooler.queue.policy import State
from iot.spooler.queue.queue import QUEUE_SCHEMA


@pytest.fixture
def rig(tmp_path):
    return Rig(tmp_path)


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
    for name in ("release_checkpoints", "give_up"):
        monkeypatch.setattr(rig.remote, name, lambda items, name=name: asked.append((name, len(depth))))
    rig.remote.before = lambda job: (rig.box / "gone").unlink(missing_ok=True)
    assert rig.run() is End.DRAINED
    assert ("give_up", 0) in asked
    assert ("release_checkpoints", 0) in asked
    assert all(transactions == 0 for _, transactions in asked)


def test_what_the_remote_keeps_goes_only_after_the_delivery_is_on_record(rig, monkeypatch):
    """The checkpoint is what recognises a finished upload when its row still says that it was under way."""
    rig.put("f")
    journal_says = []

    def release_checkpoints(results):
        db = sqlite3.connect(rig.base / "state" / "journal.db")
        journal_says.extend(row[0] for row in db.execute("SELECT state FROM entry"))
        db.close()

    monkeypatch.setattr(rig.remote, "release_checkpoints", release_checkpoints)
    assert rig.run() is End.DRAINED
    assert journal_says == [State.DELIVERED]


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
