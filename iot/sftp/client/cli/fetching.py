"""get: what is on the server comes here, and never outside of the folder that was named."""

from __future__ import annotations

import argparse
import os
import posixpath
import shutil
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, NoReturn

from iot.sftp.client.cli.address import place_from
from iot.sftp.client.cli.carrying import carry, report
from iot.sftp.client.cli.local_names import first_twice
from iot.sftp.client.cli.output import exit_code_of, print_names, say_error
from iot.sftp.client.cli.parser import Commands, Parser, UsageError, add_command
from iot.sftp.client.cli.progress import Display, display
from iot.sftp.client.cli.remote_tree import Found, expand
from iot.transfer.errors import LocalStateError, NameRefused, PermanentError
from iot.transfer.model import RemoteFile
from iot.transfer.terminal import human_bytes
from iot.transfer.trees.local import name_refused

if TYPE_CHECKING:
    from iot.sftp.client.client import IoTSFTPClient

__all__ = ["add_get"]

STANDARD_OUTPUT = "-"


def add_get(commands: Commands[Parser]) -> None:
    parser = add_command(
        commands,
        "get",
        get,
        "fetch files; each gets its name here once it is whole",
        words="SRC... [DEST]",
        example="'device@sftp.example.com:/far/*.csv' data/",
        remote=("sources",),
        arrange=_arrange,
    )
    add = parser.add_argument
    add("paths", nargs="+", metavar="SRC... [DEST]", help="remote files, patterns; local file, folder or -")
    add("-r", "--recursive", action="store_true", help="folders with all in them")
    add("-T", "--no-target-directory", action="store_true", help="DEST is the new name")
    add("--update", action="store_true", help="leave out what is the same: size and time")
    add("-n", "--dry-run", action="store_true", help="only print what would be fetched")
    add("--restart", action="store_true", help="do not go on from an earlier part")
    add("--sha256", dest="expected", metavar="HEX", help="what the content must hash to, else no file")
    add("--print-sha256", dest="sha256", action="store_true", help="print checksums, as sha256sum does")


def _arrange(arguments: argparse.Namespace) -> None:
    """The last of several words is the destination, unless it is on a server."""
    words = arguments.paths
    has_dest = len(words) > 1 and not _is_remote(words[-1], words[0], arguments)
    arguments.sources, arguments.dest = (words[:-1], words[-1]) if has_dest else (words, None)


def _is_remote(word: str, first: str, arguments: argparse.Namespace) -> bool:
    """`user@host:b` always is; `host:b` where `host:a` stands in front of it and no host is set otherwise."""
    if place_from(word, host_known=True).server is not None:
        return True
    host_known = hasattr(arguments, "host") or bool(os.environ.get("SFTP_HOST"))
    server = place_from(word, host_known=host_known).server
    return server is not None and server == place_from(first, host_known=host_known).server


def get(client: IoTSFTPClient, arguments: argparse.Namespace) -> int:
    """Fetch all; what cannot be had does not hold up the others, and the first failure gives the exit code."""
    codes: list[int] = []
    found = _found(client, arguments.sources, codes)
    if arguments.expected and (len(found) > 1 or any(each.is_folder for each in found)):
        raise UsageError("--sha256 is of one file, and there are several")
    wanted = _wanted(found, arguments, codes)
    if arguments.dest == STANDARD_OUTPUT:
        _pass_on(client, [(path, file) for path, _, file in wanted], arguments, codes)
    else:
        plan = client.plan_download(wanted, update=arguments.update)
        codes += carry(client, plan, arguments, expected=arguments.expected)
    return next(iter(codes), 0)


# -- plan


def _found(client: IoTSFTPClient, sources: Sequence[str], codes: list[int]) -> list[Found]:
    found: dict[str, Found] = {}
    for source in sources:
        try:
            found.update((each.path, each) for each in expand(client, [source]))
        except PermanentError as error:
            _failed(error, codes)
    return list(found.values())


def _wanted(
    found: Sequence[Found], arguments: argparse.Namespace, codes: list[int]
) -> list[tuple[str, str, RemoteFile | None]]:
    """What to fetch, where to, and what is known about it."""
    base, into_folder = _destination(found, arguments)
    wanted: list[tuple[str, str, RemoteFile | None]] = []
    for each in found:
        try:
            if each.is_folder and not arguments.recursive:
                raise NameRefused(f"{each.path} is a folder; fetch it with -r")
            if each.is_folder and base == STANDARD_OUTPUT:
                raise NameRefused(f"{each.path} is a folder; standard output takes files")
            dest = _in_folder(base, each.path, arguments) if into_folder else base
        except NameRefused as error:
            _failed(error, codes)
        else:
            wanted.append((each.path, dest, each.file))
    return wanted


def _destination(found: Sequence[Found], arguments: argparse.Namespace) -> tuple[str, bool]:
    """-> the local name, and whether it is a folder in which the sources keep their names."""
    dest: str = arguments.dest or os.curdir
    if dest == STANDARD_OUTPUT:
        return dest, False
    if arguments.no_target_directory:
        if len(found) > 1 or arguments.dest is None:
            _refuse("-T names one local file, and there are several sources" if arguments.dest else "-T needs a DEST")
        return dest, False
    twice = first_twice(posixpath.basename(each.path) for each in found)
    if twice:
        _refuse(f"several of the files are called {twice}: one would replace the other")
    if os.path.isdir(dest) or dest.endswith((os.sep, "/")):
        return dest, True
    if len(found) > 1:
        _refuse(f"{len(found)} files need a folder as DEST; {dest} is none: end it in / to make it")
    arguments.makes_dest = arguments.recursive
    return dest, False


def _in_folder(base: str, path: str, arguments: argparse.Namespace) -> str:
    """Where it arrives in a local folder; the content of "/", "." and the like arrives there itself."""
    name = posixpath.basename(path.rstrip("/"))
    if arguments.recursive and name in ("", ".", ".."):
        return base
    why = name_refused(name)
    if why is not None:
        raise NameRefused(f"{why}: say where to put it")
    return os.path.join(base, name)


def _refuse(reason: str) -> NoReturn:
    raise UsageError(f"{reason}. Nothing was fetched")


def _failed(error: PermanentError | LocalStateError, codes: list[int]) -> None:
    say_error(error)
    codes.append(exit_code_of(error))


# -- standard output


def _pass_on(
    client: IoTSFTPClient,
    wanted: Sequence[tuple[str, RemoteFile | None]],
    arguments: argparse.Namespace,
    codes: list[int],
) -> None:
    """Files to standard output, one after another. Raises: what concerns more than one file, such as a lost link."""
    sizes = {path: (file.size if file is not None else None) or 0 for path, file in wanted}
    if arguments.dry_run:
        print_names(f"would fetch {path} -> - ({human_bytes(size)})" for path, size in sizes.items())
        return
    name = posixpath.basename(next(iter(sizes), ""))
    with display(sum(sizes.values()), len(sizes), name, quiet=arguments.quiet) as shown:
        for path, size in sizes.items():
            try:
                _pass_one_on(client, path, size, shown, arguments)
            except (PermanentError, LocalStateError) as error:  # this file's; what else goes wrong is everyone's
                shown.meter.finished(path, 0)
                shown.clear()
                _failed(error, codes)


def _pass_one_on(client: IoTSFTPClient, path: str, size: int, shown: Display, arguments: argparse.Namespace) -> None:
    with tempfile.TemporaryFile() as file:  # what is not proven is not passed on
        sha256 = arguments.expected or arguments.sha256
        result = client.download(path, file, progress=shown.of(path, size), sha256=sha256)
        shown.clear()
        file.seek(0)
        shutil.copyfileobj(file, sys.stdout.buffer)
        sys.stdout.buffer.flush()
    shown.meter.finished(path, result.size)
    report(replace(result, dest=STANDARD_OUTPUT), shown, arguments)  # not the number of the temporary file
