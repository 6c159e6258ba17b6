"""Every server of the zoo starts, lets a plain SFTP client in, dies and comes back."""

from __future__ import annotations

import paramiko
import pytest
from servers.base import Server
from servers.plain import plain_client
from servers.zoo import ZOO

LOST = (OSError, EOFError, paramiko.SSHException)


def test_what_is_written_is_there_under_its_path(any_server: Server) -> None:
    with plain_client(any_server) as sftp:
        sftp.mkdir(any_server.path("starts"))
        with sftp.open(any_server.path("starts/file"), "wb") as file:
            file.write(b"content")
        assert sftp.stat(any_server.path("starts/file")).st_size == 7
    assert any_server.content("starts/file") == b"content"
    assert any_server.content("starts/none") is None
    assert "starts/file" in any_server.names()


def test_a_cut_session_fails_and_a_killed_server_comes_back_with_its_files(any_server: Server) -> None:
    with plain_client(any_server) as sftp:
        any_server.drop_connections()
        with pytest.raises(LOST):
            sftp.listdir(any_server.path())
    with plain_client(any_server) as sftp, sftp.open(any_server.path("survives"), "wb") as file:
        file.write(b"still here")
    any_server.kill()
    any_server.start()
    with plain_client(any_server) as sftp:
        assert sftp.stat(any_server.path("survives")).st_size == 10


@pytest.mark.parametrize("any_server", [kind for kind in ZOO if kind != "openssh"], indirect=True)
def test_a_wrong_password_is_refused(any_server: Server) -> None:
    """OpenSSH of the zoo lets in by key; test_openssh_starts.py has its password login."""
    assert any_server.password
    with pytest.raises(paramiko.AuthenticationException), plain_client(any_server, "wrong"):
        pass  # never reached
