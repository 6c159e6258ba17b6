"""A journal with notes in it: what the tests of the journal share."""

from __future__ import annotations

from pathlib import Path

from iot.transfer.journal.journal import FILE_NAME, Journal, Schema

__all__ = ["NOTES", "filled", "put", "texts"]

NOTES = Schema("notes", ("CREATE TABLE note (id INTEGER PRIMARY KEY, text BLOB NOT NULL)",))


def put(journal: Journal, text: bytes) -> None:
    journal.write(lambda db: db.execute("INSERT INTO note (text) VALUES (?)", (text,)))


def texts(journal: Journal) -> list[bytes]:
    return [bytes(row["text"]) for row in journal.read("SELECT text FROM note ORDER BY id")]


def filled(folder: Path, notes: int = 40) -> Path:
    """A journal with notes in it, all in the main file."""
    journal = Journal(folder, NOTES)
    for number in range(notes):
        put(journal, b"%d" % number * 20)
    journal.close()
    return folder / FILE_NAME
