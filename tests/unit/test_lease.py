"""Whether somebody has a file open for writing: what the kernel answers, and that asking harms nobody."""

from __future__ import annotations

import mmap
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from unit.other_user import in_child, without_capabilities

from iot.sftp.client import Fingerprint, is_gone
from iot.spooler.outbox.lease import Leases, Writer

OTHER = 65534


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[int]:
    (tmp_path / "f").write_bytes(b"content")
    tmp_path.chmod(0o755)
    descriptor = os.open(tmp_path, os.O_RDONLY)
    yield descriptor
    os.close(descriptor)


def test_a_closed_file_is_known_to_be_complete_in_the_version_that_was_asked_for(folder: int, tmp_path: Path) -> None:
    leases = Leases(folder)
    assert leases.ask(folder, b"f") == (Writer.NONE, Fingerprint.of(os.stat(tmp_path / "f")))
    assert leases.completeness.known


def test_a_file_open_for_writing_is_known_to_be_so_and_one_open_for_reading_is_not(folder: int, tmp_path: Path) -> None:
    leases = Leases(folder)
    with open(tmp_path / "f", "rb"):
        assert leases.ask(folder, b"f").writer is Writer.NONE
    with open(tmp_path / "f", "ab"):
        assert leases.ask(folder, b"f").writer is Writer.SOME
    assert leases.ask(folder, b"f").writer is Writer.NONE


def test_a_shared_mapping_is_a_writer_though_its_descriptor_was_closed(folder: int, tmp_path: Path) -> None:
    with open(tmp_path / "f", "r+b") as file:
        mapping = mmap.mmap(file.fileno(), 0)
    assert Leases(folder).ask(folder, b"f").writer is Writer.SOME
    mapping.close()
    assert Leases(folder).ask(folder, b"f").writer is Writer.NONE


def test_a_writer_of_another_process_is_seen_as_long_as_it_lives(folder: int, tmp_path: Path) -> None:
    script = "import sys; file = open(sys.argv[1], 'ab'); print(flush=True); sys.stdin.read()"
    command = [sys.executable, "-c", script, str(tmp_path / "f")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as writer:
        assert writer.stdout is not None
        writer.stdout.readline()
        assert Leases(folder).ask(folder, b"f").writer is Writer.SOME
        writer.kill()
        writer.wait(10)
    assert Leases(folder).ask(folder, b"f").writer is Writer.NONE


def test_what_is_not_there_or_no_file_is_not_asked_for(folder: int, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("f")
    (tmp_path / "sub").mkdir()
    os.mkfifo(tmp_path / "fifo")
    leases = Leases(folder)
    for name in (b"nothing", b"link", b"f/below"):
        with pytest.raises(OSError, match=r".") as caught:
            leases.ask(folder, name)
        assert is_gone(caught.value)
    for name in (b"sub", b"fifo"):
        assert leases.ask(folder, name).fingerprint is None


def test_no_descriptor_left_is_an_error_and_no_answer(folder: int) -> None:
    def ask() -> None:
        leases = Leases(folder)
        resource.setrlimit(resource.RLIMIT_NOFILE, (folder, folder + 100))
        with pytest.raises(OSError, match="Too many open files") as caught:
            leases.ask(folder, b"f")
        assert not is_gone(caught.value)

    in_child(ask)


@pytest.mark.needs("root")
@pytest.mark.parametrize("mode", [0o644, 0o600])
def test_of_another_users_file_nothing_is_known_without_the_capability(folder: int, tmp_path: Path, mode: int) -> None:
    (tmp_path / "f").chmod(mode)
    os.chown(tmp_path / "f", OTHER, OTHER)

    def ask() -> None:
        leases = Leases(folder)
        assert leases.ask(folder, b"f") == (Writer.UNKNOWN, Fingerprint.of(os.stat(b"f", dir_fd=folder)))
        assert str(leases.completeness).startswith("guessed (files of other users") or mode == 0o600

    without_capabilities(ask)


def test_an_ordinary_user_knows_it_of_his_own_files(folder: int) -> None:
    def ask() -> None:
        leases = Leases(folder)
        with open(b"f", "ab", opener=lambda name, flags: os.open(name, flags, dir_fd=folder)):
            assert leases.ask(folder, b"f").writer is Writer.SOME
        assert leases.ask(folder, b"f").writer is Writer.NONE

    without_capabilities(ask)


HOLD = """
import fcntl, os, sys, time
from iot.spooler.outbox import lease
folder = os.open(sys.argv[1], os.O_RDONLY)
leases = lease.Leases(folder)
real = fcntl.fcntl
def slow(file, command, value=0):
    if command == fcntl.F_SETLEASE and value == fcntl.F_UNLCK:
        print("held", flush=True)
        sys.stdin.readline()  # the writer has come, and waits
    return real(file, command, value)
fcntl.fcntl = slow
print(leases.ask(folder, b"f").writer.name, flush=True)
"""


def test_a_writer_who_comes_while_it_is_asked_ends_nobody_and_waits_no_longer_than_the_question(tmp_path: Path) -> None:
    """The signal of a lease that is to be broken ends a process that does nothing about it."""
    (tmp_path / "f").write_bytes(b"content")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", HOLD, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment, text=True) as asking:
        assert asking.stdout is not None
        assert asking.stdin is not None
        assert asking.stdout.readline() == "held\n"
        with pytest.raises(BlockingIOError):
            os.close(os.open(tmp_path / "f", os.O_WRONLY | os.O_NONBLOCK))
        time.sleep(0.1)
        assert asking.poll() is None, f"ended by signal {-asking.poll()}"
        start = time.monotonic()
        asking.stdin.write("\n")
        asking.stdin.flush()
        with open(tmp_path / "f", "ab") as late:
            late.write(b"late")
        assert time.monotonic() - start < 10
        assert "NONE" in asking.stdout.read()
    assert asking.returncode == 0
    assert signal.getsignal(signal.SIGIO) is signal.SIG_DFL
