"""ls, stat and exists."""

from __future__ import annotations

import argparse
import datetime as dt
import os
import posixpath
import re
import stat as modes
from collections.abc import Iterator
from typing import TYPE_CHECKING

from iot.sftp.client.cli.output import EXIT_NO, each, print_names
from iot.sftp.client.cli.parser import Commands, Parser, add_command
from iot.sftp.client.cli.remote_tree import Found, expand, in_folder, is_pattern, walk
from iot.transfer.errors import NotFound
from iot.transfer.model import RemoteFile

if TYPE_CHECKING:
    from iot.sftp.client.client import IoTSFTPClient

__all__ = ["add_listing"]

PART_SUFFIX = ".part"
KINDS = {modes.S_IFDIR: "folder", modes.S_IFREG: "file", modes.S_IFLNK: "link"}
UNKNOWN = "?"


def add_listing(commands: Commands[Parser]) -> None:
    """The commands that look."""
    _add_ls(commands)
    status = add_command(
        commands, "stat", stat, "print mode, size and time", words="PATH...", example="/upload/a.csv", remote=("paths",)
    )
    status.add_argument("paths", nargs="+", metavar="PATH...", help="remote files or folders, patterns")
    status.add_argument("--json", action="store_true", help="one JSON object a line")
    there = add_command(
        commands,
        "exists",
        exists,
        "exit 0 if the remote path is there, 1 if not",
        words="PATH",
        example="/upload/a.csv",
    )
    there.add_argument("path", metavar="PATH", help="remote file or folder")


def _add_ls(commands: Commands[Parser]) -> None:
    parser = add_command(
        commands,
        "ls",
        ls,
        "list remote folders; folders end in /",
        words="[PATH...]",
        example="-l 'device@sftp.example.com:/upload/*.csv'",
        remote=("paths",),
    )
    add = parser.add_argument
    add("paths", nargs="*", default=["."], metavar="PATH...", help="remote folders, files, patterns (default: login's)")
    add("-l", "--long", action="store_true", help="with mode, size and time (UTC)")
    add("-a", "--all", action="store_true", help="also .names and unfinished parts")
    add("-R", "--recursive", action="store_true", help="with all below")
    add("--json", action="store_true", help="one JSON object a line")
    kind = parser.add_mutually_exclusive_group()
    kind.add_argument("--files", action="store_true", help="files only")
    kind.add_argument("--directories", action="store_true", help="folders only")
    add("-0", "--null", action="store_true", help="end each name with NUL, not with a newline")


def ls(client: IoTSFTPClient, arguments: argparse.Namespace) -> int:
    """Names stand below the only folder that was asked for; else with the path that leads to them."""
    is_one = len(arguments.paths) == 1 and not is_pattern(arguments.paths[0])
    return each(arguments.paths, lambda path: _list(client, path, arguments, is_one=is_one))


def stat(client: IoTSFTPClient, arguments: argparse.Namespace) -> int:
    def tell(path: str) -> None:
        for found in expand(client, [path]):
            _print(found, found.path, arguments)

    arguments.long, arguments.null = True, False
    return each(arguments.paths, tell)


def exists(client: IoTSFTPClient, arguments: argparse.Namespace) -> int:
    try:
        client.stat(arguments.path)
    except NotFound:
        return EXIT_NO
    return 0


def _list(client: IoTSFTPClient, path: str, arguments: argparse.Namespace, *, is_one: bool) -> None:
    for found in expand(client, [path]):
        if not found.is_folder or (is_pattern(path) and found.path != path and not arguments.recursive):
            _print_wanted(found, found.path, arguments)
            continue
        for below in _below(client, found.path, arguments):
            name = below.path[len(found.path) :].lstrip("/") if is_one and found.path != "." else below.path
            _print_wanted(below, name.removeprefix("./"), arguments)


def _below(client: IoTSFTPClient, folder: str, arguments: argparse.Namespace) -> Iterator[Found]:
    """What is in a folder, or all below it; what is hidden is not entered."""
    hidden = re.compile(rf"\..*|.*\.[0-9a-f]{{8}}{re.escape(_part_suffix(arguments))}", re.DOTALL)

    def is_shown(name: str) -> bool:
        return arguments.all or hidden.fullmatch(name) is None

    if arguments.recursive:
        yield from walk(client, folder, is_shown)
    else:
        yield from (found for found in in_folder(client, folder) if is_shown(posixpath.basename(found.path)))


def _part_suffix(arguments: argparse.Namespace) -> str:
    return getattr(arguments, "part_suffix", None) or os.environ.get("SFTP_PART_SUFFIX") or PART_SUFFIX


def _print_wanted(found: Found, name: str, arguments: argparse.Namespace) -> None:
    if not (arguments.files if found.is_folder else arguments.directories):
        _print(found, name, arguments)


def _print(found: Found, name: str, arguments: argparse.Namespace) -> None:
    if arguments.json:
        print(_json_line(name, found.file))
        return
    shown = f"{name.rstrip('/')}/" if found.is_folder else name
    print_names([_long_line(shown, found.file) if arguments.long else shown], null=arguments.null)


def _long_line(name: str, file: RemoteFile) -> str:
    """Mode, size in bytes, time in UTC, name."""
    mode = modes.filemode(file.mode) if file.mode is not None else UNKNOWN * 10
    size = UNKNOWN if file.size is None else str(file.size)
    return f"{mode} {size:>12} {_time(file.mtime_s) or UNKNOWN:<20} {name}"


def _json_line(name: str, file: RemoteFile) -> str:
    """What the server does not tell is null; bytes that are no UTF-8 are escaped as Python's surrogates."""
    import json

    kind = None if file.mode is None else KINDS.get(modes.S_IFMT(file.mode), "other")
    mode = None if file.mode is None else f"{modes.S_IMODE(file.mode):04o}"
    row = {"name": name, "type": kind, "size": file.size, "mtime": _time(file.mtime_s) or None, "mode": mode}
    return json.dumps(row)


def _time(seconds: int | None) -> str:
    """ISO 8601 in UTC, which sorts; empty for what is no date."""
    try:
        when = dt.datetime.fromtimestamp(seconds, dt.timezone.utc) if seconds is not None else None
    except (OverflowError, OSError, ValueError):
        return ""
    return when.strftime("%Y-%m-%dT%H:%M:%SZ") if when is not None else ""
