"""sshd with PAM and two questions, password and one-time code, to a throw-away user: the usual second factor."""

from __future__ import annotations

import atexit
import base64
import os
import subprocess
from pathlib import Path

from conditions import missing
from servers.base import client_key, program
from servers.openssh import OpenSSH, knows

__all__ = ["SecondFactor"]

MODULE = "pam_oath.so"
STACK = """\
auth required pam_unix.so
auth required pam_oath.so usersfile={users} window=20 digits=6
account required pam_permit.so
session required pam_permit.so
"""


class SecondFactor(OpenSSH):
    """methods: AuthenticationMethods of sshd_config.

    The PAM service has a name of its own, and its file is there for the time of the test only. sshd is told the name
    (9.8 and later), or takes the one that its program is called by.
    """

    name = "second-factor"

    def __init__(self, root: Path, methods: str = "publickey,keyboard-interactive") -> None:
        more = ["UsePAM yes", "KbdInteractiveAuthentication yes", f"AuthenticationMethods {methods}", "MaxAuthTries 20"]
        super().__init__(root, password=True, more=more)
        if not any(Path(folder).glob(f"**/security/{MODULE}") for folder in ("/lib", "/usr/lib")):
            missing(f"{MODULE} is missing: apt-get install libpam-oath")
        self._oathtool = program("oathtool", "oathtool")
        self.key_file = client_key()
        self.secret = os.urandom(20).hex()
        self.service = Path(f"/etc/pam.d/{self.state.name}")  # each server has its own
        line = f"PAMServiceName {self.service.name}"
        if knows(self._program, line):
            self.more = (*self.more, line)
        else:
            self._program = str(self._named_program())

    def _named_program(self) -> Path:
        link = self.state / self.service.name
        link.symlink_to(self._program)
        return link

    @property
    def code_command(self) -> list[str]:
        """A TOTP generator, as a device has it."""
        return [self._oathtool, "--totp", "-b", self.base32]

    @property
    def base32(self) -> str:
        return base64.b32encode(bytes.fromhex(self.secret)).decode()

    def code(self) -> str:
        done = subprocess.run(self.code_command, check=True, capture_output=True, text=True, timeout=30)
        return done.stdout.strip()

    def start(self) -> None:
        users = self.state / "oath"
        users.write_text(f"HOTP/T30/6 {self.user} - {self.secret}\n")
        users.chmod(0o600)
        atexit.register(self.service.unlink, missing_ok=True)
        self.service.write_text(STACK.format(users=users))
        super().start()

    def stop(self) -> None:
        super().stop()
        self.service.unlink(missing_ok=True)

    def _configuration(self) -> str:
        """The lines that OpenSSH sets already come first, and the first one counts."""
        lines = super()._configuration().splitlines()
        gone = ("UsePAM no", "KbdInteractiveAuthentication no")
        return "\n".join(line for line in lines if line not in gone) + "\n"
