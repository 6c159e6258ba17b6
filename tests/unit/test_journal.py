"""The journal: durable, versioned, and never in the way of a start, whatever stands in its file."""

from __future__ import annotations

import logging
import os
import sqlite3
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType

import pytest
from unit.journal_notes import NOTES, filled, put, texts

from iot.transfer.errors import JournalUnavailable
from iot.transfer.journal.journal import FILE_NAME, Journal, Schema, default_state_dir

NOTES_2 = Schema("notes", (*NOTES.migrations, "ALTER TABLE note ADD COLUMN more TEXT"))
NOTES_2_ALONE = Schema("notes", NOTES_2.migrations, compatible_from=2)


# -- a quiet life


def test_what_write_returned_for_stands_after_reopening(tmp_path: Path) -> None:
    journal = Journal(tmp_path, NOTES)
    put(journal, b"\xff\0name")
    journal.close()
    journal = Journal(tmp_path, NOTES)
    assert texts(journal) == [b"\xff\0name"]
    assert journal.moved_aside is None
    journal.close()


def test_room_that_is_not_needed_any_more_is_given_back_at_the_end(tmp_path: Path) -> None:
    journal = Journal(tmp_path, NOTES)
    for _ in range(100):
        put(journal, bytes(4000))
    journal.close()
    large = (tmp_path / FILE_NAME).stat().st_size
    journal = Journal(tmp_path, NOTES)
    journal.write(lambda db: db.execute("DELETE FROM note WHERE id > 1"))
    journal.close()
    assert (tmp_path / FILE_NAME).stat().st_size < large / 4


def test_a_journal_in_which_much_still_stands_is_not_written_anew_at_the_end(tmp_path: Path) -> None:
    journal = Journal(tmp_path, NOTES)
    for _ in range(250):
        put(journal, bytes(4000))
    journal.write(lambda db: db.execute("DELETE FROM note WHERE id > 100"))
    journal.close()
    assert (tmp_path / FILE_NAME).stat().st_size > 250 * 4000


def test_a_transaction_that_fails_leaves_nothing(tmp_path: Path) -> None:
    journal = Journal(tmp_path, NOTES)

    def half(db: sqlite3.Connection) -> None:
        db.execute("INSERT INTO note (text) VALUES (?)", (b"half",))
        raise ValueError("a room's own error")

    with pytest.raises(ValueError, match="own error"):
        journal.write(half)
    assert texts(journal) == []
    journal.close()


def test_two_rooms_commit_together_or_not_at_all(tmp_path: Path) -> None:
    journal = Journal(tmp_path, NOTES)
    journal.register(Schema("queue", ("CREATE TABLE entry (id INTEGER)",)))

    def both(db: sqlite3.Connection) -> None:
        db.execute("INSERT INTO note (text) VALUES (X'61')")
        db.execute("INSERT INTO nowhere VALUES (1)")

    with pytest.raises(JournalUnavailable):
        journal.write(both)
    assert texts(journal) == []
    journal.close()


def test_a_write_inside_a_write_is_an_error_of_the_program_and_leaves_nothing(tmp_path: Path) -> None:
    journal = Journal(tmp_path, NOTES)

    def outer(db: sqlite3.Connection) -> None:
        db.execute("INSERT INTO note (text) VALUES (X'61')")
        put(journal, b"inner")

    with pytest.raises(RuntimeError, match="inside"):
        journal.write(outer)
    assert texts(journal) == []
    put(journal, b"after")
    assert texts(journal) == [b"after"]
    journal.close()


def test_another_thread_waits_for_the_transaction_and_neither_joins_nor_sees_it(tmp_path: Path) -> None:
    journal = Journal(tmp_path, NOTES)
    under_way, go_on = threading.Event(), threading.Event()
    seen: list[list[bytes]] = []

    def slow(db: sqlite3.Connection) -> None:
        db.execute("INSERT INTO note (text) VALUES (X'61')")
        under_way.set()
        go_on.wait(30)
        raise ValueError("rolled back")

    def first() -> None:
        with pytest.raises(ValueError, match="rolled back"):
            journal.write(slow)

    def reads() -> None:
        seen.append(texts(journal))

    threads = [threading.Thread(target=first), threading.Thread(target=put, args=(journal, b"other"))]
    threads.append(threading.Thread(target=reads))
    threads[0].start()
    assert under_way.wait(30)
    for thread in threads[1:]:
        thread.start()
    time.sleep(0.2)
    assert all(thread.is_alive() for thread in threads)
    go_on.set()
    for thread in threads:
        thread.join(30)
    assert texts(journal) == [b"other"]
    assert seen in ([[]], [[b"other"]])
    journal.close()


def test_commits_survive_a_power_cut_by_setting(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    assert journal.read("PRAGMA synchronous")[0][0] == 2
    assert journal.read("PRAGMA journal_mode")[0][0] == "wal"
    journal.close()


def test_only_the_user_may_read_the_state_folder(tmp_path: Path) -> None:
    Journal(tmp_path / "new" / "state", NOTES).close()
    assert stat.S_IMODE(os.stat(tmp_path / "new" / "state").st_mode) == 0o700


def test_without_a_folder_it_lives_in_memory() -> None:
    journal = Journal(None, NOTES)
    put(journal, b"x")
    assert texts(journal) == [b"x"]
    assert Journal(None).owner != journal.owner
    journal.close()


def test_the_default_folder_is_systemds_else_xdgs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("STATE_DIRECTORY", "/var/lib/one:/var/lib/two")
    assert default_state_dir() == Path("/var/lib/one")
    monkeypatch.delenv("STATE_DIRECTORY")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    assert default_state_dir() == tmp_path / "iot-sftp"
    monkeypatch.delenv("XDG_STATE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert default_state_dir() == tmp_path / ".local" / "state" / "iot-sftp"


# -- versions (a device may be rolled back)


def test_an_older_journal_is_upgraded_in_place(tmp_path: Path) -> None:
    filled(tmp_path, 2)
    journal = Journal(tmp_path, NOTES_2)
    assert journal.read("SELECT more FROM note")[0]["more"] is None
    assert len(texts(journal)) == 2
    assert journal.moved_aside is None
    journal.close()


def test_an_older_program_works_on_a_compatible_newer_journal(tmp_path: Path) -> None:
    new = Journal(tmp_path, NOTES_2)
    new.write(lambda db: db.execute("INSERT INTO note (text, more) VALUES (X'61', 'kept')"))
    new.close()
    old = Journal(tmp_path, NOTES)
    assert old.moved_aside is None
    put(old, b"b")
    old.close()
    new = Journal(tmp_path, NOTES_2)
    assert [tuple(row) for row in new.read("SELECT text, more FROM note ORDER BY id")] == [(b"a", "kept"), (b"b", None)]
    new.close()


def test_an_older_program_sets_an_incompatible_newer_journal_aside_and_never_calls_it_corrupt(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    new = Journal(tmp_path, NOTES_2_ALONE)
    new.write(lambda db: db.execute("INSERT INTO note (text, more) VALUES (X'61', 'kept')"))
    owner = new.owner
    new.close()
    with caplog.at_level(logging.ERROR):
        old = Journal(tmp_path, NOTES)
    assert texts(old) == []
    assert old.owner == owner
    assert old.moved_aside is not None
    assert ".newer-" in old.moved_aside.name
    assert "corrupt" not in caplog.text
    assert list(tmp_path.glob("*corrupt*")) == []
    old.close()
    kept = sqlite3.connect(old.moved_aside)
    assert kept.execute("SELECT more FROM note").fetchall() == [("kept",)]
    kept.close()


def test_a_room_that_is_registered_late_may_find_the_journal_newer_too(tmp_path: Path) -> None:
    Journal(tmp_path, NOTES_2_ALONE).close()
    other = Schema("other", ("CREATE TABLE other (id INTEGER)",))
    journal = Journal(tmp_path, other)
    journal.register(NOTES)
    assert journal.moved_aside is not None
    put(journal, b"works")
    assert journal.read("SELECT * FROM other") == []
    journal.close()


def test_a_failed_upgrade_leaves_the_older_version_whole(tmp_path: Path) -> None:
    filled(tmp_path, 3)
    broken = Schema("notes", (*NOTES.migrations, "ALTER TABLE note ADD COLUMN more TEXT; INSERT INTO note VALUES (1)"))
    with pytest.raises(JournalUnavailable):
        Journal(tmp_path, broken)
    journal = Journal(tmp_path, NOTES)
    assert len(texts(journal)) == 3
    assert [row["name"] for row in journal.read("PRAGMA table_info(note)")] == ["id", "text"]
    journal.close()


# -- more than one process


OPENER = """
import sys, time
sys.path[:0] = {path!r}
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from iot.sftp.client import Journal, Schema
schema = Schema("notes", ("CREATE TABLE note (id INTEGER PRIMARY KEY, text BLOB)", "ALTER TABLE note ADD more TEXT"))
print("ready", flush=True)
sys.stdin.readline()
for folder in sys.argv[1:]:
    journal = Journal(Path(folder), schema)
    for number in range(3):
        journal.write(lambda db: db.execute("INSERT INTO note (text) VALUES (X'61')"))
    print(journal.owner, journal.moved_aside, flush=True)
    journal.close()
"""


def test_processes_that_make_the_same_journal_at_once_share_it(tmp_path: Path) -> None:
    folders = [str(tmp_path / str(number)) for number in range(12)]
    command = [sys.executable, "-c", OPENER.format(path=sys.path), *folders]
    pipe = subprocess.PIPE
    processes = [subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True) for _ in range(4)]
    for process in processes:
        assert process.stdout is not None
        process.stdout.readline()
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    done = [process.communicate(timeout=60) for process in processes]
    assert [process.returncode for process in processes] == [0] * 4, done[0][1] + done[1][1] + done[2][1] + done[3][1]
    assert len({out for out, _ in done}) == 1  # the same owners, nothing moved aside
    for folder in folders:
        journal = Journal(Path(folder), NOTES_2)
        assert len(texts(journal)) == 12
        assert f"{journal.owner} None" in done[0][0]
        journal.close()


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no modes")
def test_only_its_owner_may_read_the_journal(tmp_path):
    state = tmp_path / "state"
    state.mkdir(mode=0o755)
    (state / "journal.db").touch(mode=0o644)  # of an older version
    journal = Journal(state)
    journal.write(lambda db: db.execute("CREATE TABLE something (number)"))
    modes = {path.name: path.stat().st_mode & 0o077 for path in state.iterdir() if path.name.startswith("journal.db")}
    journal.close()
    assert modes == dict.fromkeys(modes, 0)
    assert "journal.db-wal" in modes


def interrupted_at_line(number: int, call: Callable[[], object]) -> bool:
    """Whether the call has that many lines in the journal's module; a KeyboardInterrupt comes before that one."""
    left = number

    def trace(frame: FrameType, event: str, _argument: object) -> object:
        nonlocal left
        if not frame.f_code.co_filename.endswith("/journal/journal.py"):
            return None
        left -= event == "line"
        if event == "line" and left == 0:
            raise KeyboardInterrupt
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        call()
    except KeyboardInterrupt:
        pass
    finally:
        sys.settrace(before)
    return left <= 0


def test_a_keyboard_interrupt_before_any_line_of_a_write_leaves_no_transaction_open(tmp_path: Path) -> None:
    journal = Journal(tmp_path, NOTES)
    number = 1
    while interrupted_at_line(number, lambda: journal.write(lambda db: db.execute("SELECT 1"))):
        journal.write(lambda db: db.execute("SELECT 1"))
        number += 1
    assert number > 8
    journal.close()
