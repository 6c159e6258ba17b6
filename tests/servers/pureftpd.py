"""pure-ftpd: MLST, no hash."""

from __future__ import annotations

import pwd
import shutil
import subprocess
from pathlib import Path

from servers.ftp_base import FTPServer, let_in, needs_capabilities, needs_root, unpacked
from servers.proftpd import hashed

__all__ = ["PureFTPd"]

ACCOUNT = "nobody"
CAP_DAC_READ_SEARCH, CAP_SYS_NICE = 2, 23


class PureFTPd(FTPServer):
    name = "pure-ftpd"

    def __init__(self, root: Path, tls: str = "explicit") -> None:
        needs_root(self.name)
        needs_capabilities(self.name, CAP_DAC_READ_SEARCH, CAP_SYS_NICE)
        super().__init__(root, tls)
        self._program = unpacked("pure-ftpd", "pure-ftpd")
        self._users = unpacked("pure-pw", "pure-ftpd-common")

    def command(self) -> list[str]:
        account = pwd.getpwnam(ACCOUNT)
        shutil.chown(self.root, account.pw_uid, account.pw_gid)
        let_in(self.root)
        users, database = self.state / "users", self.state / "users.pdb"
        users.write_text(
            f"{self.user}:{hashed(self.password or '')}:{account.pw_uid}:{account.pw_gid}::{self.root}/./"
            + ":" * 12
            + "\n"
        )
        subprocess.run([self._users, "mkdb", str(database), "-f", str(users)], check=True, timeout=30)
        low, high = self.passive_ports
        options = ["-S", f"{self.host},{self.port}", "-l", f"puredb:{database}", "-E", "-H", "-u", "1"]
        options += ["-p", f"{low}:{high}", "-c", "50", "-C", "50", "-g", str(self.state / "pid"), "-U", "022:022"]
        if self.tls:
            options += ["-Y", "3", "-2", str(self.certificate)]
        return [self._program, *options]
