"""One agent for an outbox, whatever its state directory: real processes, real deaths."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from iot.sftp.client import JournalUnavailable
from iot.spooler.outbox.scan import Outbox, OutboxTaken
from iot.spooler.state.lock import AlreadyRunning, OutboxClaim, holder

START_S = 60


def configuration(tmp_path: Path, name: str, outbox: Path) -> Path:
    path = tmp_path / f"{name}.toml"
    path.write_text(
        f'state_dir = "{tmp_path / name}"\n[server]\nhost = "127.0.0.1"\nport = 1\n'
        f'[[outbox]]\npath = "{outbox}"\ndestination = "/up"\n'
    )
    return path


def agent(config: Path) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-m", "iot.spooler", "run", "--config", str(config)]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment)


def wait_until_claimed(outbox: Path, by: subprocess.Popen[str]) -> None:
    end = time.monotonic() + START_S
    while time.monotonic() < end:
        assert by.poll() is None, by.stderr and by.stderr.read()
        if holder_of(outbox) == by.pid:
            return
        time.sleep(0.1)
    raise AssertionError("the agent does not claim its outbox")


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


def test_a_claim_is_no_open_file_and_needs_no_right_to_write(outbox: Path) -> None:
    box = Outbox(outbox, wanted=lambda _: True, clock=lambda: 0.0)
    os.close(box.open())
    assert not [link for link in map(os.path.realpath, Path("/proc/self/fd").iterdir()) if link == str(outbox)]
    assert os.listdir(outbox) == []
    box.release()


@pytest.mark.needs("root")
def test_a_user_with_no_say_in_the_outbox_cannot_keep_its_agent_out(outbox: Path) -> None:
    status = outbox.stat()
    name = f"\0iot-spooler/outbox/{status.st_dev}/{status.st_ino}"
    ready_out, ready_in = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.setuid(65534)
        taken = socket.socket(socket.AF_UNIX)
        taken.bind(name)
        taken.listen(1)
        os.write(ready_in, b"!")
        signal.pause()
    try:
        os.read(ready_out, 1)
        claim(outbox)
        os.chown(outbox, 65534, 65534)
        with pytest.raises(AlreadyRunning):
            claim(outbox)
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        os.close(ready_out)
        os.close(ready_in)


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
