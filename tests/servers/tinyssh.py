"""tinysshd: a real server that knows one cipher only, chacha20-poly1305@openssh.com, and one kind of key."""

from __future__ import annotations

import atexit
import base64
import contextlib
import os
import shutil
import socket
import subprocess
import threading
from pathlib import Path
from tempfile import mkdtemp
from typing import TYPE_CHECKING

from conditions import require
from servers.base import client_key, free_port, program

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["TinySSH"]

HOST = "127.0.0.1"
RUN = "/run"
"""Every folder on the way there is of root alone. tinysshd refuses a home below one that others may write to (/tmp)."""


class TinySSH:
    """tinysshd is made for inetd: each connection gets a process of its own. Its logins are those of the system: a
    throw-away user with a home of its own (root)."""

    def __init__(self) -> None:
        require("root")
        self._program = program("tinysshd", "tinysshd")
        self.folder = Path(mkdtemp(prefix="iot-sftp-tinyssh-", dir=RUN))
        self.folder.chmod(0o755)
        self.user = f"iottiny-{os.getpid()}"
        self.home = self.folder / "home"
        self.port = free_port()
        self._children: list[subprocess.Popen[bytes]] = []
        self._listener: socket.socket | None = None

    def __enter__(self) -> Self:
        atexit.register(self._remove_user)
        home = str(self.home)
        command = ["useradd", "--system", "--create-home", "--home-dir", home, "--shell", "/bin/sh", self.user]
        subprocess.run(command, check=True, timeout=60, capture_output=True)
        keys = self.home / ".ssh"
        keys.mkdir(mode=0o700)
        (keys / "authorized_keys").write_text(Path(f"{client_key()}.pub").read_text())
        for path in (keys, keys / "authorized_keys"):
            shutil.chown(path, self.user)
        make = program("tinysshd-makekey", "tinysshd")
        subprocess.run([make, str(self.folder / "keys")], check=True, timeout=60, capture_output=True)
        self._listener = socket.create_server((HOST, self.port))
        threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._listener is not None:
            self._listener.shutdown(socket.SHUT_RDWR)
            self._listener.close()
        for child in self._children:
            child.kill()
            child.wait()
        self._remove_user()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _accept(self, listener: socket.socket) -> None:
        sftp = program("sftp-server", "openssh-sftp-server")
        command = [self._program, "-v", "-x", f"sftp={sftp}", str(self.folder / "keys")]
        with contextlib.suppress(OSError):  # closed: the end
            while True:
                sock, _ = listener.accept()
                with sock, (self.folder / "log").open("ab") as log:
                    self._children.append(subprocess.Popen(command, stdin=sock, stdout=sock, stderr=log))

    def _remove_user(self) -> None:
        subprocess.run(["userdel", self.user], check=False, capture_output=True, timeout=60)

    @property
    def known_hosts(self) -> Path:
        """Its public key is 32 bytes in a file; the line is the key as ssh has it."""
        public = (self.folder / "keys" / "ed25519.pk").read_bytes()
        kind = b"ssh-ed25519"
        blob = len(kind).to_bytes(4, "big") + kind + len(public).to_bytes(4, "big") + public
        path = self.folder / "known_hosts"
        path.write_text(f"[{HOST}]:{self.port} ssh-ed25519 {base64.b64encode(blob).decode()}\n")
        return path

    def login(self) -> dict[str, object]:
        return {
            "sftp_host": HOST,
            "sftp_port": self.port,
            "sftp_user": self.user,
            "key_file": client_key(),
            "known_hosts": self.known_hosts,
        }
