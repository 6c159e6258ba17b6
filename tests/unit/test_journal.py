"""The journal: durable, versioned, and never in the way of a start, whatever stands in its file."""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
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
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from iot.transfer.errors import JournalUnavailable
from iot.transfer.journal.journal import FILE_NAME, OWNER_NAME, Journal, Schema, default_state_dir
from iot.transfer.journal.reserve import RESERVE_NAME

NOTES = Schema("notes", ("CREATE TABLE note (id INTEGER PRIMARY KEY, text BLOB NOT NULL)",))
NOTES_2 = Schema("notes", (*NOTES.migrations, "ALTER TABLE note ADD COLUMN more TEXT"))
NOTES_2_ALONE = Schema("notes", NOTES_2.migrations, compatible_from=2)


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


# -- anything may stand in the file


def expect_fresh_and_kept(folder: Path, content: bytes) -> None:
    journal = Journal(folder, NOTES)
    put(journal, b"works")
    assert texts(journal) == [b"works"]
    assert journal.moved_aside is not None
    assert ".corrupt-" in journal.moved_aside.name
    assert journal.moved_aside.read_bytes() == content
    journal.close()


@pytest.mark.parametrize(
    "content",
    [b"not a database at all\n" * 500, os.urandom(10_000), b"SQLite format 3\0" + b"\xff" * 4080],
    ids=["text", "random", "header-only"],
)
def test_garbage_is_set_aside_and_the_start_goes_on(tmp_path: Path, content: bytes) -> None:
    (tmp_path / FILE_NAME).write_bytes(content)
    expect_fresh_and_kept(tmp_path, content)


@pytest.mark.parametrize("content", [b"", b"x"])
def test_a_journal_that_holds_nothing_yet_is_filled_anew(tmp_path: Path, content: bytes) -> None:
    (tmp_path / FILE_NAME).write_bytes(content)
    journal = Journal(tmp_path, NOTES)
    put(journal, b"works")
    assert texts(journal) == [b"works"]
    journal.close()


@pytest.mark.parametrize("part", [0.03, 0.3, 0.6, 0.95])
def test_a_truncated_journal_is_set_aside(tmp_path: Path, part: float) -> None:
    path = filled(tmp_path)
    content = path.read_bytes()[: int(path.stat().st_size * part)]
    path.write_bytes(content)
    expect_fresh_and_kept(tmp_path, content)


def test_two_corrupt_journals_in_one_second_are_both_kept(tmp_path: Path) -> None:
    for content in (b"first", b"second"):
        (tmp_path / FILE_NAME).write_bytes(content)
        for ending in ("-wal", "-shm"):
            (tmp_path / (FILE_NAME + ending)).unlink(missing_ok=True)
        expect_fresh_and_kept(tmp_path, content)
    kept = [path.read_bytes() for path in tmp_path.glob("*corrupt*.db")]
    assert sorted(kept) == [b"first", b"second"]


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("good")
    filled(folder)
    return folder


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    at=st.one_of(st.integers(0, 99), st.integers(0, 8191)),
    junk=st.binary(min_size=1, max_size=64),
    where=st.sampled_from([FILE_NAME, FILE_NAME + "-wal", FILE_NAME + "-shm", OWNER_NAME, RESERVE_NAME]),
)
@example(at=18, junk=b"\x09\x09", where=FILE_NAME)  # a file format that no SQLite writes
@example(at=18, junk=b"\x03", where=FILE_NAME)  # one that may be read and not written
@example(at=44, junk=b"\0\0\0\x09", where=FILE_NAME)  # a schema format that no SQLite reads
@example(at=16, junk=b"\0\3", where=FILE_NAME)  # an impossible page size
@example(at=56, junk=b"\0\0\0\x07", where=FILE_NAME)  # an unknown text encoding
@example(at=946, junk=b"\x80", where=FILE_NAME)  # garbage in a message of SQLite's own
@example(at=40, junk=b"\xff\xff\xff\xff", where=FILE_NAME)
def test_no_damage_anywhere_blocks_the_start(
    tmp_path_factory: pytest.TempPathFactory, good: Path, at: int, junk: bytes, where: str
) -> None:
    folder = tmp_path_factory.mktemp("damaged")
    shutil.copytree(good, folder, dirs_exist_ok=True)
    path = folder / where
    content = bytearray(path.read_bytes() if path.exists() else b"")
    content[at : at + len(junk)] = junk
    path.write_bytes(content)
    journal = Journal(folder, NOTES)
    put(journal, b"works")
    assert texts(journal)[-1] == b"works"
    assert len(journal.owner) >= 16
    journal.close()
    again = Journal(folder, NOTES)
    assert (again.owner, again.moved_aside) == (journal.owner, None)
    again.close()
    shutil.rmtree(folder)


def test_the_owner_survives_the_loss_of_the_journal(tmp_path: Path) -> None:
    def owner_now() -> str:
        with contextlib.closing(Journal(tmp_path)) as journal:
            return journal.owner

    owner = owner_now()
    (tmp_path / FILE_NAME).write_bytes(b"broken")
    assert owner_now() == owner
    for path in tmp_path.glob("journal*"):
        path.unlink()
    assert owner_now() == owner


@pytest.mark.parametrize("content", [b"", b"torn", b"\xff\xfe\0\0" * 10])
def test_a_torn_owner_file_is_made_anew_once(tmp_path: Path, content: bytes) -> None:
    (tmp_path / OWNER_NAME).write_bytes(content)
    first = Journal(tmp_path)
    assert len(first.owner) >= 16
    assert Journal(tmp_path).owner == first.owner


# -- folders that refuse


def test_a_file_where_the_folder_should_be_is_told(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("")
    with pytest.raises(JournalUnavailable, match=str(tmp_path / "state")):
        Journal(tmp_path / "state")


def as_nobody(script: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a script without root's power over rights; its folder must be open to everybody."""
    drop = "import os, sys\nos.setgid(65534); os.setuid(65534)\n"
    code = (
        f"import sys; sys.path[:0] = {sys.path!r}\nimport encodings.ascii\nfrom iot.sftp.client import *\n"
        + drop
        + script
    )
    return subprocess.run(
        [sys.executable, "-c", code, *arguments], check=False, capture_output=True, text=True, timeout=60
    )


READ_ONLY = """
from collections.abc import Callable
from pathlib import Path
from types import FrameType
try:
    Journal(Path(sys.argv[1]), Schema("notes", ("CREATE TABLE note (id INTEGER)",)))
except JournalUnavailable as error:
    print("told", error)
"""


@pytest.mark.needs("root")
def test_a_folder_that_may_not_be_written_is_told_and_nothing_is_moved(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path.parent):
        folder.chmod(0o755)
    filled(tmp_path / "state")
    (tmp_path / "state").chmod(0o755)
    before = sorted(os.listdir(tmp_path / "state"))
    done = as_nobody(READ_ONLY, str(tmp_path / "state"))
    assert done.stdout.startswith("told"), done.stderr
    assert str(tmp_path / "state") in done.stdout
    assert sorted(os.listdir(tmp_path / "state")) == before
    empty = tmp_path / "empty"
    empty.mkdir(mode=0o755)
    assert as_nobody(READ_ONLY, str(empty)).stdout.startswith("told")


# -- a full disk (a real one: a tmpfs of its own, in a mount namespace of its own)

FULL_DISK = """
import subprocess, sys
sys.path[:0] = {path!r}
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from iot.sftp.client import DiskFull, Journal, Schema
state = Path(sys.argv[1])
if {disk!r} == "tmpfs":
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1200k", "tmpfs", str(state)], check=True)
else:  # smaller blocks than a page, as on every small ext4
    image = str(state.with_name("image"))
    make = ["mkfs.ext4", "-q", "-b", "1024", "-O", "^has_journal", "-m", "0", image, "3m"]
    subprocess.run(make, capture_output=True, check=True)
    subprocess.run(["mount", "-o", "loop", image, str(state)], check=True)
schema = Schema("notes", ("CREATE TABLE note (id INTEGER PRIMARY KEY, text BLOB)",))
put = lambda journal: journal.write(lambda db: db.execute("INSERT INTO note (text) VALUES (?)", (bytes(3000),)))
count = lambda journal: journal.read("SELECT count(*) FROM note")[0][0]

def fill():
    with open(state / "filler", "ab", buffering=0) as file:
        try:
            while file.write(bytes(1024)):
                pass
        except OSError:
            pass
{script}
"""

GOES_ON = """
journal = Journal(state, schema)
reserve = state / "journal.reserve"
assert reserve.stat().st_size == 512 * 1024
put(journal)
fill()
done = 1
try:
    while done < 1000:
        put(journal)
        done += 1
        if not reserve.exists() and done > 20:
            print("went on")
except DiskFull as error:
    print("full", str(state) in str(error))
assert count(journal) == done
assert not reserve.exists()
(state / "filler").unlink()
put(journal)
assert count(journal) == done + 1
journal.close()
journal = Journal(state, schema)
assert count(journal) == done + 1 and journal.moved_aside is None
print("reserve again", reserve.exists())
"""

STARTS = """
journal = Journal(state, schema)
put(journal)
owner = journal.owner
journal.close()
fill()
journal = Journal(state, schema)
assert journal.moved_aside is None and journal.owner == owner and count(journal) == 1
put(journal)
assert count(journal) == 2
print("started")
"""

NO_ROOM = """
fill()
try:
    Journal(state, schema)
except DiskFull as error:
    print("told", str(state) in str(error))
(state / "filler").unlink()
journal = Journal(state, schema)
put(journal)
print("recovered", journal.moved_aside)
"""


DISKS = pytest.mark.parametrize("disk", ["tmpfs", "ext4"])


def on_a_full_disk(folder: Path, disk: str, script: str) -> str:
    (folder / "state").mkdir()
    code = FULL_DISK.format(path=sys.path, disk=disk, script=script)
    command = ["unshare", "-m", "--propagation", "private", sys.executable, "-c", code, str(folder / "state")]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.needs("mounts")
@DISKS
def test_a_full_disk_costs_the_reserve_and_deliveries_are_still_settled(tmp_path: Path, disk: str) -> None:
    said = on_a_full_disk(tmp_path, disk, GOES_ON)
    assert "went on" in said
    assert "full True" in said
    assert "reserve again True" in said


@pytest.mark.needs("mounts")
@DISKS
def test_a_start_on_a_full_disk_gives_up_the_reserve_and_keeps_the_journal(tmp_path: Path, disk: str) -> None:
    assert "started" in on_a_full_disk(tmp_path, disk, STARTS)


@pytest.mark.needs("mounts")
@DISKS
def test_a_disk_without_room_for_a_journal_is_told_and_cured_by_room(tmp_path: Path, disk: str) -> None:
    assert on_a_full_disk(tmp_path, disk, NO_ROOM) == "told True\nrecovered None\n"


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
