"""A folder on a remote: what is in it, listed level by level, many folders at once."""

from __future__ import annotations

import posixpath
import stat
from collections.abc import Callable, Iterator

from iot.transfer.errors import NameRefused, NotFound, PermanentError, TransferError
from iot.transfer.model import RemoteEntry, RemoteFile
from iot.transfer.names import remote_path
from iot.transfer.remote import Remote
from iot.transfer.trees.model import Kind, Node, Tree

__all__ = ["in_order", "remote_join", "remote_node", "remote_nodes", "remote_tree", "remote_walk"]

DEPTH_MAX = 100
"""Levels of a tree: a server that makes folders up as we go is left at some point."""
FOLDERS_AT_ONCE = 256


def remote_walk(
    remote: Remote, root: str, wanted: Callable[[str], bool] = lambda _: True
) -> Iterator[tuple[str, list[RemoteEntry] | PermanentError]]:
    """Each folder below a remote folder, by its path below it, with what is in it or why it cannot be listed.

    The folders of one level are listed at once. Links to folders are not followed, if the server says that they are
    links. wanted: by name; what is not is left out, and not entered.
    """
    level = [""]
    for _ in range(DEPTH_MAX):
        below: list[str] = []
        for start in range(0, len(level), FOLDERS_AT_ONCE):
            some = level[start : start + FOLDERS_AT_ONCE]
            for path, found in zip(some, remote.scan([_listed(root, path) for path in some]), strict=True):
                if isinstance(found, PermanentError):
                    yield path, found
                    continue
                entries = [entry for entry in found if wanted(entry.name)]
                yield path, entries
                below += [_below(path, entry) for entry in entries if entry.is_folder and not entry.is_link]
        level = below
    for path in level:
        yield path, NameRefused(f"{remote_join(root, path)} is too deep: more than {DEPTH_MAX} levels")


def remote_tree(remote: Remote, root: str) -> Tree:
    """All below a remote folder."""
    nodes: dict[str, Node] = {}
    unknown: dict[str, TransferError] = {}
    for folder, found in remote_walk(remote, root):
        if isinstance(found, PermanentError):
            unknown[folder] = found
        else:
            nodes.update((_below(folder, entry), remote_node(entry.file, is_link=entry.is_link)) for entry in found)
    if isinstance(unknown.get(""), NotFound):
        return Tree(exists=False)
    return Tree({path: nodes[path] for path in sorted(nodes, key=in_order)}, unknown)


def in_order(path: str) -> list[str]:
    """Sorts paths folder by folder, a folder before its content."""
    return path.split("/")


def _below(folder: str, entry: RemoteEntry) -> str:
    return f"{folder}/{entry.name}" if folder else entry.name


def remote_nodes(remote: Remote, folders: list[str]) -> Tree:
    """What is directly in each of these folders, by full path; a folder that is not there is empty."""
    nodes: dict[str, Node] = {}
    unknown: dict[str, TransferError] = {}
    for start in range(0, len(folders), FOLDERS_AT_ONCE):
        some = folders[start : start + FOLDERS_AT_ONCE]
        for folder, entries in zip(some, remote.scan([_listed(folder, "") for folder in some]), strict=True):
            if isinstance(entries, NotFound):
                continue
            if isinstance(entries, PermanentError):
                unknown[folder] = entries
            else:
                for entry in entries:
                    nodes[posixpath.join(folder, entry.name)] = remote_node(entry.file, is_link=entry.is_link)
    return Tree(nodes, unknown)


def remote_node(file: RemoteFile, *, is_link: bool = False) -> Node:
    mode = stat.S_IFMT(file.mode or 0)
    if mode == stat.S_IFDIR:
        return Node(Kind.FOLDER_LINK if is_link else Kind.FOLDER, is_link=is_link)
    if mode == stat.S_IFLNK:
        return Node(Kind.DEAD_LINK, is_link=True)
    kind = Kind.FILE if mode in (0, stat.S_IFREG) else Kind.SPECIAL
    return Node(kind, file.size, file.mtime_s, is_link)


def remote_join(root: str, path: str) -> str:
    """Below the login folder (".") a path stands alone."""
    return path if path and root == posixpath.curdir else posixpath.join(root, path) if path else root


def _listed(root: str, path: str) -> bytes:
    return remote_path(remote_join(root, path) or posixpath.curdir)
