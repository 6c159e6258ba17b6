"""A folder as a remote: a mounted share, a USB disk, or any other directory of this machine."""

import logging

from iot.folder.client import FolderClient
from iot.folder.keywords import FolderKeywords
from iot.folder.settings import FolderOptions

__all__ = ["FolderClient", "FolderKeywords", "FolderOptions"]

logging.getLogger(__name__).addHandler(logging.NullHandler())  # a library logs nothing unless asked to
