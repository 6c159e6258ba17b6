"""What lies in a remote folder: the files that may be fetched, and the names that are refused.

A server may list anything. What is no name, such as "../x", is left out and told; the others are not held up by it.
Hidden files, *.part and *.tmp are still being written, or somebody's own, and are passed over.
"""

from __future__ import annotations

import posixpath
import stat
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from iot.spooler.naming import shown
from iot.transfer import NotFound, PermanentError, RemoteEntry, RemoteFile

__all__ = ["SIDECAR", "Lister", "Listing", "listed", "remote_join"]

DEPTH_MAX = 100
FILES_MAX = 100_000
NAME_MAX_BYTES = 255
UNFINISHED = (".part", ".tmp")
SIDECAR = ".sha256"


class Lister(Protocol):
    def scan(self, path: str, *, leave_out: Callable[[bytes, bytes], None] | None = None) -> list[RemoteEntry]: ...

    def stat(self, path: str) -> RemoteFile: ...


@dataclass
class Listing:
    """files: by path below the folder. refused: what is not fetched, and why. complete: whether all of it was seen."""

    files: dict[str, RemoteFile] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)
    complete: bool = True


def listed(remote: Lister, root: str, *, recursive: bool, tick: Callable[[], None]) -> Listing:
    """All files below a remote folder. tick: called between two folders.

    Raises: what `scan` of the folder itself raises; of any folder: TransientError, AuthenticationError, Cancelled.
    """
    listing = Listing()
    level = [""]
    for depth in range(DEPTH_MAX):
        below: list[str] = []
        for folder in level:
            folders = _folder(remote, root, folder, listing)
            below += folders if recursive else []
            tick()
        level = below
        if not level:
            return listing
        if depth == DEPTH_MAX - 1:
            listing.refused.update((folder, f"more than {DEPTH_MAX} folders deep") for folder in level)
            listing.complete = False
    return listing


def _folder(remote: Lister, root: str, folder: str, listing: Listing) -> list[str]:
    """-> the folders in it"""

    def leave_out(_: bytes, name: bytes) -> None:
        listing.refused[posixpath.join(folder, shown(name))] = "not a name: it would lead out of the folder"

    try:
        entries = remote.scan(remote_join(root, folder), leave_out=leave_out)
    except PermanentError as error:
        if not folder:
            raise
        if not isinstance(error, NotFound):  # else it was removed meanwhile
            listing.refused[folder] = str(error)
        listing.complete = False
        return []
    folders = []
    for entry in entries:
        path = posixpath.join(folder, entry.name)
        if _is_passed_over(entry.name):
            continue
        if entry.is_folder:
            folders += [] if entry.is_link else [path]
        elif (reason := _why_not(entry, listing)) is not None:
            listing.refused[path] = reason
        else:
            listing.files[path] = _told(remote, root, path, entry.file)
    return folders


def _is_passed_over(name: str) -> bool:
    whole = name.lower().removesuffix(SIDECAR)
    return name.startswith(".") or whole.endswith(UNFINISHED)


def _why_not(entry: RemoteEntry, listing: Listing) -> str | None:
    if len(entry.name.encode("utf-8", "surrogateescape")) > NAME_MAX_BYTES:
        return f"its name has more than {NAME_MAX_BYTES} bytes"
    if stat.S_IFMT(entry.file.mode or 0) not in (0, stat.S_IFREG):
        return "not a regular file"
    if len(listing.files) >= FILES_MAX:
        listing.complete = False
        return f"more than {FILES_MAX} files"
    return None


def _told(remote: Lister, root: str, path: str, file: RemoteFile) -> RemoteFile:
    """A listing may say less than the server knows."""
    if file.size is not None and file.mtime_s is not None:
        return file
    try:
        return remote.stat(remote_join(root, path))
    except PermanentError:
        return file


def remote_join(root: str, path: str) -> str:
    """Below the login folder (".") a path stands alone."""
    return path if path and root == posixpath.curdir else posixpath.join(root, path) if path else root
