"""Files and folders on the server: patterns are expanded and trees walked by listing, never by a shell."""

from __future__ import annotations

import fnmatch
import posixpath
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, NamedTuple

from iot.transfer.errors import NotFound, PermanentError
from iot.transfer.model import RemoteEntry, RemoteFile
from iot.transfer.trees.remote import in_order

if TYPE_CHECKING:
    from iot.sftp.client.client import IoTSFTPClient

__all__ = ["Found", "expand", "in_folder", "is_folder", "is_pattern", "look", "matches", "walk"]


class Found(NamedTuple):
    """path: on the server. file: as it is there, of what a link leads to."""

    path: str
    file: RemoteFile
    is_link: bool = False

    @property
    def is_folder(self) -> bool:
        return is_folder(self.file)


def is_folder(file: RemoteFile | None) -> bool:
    return file is not None and file.is_folder


def is_pattern(path: str) -> bool:
    return any(char in path for char in "*?[")


def matches(name: str, pattern: str) -> bool:
    """As a shell has it: a name with a dot in front only where the pattern has one, too."""
    return fnmatch.fnmatchcase(name, pattern) and (pattern.startswith(".") or not name.startswith("."))


def look(client: IoTSFTPClient, path: str) -> RemoteFile | None:
    """None where nothing is."""
    try:
        return client.stat(path)
    except NotFound:
        return None


def expand(client: IoTSFTPClient, paths: Iterable[str]) -> Iterator[Found]:
    """What stands on the server under these paths and patterns, each once.

    A path that is there as it is written is no pattern. Raises: NotFound where nothing matches.
    """
    seen: set[str] = set()
    for path in paths:
        for found in _expanded(client, path):
            if found.path not in seen:
                seen.add(found.path)
                yield found


def _expanded(client: IoTSFTPClient, path: str) -> list[Found]:
    try:
        return [Found(path, client.stat(path))]
    except NotFound:
        if not is_pattern(path):
            raise
    found = _matching(client, path)
    if not found:
        raise NotFound(f"nothing on the server matches {path!r}")
    return found


def _matching(client: IoTSFTPClient, pattern: str) -> list[Found]:
    """Component by component, from the first that is a pattern."""
    bases = ["/" if pattern.startswith("/") else ""]
    parts = [part for part in pattern.split("/") if part]
    found: list[Found] = []
    for number, part in enumerate(parts):
        last = number == len(parts) - 1
        if not is_pattern(part) and not last:
            bases = [posixpath.join(base, part) for base in bases]
            continue
        found = [each for base in bases for each in _matching_in(client, base, part)]
        bases = [each.path for each in found if each.is_folder]
    return found


def _matching_in(client: IoTSFTPClient, folder: str, part: str) -> list[Found]:
    if not is_pattern(part):
        path = posixpath.join(folder, part)
        file = look(client, path)
        return [Found(path, file)] if file is not None else []
    try:
        return [_found(folder, entry) for entry in client.scan(folder or ".") if matches(entry.name, part)]
    except NotFound:
        return []


def in_folder(client: IoTSFTPClient, folder: str) -> list[Found]:
    """What is right below a folder, sorted by name."""
    return [_found(folder, entry) for entry in client.scan(folder)]


def _found(folder: str, entry: RemoteEntry) -> Found:
    return Found(posixpath.join(folder, entry.name), entry.file, entry.is_link)


def walk(client: IoTSFTPClient, folder: str, is_wanted: Callable[[str], bool] = lambda _: True) -> Iterator[Found]:
    """All below a folder, a folder before what is in it; links to folders are not entered.

    is_wanted: by its name; what is not is not entered, either. Raises: PermanentError, after the others, for a folder
    that cannot be listed.
    """
    below: dict[str, Found] = {}
    errors: list[PermanentError] = []
    for path, found in client.walk(folder, wanted=is_wanted):
        if isinstance(found, PermanentError):
            errors.append(found)
        else:
            inside = posixpath.join(folder, path) if path else folder
            below.update((posixpath.join(path, entry.name), _found(inside, entry)) for entry in found)
    for path in sorted(below, key=in_order):
        yield below[path]
    if errors:
        raise errors[0]
