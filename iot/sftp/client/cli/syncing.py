"""sync: one folder is made to hold what another holds, here or on the server."""

from __future__ import annotations

import argparse
import os
from typing import TYPE_CHECKING, Literal

from iot.sftp.client.cli.address import place_from
from iot.sftp.client.cli.carrying import carry
from iot.sftp.client.cli.parser import Commands, Parser, UsageError, add_command

if TYPE_CHECKING:
    from iot.sftp.client.client import IoTSFTPClient

__all__ = ["add_sync"]


def add_sync(commands: Commands[Parser]) -> None:
    parser = add_command(
        commands,
        "sync",
        sync,
        "bring DEST up to date with SRC: only what differs is sent",
        words="SRC DEST",
        example="--prune data device@sftp.example.com:/data",
        remote=("far",),
        arrange=_arrange,
    )
    add = parser.add_argument
    add("source", metavar="SRC", help="folder, here or on the server")
    add("dest", metavar="DEST", help="folder on the other side; :PATH: on the server of -H")
    add("--prune", action="store_true", help="then remove what is only in DEST")
    add("--max-remove", type=int, metavar="N", help="remove nothing where it would be more names")
    add("--allow-empty", action="store_true", help="remove also where SRC holds no file")
    add("-n", "--dry-run", action="store_true", help="only print what would be done")
    add("--restart", action="store_true", help="do not go on from an earlier part")
    add("--sha256", action="store_true", help="print checksums, as sha256sum does")


def _arrange(arguments: argparse.Namespace) -> None:
    """One of the two is on the server, and says so."""
    if arguments.max_remove is not None and arguments.max_remove < 0:
        raise UsageError(f"--max-remove {arguments.max_remove}: must be 0 or more")
    is_far = [_is_remote(word, arguments) for word in (arguments.source, arguments.dest)]
    if is_far.count(True) != 1:
        raise UsageError(
            "one of SRC and DEST must be on the server: user@host:path, or :path with the server in SFTP_HOST or -H"
        )
    arguments.direction = "download" if is_far[0] else "upload"
    far, arguments.near = (arguments.source, arguments.dest) if is_far[0] else (arguments.dest, arguments.source)
    arguments.far = far[1:] or os.curdir if far.startswith(":") else far


def _is_remote(word: str, arguments: argparse.Namespace) -> bool:
    if os.path.splitdrive(word)[0]:
        return False
    host_known = hasattr(arguments, "host") or bool(os.environ.get("SFTP_HOST"))
    return word.startswith(":") or place_from(word, host_known=host_known).server is not None


def sync(client: IoTSFTPClient, arguments: argparse.Namespace) -> int:
    direction: Literal["upload", "download"] = arguments.direction
    result = client.sync(
        arguments.near,
        arguments.far,
        direction=direction,
        prune=arguments.prune,
        allow_empty=arguments.allow_empty,
        max_remove=arguments.max_remove,
        dry_run=True,
    )
    return next(iter(carry(client, result.plan, arguments)), 0)
