"""ProFTPD with mod_sftp: other extensions, other limits, the check-file hash."""

from __future__ import annotations

import ctypes
import os
import secrets
from pathlib import Path

from servers.base import ProcessServer, program

__all__ = ["MODULES", "ProFTPD", "hashed", "modules_to_load"]

MODULES = Path("/usr/lib/proftpd")
CONFIGURATION = """\
ModulePath {modules}
{load}
ServerName "tests"
ServerType standalone
DefaultAddress {host}
SocketBindTight on
UseIPv6 off
Port {port}
UseReverseDNS off
{account}
MaxInstances 100
RootLogin on
RequireValidShell off
AuthOrder mod_auth_file.c
AuthUserFile {state}/users
PidFile {state}/pid
ScoreboardFile {state}/scoreboard
SystemLog {state}/log
TransferLog none
WtmpLog off
DelayEngine off
AllowOverwrite on
AllowStoreRestart on
AllowRetrieveRestart on
TimeoutLogin 60
<IfModule mod_sftp.c>
  SFTPEngine on
  SFTPLog {state}/sftp.log
{host_keys}
  SFTPAuthMethods password
  SFTPOptions IgnoreSFTPUploadPerms
</IfModule>
"""


def modules_to_load(*protocol: str) -> str:
    """From 1.3.8c on, Debian has more of the modules as files of their own; before they were in the program itself."""
    names = ("mod_delay", "mod_xfer", "mod_ls", *protocol)
    return "\n".join(f"LoadModule {name}.c" for name in names if (MODULES / f"{name}.so").exists())


def hashed(password: str) -> str:
    """The password as crypt(3) of the system's own library stores it."""
    library = ctypes.CDLL("libcrypt.so.1")
    library.crypt.restype = ctypes.c_char_p
    value: bytes = library.crypt(password.encode(), b"$6$" + secrets.token_hex(8).encode())
    return value.decode()


class ProFTPD(ProcessServer):
    name = "proftpd"
    user = "device"

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.home = str(root)
        self.password = secrets.token_urlsafe(12)
        self._program = program("proftpd", "proftpd-core proftpd-mod-crypto")

    def command(self) -> list[str]:
        users = self.state / "users"
        users.touch(mode=0o600)
        users.write_text(
            f"{self.user}:{hashed(self.password or '')}:{os.geteuid()}:{os.getegid()}::{self.root}:/bin/false\n"
        )
        self.state.chmod(0o755)
        configuration = self.state / "proftpd.conf"
        configuration.write_text(
            CONFIGURATION.format(
                modules=MODULES,
                load=modules_to_load("mod_sftp"),
                host=self.host,
                port=self.port,
                state=self.state,
                account="User root\nGroup root" if os.geteuid() == 0 else "",
                host_keys="\n".join(f"  SFTPHostKey {key}" for key in self.keys()),
            )
        )
        return [self._program, "-n", "-q", "-c", str(configuration)]
