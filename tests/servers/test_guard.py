"""The tests leave nothing behind when they are killed: no server, no mount."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest
from servers.base import alive, descendants, host_keys
from servers.guard import Guard
from servers.zoo import start

GONE_S = 10.0


@pytest.mark.parametrize("kind", ["dropbear", "pure-ftpd", "proftpd-ftp", "s3"])
def test_a_server_ends_with_the_process_that_started_it(kind: str, tmp_path: Path) -> None:
    """Also one that changes its name and its user, and one of two processes."""
    reader, writer = os.pipe()
    host_keys()  # made once, in this process
    server = start(kind, tmp_path / "root")  # and what is missing for it is told here
    child = os.fork()
    if child == 0:
        try:
            with server:
                os.write(writer, " ".join(map(str, descendants(os.getpid()))).encode())
                os.kill(os.getpid(), signal.SIGKILL)
        finally:
            os._exit(1)  # whatever happened: it must not go on as the tests
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    pids = [int(word) for word in os.read(reader, 1000).split()]
    os.close(reader)
    os.close(writer)
    end = time.monotonic() + GONE_S
    while any(alive(pid) for pid in pids) and time.monotonic() < end:
        time.sleep(0.01)
    assert [pid for pid in pids if alive(pid)] == []
    assert len(pids) >= 2, "there was no server, or no guard"


def test_a_guard_that_was_dismissed_leaves_its_process_alone() -> None:
    with subprocess.Popen(["sleep", "60"]) as process:
        before = descendants(os.getpid())
        with Guard(process.pid):
            assert len(descendants(os.getpid())) == len(before) + 1
        assert descendants(os.getpid()) == before
        assert process.poll() is None
        process.kill()


@pytest.mark.needs("mounts")
def test_the_mounts_of_the_tests_are_seen_by_nobody_else() -> None:
    """So they go with the last process of the tests."""
    assert os.readlink("/proc/self/ns/mnt") != os.readlink(f"/proc/{os.getppid()}/ns/mnt")
    mounts = Path("/proc/self/mountinfo").read_text().splitlines()
    shared = [mount.split()[4] for mount in mounts if " shared:" in mount]
    assert [place for place in shared if not place.startswith("/run/netns")] == []  # ip-netns makes that one, in here
