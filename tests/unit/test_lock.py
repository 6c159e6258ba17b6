"""One agent for an outbox, whatever its state directory: real processes, real deaths."""

from __future__ import annotations

import fcntl
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from ordinary_user import AGENT, PRODUCER, as_user, open_folder

from iot.sftp.client import JournalUnavailable
from iot.spooler.outbox.place import OutboxTaken
from iot.spooler.outbox.scan import Outbox
from iot.spooler.state import lock
from iot.spooler.state.lock import AlreadyRunning, OutboxClaim, holder

START_S = 60


def configuration(tmp_path: Path, name: str, outbox: Path) -> Path:
    path = tmp_path / f"{name}.toml"
    path.write_text(
        f'state_dir = "{tmp_path / name}"\n[server]\nhost = "127.0.0.1"\nport = 1\n'
        f'[[outbox]]\npath = "{outbox}"\ndestination = "/up"\n'
    )
    return path


def agent(config: Path, *within: str) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [*within, sys.executable, "-m", "iot.spooler", "run", "--config", str(config)]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment)


def wait_until_claimed(outbox: Path, by: subprocess.Popen[str]) -> None:
    end = time.monotonic() + START_S
    while time.monotonic() < end:
        assert by.poll() is None, by.stderr and by.stderr.read()
        if holder_of(outbox) == by.pid:
            return
        time.sleep(0.1)
    raise AssertionError("the agent does not claim its outbox")


def wait_for(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + START_S
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.1)


def holder_of(outbox: Path) -> int | None:
    try:
        claim(outbox)
    except AlreadyRunning as error:
        return error.pid
    return None


def claim(outbox: Path) -> None:
    folder = os.open(outbox, os.O_RDONLY)
    try:
        OutboxClaim(folder, outbox).release()
    finally:
        os.close(folder)


@pytest.fixture
def outbox(tmp_path: Path) -> Path:
    path = tmp_path / "box"
    path.mkdir()
    return path


def test_a_second_agent_on_an_outbox_is_refused_and_told_who_has_it_until_that_one_dies(
    tmp_path: Path, outbox: Path
) -> None:
    (tmp_path / "other-name").symlink_to(outbox)
    with agent(configuration(tmp_path, "one", outbox)) as first:
        try:
            wait_until_claimed(outbox, first)
            with agent(configuration(tmp_path, "two", tmp_path / "other-name")) as second:
                _, said = second.communicate(timeout=START_S)
            assert second.returncode == 75
            assert f"another agent (process {first.pid}) works on {tmp_path / 'other-name'}" in said
        finally:
            first.send_signal(signal.SIGKILL)
    claim(outbox)  # the kernel has released it
    with agent(configuration(tmp_path, "two", outbox)) as second:
        try:
            wait_until_claimed(outbox, second)
        finally:
            second.terminate()


ASKED = 20


def test_who_has_an_outbox_is_told_however_often_it_is_asked(tmp_path: Path, outbox: Path) -> None:
    with agent(configuration(tmp_path, "one", outbox)) as first:
        try:
            wait_until_claimed(outbox, first)
            folder = os.open(outbox, os.O_RDONLY)
            for _ in range(ASKED):
                with pytest.raises(AlreadyRunning, match=f"process {first.pid}"):
                    OutboxClaim(folder, outbox)
            os.close(folder)
        finally:
            first.terminate()


def test_an_earlier_agent_of_the_same_process_is_no_other_however_often_it_is_asked(outbox: Path) -> None:
    folder = os.open(outbox, os.O_RDONLY)
    claims = [OutboxClaim(folder, outbox) for _ in range(ASKED)]
    os.close(folder)
    for one in claims:
        one.release()


def test_an_outbox_that_is_found_taken_later_is_a_failed_source_and_comes_back(tmp_path: Path, outbox: Path) -> None:
    box = Outbox(outbox, wanted=lambda _: True, clock=lambda: 0.0)
    script = (
        "import os, sys; from pathlib import Path; from iot.spooler.state.lock import OutboxClaim\n"
        "claim = OutboxClaim(os.open(sys.argv[1], os.O_RDONLY), Path(sys.argv[1])); print(flush=True); sys.stdin.read()"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", script, str(outbox)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment) as other:
        assert other.stdout is not None
        other.stdout.readline()
        for _ in range(2):
            with pytest.raises(OutboxTaken, match=f"process {other.pid}"):
                list(box.walk(whole=True))
        other.kill()
    assert list(box.walk(whole=True)) == [[]]
    box.release()


def test_a_claim_writes_nothing_and_needs_no_right_to_write(outbox: Path) -> None:
    from unit.other_user import without_capabilities

    def claim_it() -> None:
        outbox.chmod(0o500)
        claims = OutboxClaim(os.open(outbox, os.O_RDONLY), outbox)
        assert is_folder_locked(outbox)
        claims.release()
        assert not is_folder_locked(outbox)

    without_capabilities(claim_it)
    outbox.chmod(0o700)
    assert os.listdir(outbox) == []


def is_folder_locked(folder: Path) -> bool:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


@pytest.mark.needs("root", "mounts")
@pytest.mark.parametrize("namespaces", [["--net"], ["--net", "--pid", "--fork", "--mount-proc", "--ipc", "--uts"]])
def test_an_agent_in_another_container_is_seen(tmp_path: Path, outbox: Path, namespaces: list[str]) -> None:
    """It has a network of its own, and perhaps its own processes; the outbox is a volume of both."""
    with agent(configuration(tmp_path, "one", outbox)) as first:
        try:
            wait_until_claimed(outbox, first)
            inside = ["unshare", "--mount", "--propagation", "private", *namespaces]
            with agent(configuration(tmp_path, "two", outbox), *inside) as second:
                _, said = second.communicate(timeout=START_S)
            assert second.returncode == 75, said
            assert "another agent (" in said
            assert f"process {first.pid}" in said or "another container" in said
        finally:
            first.send_signal(signal.SIGKILL)
    with agent(configuration(tmp_path, "two", outbox), "unshare", "--net") as second:
        try:
            wait_for(lambda: second.poll() is not None or is_folder_locked(outbox))
            assert second.poll() is None
            assert holder_of(outbox) == second.pid
        finally:
            second.send_signal(signal.SIGKILL)
    claim(outbox)  # its death has released it


@pytest.mark.needs("root")
def test_a_stranger_whose_name_cannot_be_asked_keeps_no_agent_out() -> None:
    with open_folder() as base:
        outbox = base / "box"
        outbox.mkdir()
        with another_process(lambda: holding_its_name_and_answering_nobody(outbox), 65534):
            claim(outbox)


@pytest.mark.needs("root")
def test_a_folder_that_cannot_be_locked_is_told(caplog: pytest.LogCaptureFixture) -> None:
    """As on NFS; here because a stranger sits on it."""
    with open_folder() as base:
        outbox = base / "box"
        outbox.mkdir()
        box = Outbox(outbox, wanted=lambda _: True, clock=lambda: 0.0)
        with another_process(lambda: holding_its_lock(outbox), 65534):
            list(box.walk(whole=True))
        assert "would not be seen" in caplog.text
        box.release()
        caplog.clear()
        box = Outbox(outbox, wanted=lambda _: True, clock=lambda: 0.0)
        list(box.walk(whole=True))
        assert caplog.text == ""
        box.release()


@pytest.mark.needs("root")
def test_two_ordinary_users_on_a_folder_of_root_see_each_other() -> None:
    with open_folder() as base:
        outbox = base / "box"
        outbox.mkdir()
        outbox.chmod(0o1777)

        def claimed() -> str:
            try:
                claim(outbox)
            except AlreadyRunning as error:
                return str(error)
            return "free"

        with another_process(holding_the_claim_of(outbox), PRODUCER) as other:
            assert f"process {other}" in as_user(AGENT, claimed)
        assert as_user(AGENT, claimed) == "free"


@pytest.mark.needs("root", "mounts")
def test_a_claim_lets_go_of_a_file_system_that_is_detached(tmp_path: Path, outbox: Path) -> None:
    """And tells umount until then that it is in use."""
    script = (
        "import os, subprocess, sys; from pathlib import Path\n"
        "from iot.spooler.outbox.scan import Outbox, SourceFailed\n"
        "subprocess.run(['mount', '-t', 'tmpfs', 'none', sys.argv[1]], check=True)\n"
        "box = Outbox(Path(sys.argv[1]), wanted=lambda _: True, clock=lambda: 0.0); os.close(box.open())\n"
        "assert subprocess.run(['umount', sys.argv[1]]).returncode\n"
        "subprocess.run(['umount', '-l', sys.argv[1]], check=True)\n"
        "try: box.open()\nexcept SourceFailed as error: assert 'no longer mounted' in str(error)\n"
        "else: raise SystemExit('still there')\n"
        "assert not [link for link in map(os.path.realpath, Path('/proc/self/fd').iterdir()) if sys.argv[1] in link]\n"
    )
    command = ["unshare", "--mount", "--propagation", "private", sys.executable, "-c", script, str(outbox)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    subprocess.run(command, check=True, env=environment, timeout=60)


@contextmanager
def another_process(work: Callable[[], object], user: int) -> Iterator[int]:
    """One of this user that has done this and waits. -> its number"""
    ready_out, ready_in = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.setgroups([])
            os.setresgid(user, user, user)
            os.setresuid(user, user, user)
            held = work()
            os.write(ready_in, b"!")
            signal.pause()
            del held
        finally:
            os._exit(1)  # whatever happened: it must not go on as the tests
    os.close(ready_in)
    try:
        assert os.read(ready_out, 1) == b"!"
        yield pid
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        os.close(ready_out)


def holding_the_claim_of(outbox: Path) -> Callable[[], object]:
    return lambda: OutboxClaim(os.open(outbox, os.O_RDONLY), outbox)


def holding_its_name(outbox: Path) -> object:
    status = outbox.stat()
    taken = socket.socket(socket.AF_UNIX)
    taken.bind(f"\0iot-spooler/outbox/{status.st_dev}/{status.st_ino}")
    taken.listen(64)
    return taken


def holding_its_name_and_answering_nobody(outbox: Path) -> object:
    taken = holding_its_name(outbox)
    assert isinstance(taken, socket.socket)
    taken.listen(0)
    asking = socket.socket(socket.AF_UNIX)
    asking.connect(taken.getsockname())
    return taken, asking


def holding_its_lock(outbox: Path) -> object:
    descriptor = os.open(outbox, os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_SH)
    return descriptor


@pytest.mark.needs("root")
@pytest.mark.parametrize("how", [holding_its_name, holding_its_lock])
def test_a_user_with_no_say_in_the_outbox_cannot_keep_its_agent_out(how: Callable[[Path], object]) -> None:
    with open_folder() as base:
        outbox = base / "box"
        outbox.mkdir()
        with another_process(lambda: how(outbox), 65534) as other:
            claim(outbox)
            outbox.chmod(0o775)
            claim(outbox)
            os.chown(outbox, 0, 65534)
            assert holder_of(outbox) == other  # may write to it by its group
            os.chown(outbox, 65534, 0)
            assert holder_of(outbox) == other


def test_an_unreadable_lock_is_not_taken_for_no_agent(tmp_path: Path) -> None:
    from unit.other_user import without_capabilities

    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "lock").write_text("1\n")
    assert holder(tmp_path / "nowhere") is None

    def ask() -> None:
        (tmp_path / "state").chmod(0)
        with pytest.raises(JournalUnavailable, match="Permission denied"):
            holder(tmp_path / "state")

    without_capabilities(ask)


def test_where_nobody_can_be_told_and_nothing_locked_an_outbox_is_not_taken(
    outbox: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def not_told(*_: object) -> None:
        raise lock._NotTold

    folder = os.open(outbox, os.O_RDONLY)
    monkeypatch.setattr(lock, "_name_taken", not_told)
    held = OutboxClaim(folder, outbox)  # then the lock decides
    assert held.counts_everywhere
    held.release()
    monkeypatch.setattr(lock, "_folder_locked", lambda *_: None)
    with pytest.raises(AlreadyRunning):
        OutboxClaim(folder, outbox)
    monkeypatch.setattr(lock, "_name_taken", lambda *_: None)
    held = OutboxClaim(folder, outbox)
    assert not held.counts_everywhere
    held.release()
    held.release()
    os.close(folder)


def test_everybody_may_read_who_holds_a_state_directory_and_nobody_else_may_write_it(tmp_path: Path) -> None:
    umask = os.umask(0)
    try:
        with lock.locked(tmp_path):
            (file,) = tmp_path.iterdir()
            assert file.stat().st_mode & 0o7777 == 0o644
    finally:
        os.umask(umask)


def test_a_state_directory_is_made_with_the_folders_above_it(tmp_path: Path) -> None:
    folder = tmp_path / "not" / "there"
    with lock.locked(folder):
        assert folder.stat().st_mode & 0o777 == 0o700
