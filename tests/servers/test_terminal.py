"""What a server says reaches the terminal and the log as text, and never acts on either."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from servers.bad_input import clean_environment

HOSTILE = "\x1b]0;owned\x07\x1b[2J\x9b31m\u202e".encode()


@pytest.fixture
def hostile_port() -> Iterator[int]:
    """A server whose version string acts on terminals."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def greet() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return  # the listener was closed: the test is over
                with connection:
                    connection.sendall(b"SSH-" + HOSTILE + b"-x\r\n")
                    connection.recv(1000)

        thread = threading.Thread(target=greet, daemon=True)
        thread.start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)
    thread.join(5)


def told(words: list[str], folder: Path) -> bytes:
    environment = {**clean_environment(), "SFTP_PASSWORD": "x"}
    command = [sys.executable, "-m", *words]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, timeout=60, check=False)
    return done.stdout + done.stderr


def assert_harmless(output: bytes) -> None:
    assert b"owned" in output, output
    assert [char for char in output.decode() if not char.isprintable() and char != "\n"] == []


@pytest.mark.parametrize("more", [[], ["-v"]], ids=["plain", "verbose"])
def test_what_a_server_says_cannot_act_on_the_terminal(hostile_port: int, tmp_path: Path, more: list[str]) -> None:
    login = ["--host", "127.0.0.1", "--port", str(hostile_port), "--host-key", "SHA256:" + "x" * 43, "--attempts", "2"]
    login += ["--backoff-s", "0.01", "--state-dir", str(tmp_path / "state")]
    assert_harmless(told(["iot.sftp.client.cli.main", "ls", *more, *login], tmp_path))


def test_what_a_server_says_cannot_act_on_the_terminal_of_the_service(hostile_port: int, tmp_path: Path) -> None:
    (tmp_path / "box").mkdir()
    (tmp_path / "box" / "file").write_bytes(b"content")
    (tmp_path / "config").write_text(
        f'state_dir = "{tmp_path}/state"\nlog_level = "debug"\n[retry]\nbase_s = 0.01\ndrain_attempts = 1\n'
        f'[server]\nhost = "127.0.0.1"\nport = {hostile_port}\nhost_key = "SHA256:{"x" * 43}"\npassword = "x"\n'
        f'[[outbox]]\npath = "{tmp_path}/box"\ndestination = "/up"\nsettle_s = 0\n'
    )
    output = told(["iot.spooler", "run", "--drain", "--config", str(tmp_path / "config")], tmp_path)
    assert_harmless(output)
