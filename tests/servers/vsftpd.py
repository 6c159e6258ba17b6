"""vsftpd: no MLST, no hash, and a data connection must resume the TLS session of the control connection."""

from __future__ import annotations

import pwd
import shutil
from pathlib import Path

from servers.ftp_base import FTPServer, let_in, needs_root, unpacked

__all__ = ["Vsftpd"]

CONFIGURATION = """\
listen=YES
background=NO
listen_address={host}
listen_port={port}
ftp_username={account}
anon_root={above}
secure_email_list_enable=YES
email_password_file={state}/passwords
anonymous_enable=YES
local_enable=NO
write_enable=YES
anon_upload_enable=YES
anon_mkdir_write_enable=YES
anon_other_write_enable=YES
anon_world_readable_only=NO
anon_umask=022
allow_writeable_chroot=YES
secure_chroot_dir={state}/empty
seccomp_sandbox=NO
isolate=NO
isolate_network=NO
pasv_min_port={low}
pasv_max_port={high}
connect_from_port_20=NO
ftp_data_port={data}
xferlog_enable=NO
use_localtime=NO
data_connection_timeout=30
{tls}
"""
TLS = """\
ssl_enable=YES
allow_anon_ssl=YES
force_anon_logins_ssl=YES
force_anon_data_ssl=YES
require_ssl_reuse=YES
ssl_ciphers=HIGH
rsa_cert_file={certificate}
rsa_private_key_file={certificate}
implicit_ssl={implicit}
"""
ACCOUNT = "daemon"
"""Its home has to be there, though it is not what is served."""


class Vsftpd(FTPServer):
    """It checks passwords of the system's users by PAM alone; "anonymous" may have a list of its own, but must not be
    able to write in what it is shut in: that is the folder above."""

    name = "vsftpd"
    user = "anonymous"
    facts = False

    def __init__(self, root: Path, tls: str = "explicit") -> None:
        needs_root(self.name)
        super().__init__(root, tls)
        self.home = f"/{root.name}"
        self._program = unpacked("vsftpd", "vsftpd")

    def command(self) -> list[str]:
        account = pwd.getpwnam(ACCOUNT)
        shutil.chown(self.root, account.pw_uid, account.pw_gid)
        let_in(self.root)
        (self.state / "empty").mkdir(exist_ok=True)
        self.state.chmod(0o755)
        (self.state / "passwords").write_text(f"{self.password}\n")
        tls = TLS.format(certificate=self.certificate, implicit="YES" if self.tls == "implicit" else "NO")
        configuration = self.state / "vsftpd.conf"
        configuration.write_text(
            CONFIGURATION.format(
                host=self.host,
                port=self.port,
                account=ACCOUNT,
                above=self.root.parent,
                state=self.state,
                low=self.passive_ports[0],
                high=self.passive_ports[1],
                data=self.passive_ports[0] - 1,
                tls=tls if self.tls else "",
            )
        )
        return [self._program, str(configuration)]
