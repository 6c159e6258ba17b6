"""The real sshd of the tests is what it says: both logins work, it dies and comes back on its port."""

from __future__ import annotations

import subprocess
from pathlib import Path

import paramiko
import pytest
from servers.openssh import OpenSSH
from servers.plain import plain_client


def test_key_login_reads_and_writes_the_folder(sshd: OpenSSH) -> None:
    with plain_client(sshd) as sftp:
        with sftp.open(sshd.path("a"), "w") as file:
            file.write(b"hello")
        assert sshd.content("a") == b"hello"
        assert sshd.names() == ["a"]


def test_password_login_is_a_user_without_roots_rights(sshd_with_password: OpenSSH) -> None:
    server = sshd_with_password
    with plain_client(server) as sftp:
        sftp.mkdir(server.path("locked"), 0o500)
        with pytest.raises(PermissionError):
            sftp.open(server.path("locked/file"), "w")


def test_a_wrong_password_is_refused(sshd_with_password: OpenSSH) -> None:
    with pytest.raises(paramiko.AuthenticationException), plain_client(sshd_with_password, "wrong"):
        pass  # never reached


def test_killed_server_cuts_its_sessions_and_comes_back_on_the_same_port(sshd: OpenSSH) -> None:
    with plain_client(sshd) as sftp:
        assert sftp.listdir(sshd.home) == []
        sshd.kill()
        with pytest.raises((EOFError, OSError, paramiko.SSHException)):
            sftp.listdir(sshd.home)
    port = sshd.port
    sshd.start()
    assert sshd.port == port
    with plain_client(sshd) as sftp:
        sshd.drop_connections()
        with pytest.raises((EOFError, OSError, paramiko.SSHException)):
            sftp.listdir(sshd.home)
    with plain_client(sshd) as sftp:
        assert sftp.listdir(sshd.home) == []


def test_the_external_sftp_server_can_be_chosen(tmp_path: Path) -> None:
    with OpenSSH(tmp_path / "root", subsystem="sftp-server -e") as server, plain_client(server) as sftp:
        assert sftp.listdir(server.home) == []


def test_the_openssh_client_gets_in(sshd: OpenSSH) -> None:
    options = [f"UserKnownHostsFile={sshd.known_hosts}", "StrictHostKeyChecking=yes", f"IdentityFile={sshd.key_file}"]
    command = ["sftp", "-b", "-", "-P", str(sshd.port), *(word for o in options for word in ("-o", o))]
    command += ["-F", "none", f"{sshd.user}@{sshd.host}"]
    done = subprocess.run(command, input=f"ls {sshd.home}\n", text=True, capture_output=True, timeout=30, check=False)
    assert done.returncode == 0, done.stderr
