"""rclone's SFTP server (pkg/sftp): parallel writers, few extensions."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from servers.base import ProcessServer, program

__all__ = ["Rclone"]


class Rclone(ProcessServer):
    """`rclone serve sftp` over a folder; its sessions are not processes, so cutting them restarts it.

    cache: rclone's --vfs-cache-mode.
    """

    name = "rclone"
    user = "device"

    def __init__(self, root: Path, *, cache: str = "writes") -> None:
        super().__init__(root)
        self.password = secrets.token_urlsafe(12)
        self.cache = cache
        self._program = program("rclone", "rclone")

    def remote(self) -> str:
        return str(self.root)

    def command(self) -> list[str]:
        keys = [word for key in self.keys() for word in ("--key", str(key))]
        login = ["--addr", f"{self.host}:{self.port}", "--user", self.user, "--pass", str(self.password)]
        cache = ["--vfs-cache-mode", self.cache, "--vfs-write-back", "0s", "--dir-cache-time", "0s"]
        return [self._program, "serve", "sftp", self.remote(), *login, *keys, *cache]

    def environment(self) -> dict[str, str]:
        # rclone of some versions ends at once when AWS_CA_BUNDLE is set
        clean = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "RCLONE_"))}
        own = {"RCLONE_CONFIG": str(self.state / "rclone.conf"), "RCLONE_CACHE_DIR": str(self.state / "cache")}
        return clean | own

    def drop_connections(self) -> None:
        self.kill()
        self.start()
