"""Whatever stands in the file of the journal, or in the way of its folder, no start is blocked."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from unit.journal_notes import NOTES, filled, put, texts

from iot.transfer.errors import JournalUnavailable
from iot.transfer.journal.journal import FILE_NAME, OWNER_NAME, Journal
from iot.transfer.journal.reserve import RESERVE_NAME

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
