"""Every server that one contract must hold for.

    @pytest.mark.parametrize("kind", ZOO)
    def test_something(kind, tmp_path):
        with start(kind, tmp_path / "root") as server: ...

or, sharing one running server of each kind between tests, the fixtures `any_server` and `any_remote` of conftest.py.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

from servers.asyncssh_server import AsyncSSH
from servers.base import Server
from servers.dropbear import Dropbear
from servers.embedded import Embedded
from servers.folder import Folder
from servers.ftp_base import FTPServer
from servers.openssh import OpenSSH
from servers.proftpd import ProFTPD
from servers.proftpd_ftp import ProFTPDFTP
from servers.pureftpd import PureFTPd
from servers.pyftpdlib_server import Pyftpdlib
from servers.rclone import Rclone
from servers.s3 import S3Gateway
from servers.ssh2 import Ssh2
from servers.vsftpd import Vsftpd

__all__ = ["FTP", "REMOTES", "ZOO", "start"]

ZOO: dict[str, Callable[[Path], Server]] = {
    "openssh": OpenSSH,
    "proftpd": ProFTPD,
    "rclone": Rclone,
    "asyncssh": AsyncSSH,
    "s3": S3Gateway,
    "s3-cached": partial(S3Gateway, cache="writes"),
    "embedded": Embedded,
    "ssh2": Ssh2,
    "dropbear": Dropbear,
}

"""SFTP servers."""
FTP: dict[str, Callable[[Path], FTPServer]] = {
    "vsftpd": Vsftpd,
    "pure-ftpd": PureFTPd,
    "proftpd-ftp": ProFTPDFTP,
    "pyftpdlib": Pyftpdlib,
}
"""FTP servers, with TLS."""
REMOTES: dict[str, Callable[[Path], Server]] = {**ZOO, **FTP, "folder": Folder}
"""All that one contract must hold for, whatever the protocol."""


def start(kind: str, root: Path) -> Server:
    """The server of this kind, to be used in a `with`."""
    return REMOTES[kind](root)
