"""The journal step by step: how it is opened, what makes room on a full disk, what is told, and how it is shrunk."""

from __future__ import annotations

import errno
import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from unit.journal_notes import NOTES, filled, put, texts

from iot.transfer.errors import DiskFull, JournalUnavailable, LocalStateError
from iot.transfer.journal import journal as module
from iot.transfer.journal.journal import FILE_NAME, SHRUNK_PAGES, Corrupt, Journal, NewerJournal, Schema

FULL = sqlite3.OperationalError("database or disk is full")
UNREADABLE = UnicodeDecodeError("utf-8", b"\xff", 0, 1, "no")


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    journal = Journal(tmp_path / "state", NOTES)
    yield journal
    journal.close()


# -- opened


def test_it_is_opened_as_flash_and_small_devices_need_it(journal: Journal) -> None:
    pragmas = ("page_size", "temp_store", "synchronous", "wal_autocheckpoint", "journal_size_limit", "journal_mode")
    found = [journal.read(f"PRAGMA {name}")[0][0] for name in pragmas]
    assert found == [1024, 2, 2, 4096, 4096 * 1048, "wal"]


def test_a_connection_that_cannot_be_set_up_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    closed: list[str] = []

    class Connection:
        def execute(self, _: str) -> None:
            raise FULL

        def close(self) -> None:
            closed.append("closed")

    monkeypatch.setattr(module.sqlite3, "connect", lambda *_, **__: Connection())
    with pytest.raises(sqlite3.OperationalError):
        Journal._connect("any")
    assert closed == ["closed"]


def test_a_disk_without_room_for_the_index_is_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "has_room_for_index", lambda _: False)
    with pytest.raises(DiskFull, match=f"no space left for the journal in {tmp_path}: free some space on that disk"):
        Journal(tmp_path, NOTES)
    assert not list(tmp_path.glob("*corrupt*"))


def test_a_start_on_a_full_disk_gives_the_reserve_up_and_tries_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Journal(tmp_path, NOTES).close()
    assert (tmp_path / "journal.reserve").exists()
    monkeypatch.setattr(module, "has_room_for_index", lambda _: not (tmp_path / "journal.reserve").exists())
    journal = Journal(tmp_path, NOTES)
    assert journal.moved_aside is None
    put(journal, b"works")
    journal.close()


def test_a_journal_that_fails_its_check_is_set_aside_under_that_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    filled(tmp_path, 3)
    checks = iter(["*** in database main ***", "ok"])
    real = Journal._connect

    class Checked:
        def __init__(self, db: Any) -> None:
            self.db = db

        def __getattr__(self, name: str) -> Any:
            return getattr(self.db, name)

        def execute(self, query: str, *values: Any) -> Any:
            if "quick_check" in query:
                return self.db.execute("SELECT ?", (next(checks),))
            return self.db.execute(query, *values)

    monkeypatch.setattr(Journal, "_connect", staticmethod(lambda name: Checked(real(name))))
    journal = Journal(tmp_path, NOTES)
    assert texts(journal) == []
    assert journal.moved_aside is not None
    assert ".corrupt-" in journal.moved_aside.name
    assert "fails SQLite's integrity check" in caplog.text
    journal.close()


def test_a_registered_schema_that_is_known_costs_no_transaction(journal: Journal) -> None:
    before = journal.read("PRAGMA data_version")[0][0], journal._db.total_changes
    journal.register(NOTES)
    assert (journal.read("PRAGMA data_version")[0][0], journal._db.total_changes) == before
    assert [tuple(row) for row in journal.read("SELECT * FROM room")] == [("notes", 1, 1)]


@pytest.mark.parametrize(
    ("version", "compatible_from", "usable"), [(1, 1, True), (2, 1, True), (2, 2, False), (3, 2, False), (1, 9, True)]
)
def test_a_newer_journal_is_used_if_it_says_that_this_program_may(
    tmp_path: Path, version: int, compatible_from: int, usable: bool
) -> None:
    journal = Journal(tmp_path, NOTES)
    journal.write(lambda db: db.execute("UPDATE room SET version = ?, compatible_from = ?", (version, compatible_from)))
    journal.close()
    journal = Journal(tmp_path, NOTES)
    assert (journal.moved_aside is None) is usable
    if usable:
        assert journal.read("SELECT version FROM room")[0]["version"] == version
    journal.close()


def test_a_schema_says_from_which_version_on_its_programs_work() -> None:
    schema = Schema("notes", ("a", "b"))
    assert (schema.version, schema.compatible_from) == (2, 1)


# -- a full disk


class Steps:
    """A journal whose transactions fail so many times; the steps that it takes."""

    def __init__(self, journal: Journal, monkeypatch: pytest.MonkeyPatch, fails: int, *, reserve: bool = True) -> None:
        self.taken: list[str] = []
        self.fails = fails
        self.error: Exception = FULL
        real = journal._transact

        def transact(work: Any) -> Any:
            self.taken.append("try")
            self.fails -= 1
            if self.fails >= 0:
                raise self.error
            return real(work)

        monkeypatch.setattr(journal, "_transact", transact)
        monkeypatch.setattr(journal, "_reuse_wal", lambda: self.taken.append("wal") or True)
        monkeypatch.setattr(journal._reserve, "give_up", lambda: self.taken.append("reserve") or reserve)
        monkeypatch.setattr(journal._reserve, "tend", lambda: self.taken.append("tend"))


@pytest.mark.parametrize(
    ("fails", "taken"),
    [
        (0, ["tend", "try"]),
        (1, ["tend", "try", "wal", "try"]),
        (2, ["tend", "try", "wal", "try", "reserve", "try"]),
        (3, ["tend", "try", "wal", "try", "reserve", "try", "wal", "try"]),
    ],
)
def test_room_is_made_step_by_step(
    journal: Journal, monkeypatch: pytest.MonkeyPatch, fails: int, taken: list[str]
) -> None:
    steps = Steps(journal, monkeypatch, fails)
    assert journal.write(lambda db: db.execute("SELECT 7").fetchone()[0]) == 7
    assert steps.taken == taken


def test_a_disk_that_stays_full_is_told(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    for fails, reserve, tries in ((9, True, 4), (9, False, 2)):
        with monkeypatch.context() as patched:
            steps = Steps(journal, patched, fails, reserve=reserve)
            with pytest.raises(DiskFull, match="no space left for the journal in"):
                put(journal, b"x")
            assert steps.taken.count("try") == tries


def test_for_another_error_no_room_is_made(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    steps = Steps(journal, monkeypatch, 1)
    steps.error = sqlite3.OperationalError("database is locked")
    with pytest.raises(JournalUnavailable, match=r"journal in .*: database is locked; check the folder's permissions"):
        put(journal, b"x")
    assert steps.taken == ["tend", "try"]


def test_the_log_is_copied_to_the_main_file_to_be_used_again(journal: Journal, tmp_path: Path) -> None:
    for _ in range(20):
        put(journal, bytes(4000))
    before = (tmp_path / "state" / FILE_NAME).stat().st_size
    assert journal._reuse_wal()
    assert (tmp_path / "state" / FILE_NAME).stat().st_size >= before + 20 * 4000


# -- looked into


def test_a_journal_is_looked_into_by_name_and_nothing_is_made(tmp_path: Path) -> None:
    state = tmp_path / "50% of #1?"
    journal = Journal(state, NOTES)
    put(journal, b"note")
    [row] = Journal.look_into(state, "SELECT text FROM note WHERE id = ?", 1)
    assert row["text"] == b"note"
    with pytest.raises(JournalUnavailable, match="readonly"):
        Journal.look_into(state, "DELETE FROM note")
    journal.close()
    with pytest.raises(JournalUnavailable, match=f"^there is no journal in {tmp_path}/other yet$"):
        Journal.look_into(tmp_path / "other", "SELECT 1")
    assert not (tmp_path / "other").exists()


# -- told


@pytest.mark.parametrize(
    ("error", "kind", "words"),
    [
        (FULL, DiskFull, "no space left for the journal in /state: free some space on that disk"),
        (sqlite3.DatabaseError("odd"), JournalUnavailable, "journal in /state: odd; check the folder's permissions"),
        (UNREADABLE, JournalUnavailable, "journal in /state: 'utf-8' codec"),
        (OSError(errno.ENOSPC, "x"), DiskFull, "no space left in /state: free some space on that disk"),
        (OSError(errno.EDQUOT, "x"), DiskFull, "no space left in /state"),
        (OSError(errno.EACCES, "no"), JournalUnavailable, "state directory /state: .* a folder that this user may"),
    ],
)
def test_an_error_is_told_with_its_place_and_what_to_do(error: Exception, kind: type, words: str) -> None:
    with pytest.raises(LocalStateError, match=f"^{words}") as told, module._translated(Path("/state")):
        raise error
    assert type(told.value) is kind
    assert told.value.__cause__ is error


def test_a_journal_in_memory_is_told_as_that() -> None:
    with pytest.raises(JournalUnavailable, match=r"^journal in memory: odd"), module._translated(None):
        raise sqlite3.DatabaseError("odd")


@pytest.mark.parametrize(
    ("error", "replaceable"),
    [
        (Corrupt("x"), True),
        (NewerJournal("x"), True),
        (UNREADABLE, True),
        (sqlite3.DatabaseError("file is not a database"), True),
        (sqlite3.OperationalError("database disk image is malformed"), True),
        (sqlite3.OperationalError("no such table: room"), True),
        (sqlite3.OperationalError("unsupported file format"), True),
        (sqlite3.OperationalError("database is locked"), False),
        (sqlite3.OperationalError("attempt to write a readonly database"), True),
        (OSError("x"), False),
    ],
)
def test_only_a_journal_whose_content_is_at_fault_is_replaced(
    tmp_path: Path, error: Exception, replaceable: bool
) -> None:
    (tmp_path / FILE_NAME).touch()
    assert module._replaceable(error, tmp_path / FILE_NAME) is replaceable


@pytest.mark.parametrize("refuses", ["file", "folder"])
def test_what_this_user_may_not_write_is_not_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refuses: str
) -> None:
    denied = tmp_path / FILE_NAME if refuses == "file" else tmp_path
    monkeypatch.setattr(os, "access", lambda path, mode: (path, mode) != (denied, os.W_OK))
    error = sqlite3.OperationalError("attempt to write a readonly database")
    assert not module._replaceable(error, tmp_path / FILE_NAME)


# -- closed


@pytest.mark.parametrize(
    ("pages", "free", "shrunk"),
    [
        (100, 51, True),
        (100, 50, False),
        (101, 51, True),
        (1000, 1000 - SHRUNK_PAGES, True),
        (1000, 999 - SHRUNK_PAGES, False),
    ],
)
def test_it_is_shrunk_when_more_than_half_is_free_and_little_is_left(
    journal: Journal, pages: int, free: int, shrunk: bool
) -> None:
    asked: list[str] = []

    class Database:
        def execute(self, query: str) -> Any:
            asked.append(query)
            answer = {"PRAGMA page_count": pages, "PRAGMA freelist_count": free}.get(query)
            return sqlite3.connect(":memory:").execute("SELECT ?", (answer,))

    real, journal._db = journal._db, Database()  # type: ignore[assignment]
    try:
        journal._shrink()
    finally:
        journal._db = real
    assert asked[2:] == (["PRAGMA busy_timeout=0", "VACUUM"] if shrunk else [])


def test_the_reserve_takes_the_space_of_the_log_when_it_is_closed(tmp_path: Path) -> None:
    journal = Journal(tmp_path, NOTES)
    reserve = tmp_path / "journal.reserve"
    reserve.unlink()
    journal.close()
    assert reserve.exists()
    journal.close()  # twice is as good
