"""The real OpenSSH server, as an ordinary process on loopback with its own configuration, keys and login."""

from __future__ import annotations

import atexit
import contextlib
import getpass
import os
import pwd
import secrets
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

from conditions import missing
from servers.base import ProcessServer, client_key, host_keys, program

__all__ = ["OpenSSH", "knows", "open_the_way", "throwaway_user"]

USER_PREFIX = "iotsftp-"
SHELL_USER_PREFIX = "iotsftpsh-"
CONFIGURATION = """\
ListenAddress {host}:{port}
{host_keys}
AuthorizedKeysFile {authorized_keys}
PubkeyAuthentication yes
PasswordAuthentication {passwords}
KbdInteractiveAuthentication no
PermitRootLogin yes
StrictModes no
UsePAM no
UseDNS no
PidFile none
PrintMotd no
LogLevel VERBOSE
MaxStartups 200
MaxSessions 100
Subsystem sftp {subsystem}
{more}
"""


def _remove_users_of_dead_runs() -> None:
    """A run that was killed left its user behind; the name ends with the pid of that run."""
    for entry in pwd.getpwall():
        name, _, pid = entry.pw_name.partition("-")
        if f"{name}-" in (USER_PREFIX, SHELL_USER_PREFIX) and pid.isdigit() and not Path(f"/proc/{pid}").exists():
            subprocess.run(["userdel", entry.pw_name], check=False, capture_output=True, timeout=60)


@lru_cache(maxsize=4)
def throwaway_user(shell: str = "") -> tuple[str, str]:
    """A system user for this test run with a random password, removed at its end. Needs root.

    shell: for servers that start their subsystem with it; without one the user has none.
    """
    if os.geteuid() != 0:
        missing("a login with password at a real server needs root, to make a throw-away user")
    _remove_users_of_dead_runs()
    name = f"{SHELL_USER_PREFIX if shell else USER_PREFIX}{os.getpid()}"
    password = secrets.token_urlsafe(12)
    shell = shell or shutil.which("nologin", path="/usr/sbin:/sbin:/usr/bin") or "/bin/false"
    command = ["useradd", "--system", "--no-create-home", "--home-dir", "/", "--shell", shell, name]
    subprocess.run(command, check=True, timeout=60)
    atexit.register(subprocess.run, ["userdel", name], check=False, capture_output=True, timeout=60)
    subprocess.run(["chpasswd"], input=f"{name}:{password}\n".encode(), check=True, timeout=60)
    return name, password


def open_the_way(root: Path, user: str) -> None:
    """The throw-away user owns the folder and may walk to it through the tests' own temporary folders."""
    shutil.chown(root, user)
    temporary = Path(tempfile.gettempdir())
    for folder in root.parents:
        if temporary in folder.parents:
            folder.chmod(folder.stat().st_mode | 0o011)


@lru_cache(maxsize=1)
def penalty_lines(sshd: str) -> tuple[str, ...]:
    """OpenSSH 9.8 and later lock out an address after bad logins, and every test has the same address."""
    line = "PerSourcePenalties no"
    return (line,) if knows(sshd, line) else ()


def knows(sshd: str, line: str) -> bool:
    """Whether this sshd is recent enough for a line of sshd_config."""
    tried = subprocess.run([sshd, "-t", "-f", "/dev/null", "-o", line], check=False, capture_output=True, timeout=30)
    return b"Bad configuration option" not in tried.stderr


class OpenSSH(ProcessServer):
    """sshd over a folder.

    password: log in as a throw-away system user with a password (root); else as the current user with a key.
    subsystem: "internal-sftp" or "sftp-server" (the program), with options.
    keys_name: another name gives other host keys.
    more: further lines of sshd_config.
    """

    name = "openssh"

    def __init__(
        self,
        root: Path,
        *,
        password: bool = False,
        subsystem: str = "internal-sftp",
        keys_name: str = "host",
        more: Sequence[str] = (),
    ) -> None:
        super().__init__(root)
        self.home = str(root)
        self.keys_name = keys_name
        self.subsystem = subsystem
        self.more = more
        self._program = program("sshd", "openssh-server")
        if password:
            self.user, self.password = throwaway_user()
            open_the_way(root, self.user)
        else:
            self.user, self.key_file = getpass.getuser(), client_key()

    def keys(self) -> tuple[Path, ...]:
        return host_keys(self.keys_name)

    def command(self) -> list[str]:
        if os.geteuid() == 0:
            Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
        configuration = self.state / "sshd_config"
        configuration.write_text(self._configuration())
        return [self._program, "-D", "-f", str(configuration), "-E", str(self.log)]

    def _configuration(self) -> str:
        name, _, options = self.subsystem.partition(" ")
        path = name if name == "internal-sftp" else program(name, "openssh-sftp-server")
        authorized = self.state / "authorized_keys"
        authorized.write_text(
            "".join(Path(f"{client_key(kind)}.pub").read_text() for kind in ("ed25519", "rsa", "ecdsa"))
        )
        with contextlib.suppress(OSError):
            authorized.chmod(0o644)
        self.state.chmod(0o755)
        return CONFIGURATION.format(
            host=self.host,
            port=self.port,
            host_keys="\n".join(f"HostKey {key}" for key in self.keys()),
            authorized_keys=authorized,
            passwords="yes" if self.password else "no",
            subsystem=f"{path} {options}".strip(),
            more="\n".join([*penalty_lines(self._program), *self.more]),
        )
