"""One transfer at a time for one destination: over clients, over processes, and free again when one is killed."""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import stat
import struct
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from iot.transfer import locks as module
from iot.transfer.errors import TransientError
from iot.transfer.locks import LOCK_NAMES, Busy, TransferLocks

HOLDER = """
import sys
sys.path[:0] = {path!r}
from pathlib import Path
from iot.transfer.locks import Busy, TransferLocks
locks = TransferLocks(Path(sys.argv[1]))
for line in sys.stdin:
    what, name = line.split()
    try:
        locks.take(name.encode()) if what == "take" else locks.release(name.encode())
        print("done", flush=True)
    except Busy as error:
        print("busy", flush=True)
"""


class Other:
    """A process of its own."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process

    def __call__(self, what: str, name: str) -> str:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(f"{what} {name}\n")
        self.process.stdin.flush()
        return self.process.stdout.readline().strip()


@contextmanager
def other_process(state_dir: Path) -> Iterator[Other]:
    pipe = subprocess.PIPE
    command = [sys.executable, "-c", HOLDER.format(path=sys.path), str(state_dir)]
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as process:
        try:
            yield Other(process)
        finally:
            process.kill()


def test_two_processes_never_write_to_one_destination(tmp_path: Path) -> None:
    locks = TransferLocks(tmp_path)
    with other_process(tmp_path) as other:
        assert other("take", "/a") == "done"
        with pytest.raises(Busy, match="/a"):
            locks.take(b"/a")
        locks.take(b"/b")
        assert other("take", "/b") == "busy"
        locks.release(b"/b")
        assert other("take", "/b") == "done"
        assert other("release", "/a") == "done"
        locks.take(b"/a")
    locks.close()


def test_a_killed_process_holds_nothing(tmp_path: Path) -> None:
    locks = TransferLocks(tmp_path)
    with other_process(tmp_path) as other:
        assert other("take", "/a") == "done"
        other.process.send_signal(signal.SIGKILL)
        other.process.wait()
        locks.take(b"/a")
    locks.close()


def test_a_client_that_is_closed_holds_nothing(tmp_path: Path) -> None:
    one, two = TransferLocks(tmp_path), TransferLocks(tmp_path)
    one.take(b"/a")
    one.close()
    two.take(b"/a")
    two.close()


def test_two_clients_in_one_process_are_kept_apart(tmp_path: Path) -> None:
    one, two = TransferLocks(tmp_path), TransferLocks(tmp_path)
    one.take(b"/a")
    with pytest.raises(Busy):
        two.take(b"/a")
    two.take(b"/other")
    one.release(b"/a")
    two.take(b"/a")
    one.close()
    two.close()


@pytest.mark.parametrize("with_folder", [True, False])
def test_one_client_does_not_send_twice_at_once(tmp_path: Path, with_folder: bool) -> None:
    locks = TransferLocks(tmp_path if with_folder else None)
    locks.take(b"/a")
    with pytest.raises(Busy):
        locks.take(b"/a")
    locks.release(b"/a")
    locks.take(b"/a")
    locks.close()


def test_to_release_what_one_does_not_hold_frees_nobody_elses(tmp_path: Path) -> None:
    one, two = TransferLocks(tmp_path), TransferLocks(tmp_path)
    one.take(b"/a")
    two.release(b"/a")
    with pytest.raises(Busy):
        two.take(b"/a")
    one.close()
    two.close()


@pytest.mark.needs("proc")
def test_the_locks_of_many_transfers_are_spread_over_several_files(tmp_path: Path) -> None:
    """The kernel walks over all locks of a file to set one more."""
    locks = TransferLocks(tmp_path)
    for number in range(400):
        locks.take(b"/upload/reading-%06d.bin" % number)
    inodes = {file.stat().st_ino: 0 for file in tmp_path.iterdir()}
    for line in Path("/proc/locks").read_text().splitlines():
        inode = int(line.split(":")[3].split()[0])
        inodes[inode] = inodes.get(inode, 0) + 1
    held = [inodes[file.stat().st_ino] for file in tmp_path.iterdir()]
    assert 200 < sum(held) <= 400  # neighbours are one
    assert max(held) < 100
    locks.close()


def test_the_lock_files_are_nobody_elses_and_are_closed_once(tmp_path: Path) -> None:
    locks = TransferLocks(tmp_path)
    assert sorted(file.name for file in tmp_path.iterdir()) == sorted(LOCK_NAMES)
    assert {stat.S_IMODE(file.stat().st_mode) for file in tmp_path.iterdir()} == {0o600}
    locks.close()
    locks.close()
    locks.take(b"/a")  # within this object it still excludes
    with pytest.raises(Busy):
        locks.take(b"/a")


def test_a_folder_in_which_no_lock_can_be_made_leaves_nothing_open(tmp_path: Path) -> None:
    (tmp_path / LOCK_NAMES[3]).mkdir()
    with pytest.raises(IsADirectoryError):
        TransferLocks(tmp_path)


def test_where_ranges_cannot_be_locked_only_this_object_excludes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "BYTE_RANGES", False)
    one, two = TransferLocks(tmp_path), TransferLocks(tmp_path)
    one.take(b"/a")
    two.take(b"/a")
    with pytest.raises(Busy, match=r"^another transfer to '/a' is running; wait until it ends$"):
        one.take(b"/a")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("number", "busy"), [(errno.EAGAIN, True), (errno.EACCES, True), (errno.ENOLCK, False), (errno.EIO, False)]
)
def test_only_a_lock_that_another_holds_is_busy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, busy: bool
) -> None:
    locks = TransferLocks(tmp_path)

    def refused(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patched:
        patched.setattr(module.fcntl, "fcntl", refused)
        with pytest.raises(Busy if busy else OSError):
            locks.take(b"/a")
    locks.take(b"/a")  # what was refused is not held
    locks.close()


def test_one_byte_stands_for_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[int, ...]] = []
    locks = TransferLocks(tmp_path)
    monkeypatch.setattr(module.fcntl, "fcntl", lambda _file, _what, ask: asked.append(struct.unpack("hhqqi4x", ask)))
    for name in (b"/a", b"/b"):
        locks.take(name)
        locks.release(name)
        locks.release(name)
    kinds = [fcntl.F_WRLCK, fcntl.F_UNLCK] * 2
    assert [(kind, whence, length, pid) for kind, whence, _, length, pid in asked] == [
        (kind, os.SEEK_SET, 1, 0) for kind in kinds
    ]
    starts = [start for _, _, start, _, _ in asked]
    assert starts[0] == starts[1] != starts[2] == starts[3]
    assert all(0 <= start < 2**48 for start in starts)
    locks.close()


def test_a_busy_destination_is_worth_another_try() -> None:
    assert issubclass(Busy, TransientError)


@given(st.lists(st.binary(max_size=300), unique=True, max_size=50))
def test_any_names_can_be_held_side_by_side(tmp_path_factory: pytest.TempPathFactory, names: list[bytes]) -> None:
    locks = TransferLocks(tmp_path_factory.getbasetemp())
    for name in names:
        locks.take(name)
    for name in names:
        with pytest.raises(Busy):
            locks.take(name)
        locks.release(name)
    locks.close()
