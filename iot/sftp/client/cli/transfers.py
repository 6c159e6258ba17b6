"""put and get."""

from __future__ import annotations

import argparse
import os
import posixpath
import stat
from collections.abc import Sequence
from typing import TYPE_CHECKING, NoReturn

from iot.sftp.client.cli.address import place_from
from iot.sftp.client.cli.output import exit_code_of, print_names, say, say_error
from iot.sftp.client.cli.parser import Commands, Parser, UsageError, add_command
from iot.sftp.client.cli.progress import progress_display
from iot.transfer.errors import LocalStateError, NameRefused, NotFound, PermanentError
from iot.transfer.model import TransferResult
from iot.transfer.terminal import human_bytes

if TYPE_CHECKING:
    from iot.sftp.client.client import IoTSFTPClient

__all__ = ["add_transfers"]

SHA256_HELP = "print the content's SHA-256, as sha256sum does"


def add_transfers(commands: Commands[Parser]) -> None:
    """The commands that move content."""
    put_parser = add_command(
        commands,
        "put",
        put,
        "send files",
        words="SRC... [DEST]",
        example="*.csv device@sftp.example.com:/upload/",
        remote=("dest",),
        arrange=_arrange_put,
    )
    put_parser.add_argument(
        "paths", nargs="+", metavar="SRC... [DEST]", help="local files; the remote file or folder to send to"
    )
    put_parser.add_argument(
        "-T", "--no-target-directory", action="store_true", help="DEST is the file's remote name, whatever is there"
    )
    put_parser.add_argument("--restart", action="store_true", help="start over; do not go on from an earlier part")
    put_parser.add_argument("--sha256", action="store_true", help=SHA256_HELP)
    get_parser = add_command(
        commands,
        "get",
        get,
        "fetch a file",
        words="SRC [DEST]",
        example="device@sftp.example.com:/far/big.bin .",
        remote=("source",),
    )
    get_parser.add_argument("source", metavar="SRC", help="remote file")
    get_parser.add_argument("dest", nargs="?", metavar="DEST", help="local file or folder (default: here)")
    get_parser.add_argument("--restart", action="store_true", help="start over; do not go on from an earlier part")
    get_parser.add_argument(
        "--sha256", dest="expected", metavar="HEX", help="what the content must hash to, else no file"
    )
    get_parser.add_argument("--print-sha256", dest="sha256", action="store_true", help=SHA256_HELP)


def _arrange_put(arguments: argparse.Namespace) -> None:
    """The last of several words is the destination."""
    *sources, last = arguments.paths
    arguments.sources, arguments.dest = (sources, last) if sources else ([last], None)
    for source in arguments.sources:
        if place_from(source, host_known=True).server is not None and not os.path.lexists(source):
            raise UsageError(f"{source} is on a server, and put sends what is here; did you mean get?")


def put(client: IoTSFTPClient, arguments: argparse.Namespace) -> int:
    """Send each source; one that fails does not hold up the others, and the first failure gives the exit code."""
    sources, dest = arguments.sources, arguments.dest
    if arguments.no_target_directory and len(sources) > 1:
        _refuse("-T names one remote file, and there are several sources")
    if dest is None:
        dest = os.path.basename(sources[0])
    elif not arguments.no_target_directory:
        _refuse_expanded_pattern(sources, dest, arguments)
        dest = _dest_of(client, sources, dest)
    codes = [_put_one(client, source, _below(dest, source), arguments) for source in sources]
    return next((code for code in codes if code), 0)


def _refuse_expanded_pattern(sources: Sequence[str], dest: str, arguments: argparse.Namespace) -> None:
    """`put *.csv` comes here as `put a.csv b.csv`: nobody meant to send one under the other's name."""
    if arguments.addressed or not os.path.isfile(dest) or [dest] == list(sources):
        return
    single = f"; if {dest} is the remote name all the same, say -T" if len(sources) == 1 else ""
    _refuse(
        f"DEST {dest} is a file on this machine: did the shell expand a pattern? To send it like the others, end with a"
        f" remote folder, such as FOLDER/{single}"
    )


def _dest_of(client: IoTSFTPClient, sources: Sequence[str], dest: str) -> str:
    """The remote file, or the remote folder with a "/" at its end."""
    if not dest.endswith("/"):
        if _is_remote_folder(client, dest):
            dest += "/"
        elif len(sources) > 1:
            _refuse(f"{len(sources)} files need a folder as DEST; {dest} is none: end it in / to make it")
    names = [os.path.basename(source) for source in sources]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        _refuse(f"several of the files are called {twice[0]}: one would replace the other")
    return dest


def _refuse(reason: str) -> NoReturn:
    raise UsageError(f"{reason}. Nothing was sent")


def _below(dest: str, source: str) -> str:
    return dest + os.path.basename(source) if dest.endswith("/") else dest


def _put_one(client: IoTSFTPClient, source: str, dest: str, arguments: argparse.Namespace) -> int:
    try:
        with progress_display(os.path.basename(source), quiet=arguments.quiet) as progress:
            result = client.upload(
                source, dest, progress=progress, resume=not arguments.restart, sha256=arguments.sha256
            )
    except (PermanentError, LocalStateError) as error:  # this file's; what else goes wrong is everyone's
        say_error(error)
        return exit_code_of(error)
    _report(result, arguments)
    return 0


def get(client: IoTSFTPClient, arguments: argparse.Namespace) -> int:
    source = arguments.source
    dest = arguments.dest or "."
    if os.path.isdir(dest) or dest.endswith(os.sep):
        dest = os.path.join(dest, _local_name(source))
    with progress_display(posixpath.basename(source), quiet=arguments.quiet) as progress:
        sha256 = arguments.expected or arguments.sha256
        result = client.download(source, dest, progress=progress, resume=not arguments.restart, sha256=sha256)
    _report(result, arguments)
    return 0


def _is_remote_folder(client: IoTSFTPClient, path: str) -> bool:
    try:
        mode = client.stat(path).mode
    except NotFound:
        return False
    return mode is not None and stat.S_ISDIR(mode)


def _local_name(remote_path: str) -> str:
    """The last part of a remote path, as long as it is a name and nothing that leads elsewhere."""
    name = posixpath.basename(remote_path)
    if name in ("", ".", "..") or os.path.basename(name) != name:
        raise NameRefused(f"{remote_path!r} gives no local file name: say where to put it")
    return name


def _report(result: TransferResult, arguments: argparse.Namespace) -> None:
    if arguments.sha256 and result.sha256 is not None:
        print_names([f"{result.sha256}  {result.dest}"])
    if arguments.quiet:
        return
    rate = result.sent_bytes / result.seconds if result.seconds else 0
    resumed = f", resumed at {result.resumed_at}" if result.resumed_at else ""
    done = ", was there already" if result.already_done else ""
    proof = f"{result.proven} ({result.evidence.value})" if result.evidence is not None else result.proven
    say(
        f"{result.source} -> {result.dest}: {result.size} bytes in {result.seconds:.1f} s"
        f" ({human_bytes(int(rate))}/s), proof {proof}{resumed}{done}"
    )
