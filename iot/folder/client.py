"""FolderClient: the facade over a folder."""

from __future__ import annotations

import os
from typing import Any

from iot.folder.place import Place
from iot.folder.settings import FolderOptions, checked_path
from iot.folder.store import FolderStore
from iot.transfer.client import Client
from iot.transfer.errors import ConfigurationError
from iot.transfer.journal.journal import Journal
from iot.transfer.parallel import ParallelRemote
from iot.transfer.settings import Durability, checked

__all__ = ["FolderClient"]


class FolderClient(Client):
    """Sends files to a folder of this machine - a mounted share, a USB disk - and fetches them from it.

    Like IoTSFTPClient: resumable, journaled, atomic, durable. An unmounted disk is a lost link, not an empty folder.
    Paths are relative to `path`, with or without a leading slash, and cannot leave it.

    Args:
        path: the folder, absolute; it must exist. journal: may be shared with other users of the same state directory.
        options: see FolderOptions.

    Raises: ConfigurationError, which names every invalid option; also on systems without openat(2), such as Windows.
    """

    def __init__(self, path: str | os.PathLike[str], *, journal: Journal | None = None, **options: Any) -> None:
        if os.open not in os.supports_dir_fd:
            raise ConfigurationError("a folder as a destination needs openat(2), which this system lacks")
        try:
            self._path = str(checked_path(os.fspath(path)))
        except ValueError as error:
            raise ConfigurationError(f"path: {error} (got {os.fspath(path)!r})") from None
        settings = checked(FolderOptions, options)
        place = Place(self._path, marker=settings.marker, mounted=settings.mounted)
        trust = settings.server_durability is Durability.TRUST
        self._parallel = ParallelRemote(
            lambda: FolderStore(place, trust=trust, connections=settings.connections),
            f"folder:{self._path}",
            settings,
            journal,
        )
        super().__init__(self._parallel)

    def __repr__(self) -> str:
        return f"FolderClient({self._path})"
