"""A folder on this device: what is in it, and which names from elsewhere it can hold."""

from __future__ import annotations

import os
import stat

from iot.transfer.errors import NameRefused, TransferError, is_gone
from iot.transfer.source import local_error
from iot.transfer.trees.model import Kind, Node, Tree

__all__ = ["hidden_by_case", "local_join", "local_node", "local_tree", "name_refused"]


def local_tree(root: str) -> Tree:
    """All below a local folder. Links to files count as files; links to folders are named, not followed.

    Raises: NameRefused if it is not a folder.
    """
    nodes: dict[str, Node] = {}
    unknown: dict[str, TransferError] = {}
    todo = [""]
    while todo:
        folder = todo.pop()
        try:
            with os.scandir(local_join(root, folder)) as entries:
                found = sorted(entries, key=lambda entry: entry.name)
        except OSError as error:
            if not folder and is_gone(error):
                return _not_a_folder(root)
            unknown[folder] = local_error(error, local_join(root, folder))
            continue
        below = _take(found, f"{folder}/" if folder else "", nodes, unknown)
        todo += reversed(below)
    return Tree(nodes, unknown)


def _not_a_folder(root: str) -> Tree:
    if os.path.lexists(root):
        raise NameRefused(f"{root} is not a folder")
    return Tree(exists=False)


def _take(
    found: list[os.DirEntry[str]], prefix: str, nodes: dict[str, Node], unknown: dict[str, TransferError]
) -> list[str]:
    """Note what a folder holds -> the folders in it."""
    below = []
    for entry in found:
        path = prefix + entry.name
        try:
            nodes[path] = local_node(entry)
        except OSError as error:
            unknown[path] = local_error(error, entry.path)
            continue
        if nodes[path].kind is Kind.FOLDER:
            below.append(path)
    return below


def local_node(entry: os.DirEntry[str]) -> Node:
    """Raises: OSError."""
    is_link = entry.is_symlink()
    try:
        status = entry.stat()
    except OSError as error:
        if is_link and is_gone(error):
            return Node(Kind.DEAD_LINK, is_link=True)
        raise
    return node_of(status, is_link=is_link)


def node_of(status: os.stat_result, *, is_link: bool) -> Node:
    if stat.S_ISDIR(status.st_mode):
        return Node(Kind.FOLDER_LINK if is_link else Kind.FOLDER, is_link=is_link)
    kind = Kind.FILE if stat.S_ISREG(status.st_mode) else Kind.SPECIAL
    return Node(kind, status.st_size, status.st_mtime_ns // 10**9, is_link)


def local_join(root: str, path: str) -> str:
    """The local path of a path with slashes below a folder."""
    return os.path.join(root, *path.split("/")) if path else root


def name_refused(name: str) -> str | None:
    """Why a name from elsewhere must not be used here: it would lead out of its folder. None if it may be used."""
    separators = {os.sep, os.altsep or os.sep, "/", "\0"}
    leads_away = name in ("", os.curdir, os.pardir) or any(char in name for char in separators)
    return f"{name!r} gives no local file name" if leads_away or os.path.splitdrive(name)[0] else None


def hidden_by_case(dest: str, path: str) -> bool:
    """Whether something else is in the way at `dest`, under a name that differs only in case.

    path: the end of `dest` that is looked at, with slashes. A file system may ignore case in one folder and not in
    another, so its folders are asked.
    """
    here = dest
    for name in reversed(path.split("/")):
        here, folder = os.path.dirname(here), here
        if os.path.lexists(folder) and name not in os.listdir(here or os.curdir):
            return True
    return False
