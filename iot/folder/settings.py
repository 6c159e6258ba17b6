"""The settings of a folder as a remote."""

from __future__ import annotations

import os
from pathlib import Path

from pydantic import ConfigDict, Field, field_validator

from iot.transfer.settings import TransferSettings

__all__ = ["FolderOptions"]


class FolderOptions(TransferSettings):
    """All options of FolderClient except the path."""

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)

    marker: str = Field(
        "", description="name of a file in the folder; if it is missing, the disk counts as not mounted"
    )
    mounted: bool = Field(
        False, description="the folder must be on a mount of its own; if it is not mounted, nothing is written"
    )
    connections: int = Field(4, ge=1, le=64, description="number of files written at the same time")

    @field_validator("marker")
    @classmethod
    def _marker_is_a_name(cls, value: str) -> str:
        if "/" in value or "\0" in value or value in (".", ".."):
            raise ValueError("must be the name of a file in the folder")
        return value


def checked_path(path: str | os.PathLike[str]) -> Path:
    """Raises: ValueError unless it is absolute: users do not know the working directory of a service."""
    checked = Path(path)
    if not checked.is_absolute() or ".." in checked.parts or "\0" in str(checked):
        raise ValueError('must be an absolute path without ".."')
    return checked
