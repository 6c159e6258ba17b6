"""Checkpoints: written in batches, never ahead of what was noted, and read back as they were."""

from __future__ import annotations

import contextlib
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from iot.transfer.errors import JournalUnavailable
from iot.transfer.journal.checkpoints import CHECKPOINTS, Checkpoints
from iot.transfer.journal.journal import Journal
from iot.transfer.model import Checkpoint, Direction, Fingerprint, Phase, Span, Token

T = TypeVar("T")
KIB = 1024


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


class CountingJournal(Journal):
    """A real journal that counts its transactions, and may refuse them."""

    transactions = 0
    refuses = False

    def write(self, work: Callable[[sqlite3.Connection], T]) -> T:
        if self.refuses:
            raise JournalUnavailable("refused by the test")
        self.transactions += 1
        return super().write(work)


def make(journal: Journal, server: str = "me@host:22", clock: Callable[[], float] = lambda: 100.0) -> Checkpoints:
    return Checkpoints(journal, server, every_bytes=64 * KIB, every_s=10, clock=clock)


def checkpoint(name: str = "a", acked: int = 0, **more: object) -> Checkpoint:
    path = name.encode()
    values: dict[str, object] = {"fingerprint": Fingerprint(10**6, 1, 2, 3), "acked_bytes": acked, **more}
    return Checkpoint(Direction.UPLOAD, b"/r/" + path, b"/l/" + path, Token(b"/r/" + path + b".part"), **values)  # type: ignore[arg-type]


def stored(journal: Journal, name: str = "a", server: str = "me@host:22") -> Checkpoint | None:
    """As another process would find it."""
    return make(journal, server).load(Direction.UPLOAD, b"/r/" + name.encode(), b"/l/" + name.encode())


sizes = st.integers(0, 2**63 - 1)
names = st.binary(max_size=50).filter(lambda name: b"\0" not in name)
times = st.builds(lambda second, ns: second * 10**9 + ns, st.integers(-(2**63), 2**63 - 1), st.integers(0, 10**9 - 1))
all_checkpoints = st.builds(
    Checkpoint,
    st.sampled_from(Direction),
    names.filter(len),
    names,
    names,
    st.builds(Fingerprint, sizes, times, times, st.integers(0, 2**64 - 1)),
    sizes,
    sizes,
    st.lists(st.builds(Span, sizes, sizes), max_size=5).map(tuple),
    st.sampled_from(Phase),
    st.none() | st.integers(0, 2**63 - 1),
)


@given(st.lists(all_checkpoints, max_size=10))
def test_any_checkpoint_of_a_file_of_any_date_comes_back_as_it_was(noted: list[Checkpoint]) -> None:
    journal = Journal(None, CHECKPOINTS)
    kept = make(journal)
    kept.commit(noted)
    last = {(item.direction, item.remote_path, item.local_path): item for item in noted}
    again = make(journal)
    for key, item in last.items():
        assert again.load(*key) == item
    journal.close()


def test_many_notes_are_one_transaction() -> None:
    journal = CountingJournal(None, CHECKPOINTS)
    kept = make(journal)
    for number in range(500):
        kept.note(checkpoint(str(number), acked=number))
        kept.forget(checkpoint(f"old-{number}"))
    assert journal.transactions == 0
    kept.flush()
    assert journal.transactions == 1
    assert stored(journal, "499") == checkpoint("499", acked=499)
    kept.flush()
    assert journal.transactions == 1  # nothing new: nothing is written


def test_a_barrier_of_many_jobs_writes_all_that_was_noted_at_once() -> None:
    journal = CountingJournal(None, CHECKPOINTS)
    kept = make(journal)
    kept.note(checkpoint("noted", 5))
    kept.commit([checkpoint(str(number)) for number in range(100)])
    assert journal.transactions == 1
    assert stored(journal, "noted") is not None
    assert stored(journal, "99") is not None


def test_progress_is_written_by_bytes() -> None:
    journal = CountingJournal(None, CHECKPOINTS)
    kept = make(journal)
    for acked in range(0, 640 * KIB, KIB):
        kept.note(checkpoint(acked=acked))
    assert journal.transactions == 9
    last = stored(journal)
    assert last is not None
    assert 640 * KIB - last.acked_bytes <= 65 * KIB


def test_progress_is_written_by_time_however_small() -> None:
    clock = Clock()
    journal = CountingJournal(None, CHECKPOINTS)
    kept = make(journal, clock=clock)
    for acked in range(100):
        kept.note(checkpoint(acked=acked))
        clock.now += 1
    assert journal.transactions == 9


def test_what_was_noted_is_found_before_it_is_written() -> None:
    journal = CountingJournal(None, CHECKPOINTS)
    kept = make(journal)
    kept.commit([checkpoint(acked=1)])
    kept.note(checkpoint(acked=2))
    assert kept.load(Direction.UPLOAD, b"/r/a", b"/l/a") == checkpoint(acked=2)
    assert stored(journal) == checkpoint(acked=1)
    kept.forget(checkpoint())
    assert kept.load(Direction.UPLOAD, b"/r/a", b"/l/a") is None
    kept.note(checkpoint(acked=3))
    assert kept.load(Direction.UPLOAD, b"/r/a", b"/l/a") == checkpoint(acked=3)
    kept.flush()
    assert stored(journal) == checkpoint(acked=3)


def test_what_could_not_be_written_is_written_with_the_next_batch() -> None:
    journal = CountingJournal(None, CHECKPOINTS)
    kept = make(journal)
    kept.note(checkpoint("noted"))
    kept.forget(checkpoint("dropped"))
    journal.refuses = True
    with pytest.raises(JournalUnavailable):
        kept.commit([checkpoint("barrier")])
    journal.refuses = False
    kept.flush()
    assert stored(journal, "noted") is not None
    assert stored(journal, "barrier") is not None


def test_checkpoints_of_other_servers_are_not_ours() -> None:
    journal = Journal(None, CHECKPOINTS)
    make(journal, "me@one:22").commit([checkpoint(acked=1)])
    make(journal, "me@two:22").commit([checkpoint(acked=2)])
    two = make(journal, "me@two:22")
    two.forget(checkpoint())
    two.flush()
    assert stored(journal, server="me@one:22") == checkpoint(acked=1)
    assert stored(journal, server="me@two:22") is None


@pytest.mark.parametrize(
    "damage",
    [
        "phase = 'sendinf'",
        "suspect = '[[1'",
        "suspect = '[[1]]'",
        "suspect = '7'",
        "suspect = '[[\"a\", 2]]'",
        "suspect = X'ff00'",
        "acked = 'many'",
        "acked = -5",
        "acked = 65536",
        "synced = acked + 1",
        "part = X'2f72'",
        "mtime_ns = mtime_ns + 1",
        "inode = NULL",
        "size = 1.5",
    ],
)
def test_a_row_that_makes_no_sense_counts_as_none(damage: str) -> None:
    """SQLite has no checksums: a flipped bit on flash is found by whoever reads the row."""
    journal = Journal(None, CHECKPOINTS)
    make(journal).commit([checkpoint(), checkpoint("b")])
    journal.write(lambda db: db.execute("PRAGMA ignore_check_constraints=1"))
    try:
        journal.write(lambda db: db.execute(f"UPDATE checkpoint SET {damage} WHERE local = CAST('/l/a' AS BLOB)"))
    except JournalUnavailable:
        return  # SQLite does not let it in
    assert stored(journal) is None
    assert [item.local_path for item in make(journal).abandoned_before(before_s=2**40)] == [b"/l/b"]


def test_an_older_program_writes_into_tables_that_a_later_one_widened() -> None:
    """B15: a device that was rolled back meets the journal of the later version."""
    journal = Journal(None, CHECKPOINTS)
    journal.write(lambda db: db.execute("ALTER TABLE checkpoint ADD COLUMN later TEXT"))
    make(journal).commit([checkpoint(acked=7)])
    assert stored(journal) == checkpoint(acked=7)


def test_only_uploads_that_rest_for_long_are_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    journal = Journal(None, CHECKPOINTS)
    kept = make(journal)
    monkeypatch.setattr(time, "time", lambda: 1000.0)
    download = Checkpoint(Direction.DOWNLOAD, b"/r/d", b"/l/d", Token(b"/l/d.part"), Fingerprint(1, 1))
    kept.commit([checkpoint("old"), download])
    monkeypatch.setattr(time, "time", lambda: 5000.0)
    kept.commit([checkpoint("new")])
    assert [item.local_path for item in kept.abandoned_before(before_s=4000.0)] == [b"/l/old"]


NOTER = """
import sys
sys.path[:0] = {path!r}
from pathlib import Path
from iot.sftp.client import Journal
from iot.transfer.journal.checkpoints import CHECKPOINTS, Checkpoints
from iot.transfer.model import Checkpoint, Direction, Fingerprint
kept = Checkpoints(Journal(Path(sys.argv[1]), CHECKPOINTS), "s", every_bytes=1, every_s=99, clock=lambda: 0.0)
number = 0
while True:
    number += 1
    kept.commit([Checkpoint(Direction.UPLOAD, b"r", sys.argv[2].encode(), b"p", Fingerprint(1, 1), number)])
    print(number, flush=True)
"""


def test_two_processes_commit_side_by_side_and_a_kill_loses_nothing_told(tmp_path: Path) -> None:
    Journal(tmp_path, CHECKPOINTS).close()
    told: dict[str, int] = {}
    processes = []
    for name in ("one", "two"):
        command = [sys.executable, "-c", NOTER.format(path=sys.path), str(tmp_path), name]
        processes.append((name, subprocess.Popen(command, stdout=subprocess.PIPE, text=True)))
    for name, process in processes:
        assert process.stdout is not None
        for _ in range(50):
            told[name] = int(process.stdout.readline())
        process.send_signal(signal.SIGKILL)
        rest = [line for line in process.stdout.read().splitlines(keepends=True) if line.endswith("\n")]
        told[name] = int(rest[-1]) if rest else told[name]
        process.wait()
        process.stdout.close()
    journal = Journal(tmp_path, CHECKPOINTS)
    assert journal.moved_aside is None
    kept = make(journal, "s")
    for name, number in told.items():
        found = kept.load(Direction.UPLOAD, b"r", name.encode())
        assert found is not None
        assert found.acked_bytes >= number
    journal.close()


def test_of_a_settled_transfer_nothing_is_kept_in_memory() -> None:
    with contextlib.closing(Journal(None, CHECKPOINTS)) as journal:
        ledger = Checkpoints(journal, "s", every_bytes=1, every_s=0, clock=lambda: 0.0)
        for number in range(3):
            noted = Checkpoint(
                Direction.UPLOAD, b"/r%d" % number, b"/l", Token(b"p"), Fingerprint(1, 2), acked_bytes=number
            )
            ledger.note(noted, now=True)
            ledger.forget(noted)
            ledger.flush()
        assert (ledger._written, ledger._noted, ledger._dropped) == ({}, {}, {})
        assert ledger._places.current() == {}


def test_what_another_process_has_written_is_found_at_once(tmp_path: Path) -> None:
    ours, theirs = Journal(tmp_path, CHECKPOINTS), Journal(tmp_path, CHECKPOINTS)
    checkpoints = make(ours)
    assert checkpoints.load(Direction.UPLOAD, b"/r/a", b"/l/a") is None
    make(theirs).commit([checkpoint("a", acked=7)])
    found = checkpoints.load(Direction.UPLOAD, b"/r/a", b"/l/a")
    assert found is not None
    assert found.acked_bytes == 7
    ours.close()
    theirs.close()
