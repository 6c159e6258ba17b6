"""A remote's part of the journal: opened on first use, shared where one was given, and closed by who opened it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from unit.journal_notes import NOTES, put, texts
from unit.test_checkpoints import checkpoint

from iot.transfer.base import upload_key
from iot.transfer.books import Books
from iot.transfer.errors import ConfigurationError, JournalUnavailable
from iot.transfer.journal.journal import Journal
from iot.transfer.locks import Busy
from iot.transfer.model import Direction
from iot.transfer.settings import TransferSettings


class Settings(TransferSettings):
    """As a remote has them."""


def books_of(journal: Journal | None = None, server: str = "me@far:22", **options: Any) -> Books:
    return Books(server, journal, Settings(**options))


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    journal = Journal(tmp_path / "given")
    yield journal
    journal.close()


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Books]:
    books = books_of(state_dir=tmp_path / "own")
    yield books
    books.close()


def loaded(books: Books, name: str = "a") -> Any:
    return books.checkpoints.load(Direction.UPLOAD, b"/r/" + name.encode(), b"/l/" + name.encode())


def test_nothing_is_opened_before_it_is_needed(own: Books, tmp_path: Path) -> None:
    own.flush()
    own.close()
    assert not own.is_open
    assert not (tmp_path / "own").exists()
    opened = own.open()
    assert own.is_open
    assert own.open() is opened
    assert (own.journal, own.checkpoints, own.locks) == opened
    assert own.journal.state_dir == tmp_path / "own"


def test_what_is_no_journal_is_refused_with_the_option_that_was_meant() -> None:
    with pytest.raises(ConfigurationError, match=r"^journal: must be a Journal \(got str\); .* option state_dir$"):
        books_of("/var/lib/state")  # type: ignore[arg-type]


def test_a_journal_of_its_own_is_closed_and_opened_again(own: Books) -> None:
    own.checkpoints.note(checkpoint(acked=7))
    first = own.journal
    own.close()
    assert not own.is_open
    with pytest.raises(JournalUnavailable):
        texts(first)
    own.close()
    assert own.journal is not first
    assert loaded(own) == checkpoint(acked=7)


def test_a_journal_that_was_given_gets_the_tables_and_stays_open(journal: Journal) -> None:
    books = Books("me@far:22", journal, Settings(), NOTES)
    assert books.journal is journal
    assert loaded(books) is None
    put(journal, b"note")
    books.close()
    assert texts(journal) == [b"note"]
    assert not books.is_open


def test_the_tables_of_others_are_in_a_journal_of_its_own_too(tmp_path: Path) -> None:
    books = Books("me@far:22", None, Settings(state_dir=tmp_path / "own"), NOTES)
    put(books.journal, b"note")
    assert texts(books.journal) == [b"note"]
    books.close()


def test_the_locks_are_those_of_the_journals_folder_and_end_with_it(journal: Journal) -> None:
    one, two = books_of(journal), books_of(journal)
    one.locks.take(b"/far/file")
    with pytest.raises(Busy):
        two.locks.take(b"/far/file")
    one.close()
    two.locks.take(b"/far/file")
    two.close()


def test_the_checkpoints_are_those_of_its_server(journal: Journal) -> None:
    here, there = books_of(journal, "me@here:22"), books_of(journal, "me@there:22")
    here.checkpoints.commit([checkpoint(acked=7)])
    assert loaded(here) == checkpoint(acked=7)
    assert loaded(there) is None
    assert len(there.elsewhere(upload_key)._begun) == 1
    assert here.elsewhere(upload_key)._begun == {}
    here.close()
    there.close()


def test_a_checkpoint_is_written_as_often_as_the_settings_ask(
    journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[object] = []
    real = journal.write
    monkeypatch.setattr(journal, "write", lambda work: written.append(work) or real(work))
    books = books_of(journal, checkpoint_bytes=2**20, checkpoint_s=1000.0)
    for acked in (0, 2**20 - 1):
        books.checkpoints.note(checkpoint(acked=acked))
    assert written == []
    books.checkpoints.note(checkpoint(acked=2**20))
    assert len(written) == 1
    often = books_of(journal, "me@b:22", checkpoint_s=1e-9)
    often.checkpoints.note(checkpoint())
    often.checkpoints.note(checkpoint())
    assert len(written) >= 2
    books.close()
    often.close()


def test_a_checkpoint_that_cannot_be_dropped_is_told_and_harmless(
    journal: Journal, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    books = books_of(journal)
    books.checkpoints.commit([checkpoint()])
    books.checkpoints.forget(checkpoint())

    def full(_: object) -> None:
        raise JournalUnavailable("no room")

    with monkeypatch.context() as patched:
        patched.setattr(journal, "write", full)
        books.flush()
    assert "not dropped: no room" in caplog.text
    books.flush()
    rows = journal.read("SELECT count(*) AS rows FROM checkpoint")
    assert rows[0]["rows"] == 0
    books.close()


def test_without_a_folder_that_can_be_written_it_lives_in_memory_unless_one_was_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("STATE_DIRECTORY", str(tmp_path / "file"))
    books = books_of()
    assert books.journal.state_dir is None
    assert loaded(books) is None
    assert "so transfers cannot be resumed by a later process" in caplog.text
    books.close()
    with pytest.raises(JournalUnavailable):
        books_of(state_dir=tmp_path / "file").open()
    monkeypatch.setenv("STATE_DIRECTORY", str(tmp_path / "state"))
    books = books_of()
    assert books.journal.state_dir == tmp_path / "state"
    books.close()
