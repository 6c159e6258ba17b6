"""The options of a client as keywords: written by `python tests/settings_reference.py`, not by hand."""

from __future__ import annotations

from iot.transfer.keywords import TransferKeywords

__all__ = ["FolderKeywords"]


class FolderKeywords(TransferKeywords, total=False):
    """See FolderOptions, which checks the values."""

    marker: str
    """name of a file in the folder; if it is missing, the disk counts as not mounted"""

    mounted: bool
    """the folder must be on a mount of its own; if it is not mounted, nothing is written (default: False)"""

    connections: int
    """number of files written at the same time (default: 4)"""
