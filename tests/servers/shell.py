"""`iot-sftp` as a user types it."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from pathlib import Path

from servers.base import Server

__all__ = ["COMMAND", "Shell", "on_a_terminal"]

COMMAND = [sys.executable, "-m", "iot.sftp.client.cli.main"]


class Shell:
    """Runs iot-sftp with the server's address in the environment, in an empty folder of its own."""

    def __init__(self, server: Server, folder: Path) -> None:
        self.folder = folder
        self.environment = {name: value for name, value in os.environ.items() if not name.startswith("SFTP_")}
        self.environment |= {
            "SFTP_HOST": server.host,
            "SFTP_PORT": str(server.port),
            "SFTP_USER": server.user,
            "SFTP_KNOWN_HOSTS": str(server.known_hosts),
            "SFTP_SSH_CONFIG": "none",  # that of whoever runs the tests is none of theirs
            "SFTP_STATE_DIR": str(folder / "state"),
        }
        if server.key_file:
            self.environment["SFTP_KEY"] = str(server.key_file)

    def __call__(self, *words: str | bytes, **more: str) -> subprocess.CompletedProcess[bytes]:
        command = [*COMMAND, *words]
        environment = {name: value for name, value in {**self.environment, **more}.items() if value}
        return subprocess.run(command, cwd=self.folder, env=environment, capture_output=True, timeout=60, check=False)


def on_a_terminal(shell: Shell, *words: str, typed: bytes = b"", prompt: bytes = b"? [y/N] ") -> bytes:
    """typed: once it has printed `prompt`."""
    ours, theirs = pty.openpty()
    command = [*COMMAND, *words]
    ends = {"stdin": theirs, "stdout": theirs, "stderr": theirs, "start_new_session": True}
    with subprocess.Popen(command, cwd=shell.folder, env=shell.environment, **ends) as process:
        os.close(theirs)
        output = b""
        try:
            while chunk := os.read(ours, 4096):
                output += chunk
                if typed and prompt in output:
                    os.write(ours, typed)
                    typed = b""
        except OSError:
            pass  # the terminal's other end is closed: the program has ended
        os.close(ours)
    assert process.returncode == 0, output
    return output
