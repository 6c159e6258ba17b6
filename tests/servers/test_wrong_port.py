"""What answers is no SSH server, or nothing answers: the error says what was found there."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import pytest
from servers.ftp_scripted import ScriptedFTP
from servers.hostile import raw_peer
from servers.openssh import OpenSSH
from servers.pyftpdlib_server import Pyftpdlib

from iot.ftp.connection import Address
from iot.ftp.store import FTPStore
from iot.sftp.client import IoTSFTPClient, LinkLost
from iot.transfer.errors import ProtocolError

PIN = "SHA256:" + "A" * 43


def refusal(tmp_path: Path, host: str = "127.0.0.1", port: int = 22, **options: Any) -> str:
    options = {"attempts": 1, "host_key": PIN, "state_dir": tmp_path / "state", **options}
    with IoTSFTPClient(host, port, "me", "password", **options) as client, pytest.raises(LinkLost) as caught:
        client.connect()
    return str(caught.value)


def through(tmp_path: Path, command: str) -> str:
    config = tmp_path / "config"
    config.write_text(f"Host *\n  ProxyCommand {command}\n")
    return refusal(tmp_path, "box", ssh_config=str(config), link_deadline_s=2.0)


def test_a_proxy_command_that_fails_is_named_with_its_exit_code_and_last_words(tmp_path: Path) -> None:
    (tmp_path / "way").write_text("echo first >&2\necho 'no route to box' >&2\necho >&2\nexit 3\n")
    said = through(tmp_path, f"sh {tmp_path}/way --password hunter2 %h")
    assert said == "box: the ProxyCommand 'sh ...' ended with exit code 3: no route to box"


def test_secrets_in_front_of_a_proxy_command_are_not_shown(tmp_path: Path) -> None:
    said = through(tmp_path, "env TOKEN=hunter2 false hunter2")
    assert said == "box: the ProxyCommand 'env ...' ended with exit code 1"


def test_a_proxy_command_that_is_not_there_is_named(tmp_path: Path) -> None:
    said = through(tmp_path, "/nowhere/relay %h")
    assert said.startswith("box: the ProxyCommand '/nowhere/relay ...' ended with exit code 127: ")


def test_a_proxy_command_that_a_signal_ends_is_told_so(tmp_path: Path) -> None:
    assert through(tmp_path, "sh -c 'kill -9 $$'") == "box: the ProxyCommand 'sh ...' was ended by SIGKILL"


def test_the_last_words_of_a_proxy_command_are_bounded_and_safe_for_a_terminal(tmp_path: Path) -> None:
    (tmp_path / "way").write_text("import os\nos.write(2, b'\\x1b[31mred' + b'x' * 100_000)\nraise SystemExit(1)\n")
    said = through(tmp_path, f"{sys.executable} {tmp_path}/way")
    assert "\\x1b[31mred" in said
    assert "\x1b" not in said
    assert len(said) < 500


def test_a_proxy_command_through_which_nobody_answers_is_told_so(tmp_path: Path) -> None:
    said = through(tmp_path, "sleep 100")
    assert said == "box: the ProxyCommand 'sleep ...' runs, but no SSH server answers through it"


def test_a_proxy_command_that_complains_without_end_is_not_waited_for(tmp_path: Path) -> None:
    """Its standard error is read all the time: a full pipe would stop it."""
    (tmp_path / "way").write_text("import os\nfor _ in range(100): os.write(2, b'x' * 10_000)\nraise SystemExit(4)\n")
    began = time.monotonic()
    assert "ended with exit code 4" in through(tmp_path, f"{sys.executable} {tmp_path}/way")
    assert time.monotonic() - began < 10


def test_an_ftp_server_at_the_port_of_ssh_is_named(tmp_path: Path) -> None:
    with Pyftpdlib(tmp_path / "root", tls="") as server:
        said = refusal(tmp_path, server.host, server.port)
    assert "it begins with '220 pyftpdlib" in said
    assert "as an FTP server does; is this an SSH server's port?" in said


def test_a_greeting_that_is_no_version_is_shown_safely(tmp_path: Path) -> None:
    with raw_peer(lambda sock: (sock.sendall(b"go\x1b[2Jaway\r\n"), sock.recv(100))) as port:
        said = refusal(tmp_path, port=port)
    assert "it begins with 'go\\x1b[2Jaway'; is this an SSH server's port?" in said


def test_an_ssh_server_at_the_port_of_ftp_is_named(sshd: OpenSSH) -> None:
    with pytest.raises(ProtocolError, match=r"it is an SSH server \(SSH-2.0-OpenSSH.*\), which offers SFTP, not FTP"):
        FTPStore(Address(sshd.host, sshd.port, "device", "secret", None, timeout_s=5.0)).connect()


def test_what_is_no_reply_is_not_waited_for() -> None:
    with ScriptedFTP(welcome="HTTP/1.1 400 Bad Request") as fake:
        store = FTPStore(Address(fake.host, fake.port, "device", "secret", None, timeout_s=60.0))
        with pytest.raises(ProtocolError, match=r"HTTP/1\.1 400 Bad Request is no reply"):
            store.connect()
