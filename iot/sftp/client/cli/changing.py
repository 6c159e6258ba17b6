"""mv, rm and mkdir."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from iot.sftp.client.cli.parser import Commands, Parser, add_command

if TYPE_CHECKING:
    from iot.sftp.client.client import IoTSFTPClient

__all__ = ["add_changing"]


def add_changing(commands: Commands[Parser]) -> None:
    """The commands that change names on the server."""
    move = add_command(
        commands,
        "mv",
        mv,
        "rename on the server; an existing file is replaced in one step",
        words="SRC DEST",
        example="/upload/a.tmp /upload/a.csv",
        remote=("source", "dest"),
    )
    move.add_argument("source", metavar="SRC", help="remote file or folder")
    move.add_argument("dest", metavar="DEST", help="its new name; missing folders are made")
    remove = add_command(commands, "rm", rm, "delete a remote file", words="PATH", example="/upload/a.csv")
    remove.add_argument("path", metavar="PATH", help="remote file")
    make = add_command(
        commands,
        "mkdir",
        mkdir,
        "make a remote folder, with its parents",
        words="PATH",
        example="/upload/2026/11",
    )
    make.add_argument("path", metavar="PATH", help="remote folder; one that is there is fine")


def mv(client: IoTSFTPClient, arguments: argparse.Namespace) -> int:
    client.move(arguments.source, arguments.dest)
    return 0


def rm(client: IoTSFTPClient, arguments: argparse.Namespace) -> int:
    client.delete(arguments.path)
    return 0


def mkdir(client: IoTSFTPClient, arguments: argparse.Namespace) -> int:
    client.mkdir(arguments.path)
    return 0
