"""A folder as one of the spooler's remotes: the table [server], and the client that it describes."""

from __future__ import annotations

from pathlib import Path

from pydantic import field_validator

from iot.folder.client import FolderClient
from iot.folder.place import Place, is_mounted
from iot.folder.settings import FolderOptions, checked_path
from iot.transfer.errors import TransferError
from iot.transfer.journal.journal import Journal

__all__ = ["ServerSettings"]

NOT_FROM_FILE = {"attempts", "owner_tag", "state_dir"}


class ServerSettings(FolderOptions):
    """Which folder, and every option of its client."""

    path: Path

    @field_validator("path")
    @classmethod
    def _absolute(cls, value: Path) -> Path:
        return checked_path(value)

    @property
    def address(self) -> str:
        return str(self.path)

    @property
    def local_folder(self) -> Path | None:
        return self.path

    @property
    def identity(self) -> str:
        return ""

    def secret_files(self) -> dict[str, Path]:
        return {}

    def login_files(self) -> list[Path]:
        return []

    def login_problems(self) -> list[tuple[str, str]]:
        """Nobody logs in to a folder; whether it is there is seen when it is used."""
        return []

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
        """A client as the settings say. One attempt each: the spooler's policy does the waiting."""
        names = self.model_fields_set & set(FolderOptions.model_fields) - NOT_FROM_FILE
        options = {name: getattr(self, name) for name in sorted(names)}
        return FolderClient(self.path, journal=journal, **options, attempts=1, owner_tag=device_id)
