"""mv, rm, rmdir and mkdir."""

from __future__ import annotations

import argparse
import contextlib
import posixpath
import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING

from iot.sftp.client.cli.local_names import first_twice
from iot.sftp.client.cli.output import each, say
from iot.sftp.client.cli.parser import Commands, Parser, UsageError, add_command
from iot.sftp.client.cli.remote_tree import Found, expand, is_folder, look, walk
from iot.transfer.errors import NameRefused, NotFound, PermanentError
from iot.transfer.terminal import terminal_safe

if TYPE_CHECKING:
    from iot.sftp.client.client import IoTSFTPClient

__all__ = ["add_changing"]

YES = ("y", "yes")


def add_changing(commands: Commands[Parser]) -> None:
    """The commands that change names on the server."""
    _add_mv(commands)
    _add_rm(commands)
    for name, run, text, help_text in (
        ("rmdir", rmdir, "delete empty remote folders", "remote folders, patterns"),
        ("mkdir", mkdir, "make remote folders, with their parents", "remote folders; one that is there is fine"),
    ):
        parser = add_command(commands, name, run, text, words="PATH...", example="/upload/2026/11", remote=("paths",))
        parser.add_argument("paths", nargs="+", metavar="PATH...", help=help_text)


def _add_mv(commands: Commands[Parser]) -> None:
    parser = add_command(
        commands,
        "mv",
        mv,
        "rename on the server, or move into a folder",
        words="SRC... DEST",
        example="/upload/a.tmp /upload/a.csv",
        remote=("sources", "dest"),
    )
    parser.add_argument("sources", nargs="+", metavar="SRC...", help="remote files or folders, patterns")
    parser.add_argument("dest", metavar="DEST", help="new name (a file is replaced in one step) or folder")
    parser.add_argument("-T", "--no-target-directory", action="store_true", help="DEST is the new name")


def _add_rm(commands: Commands[Parser]) -> None:
    parser = add_command(
        commands,
        "rm",
        rm,
        "delete remote files",
        words="PATH...",
        example="'/upload/*.tmp'",
        remote=("paths",),
    )
    parser.add_argument("paths", nargs="+", metavar="PATH...", help="remote files, patterns")
    parser.add_argument("-r", "--recursive", action="store_true", help="folders with all in them; asks first")
    parser.add_argument("--yes", action="store_true", help="do not ask")


def mv(client: IoTSFTPClient, arguments: argparse.Namespace) -> int:
    found = list(expand(client, arguments.sources))
    dest: str = arguments.dest
    into_folder = not arguments.no_target_directory and (dest.endswith("/") or is_folder(look(client, dest)))
    if len(found) > 1 and not into_folder:
        raise UsageError(f"{len(found)} files need a folder as DEST; {dest} is none. Nothing was moved")
    sources = [one.path.rstrip("/") for one in found]
    dests = [posixpath.join(dest, posixpath.basename(source)) if into_folder else dest for source in sources]
    twice = first_twice(dests)
    if twice is not None:
        raise UsageError(f"two files would go to {twice}: one would replace the other. Nothing was moved")
    for source, target in zip(sources, dests, strict=True):
        client.move(source, target)
    return 0


def mkdir(client: IoTSFTPClient, arguments: argparse.Namespace) -> int:
    return each(arguments.paths, client.mkdir)


def rmdir(client: IoTSFTPClient, arguments: argparse.Namespace) -> int:
    def remove(path: str) -> None:
        for found in expand(client, [path]):
            client.rmdir(found.path)

    return each(arguments.paths, remove)


def rm(client: IoTSFTPClient, arguments: argparse.Namespace) -> int:
    if arguments.recursive and not arguments.yes and not sys.stdin.isatty():
        raise UsageError(
            "rm -r asks before it deletes, and nobody is there to be asked: say --yes. Nothing was deleted"
        )
    return each(arguments.paths, lambda path: _remove(client, path, arguments))


def _remove(client: IoTSFTPClient, path: str, arguments: argparse.Namespace) -> None:
    """A link is deleted itself, never what it leads to."""
    for found in expand(client, [path]) if look(client, path) else _links(client, path):
        if not found.is_folder or _is_link(client, found):
            client.delete(found.path)
        elif not arguments.recursive:
            raise NameRefused(f"{found.path} is a folder; delete it with -r, or rmdir where it is empty")
        else:
            _remove_tree(client, found.path, ask=not arguments.yes)


def _links(client: IoTSFTPClient, path: str) -> Iterable[Found]:
    """What no STAT finds is a pattern, or a link that leads nowhere."""
    try:
        return [Found(path, client.lstat(path), is_link=True)]
    except PermanentError:
        return expand(client, [path])


def _is_link(client: IoTSFTPClient, found: Found) -> bool:
    return found.is_link or not is_folder(client.lstat(found.path.rstrip("/") or "/"))


def _remove_tree(client: IoTSFTPClient, root: str, *, ask: bool) -> None:
    """Files first, then the folders from the innermost out. Raises: NameRefused for the root of everything."""
    if posixpath.normpath(root) in ("/", "//", ".") or ".." in root.split("/"):
        raise NameRefused(f"{root} is not deleted as a whole: name what is in it")
    below = list(walk(client, root.rstrip("/")))
    folders = [found.path for found in below if found.is_folder and not found.is_link]
    files = [found.path for found in below if found.is_link or not found.is_folder]
    if ask and not _agreed(f"delete {root} with {len(files)} files in {1 + len(folders)} folders? [y/N] "):
        say(f"{root} stays")
        return
    for path in files:
        with contextlib.suppress(NotFound):  # somebody else was faster
            client.delete(path)
    for path in [*reversed(folders), root.rstrip("/")]:
        with contextlib.suppress(NotFound):  # object stores: a folder goes with the last file in it
            client.rmdir(path)


def _agreed(question: str) -> bool:
    sys.stderr.write(terminal_safe(question))
    sys.stderr.flush()
    return sys.stdin.readline().strip().lower() in YES
