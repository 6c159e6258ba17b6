"""ls, stat and exists."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from iot.sftp.client.cli.described import json_line, long_line
from iot.sftp.client.cli.output import EXIT_NO, print_names
from iot.sftp.client.cli.parser import Commands, Parser, add_command
from iot.sftp.client.cli.remote_tree import expand
from iot.transfer.errors import NotFound

if TYPE_CHECKING:
    from iot.sftp.client.client import IoTSFTPClient

__all__ = ["add_listing"]


def add_listing(commands: Commands[Parser]) -> None:
    """The commands that look."""
    parser = add_command(
        commands,
        "ls",
        ls,
        "list a remote folder; folders end in /",
        words="[PATH [TEXT]]",
        example="/upload .csv",
    )
    parser.add_argument("path", nargs="?", default=".", metavar="PATH", help="remote folder (default: the login's)")
    parser.add_argument("pattern", nargs="?", metavar="TEXT", help="only names that contain this")
    kind = parser.add_mutually_exclusive_group()
    kind.add_argument("--files", action="store_true", help="files only")
    kind.add_argument("--directories", action="store_true", help="folders only")
    parser.add_argument("-0", "--null", action="store_true", help="end each name with NUL, not with a newline")
    there = add_command(
        commands,
        "exists",
        exists,
        "exit 0 if the remote path is there, 1 if not",
        words="PATH",
        example="/upload/a.csv",
    )
    there.add_argument("path", metavar="PATH", help="remote file or folder")

    status = add_command(
        commands, "stat", stat, "tell size, time and mode", words="PATH...", example="/upload/a.csv", remote=("paths",)
    )
    status.add_argument("paths", nargs="+", metavar="PATH...", help="remote files or folders, patterns")
    status.add_argument("--json", action="store_true", help="one JSON object a line")


def ls(client: IoTSFTPClient, arguments: argparse.Namespace) -> int:
    names: list[str] = []
    if not arguments.files:
        folders = client.list_directories(arguments.path)
        names += [f"{name}/" for name in folders if arguments.pattern is None or arguments.pattern in name]
    if not arguments.directories:
        names += client.list(arguments.path, arguments.pattern)
    print_names(sorted(names), null=arguments.null)
    return 0


def stat(client: IoTSFTPClient, arguments: argparse.Namespace) -> int:
    for found in expand(client, arguments.paths):
        if arguments.json:
            print(json_line(found.path, found.file))
        else:
            print_names([long_line(found.path, found.file)])
    return 0


def exists(client: IoTSFTPClient, arguments: argparse.Namespace) -> int:
    try:
        client.stat(arguments.path)
    except NotFound:
        return EXIT_NO
    return 0
