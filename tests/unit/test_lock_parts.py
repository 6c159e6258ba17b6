"""What a lock is made of: the name in the kernel, the lock on the folder, who counts as a holder, and the file."""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from iot.sftp.client import DiskFull, JournalUnavailable
from iot.spooler.state import lock
from iot.spooler.state.lock import AlreadyRunning, OutboxClaim, holder, locked


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[int]:
    found = os.open(tmp_path, os.O_RDONLY)
    yield found
    os.close(found)


@contextmanager
def another(work: Callable[[], object]) -> Iterator[int]:
    """A process that has done this and holds what came of it. -> its number"""
    ready_out, ready_in = os.pipe()
    pid = os.fork()
    if not pid:
        try:
            held = work()
            os.write(ready_in, b"!")
            signal.pause()
            del held
        finally:
            os._exit(1)
    try:
        assert os.read(ready_out, 1) == b"!"
        yield pid
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        os.close(ready_out)
        os.close(ready_in)


def open_files() -> int:
    return len(os.listdir("/proc/self/fd"))


# -- the two ways, each by itself


@pytest.mark.parametrize("way", ["_name_taken", "_folder_locked"])
def test_each_way_alone_tells_the_process_that_has_the_outbox(tmp_path, folder, way):
    take = getattr(lock, way)
    with another(lambda: take(folder, tmp_path)) as other:
        before = open_files()
        with pytest.raises(AlreadyRunning, match=f"process {other}") as told:
            take(folder, tmp_path)
        assert told.value.pid == other
        assert open_files() == before, "the traceback keeps what was not closed"
    mine = take(folder, tmp_path)
    assert mine is not None
    before = open_files()
    assert take(folder, tmp_path) is None  # this process is no other
    assert open_files() == before
    os.close(mine if isinstance(mine, int) else mine.detach())


def test_a_claim_that_fails_gives_back_the_half_that_it_had(tmp_path, folder):
    with another(lambda: lock._folder_locked(folder, tmp_path)) as other:
        before = open_files()
        with pytest.raises(AlreadyRunning) as told:
            OutboxClaim(folder, tmp_path)
        assert (told.value.pid, open_files()) == (other, before)


def test_what_is_released_is_free_at_once(tmp_path, folder):
    before = open_files()
    claim = OutboxClaim(folder, tmp_path)
    name = claim._socket
    assert claim.counts_everywhere
    assert open_files() == before + 2
    claim.release()
    assert open_files() == before
    assert not claim.counts_everywhere
    assert name is not None
    claim.release()


def test_where_nobody_can_be_told_no_process_is_named(tmp_path, folder, monkeypatch):
    def not_told(*_: object) -> None:
        raise lock._NotTold

    monkeypatch.setattr(lock, "_name_taken", not_told)
    monkeypatch.setattr(lock, "_folder_locked", lambda *_: None)
    with pytest.raises(AlreadyRunning, match="its process cannot be seen from here: perhaps in another container") as e:
        OutboxClaim(folder, tmp_path)
    assert e.value.pid == 0


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EOPNOTSUPP])
def test_where_folders_cannot_be_locked_there_is_no_lock(tmp_path, folder, monkeypatch, number):
    def flock(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", flock)
    before = open_files()
    assert lock._folder_locked(folder, tmp_path) is None
    assert open_files() == before


def test_a_name_that_nobody_listens_to_any_more_is_no_other_agent(tmp_path, folder):
    status = os.fstat(folder)
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(f"\0iot-spooler/outbox/{status.st_dev}/{status.st_ino}")
        assert lock._name_taken(folder, tmp_path) is None


ME, OTHER = os.getpid(), 1


@pytest.mark.parametrize(
    ("owners", "say", "pid"),
    [
        ([], True, 0),  # in another container
        ([(OTHER, 5)], True, OTHER),
        ([(OTHER, 5)], False, None),  # a stranger
        ([(ME, 5)], True, None),
        ([(ME, 5), (OTHER, 5)], True, OTHER),
    ],
)
def test_who_holds_the_lock_counts_if_he_has_a_say_or_cannot_be_seen(tmp_path, folder, monkeypatch, owners, say, pid):
    monkeypatch.setattr(lock, "_lock_owners", lambda _: owners)
    monkeypatch.setattr(lock, "_has_say", lambda *_: say)
    held = os.open(tmp_path, os.O_RDONLY)
    fcntl.flock(held, fcntl.LOCK_EX)
    try:
        if pid is None:
            assert lock._folder_locked(folder, tmp_path) is None
        else:
            with pytest.raises(AlreadyRunning) as told:
                lock._folder_locked(folder, tmp_path)
            assert told.value.pid == pid
    finally:
        os.close(held)


# -- who holds a lock, and who has a say


def lines(*rows: tuple[int, str, int]) -> str:
    return "".join(
        f"{number}: FLOCK  ADVISORY  WRITE {pid} {device}:{inode} 0 EOF\n"
        for number, (pid, device, inode) in enumerate(rows, 1)
    )


def test_the_holders_of_a_lock_are_told_by_device_and_inode_or_else_by_inode(tmp_path, monkeypatch):
    status, parent = tmp_path.stat(), os.getppid()
    here, inode = f"{os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x}", status.st_ino
    mine, fathers = (ME, os.getuid()), (parent, os.stat(f"/proc/{parent}").st_uid)

    def told(*rows: tuple[int, str, int]) -> list[tuple[int, int]]:
        monkeypatch.setattr(Path, "read_text", lambda self, **_: lines(*rows))
        return lock._lock_owners(status)

    assert told((ME, here, inode), (parent, "ff:ff", inode)) == [mine]
    assert told((ME, "ff:ff", inode), (parent, here, inode + 1), (parent, here, inode - 1)) == [mine]
    assert told((2**22 + 1, here, inode), (parent, here, inode)) == [fathers]  # one that has just ended
    assert told() == []

    def unreadable(*_: object, **__: object) -> str:
        raise PermissionError

    monkeypatch.setattr(Path, "read_text", unreadable)
    assert lock._lock_owners(status) == []


USER, GROUP = 4001, 4002


@pytest.mark.parametrize(
    ("user", "groups", "mode", "has_say"),
    [
        (0, (), 0o500, True),
        (1, (), 0o500, False),
        (USER, (), 0o500, True),  # the agent's own
        (5, (), 0o500, True),  # the folder's
        (6, (), 0o775, False),
        (6, (), 0o772, True),
        (6, (GROUP,), 0o770, True),
        (6, (GROUP,), 0o752, False),
        (6, (GROUP + 1,), 0o770, False),
    ],
)
def test_who_may_write_to_a_folder_has_a_say(folder, monkeypatch, user, groups, mode, has_say):
    real = os.fstat(folder)
    status = os.stat_result((0o040000 | mode, *real[1:4], 5, GROUP, *real[6:]))
    monkeypatch.setattr(os, "fstat", lambda _: status)
    monkeypatch.setattr(os, "geteuid", lambda: USER)
    assert lock._has_say(folder, user, groups) is has_say


def test_where_a_list_of_rights_says_more_than_the_mode_everybody_may_have_a_say(folder, monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: USER)
    monkeypatch.setattr(os, "getxattr", lambda *_: b"")
    assert lock._has_say(folder, 1, ())


def test_the_groups_of_a_process_are_all_that_it_has():
    assert lock._groups(ME) == {os.getgid(), os.getegid(), *os.getgroups()}
    assert lock._groups(2**22 + 1) == set()


# -- the file of a state directory


def test_a_state_directory_is_locked_once_and_says_by_whom(tmp_path):
    (tmp_path / lock.NAME).write_text("x" * 100)
    before = open_files()
    for _ in range(2):
        assert holder(tmp_path) is None
        with locked(tmp_path):
            assert holder(tmp_path) == ME
            with pytest.raises(AlreadyRunning, match=f"process {ME}") as told, locked(tmp_path):
                pass
            assert told.value.pid == ME
            assert (tmp_path / lock.NAME).read_text() == f"{ME}\n"
        assert open_files() == before


@pytest.mark.parametrize("content", ["", "no number", "-5"])
def test_a_holder_that_could_not_say_who_it_is_is_an_unknown_one(tmp_path, content):
    with locked(tmp_path):
        (tmp_path / lock.NAME).write_text(content)
        assert holder(tmp_path) is None
        with pytest.raises(AlreadyRunning, match="cannot be seen from here"), locked(tmp_path):
            pass


def test_on_a_full_disk_the_lock_is_held_all_the_same(tmp_path, monkeypatch):
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(os, "pwrite", full)
    with locked(tmp_path), pytest.raises(AlreadyRunning), locked(tmp_path):
        pass


@pytest.mark.parametrize(
    ("number", "kind"),
    [(errno.ENOSPC, DiskFull), (errno.EACCES, JournalUnavailable), (errno.EROFS, JournalUnavailable)],
)
def test_a_state_directory_that_cannot_be_used_is_told_with_the_reason(tmp_path, monkeypatch, number, kind):
    def refuse(*_: object, **__: object) -> int:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises((DiskFull, JournalUnavailable), match=os.strerror(number)) as told, locked(tmp_path):
        pass
    assert type(told.value) is kind


def test_a_link_in_the_place_of_the_lock_is_not_followed(tmp_path):
    (tmp_path / "elsewhere").write_text("")
    (tmp_path / lock.NAME).symlink_to("elsewhere")
    with pytest.raises(JournalUnavailable), locked(tmp_path):
        pass
    assert holder(tmp_path) is None
    assert (tmp_path / "elsewhere").read_text() == ""
