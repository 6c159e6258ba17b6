"""`iot-sftp` follows the user's OpenSSH configuration by itself: real servers, a real agent, a home of its own."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from servers.base import client_key
from servers.openssh import OpenSSH
from servers.shell import Shell, on_a_terminal

RELAY = """
import socket, sys, threading, os
sock = socket.create_connection((sys.argv[1], int(sys.argv[2])))
def up():
    while data := os.read(0, 65536): sock.sendall(data)
threading.Thread(target=up, daemon=True).start()
while data := sock.recv(65536): os.write(1, data)
"""


@pytest.fixture
def home(tmp_path: Path) -> Path:
    folder = tmp_path / "home"
    (folder / ".ssh").mkdir(mode=0o700, parents=True)
    return folder


@pytest.fixture
def gate(tmp_path: Path) -> Iterator[OpenSSH]:
    with OpenSSH(tmp_path / "gate", keys_name="other") as server:
        yield server


@pytest.fixture
def shell(sshd: OpenSSH, home: Path) -> Shell:
    """Nothing is set but what the configuration says."""
    shell = Shell(sshd, home)
    (home / "f").write_bytes(b"content")
    for name in (
        "SFTP_HOST",
        "SFTP_PORT",
        "SFTP_USER",
        "SFTP_KEY",
        "SFTP_KNOWN_HOSTS",
        "SFTP_SSH_CONFIG",
        "SSH_AUTH_SOCK",
    ):
        shell.environment.pop(name, None)
    shell.environment["HOME"] = str(home)
    known(home, sshd)
    return shell


def known(home: Path, *servers: OpenSSH) -> None:
    (home / ".ssh/known_hosts").write_text("".join(server.known_hosts.read_text() for server in servers))


def configure(home: Path, text: str) -> None:
    path = home / ".ssh/config"
    path.write_text(text)
    path.chmod(0o600)


def block(alias: str, server: OpenSSH, more: str = "") -> str:
    return f"""Host {alias}
    HostName {server.host}
    Port {server.port}
    User {server.user}
    IdentityFile {server.key_file}
    {more}
"""


def test_an_alias_is_enough(shell: Shell, sshd: OpenSSH, home: Path) -> None:
    configure(home, block("box", sshd, "BindAddress 127.0.0.1"))
    done = shell("put", "f", f"box:{sshd.path('f')}")
    assert done.returncode == 0, done.stderr
    assert sshd.content("f") == b"content"
    done = shell("ls", "-H", "box", "--ssh-config", "none", "--connect-timeout-s", "1", "--attempts", "1")
    assert done.returncode in (69, 78)  # the name is not found, or is, and there is no key


def test_hosts_are_reached_through_others(shell: Shell, sshd: OpenSSH, gate: OpenSSH, home: Path) -> None:
    known(home, sshd, gate)
    configure(
        home, block("gate", gate) + block("box", sshd, "ProxyJump gate") + block("far", sshd, "ProxyJump gate,gate")
    )
    content = os.urandom(5_000_000)
    (home / "big").write_bytes(content)
    for alias in ("box", "far"):
        done = shell("put", "big", f"{alias}:{sshd.path(alias)}")
        assert done.returncode == 0, done.stderr
        assert sshd.content(alias) == content
        assert shell("get", f"{alias}:{sshd.path(alias)}", "back").returncode == 0
        assert (home / "back").read_bytes() == content
    assert gate.names() == []


def test_the_host_key_of_a_jump_host_is_checked_too(shell: Shell, sshd: OpenSSH, gate: OpenSSH, home: Path) -> None:
    configure(home, block("gate", gate) + block("box", sshd, "ProxyJump gate"))
    done = shell("exists", "box:/", "--attempts", "1")
    assert done.returncode == 77
    assert f"port {gate.port} is not in".encode() in done.stderr


def test_a_proxy_command_is_the_connection(shell: Shell, sshd: OpenSSH, home: Path) -> None:
    (home / "relay.py").write_text(RELAY)
    configure(home, block("box", sshd, f"ProxyCommand {sys.executable} {home}/relay.py %h %p"))
    done = shell("put", "f", f"box:{sshd.path('f')}")
    assert done.returncode == 0, done.stderr
    assert sshd.content("f") == b"content"
    configure(home, block("box", sshd, "ProxyCommand exit 1"))
    assert shell("exists", "box:/", "--attempts", "1").returncode == 69


def test_the_default_identities_and_the_agent_are_tried_by_themselves(shell: Shell, sshd: OpenSSH, home: Path) -> None:
    word = f"sftp://{sshd.user}@{sshd.host}:{sshd.port}/"
    assert shell("exists", word).returncode == 78
    agent = subprocess.run(["ssh-agent", "-s"], capture_output=True, text=True, check=True).stdout
    address, pid = (agent.split(f"{name}=")[1].split(";")[0] for name in ("SSH_AUTH_SOCK", "SSH_AGENT_PID"))
    try:
        environment = {**os.environ, "SSH_AUTH_SOCK": address}
        subprocess.run(["ssh-add", "-q", str(client_key())], env=environment, check=True)
        done = shell("exists", word, SSH_AUTH_SOCK=address)
        assert done.returncode == 0, done.stderr
    finally:
        os.kill(int(pid), 15)
    (home / ".ssh/id_ed25519").write_bytes(Path(client_key()).read_bytes())
    (home / ".ssh/id_ed25519").chmod(0o600)
    done = shell("exists", word)
    assert done.returncode == 0, done.stderr


def test_with_nothing_to_log_in_with_all_that_was_looked_at_is_told(shell: Shell, sshd: OpenSSH, home: Path) -> None:
    word = f"sftp://{sshd.user}@{sshd.host}:{sshd.port}/"
    encrypted = home / ".ssh/id_ecdsa"
    subprocess.run(["ssh-keygen", "-q", "-t", "ecdsa", "-N", "secret", "-f", str(encrypted)], check=True, timeout=30)
    said = shell("exists", word).stderr.decode()
    assert "nothing to log in with (ssh-agent: SSH_AUTH_SOCK is not set;" in said
    assert f"; {home}/.ssh/id_ed25519 does not exist;" in said
    assert f"; {encrypted} is encrypted: give its --key-passphrase-file;" in said
    assert f"; {home}/.ssh/id_rsa does not exist)" in said
    assert "no password is asked for, since standard input is no terminal" in said
    said = shell("exists", word, SSH_AUTH_SOCK=str(home / "nobody")).stderr.decode()
    assert "(ssh-agent: none answers; " in said


def test_an_identity_that_others_may_read_is_passed_over_as_by_ssh(shell: Shell, sshd: OpenSSH, home: Path) -> None:
    identity = home / ".ssh/id_ed25519"
    identity.write_bytes(Path(client_key()).read_bytes())
    identity.chmod(0o644)
    said = shell("exists", f"sftp://{sshd.user}@{sshd.host}:{sshd.port}/").stderr.decode()
    assert f"{identity} may be read by others (mode 0644): chmod 600 {identity}" in said
    assert "nothing to log in with" in said


def answer_once(listener: socket.socket, answer: bytes) -> None:
    with listener.accept()[0] as caller:
        caller.recv(100)
        caller.sendall(answer)
        caller.recv(100)


def test_an_agent_without_keys_is_told_and_a_broken_one_passed_over(shell: Shell, sshd: OpenSSH, home: Path) -> None:
    word = f"sftp://{sshd.user}@{sshd.host}:{sshd.port}/"
    for answer, said in ((b"\0\0\0\x05\x0c\0\0\0\0", "it holds no key"), (b"\0\0\0\x01\x05", "could not get keys")):
        with socket.socket(socket.AF_UNIX) as listener:
            place = home / f"agent-{len(answer)}"
            listener.bind(str(place))
            listener.listen()
            threading.Thread(target=answer_once, args=(listener, answer), daemon=True).start()
            done = shell("exists", word, SSH_AUTH_SOCK=str(place))
        assert done.returncode == 78
        assert f"ssh-agent: {said}" in done.stderr.decode()


def test_a_keyword_that_cannot_be_followed_is_named_with_the_way_out(shell: Shell, sshd: OpenSSH, home: Path) -> None:
    configure(home, block("box", sshd, "HostKeyAlias other"))
    done = shell("exists", "box:/")
    assert done.returncode == 78
    assert b"hostkeyalias" in done.stderr
    assert b"--ssh-config none" in done.stderr


def test_a_password_is_asked_for_when_the_keys_do_not_do(sshd_with_password: OpenSSH, shell: Shell, home: Path) -> None:
    server = sshd_with_password
    known(home, server)
    words = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(home / ".ssh/id_ed25519")]
    subprocess.run(words, check=True)  # not one that the server knows
    word = f"sftp://{server.user}@{server.host}:{server.port}/"
    said = on_a_terminal(shell, "exists", word, typed=f"{server.password}\n".encode(), prompt=b"password for")
    assert f"password for {server.user} at {server.host}".encode() in said
