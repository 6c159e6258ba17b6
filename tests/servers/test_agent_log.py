"""A log may lose lines, deliveries may not: nobody reads the agent's standard error."""

from __future__ import annotations

import fcntl
import logging
import os
import re
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from iot.sftp.client import EmbeddedServer
from iot.spooler.process.logs import NonBlockingHandler

FILES = 100
PIPE_BYTES = 4096  # a pipe that is full after 25 lines tells with 100 files what one of 64 KiB does with 3,000
STOP_S = 5.0
PATIENCE_S = 120.0


@pytest.mark.timeout(600)
def test_when_nobody_reads_stderr_everything_is_delivered_and_sigterm_ends_the_agent(tmp_path: Path) -> None:
    (tmp_path / "remote").mkdir()
    (tmp_path / "box").mkdir()
    for number in range(FILES):
        (tmp_path / f"box/a-name-that-makes-a-long-line-of-the-log-{number}").write_bytes(b"x")
    with EmbeddedServer(tmp_path / "remote") as server:
        config = tmp_path / "spooler.toml"
        config.write_text(
            f'state_dir = "{tmp_path}/state"\n[server]\nhost = "{server.host}"\nport = {server.port}\n'
            f'user = "{server.user}"\npassword = "{server.password}"\nhost_key = "{server.host_key}"\n'
            f'[[outbox]]\npath = "{tmp_path}/box"\ndestination = "/up"\nsettle_s = 0\n'
        )
        reader, writer = os.pipe()
        fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
        agent = subprocess.Popen(
            [sys.executable, "-m", "iot.spooler", "run", "--config", str(config)],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
            stderr=writer,
        )
        os.close(writer)
        try:
            left, moved_at = FILES, time.monotonic()
            while left and time.monotonic() < moved_at + PATIENCE_S:
                assert agent.poll() is None
                time.sleep(0.2)
                if left != (left := len([*(tmp_path / "box").iterdir()])):
                    moved_at = time.monotonic()
            assert not left, f"{left} files are not delivered"
            assert len([*(tmp_path / "remote/up").iterdir()]) == FILES
            agent.send_signal(signal.SIGTERM)
            began = time.monotonic()
            assert agent.wait(60) == 0
            assert time.monotonic() - began < STOP_S
        finally:
            agent.kill()
            agent.wait()
            os.close(reader)


class Pipe:
    """A pipe with a log at its one end and a test at the other."""

    def __init__(self, queued_lines: int) -> None:
        self.reader, self._writer = os.pipe()
        self.handler = NonBlockingHandler(self._writer, queued_lines=queued_lines)
        self.log = logging.getLogger(f"pipe-{self.reader}-{id(self)}")
        self.log.setLevel("INFO")
        self.log.propagate = False
        self.log.addHandler(self.handler)

    def close(self) -> None:
        self.handler.close()
        os.close(self._writer)
        os.close(self.reader)

    def read(self) -> str:
        text = b""
        while select.select([self.reader], [], [], 1.0)[0]:
            text += os.read(self.reader, 65536)
        return text.decode()


def test_lines_that_are_lost_are_counted_in_one_line_when_the_log_flows_again() -> None:
    pipe = Pipe(queued_lines=50)
    try:
        for number in range(5000):
            pipe.log.info("%05d %s", number, "x" * 100)
        told = pipe.read()
        pipe.log.info("flows again")
        last = pipe.read()
        assert last.endswith("lines lost: nobody was reading\nflows again\n")
        told += last
        lost = [int(count) for count in re.findall(r"(\d+) log lines lost", told)]
        kept = re.findall(r"^(\d{5}) x{100}$", told, re.MULTILINE)
        assert len(kept) + sum(lost) == 5000
        assert kept == sorted(set(kept))
        assert len(lost) < len(kept)
    finally:
        pipe.close()


def test_lines_that_are_read_are_all_there_in_their_order() -> None:
    pipe = Pipe(queued_lines=10_000)
    try:
        for number in range(300):
            pipe.log.info("%d", number)
        assert pipe.read().splitlines() == [str(number) for number in range(300)]
    finally:
        pipe.close()


def test_the_end_of_the_process_waits_a_moment_for_the_last_lines_and_no_longer() -> None:
    pipe = Pipe(queued_lines=10_000)
    pipe.log.info("the last line")
    pipe.handler.close()
    assert pipe.read() == "the last line\n"
    pipe.close()
    stuck = Pipe(queued_lines=10_000)
    for _ in range(2000):
        stuck.log.info("x" * 100)
    began = time.monotonic()
    stuck.handler.close()
    assert time.monotonic() - began < 5
    os.read(stuck.reader, 1 << 20)
    os.read(stuck.reader, 1 << 20)
