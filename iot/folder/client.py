"""FolderClient: the facade over a folder."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import TYPE_CHECKING

from iot.folder.place import Place
from iot.folder.settings import FolderOptions, checked_path
from iot.folder.store import FolderStore
from iot.transfer.client import Client
from iot.transfer.errors import ConfigurationError
from iot.transfer.journal.journal import Journal
from iot.transfer.parallel import ParallelRemote
from iot.transfer.settings import Durability, checked, lists_options

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from iot.folder.keywords import FolderKeywords

__all__ = ["FolderClient"]

ARGUMENTS = {name: name for name in ("path", "journal")}


@lists_options(FolderOptions)
class FolderClient(Client):
    """Sends files to a folder of this machine - a mounted share, a USB disk - and fetches them from it.

    Like IoTSFTPClient: resumable, journaled, atomic, durable. An unmounted disk is a lost link, not an empty folder.
    Paths are relative to `path`, with or without a leading slash, and cannot leave it.

    Arguments:
        path
            the folder, absolute; it must exist
        journal
            shared with other users of the same state directory; default: one of its own, in `state_dir`

    Raises: ConfigurationError, which names everything that is wrong with arguments and options; also on systems without
        openat(2), such as Windows.
    """

    def __init__(
        self, path: str | os.PathLike[str], *, journal: Journal | None = None, **options: Unpack[FolderKeywords]
    ) -> None:
        if os.open not in os.supports_dir_fd:
            raise ConfigurationError("a folder as a destination needs openat(2), which this system lacks")
        settings = checked(FolderOptions, options, _path_problems(path), ARGUMENTS)
        self._path = str(checked_path(path))
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


def _path_problems(path: object) -> Iterator[str]:
    try:
        checked_path(path)  # type: ignore[arg-type]
    except TypeError:
        yield f"path: must be text or a Path (got {type(path).__name__})"
    except ValueError as error:
        yield f"path: {error} (got {str(path)!r})"
