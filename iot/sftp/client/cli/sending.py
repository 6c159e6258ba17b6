"""put: what is here goes to the server, many files at once over one connection."""

from __future__ import annotations

import argparse
import os
import posixpath
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, BinaryIO, NoReturn

from iot.sftp.client.cli.address import place_from
from iot.sftp.client.cli.carrying import carry, report
from iot.sftp.client.cli.local_names import base_name, expand_local, first_twice
from iot.sftp.client.cli.output import exit_code_of, print_names, say_error
from iot.sftp.client.cli.parser import Commands, Parser, UsageError, add_command
from iot.sftp.client.cli.progress import display
from iot.sftp.client.cli.remote_tree import is_folder, look
from iot.transfer.errors import NameRefused
from iot.transfer.model import check_partial_name
from iot.transfer.terminal import human_bytes

if TYPE_CHECKING:
    from iot.sftp.client.client import IoTSFTPClient

__all__ = ["add_put"]

STANDARD_INPUT = "-"


def add_put(commands: Commands[Parser]) -> None:
    parser = add_command(
        commands,
        "put",
        put,
        "send files; what is replaced there is replaced in one step",
        words="SRC... [DEST]",
        example="-r data/ device@sftp.example.com:/upload/",
        remote=("dest",),
        arrange=_arrange,
    )
    parser.add_argument(
        "paths", nargs="+", metavar="SRC... [DEST]", help="local files or - (stdin); remote file or folder"
    )
    parser.add_argument("-r", "--recursive", action="store_true", help="folders with all in them")
    add = parser.add_argument
    add("-T", "--no-target-directory", action="store_true", help="DEST is the new name")
    add("--update", action="store_true", help="leave out what is the same: size and time")
    add("-n", "--dry-run", action="store_true", help="only print what would be sent")
    add("--restart", action="store_true", help="do not go on from an earlier part")
    add(
        "--adopt-partial",
        metavar="NAME",
        type=_partial_name,
        help="go on from another program's {name}.filepart",
    )
    add("--sha256", action="store_true", help="print checksums, as sha256sum does")


def _partial_name(text: str) -> str:
    try:
        check_partial_name(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    return text


def _arrange(arguments: argparse.Namespace) -> None:
    """The last of several words is the destination."""
    *sources, last = arguments.paths
    arguments.sources, arguments.dest = (sources, last) if sources else ([last], None)
    for source in arguments.sources:
        if place_from(source, host_known=True).server is not None and not os.path.lexists(source):
            raise UsageError(f"{source} is on a server, and put sends what is here; did you mean get?")


def put(client: IoTSFTPClient, arguments: argparse.Namespace) -> int:
    """Send all; what cannot be sent does not hold up the others, and the first failure gives the exit code."""
    if STANDARD_INPUT in arguments.sources:
        return _put_standard_input(client, arguments)
    sources = expand_local(arguments.sources)
    base, into_folder = _destination(client, sources, arguments)
    codes: list[int] = []
    pairs: list[tuple[str, str]] = []
    for source in sources:
        if os.path.isdir(source) and not arguments.recursive:
            error = NameRefused(f"{source} is a folder; send it with -r")
            say_error(error)
            codes.append(exit_code_of(error))
        else:
            dest = posixpath.join(base, base_name(source)) if into_folder else base
            pairs.append((source, dest or posixpath.curdir))
    plan = client.plan_upload(pairs, update=arguments.update)
    codes += carry(client, plan, arguments, adopt_partial=arguments.adopt_partial)
    return next(iter(codes), 0)


# -- destination


def _destination(client: IoTSFTPClient, sources: Sequence[str], arguments: argparse.Namespace) -> tuple[str, bool]:
    """-> the remote name, and whether it is a folder in which the sources keep their names."""
    dest: str | None = arguments.dest
    if arguments.no_target_directory:
        if len(sources) > 1 or dest is None:
            _refuse("-T names one remote file, and there are several sources" if dest else "-T needs a DEST")
        return dest, False
    _refuse_names_twice(sources)
    if dest is None:
        return "", True
    if os.path.isfile(dest):
        _refuse_expanded_pattern(sources, dest, arguments, "a file")
    if dest.endswith("/") or is_folder(look(client, dest)):
        return dest, True
    if os.path.lexists(dest):
        _refuse_expanded_pattern(sources, dest, arguments, "a folder" if os.path.isdir(dest) else "a name")
    if len(sources) > 1:
        _refuse(f"{len(sources)} files need a folder as DEST; {dest} is none: end it in / to make it")
    arguments.makes_dest = arguments.recursive
    return dest, False


def _refuse_expanded_pattern(sources: Sequence[str], dest: str, arguments: argparse.Namespace, what: str) -> None:
    """`put *.csv` comes here as `put a.csv b.csv`: nobody meant to send one under the other's name.

    what: what `dest` names on this machine.
    """
    if arguments.addressed or [os.path.normpath(dest)] == [os.path.normpath(source) for source in sources]:
        return
    single = f"; if {dest} is the remote name all the same, say -T" if len(sources) == 1 else ""
    _refuse(
        f"DEST {dest} is {what} on this machine: did the shell expand a pattern? To send it like the others, end with a"
        f" remote folder, such as FOLDER/{single}"
    )


def _refuse_names_twice(sources: Sequence[str]) -> None:
    twice = first_twice(name for name in map(base_name, sources) if name)
    if twice is not None:
        _refuse(f"several of the files are called {twice}: one would replace the other")


def _refuse(reason: str) -> NoReturn:
    raise UsageError(f"{reason}. Nothing was sent")


# -- standard input


def _put_standard_input(client: IoTSFTPClient, arguments: argparse.Namespace) -> int:
    """Read to its end first: what is not whole is not sent."""
    dest: str | None = arguments.dest
    if len(arguments.sources) > 1 or dest is None or dest.endswith("/") or is_folder(look(client, dest)):
        _refuse("- sends what comes on standard input, to the one remote file that DEST names")
    with tempfile.TemporaryFile() as file:
        with _interruptible():
            shutil.copyfileobj(sys.stdin.buffer, file)
        if arguments.dry_run:
            print_names([f"would send - -> {dest} ({human_bytes(file.tell())})"])
            return 0
        _send_open(client, file, dest, arguments)
    return 0


def _send_open(client: IoTSFTPClient, file: BinaryIO, dest: str, arguments: argparse.Namespace) -> None:
    with display(file.tell(), 1, STANDARD_INPUT, quiet=arguments.quiet) as shown:
        progress = shown.of(STANDARD_INPUT, file.tell())
        adopted = arguments.adopt_partial
        result = client.upload(file, dest, progress=progress, sha256=arguments.sha256, adopt_partial=adopted)
        shown.meter.finished(STANDARD_INPUT, result.size)
        report(replace(result, source=STANDARD_INPUT), shown, arguments)


@contextmanager
def _interruptible() -> Iterator[None]:
    """While we wait for whoever writes to us, Ctrl-C ends that at once."""
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = [signal.signal(number, signal.default_int_handler) for number in numbers]
    try:
        yield
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)
