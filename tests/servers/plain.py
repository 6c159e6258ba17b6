"""paramiko's own client with strict host keys: what the tests of the servers themselves connect with."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import paramiko
from servers.base import Server

__all__ = ["plain_client"]


@contextmanager
def plain_client(server: Server, password: str | None = None) -> Iterator[paramiko.SFTPClient]:
    """password: another one than the server's."""
    with paramiko.SSHClient() as ssh:
        ssh.load_host_keys(str(server.known_hosts))
        ssh.connect(
            server.host,
            server.port,
            server.user,
            password or server.password,
            key_filename=str(server.key_file) if server.key_file else None,
            allow_agent=False,
            look_for_keys=False,
            timeout=10,
        )
        with ssh.open_sftp() as sftp:
            yield sftp
