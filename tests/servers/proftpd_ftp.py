"""ProFTPD as an FTP server: MLST, HASH and XSHA256; a data connection must resume the session of the control one."""

from __future__ import annotations

import os
from pathlib import Path

from servers.base import program
from servers.ftp_base import FTPServer
from servers.proftpd import MODULES, hashed, modules_to_load

__all__ = ["ProFTPDFTP"]

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
DefaultRoot {root}
RootLogin on
RequireValidShell off
AuthOrder mod_auth_file.c
AuthUserFile {state}/users
PidFile {state}/pid
ScoreboardFile {state}/scoreboard
SystemLog {state}/log
TransferLog none
WtmpLog off
PassivePorts {low} {high}
<IfModule mod_delay.c>
  DelayEngine off
</IfModule>
AllowOverwrite on
AllowStoreRestart on
AllowRetrieveRestart on
TimeoutLogin 60
DigestEngine on
{tls}
"""
TLS = """\
TLSEngine on
TLSLog {state}/tls.log
TLSRSACertificateFile {certificate}
TLSRSACertificateKeyFile {certificate}
TLSRequired on
TLSOptions {options}
"""


class ProFTPDFTP(FTPServer):
    name = "proftpd-ftp"
    hashes = True

    def __init__(self, root: Path, tls: str = "explicit") -> None:
        super().__init__(root, tls)
        self._program = program("proftpd", "proftpd-core proftpd-mod-crypto")

    def command(self) -> list[str]:
        users = self.state / "users"
        users.touch(mode=0o600)
        users.write_text(
            f"{self.user}:{hashed(self.password or '')}:{os.geteuid()}:{os.getegid()}::{self.root}:/bin/false\n"
        )
        self.state.chmod(0o755)
        options = "UseImplicitSSL" if self.tls == "implicit" else "NoEmptyFragments"
        tls = TLS.format(state=self.state, certificate=self.certificate, options=options)
        configuration = self.state / "proftpd.conf"
        configuration.write_text(
            CONFIGURATION.format(
                modules=MODULES,
                load=modules_to_load("mod_tls", "mod_digest"),
                host=self.host,
                port=self.port,
                root=self.root,
                state=self.state,
                low=self.passive_ports[0],
                high=self.passive_ports[1],
                account="User root\nGroup root" if os.geteuid() == 0 else "",
                tls=tls if self.tls else "",
            )
        )
        return [self._program, "-n", "-q", "-c", str(configuration)]
