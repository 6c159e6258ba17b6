"""What servers refuse is remembered, for a while and for each server alone, in journals of every version."""

from __future__ import annotations

import sqlite3
import time
from pathlib import Path

import pytest

from iot.sftp.client.learned import REFUSALS, LearnedRefusals
from iot.sftp.client.protocol.server import Refusal
from iot.transfer.journal.checkpoints import CHECKPOINTS, Checkpoints
from iot.transfer.journal.journal import Journal
from iot.transfer.model import Checkpoint, Direction, Fingerprint, Token

TABLES_OF_0_1_0 = """
CREATE TABLE room
    (name TEXT PRIMARY KEY, version INTEGER NOT NULL, compatible_from INTEGER NOT NULL) WITHOUT ROWID;
INSERT INTO room VALUES ('checkpoints', 1, 1);
CREATE TABLE checkpoint (
    id INTEGER PRIMARY KEY, key INTEGER NOT NULL,
    server TEXT NOT NULL, direction TEXT NOT NULL, remote BLOB NOT NULL, local BLOB NOT NULL,
    part BLOB NOT NULL, size INTEGER NOT NULL, mtime_ns INTEGER NOT NULL, ctime_ns INTEGER NOT NULL,
    inode INTEGER NOT NULL, acked INTEGER NOT NULL, synced INTEGER NOT NULL, suspect TEXT NOT NULL,
    phase TEXT NOT NULL, noted_at INTEGER NOT NULL, crc INTEGER NOT NULL);
CREATE TABLE refusal (
    host_key TEXT NOT NULL, what TEXT NOT NULL, banner TEXT NOT NULL, learned_at INTEGER NOT NULL,
    PRIMARY KEY (host_key, what)
) WITHOUT ROWID;
INSERT INTO checkpoint VALUES (1, 165543975583968, 'me@host:22', 'upload', X'2F722F61', X'2F6C2F61',
    X'002E70617274', 1000000, 1, 2, 3, 4096, 0, '[]', 'sending', 1700000000, 3062617498);
INSERT INTO refusal VALUES ('key', 'fsync', 'banner', NOW)
"""
"""What 0.1.0 writes for one upload, and what it has learned of one server."""


def journal_of_0_1_0(folder: Path) -> None:
    text = TABLES_OF_0_1_0.replace("NOW", str(int(time.time())))
    db = sqlite3.connect(folder / "journal.db")
    db.executescript("PRAGMA journal_mode=WAL;" + text)
    db.close()


def test_a_journal_of_0_1_0_keeps_its_checkpoints_and_what_was_learned(tmp_path: Path) -> None:
    journal_of_0_1_0(tmp_path)
    journal = Journal(tmp_path, CHECKPOINTS, REFUSALS)
    assert journal.moved_aside is None
    kept = Checkpoints(journal, "me@host:22", every_bytes=1, every_s=1, clock=time.monotonic)
    assert kept.load(Direction.UPLOAD, b"/r/a", b"/l/a") == Checkpoint(
        Direction.UPLOAD, b"/r/a", b"/l/a", Token(b"/r/a.part"), Fingerprint(10**6, 1, 2, 3), acked_bytes=4096
    )
    assert LearnedRefusals(journal).load("key", "banner") == {Refusal.FSYNC}
    LearnedRefusals(journal).learn("key", "banner", Refusal.RESUME)
    assert LearnedRefusals(journal).load("key", "banner") == {Refusal.FSYNC, Refusal.RESUME}
    journal.close()


def test_a_program_rolled_back_writes_into_a_table_that_a_later_one_widened() -> None:
    journal = Journal(None, REFUSALS)
    journal.write(lambda db: db.execute("ALTER TABLE refusal ADD COLUMN later TEXT"))
    refusals = LearnedRefusals(journal)
    refusals.learn("key", "banner", Refusal.FSYNC)
    assert refusals.load("key", "banner") == {Refusal.FSYNC}


def test_a_learned_refusal_is_remembered_for_that_server_alone() -> None:
    refusals = LearnedRefusals(Journal(None, REFUSALS))
    refusals.learn("key", "banner", Refusal.RESUME)
    refusals.learn("key", "banner", Refusal.READ_BACK)
    assert refusals.load("key", "banner") == {Refusal.RESUME, Refusal.READ_BACK}
    assert refusals.load("other key", "banner") == set()
    assert refusals.load("key", "banner 2") == set()  # a new version is asked again


@pytest.mark.parametrize(
    ("days", "known"), [(0, True), (6.9, True), (7.1, False), (-0.9, True), (-400, False), (36500, False)]
)
def test_a_refusal_is_asked_again_after_a_week_and_after_a_clock_that_leapt(
    monkeypatch: pytest.MonkeyPatch, days: float, known: bool
) -> None:
    refusals = LearnedRefusals(Journal(None, REFUSALS))
    now = 1_700_000_000.0
    monkeypatch.setattr(time, "time", lambda: now)
    refusals.learn("key", "banner", Refusal.FSYNC)
    monkeypatch.setattr(time, "time", lambda: now + days * 86400)
    assert (Refusal.FSYNC in refusals.load("key", "banner")) is known


def test_a_refusal_that_a_later_version_wrote_is_passed_over() -> None:
    journal = Journal(None, REFUSALS)
    refusals = LearnedRefusals(journal)
    refusals.learn("key", "banner", Refusal.FSYNC)
    journal.write(
        lambda db: db.execute("INSERT INTO refusal SELECT host_key, 'later', banner, learned_at FROM refusal")
    )
    assert refusals.load("key", "banner") == {Refusal.FSYNC}
