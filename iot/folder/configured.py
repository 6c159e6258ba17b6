"""A folder as a remote of the spooler: the table [server] of its configuration, and the client it describes."""

from __future__ import annotations

import os
from pathlib import Path

from pydantic import Field, field_validator

from iot.folder.client import FolderClient
from iot.folder.place import Place, is_mounted
from iot.folder.settings import FolderOptions, checked_path
from iot.transfer.configured import ConfiguredRemote
from iot.transfer.errors import TransferError
from iot.transfer.journal.journal import Journal

__all__ = ["ServerSettings"]


class ServerSettings(ConfiguredRemote, FolderOptions):
    """Which folder, and every option of its client. Whether it is there is seen when it is used."""

    OPTIONS = FolderOptions

    path: Path = Field(description="the folder, an absolute path; it must exist")

    @field_validator("path")
    @classmethod
    def _absolute(cls, value: Path) -> Path:
        return checked_path(value)

    @property
    def address(self) -> str:
        return str(self.path)

    @property
    def account(self) -> str:
        return os.path.realpath(self.path)

    @property
    def local_folder(self) -> Path | None:
        return self.path

    def login_files(self) -> list[Path]:
        """The folder itself: another disk, or rights to it, may end a refusal."""
        return [self.path]

    def doubts(self) -> list[tuple[str, str]]:
        """A share or disk that is not there now; and one whose empty mount point would be taken for it."""
        try:
            Place(str(self.path), marker=self.marker, mounted=self.mounted).check()
        except TransferError as error:
            return [("path", f"{error}; until it is, files wait")]
        if self.marker or self.mounted or is_mounted(str(self.path)):
            return []
        return [("path", "is on no disk of its own now: if one is to be mounted there, set marker or mounted")]

    def remote(self, journal: Journal, device_id: str) -> FolderClient:
        return FolderClient(self.path, journal=journal, **self.options_here(device_id))
