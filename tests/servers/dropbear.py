"""dropbear, the SSH server of small systems, with OpenSSH's sftp-server behind it."""

from __future__ import annotations

import subprocess
from pathlib import Path

from servers.base import ProcessServer, program
from servers.openssh import open_the_way, throwaway_user

__all__ = ["Dropbear"]


class Dropbear(ProcessServer):
    """Logs in a throw-away system user with a shell, which dropbear needs to start the subsystem. Needs root."""

    name = "dropbear"

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.home = str(root)
        self._program = program("dropbear", "dropbear-bin")
        self._convert = program("dropbearconvert", "dropbear-bin")
        program("sftp-server", "openssh-sftp-server")
        self.user, self.password = throwaway_user("/bin/sh")
        open_the_way(root, self.user)

    def command(self) -> list[str]:
        keys = [word for key in self.keys() for word in ("-r", self._converted(key))]
        place = ["-p", f"{self.host}:{self.port}", "-P", str(self.state / "pid")]
        return [self._program, "-F", "-E", "-m", *place, *keys]

    def _converted(self, key: Path) -> str:
        path = self.state / key.name
        if not path.exists():
            command = [self._convert, "openssh", "dropbear", str(key), str(path)]
            subprocess.run(command, check=True, capture_output=True, timeout=60)
        return str(path)
