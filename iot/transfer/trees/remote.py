"""A folder on a remote: what is in it, listed level by level, many folders at once."""

from __future__ import annotations

import posixpath
import stat

from iot.transfer.errors import NameRefused, NotFound, PermanentError, TransferError
from iot.transfer.model import RemoteEntry, RemoteFile
from iot.transfer.names import remote_path
from iot.transfer.remote import Remote
from iot.transfer.trees.model import Kind, Node, Tree

__all__ = ["remote_join", "remote_node", "remote_nodes", "remote_tree"]

DEPTH_MAX = 100
"""Levels of a tree: a server that makes folders up as we go is left at some point."""
FOLDERS_AT_ONCE = 256


def remote_tree(remote: Remote, root: str) -> Tree:
    """All below a remote folder. Links to folders are named, not followed, if the server says that they are links."""
    nodes: dict[str, Node] = {}
    unknown: dict[str, TransferError] = {}
    level = [""]
    for _ in range(DEPTH_MAX):
        below: list[str] = []
        for start in range(0, len(level), FOLDERS_AT_ONCE):
            some = level[start : start + FOLDERS_AT_ONCE]
            found = remote.scan([_listed(root, path) for path in some])
            for path, entries in zip(some, found, strict=True):
                if isinstance(entries, PermanentError):
                    unknown[path] = entries
                else:
                    below += _take(entries, f"{path}/" if path else "", nodes)
        level = below
    for path in level:
        unknown[path] = NameRefused(f"{remote_join(root, path)} is too deep: more than {DEPTH_MAX} levels")
    if isinstance(unknown.get(""), NotFound):
        return Tree(exists=False)
    return Tree(_in_order(nodes), unknown)


def _take(entries: list[RemoteEntry], prefix: str, nodes: dict[str, Node]) -> list[str]:
    """Note what a folder holds -> the folders in it."""
    found = {prefix + entry.name: remote_node(entry.file, is_link=entry.is_link) for entry in entries}
    nodes.update(found)
    return [path for path, node in found.items() if node.kind is Kind.FOLDER]


def _in_order(nodes: dict[str, Node]) -> dict[str, Node]:
    """Folder by folder instead of level by level; a folder before its content."""
    return {path: nodes[path] for path in sorted(nodes, key=lambda path: path.split("/"))}


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
                _take(entries, posixpath.join(folder, ""), nodes)
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
    return posixpath.join(root, path) if path else root


def _listed(root: str, path: str) -> bytes:
    return remote_path(remote_join(root, path) or posixpath.curdir)
