"""A folder of this machine, with the interface of the servers of the tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from servers.base import Server

from iot.folder import FolderClient

__all__ = ["Folder"]


class Folder(Server):
    name = "folder"
    has_link = False

    def start(self) -> None:
        """It is there."""

    def stop(self) -> None:
        """It stays."""

    kill = drop_connections = stop

    @property
    def known_hosts(self) -> Path:
        raise NotImplementedError("a folder has no keys")

    @property
    def host_key(self) -> str:
        raise NotImplementedError("a folder has no keys")

    def path(self, relative: str = "") -> str:
        return relative or "/"

    def connect(self, tmp_path: Path, link: Any = None, **changes: Any) -> FolderClient:
        assert link is None
        return FolderClient(self.root, state_dir=tmp_path / "state", backoff_s=0.05, **changes)
