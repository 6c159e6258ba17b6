"""get: what is on the server comes here, and never outside of the folder that was named."""

from __future__ import annotations

import argparse
import os
import posixpath
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple, NoReturn

from iot.sftp.client.cli.address import place_from
from iot.sftp.client.cli.local_tree import first_twice, local_name
from iot.sftp.client.cli.output import exit_code_of, print_names, result_line, say, say_error
from iot.sftp.client.cli.parser import Commands, Parser, UsageError, add_command
from iot.sftp.client.cli.progress import Display, display
from iot.sftp.client.cli.remote_tree import Found, expand, walk
from iot.transfer.errors import LocalStateError, NameRefused, PermanentError
from iot.transfer.model import RemoteFile
from iot.transfer.source import local_error
from iot.transfer.terminal import human_bytes

if TYPE_CHECKING:
    from iot.sftp.client.client import IoTSFTPClient

__all__ = ["add_get"]

STANDARD_OUTPUT = "-"


class Fetch(NamedTuple):
    source: str
    dest: str
    file: RemoteFile


def add_get(commands: Commands[Parser]) -> None:
    parser = add_command(
        commands,
        "get",
        get,
        "fetch files; one gets its name here when it is whole",
        words="SRC... [DEST]",
        example="'device@sftp.example.com:/far/*.csv' data/",
        remote=("sources",),
        arrange=_arrange,
    )
    add = parser.add_argument
    add("paths", nargs="+", metavar="SRC... [DEST]", help="remote files, patterns; local file, folder or -")
    add("-r", "--recursive", action="store_true", help="folders with all in them")
    add("--update", action="store_true", help="leave out what is the same: size and time")
    add("-n", "--dry-run", action="store_true", help="only tell what would be fetched")
    add("--restart", action="store_true", help="do not go on from an earlier part")
    add("--sha256", dest="expected", metavar="HEX", help="what the content must hash to, else no file")
    add("--print-sha256", dest="sha256", action="store_true", help="print checksums, as sha256sum does")


def _arrange(arguments: argparse.Namespace) -> None:
    """The last of several words is the destination, unless it is on a server."""
    words = arguments.paths
    has_dest = len(words) > 1 and not _is_remote(words[-1], words[0], arguments)
    arguments.sources, arguments.dest = (words[:-1], words[-1]) if has_dest else (words, None)
    if arguments.update and not hasattr(arguments, "keep_times"):
        arguments.keep_times = True  # else the next --update would find everything changed


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
    fetches = _planned(client, found, arguments, codes)
    if arguments.update:
        fetches = [fetch for fetch in fetches if not _is_same(fetch)]
    if arguments.dry_run:
        print_names(f"would fetch {f.source} -> {f.dest} ({human_bytes(f.file.size or 0)})" for f in fetches)
    elif fetches:
        _fetch_all(client, fetches, arguments, codes)
    return next((code for code in codes if code), 0)


# -- plan


def _found(client: IoTSFTPClient, sources: Sequence[str], codes: list[int]) -> list[Found]:
    found: dict[str, Found] = {}
    for source in sources:
        try:
            found.update((each.path, each) for each in expand(client, [source]))
        except PermanentError as error:
            _failed(error, codes)
    return list(found.values())


def _planned(
    client: IoTSFTPClient, found: Sequence[Found], arguments: argparse.Namespace, codes: list[int]
) -> list[Fetch]:
    base, into_folder = _destination(found, arguments)
    fetches: list[Fetch] = []
    for each in found:
        try:
            if each.is_folder and not arguments.recursive:
                raise NameRefused(f"{each.path} is a folder; fetch it with -r")
            if each.is_folder and base == STANDARD_OUTPUT:
                raise NameRefused(f"{each.path} is a folder; standard output takes files")
            dest = _in_folder(base, each.path, arguments) if into_folder else base
        except NameRefused as error:
            _failed(error, codes)
            continue
        if each.is_folder:
            fetches += _tree(client, each.path, dest, codes, make=not arguments.dry_run)
        else:
            fetches.append(Fetch(each.path, dest, each.file))
    twice = first_twice(fetch.dest for fetch in fetches if fetch.dest != STANDARD_OUTPUT)
    if twice is not None:
        _refuse(f"two files would come to {twice}: one would replace the other")
    return fetches


def _destination(found: Sequence[Found], arguments: argparse.Namespace) -> tuple[str, bool]:
    """-> the local name, and whether it is a folder in which the sources keep their names."""
    dest: str = arguments.dest or os.curdir
    if dest == STANDARD_OUTPUT:
        return dest, False
    twice = first_twice(posixpath.basename(each.path) for each in found)
    if twice:
        _refuse(f"several of the files are called {twice}: one would replace the other")
    if os.path.isdir(dest) or dest.endswith((os.sep, "/")):
        return dest, True
    if len(found) > 1:
        _refuse(f"{len(found)} files need a folder as DEST; {dest} is none: end it in / to make it")
    return dest, False


def _in_folder(base: str, path: str, arguments: argparse.Namespace) -> str:
    """Where it arrives in a local folder; the content of "/", "." and the like arrives there itself."""
    name = posixpath.basename(path.rstrip("/"))
    if arguments.recursive and name in ("", ".", ".."):
        return base
    return os.path.join(base, local_name(name))


def _tree(client: IoTSFTPClient, root: str, dest: str, codes: list[int], *, make: bool) -> Iterator[Fetch]:
    """All below a remote folder; make: the local folders, also for what is empty there."""
    _make_folder(dest, make=make)
    for each in walk(client, root, refused=lambda error: _failed(error, codes)):
        parts = each.path[len(root) :].strip("/").split("/")
        try:
            local = os.path.join(dest, *map(local_name, parts))
        except NameRefused as error:
            _failed(error, codes)
            continue
        if each.is_folder and each.is_link:
            say(f"left out, a link to a folder: {each.path}")
        elif each.is_folder:
            _make_folder(local, make=make)
        else:
            yield Fetch(each.path, local, each.file)


def _make_folder(path: str, *, make: bool) -> None:
    try:
        if make:
            os.makedirs(path, exist_ok=True)
    except OSError as error:
        raise local_error(error, path) from error


def _is_same(fetch: Fetch) -> bool:
    try:
        here = os.stat(fetch.dest)
    except OSError:
        return False
    return (here.st_size, int(here.st_mtime)) == (fetch.file.size, fetch.file.mtime_s)


def _refuse(reason: str) -> NoReturn:
    raise UsageError(f"{reason}. Nothing was fetched")


def _failed(error: PermanentError | LocalStateError, codes: list[int]) -> None:
    say_error(error)
    codes.append(exit_code_of(error))


# -- fetch


def _fetch_all(
    client: IoTSFTPClient, fetches: Sequence[Fetch], arguments: argparse.Namespace, codes: list[int]
) -> None:
    """Raises: what concerns more than one file: a lost link, a refused login, Cancelled."""
    total_bytes = sum(fetch.file.size or 0 for fetch in fetches)
    name = posixpath.basename(fetches[0].source)
    with display(total_bytes, len(fetches), name, quiet=arguments.quiet) as shown:
        for fetch in fetches:
            try:
                _fetch_one(client, fetch, shown, arguments)
            except (PermanentError, LocalStateError) as error:  # this file's; what else goes wrong is everyone's
                shown.meter.finished(fetch, 0)
                shown.clear()
                _failed(error, codes)


def _fetch_one(client: IoTSFTPClient, fetch: Fetch, shown: Display, arguments: argparse.Namespace) -> None:
    sha256 = arguments.expected or arguments.sha256
    progress = shown.of(fetch, fetch.file.size or 0)
    if fetch.dest == STANDARD_OUTPUT:
        with tempfile.TemporaryFile() as file:  # what is not proven is not passed on
            result = client.download(fetch.source, file, progress=progress, sha256=sha256)
            result = replace(result, dest=STANDARD_OUTPUT)  # not the number of the temporary file
            shown.clear()
            file.seek(0)
            shutil.copyfileobj(file, sys.stdout.buffer)
            sys.stdout.buffer.flush()
    else:
        _make_folder(os.path.dirname(fetch.dest) or os.curdir, make=True)
        resume = not arguments.restart
        result = client.download(fetch.source, fetch.dest, progress=progress, resume=resume, sha256=sha256)
    shown.meter.finished(fetch, result.size)
    shown.say(result_line(result))
    if arguments.sha256 and result.sha256 is not None:
        print_names([f"{result.sha256}  {result.dest}"])
