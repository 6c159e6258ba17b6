"""A folder as a remote: a mounted share, a USB disk, or any other directory of this machine."""

from iot.folder.client import FolderClient
from iot.folder.settings import FolderOptions

__all__ = ["FolderClient", "FolderOptions"]
