"""What an inbox knows of its files: the same in the journal and in memory, and as little as is needed."""

from __future__ import annotations

import pytest

from iot.spooler.inbox.records import FileState, Record, Records
from iot.transfer import Journal

TIME = 10**9


def record(name: bytes, state: FileState) -> Record:
    return Record(name, state, f"3@{TIME}", "", 3, TIME, "ab", "why", 5.0)


@pytest.fixture
def records(journal: Journal) -> Records:
    return Records("in", journal)


@pytest.mark.parametrize("state", [FileState.FETCHED, FileState.PUBLISHED, FileState.REFUSED])
def test_what_is_dropped_is_no_longer_to_be_done(records: Records, journal: Journal, state: FileState) -> None:
    records.write([record(b"a", state), record(b"b", state)])
    records.drop([b"a", b"never known"])
    for each in (records, Records("in", journal)):
        assert (each.of(state), each.get(b"a")) == ([record(b"b", state)], None)


def test_a_record_comes_back_as_it_was_written_and_only_to_its_inbox(records: Records, journal: Journal) -> None:
    every = [record(b"%d\xff" % number, state) for number, state in enumerate(FileState)]
    records.write(every)
    again = Records("in", journal)
    assert [again.get(each.path) for each in every] == every
    assert Records("other", journal).get(b"0\xff") is None
    records.write([each._replace(state=FileState.FETCHED) for each in every])
    assert len(records.of(FileState.FETCHED)) == len(every)


def test_of_what_is_taken_there_may_be_many_and_none_is_looked_through(records: Records, journal: Journal) -> None:
    records.write([record(b"a", FileState.PUBLISHED), record(b"b", FileState.PUBLISHED)])
    records.write([record(b"a", FileState.TAKEN)])
    for each in (records, Records("in", journal)):
        assert (list(each._open), each.get(b"a")) == ([b"b"], record(b"a", FileState.TAKEN))


def test_what_has_left_the_server_is_dropped_unless_something_is_still_to_be_done(records: Records) -> None:
    records.write([record(state.value.encode(), state) for state in FileState])
    records.keep_only({b"taken"})
    assert {each for each in (b"fetched", b"published", b"taken", b"refused") if records.get(each)} == {
        b"fetched", b"published", b"taken",
    }  # fmt: skip


def test_rows_that_a_bad_disk_has_damaged_are_told_and_dropped_from_its_own_inbox(
    journal: Journal, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("in", "other"):
        Records(name, journal).write([record(b"a", FileState.TAKEN), record(b"b", FileState.PUBLISHED)])
    assert caplog.messages == []
    journal.write(lambda db: db.execute("UPDATE inbox_file SET bytes = 'many' WHERE path = x'61'"))
    assert [Records("in", journal).get(path) is None for path in (b"a", b"b")] == [True, False]
    assert caplog.messages == ["records of an inbox are unreadable inbox=in files=1"]
    rows = [(row["inbox"], bytes(row["path"])) for row in journal.read("SELECT * FROM inbox_file ORDER BY inbox, path")]
    assert rows == [("in", b"b"), ("other", b"a"), ("other", b"b")]
