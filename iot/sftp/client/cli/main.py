"""`iot-sftp`: put, get, ls, mv, rm, mkdir and exists on the command line.

A put or get that was broken off goes on where it was when the same command is run again.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import logging
import os
import posixpath
import shlex
import signal
import stat
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, NoReturn

from iot.sftp.client.cli.output import EXIT_NO, EXIT_TEXT, EXIT_USAGE, exit_code_of, print_names, say
from iot.sftp.client.cli.progress import progress_display
from iot.transfer._version import __version__
from iot.transfer.errors import Cancelled, LocalStateError, NameRefused, NotFound, PermanentError, SFTPError
from iot.transfer.model import TransferResult
from iot.transfer.terminal import TerminalSafeFormatter, human_bytes, terminal_safe

if TYPE_CHECKING:
    from iot.sftp.client.client import IoTSFTPClient
    from iot.sftp.client.environment import ClientSettings

__all__ = ["main"]

EXIT_STOPPED = 130
Command = Callable[["IoTSFTPClient", argparse.Namespace], int]


class Parser(argparse.ArgumentParser):
    """An ArgumentParser that ends with 64 (EX_USAGE) and never takes an abbreviation for an option.

    has_settings: it takes every setting as an option, too; what they are is loaded when it is the one that is used.
    """

    def __init__(self, *, has_settings: bool = False, **keywords: Any) -> None:
        super().__init__(allow_abbrev=False, **keywords)
        self._lacks_settings = has_settings

    def error(self, message: str) -> NoReturn:
        self.print_usage(sys.stderr)
        self.exit(EXIT_USAGE, f"{self.prog}: {terminal_safe(message)}\n")

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
        """As argparse does, but a word that is no option of ours could be a secret: its value is not repeated."""
        known, unknown = self.parse_known_args(args, namespace)
        if unknown:
            options = [word.partition("=")[0] for word in unknown if word.startswith("-")]
            self.error(f"no such option: {' '.join(options)}" if options else f"{len(unknown)} words too many")
        return known

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        if self._lacks_settings:
            from iot.sftp.client.cli.options import add_settings

            add_settings(self)
            self._lacks_settings = False
        return super().parse_known_args(args, namespace)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; the exit codes are those of `iot-sftp --help`."""
    is_program = argv is None
    if is_program:
        gc.disable()
    words = list(sys.argv[1:] if argv is None else argv)
    arguments = _parser().parse_args(words)
    _log_to_stderr(verbose=arguments.verbose)
    try:
        from iot.sftp.client.cli.options import settings_from

        settings = settings_from(vars(arguments), env_file=arguments.env_file)
        with _client(settings) as client, _stoppable(client):
            if is_program:
                _keep_what_is_loaded()
            command: Command = arguments.run
            return command(client, arguments)
    except (Cancelled, KeyboardInterrupt):
        say(_how_to_go_on(arguments.command, words))
        return EXIT_STOPPED
    except BrokenPipeError:  # whoever read our output has read enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (SFTPError, OSError) as error:
        say(f"iot-sftp: {error}")
        return exit_code_of(error)
    except Exception as error:  # noqa: BLE001 - what Python would print of it is not safe for a terminal
        say(traceback.format_exc())
        return exit_code_of(error)


def put(client: IoTSFTPClient, arguments: argparse.Namespace) -> int:
    """Send each source; one that fails does not hold up the others, and the first failure gives the exit code."""
    *sources, last = arguments.paths
    if not sources:
        sources, dest = [last], os.path.basename(last)
    elif arguments.no_target_directory and len(sources) == 1:
        dest = last
    else:
        if arguments.no_target_directory:
            _refuse("-T names one remote file, and there are several sources", arguments)
        _refuse_expanded_pattern(sources, last, arguments)
        dest = _dest_of(client, sources, last, arguments)
    codes = [_put_one(client, source, _below(dest, source), arguments) for source in sources]
    return next((code for code in codes if code), 0)


def _refuse_expanded_pattern(sources: Sequence[str], dest: str, arguments: argparse.Namespace) -> None:
    """`put *.csv` comes here as `put a.csv b.csv`: nobody meant to send one under the other's name."""
    if not os.path.isfile(dest) or [dest] == list(sources):
        return
    single = f"; if {dest} is the remote name all the same, say -T" if len(sources) == 1 else ""
    _refuse(
        f"DEST {dest} is a file on this machine: did the shell expand a pattern? To send it like the others, end with a"
        f" remote folder, such as FOLDER/{single}",
        arguments,
    )


def _dest_of(client: IoTSFTPClient, sources: Sequence[str], dest: str, arguments: argparse.Namespace) -> str:
    """The remote file, or the remote folder with a "/" at its end."""
    if not dest.endswith("/"):
        if _is_remote_folder(client, dest):
            dest += "/"
        elif len(sources) > 1:
            _refuse(f"{len(sources)} files need a folder as DEST; {dest} is none: end it in / to make it", arguments)
    names = [os.path.basename(source) for source in sources]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        _refuse(f"several of the files are called {twice[0]}: one would replace the other", arguments)
    return dest


def _refuse(reason: str, arguments: argparse.Namespace) -> NoReturn:
    parser: Parser = arguments.parser
    parser.error(f"{reason}. Nothing was sent")


def _below(dest: str, source: str) -> str:
    return dest + os.path.basename(source) if dest.endswith("/") else dest


def _put_one(client: IoTSFTPClient, source: str, dest: str, arguments: argparse.Namespace) -> int:
    try:
        with progress_display(os.path.basename(source), quiet=arguments.quiet) as progress:
            result = client.upload(
                source, dest, progress=progress, resume=not arguments.restart, sha256=arguments.sha256
            )
    except (PermanentError, LocalStateError) as error:  # this file's; what else goes wrong is everyone's
        say(f"iot-sftp: {error}")
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


def ls(client: IoTSFTPClient, arguments: argparse.Namespace) -> int:
    names: list[str] = []
    if not arguments.files:
        folders = client.list_directories(arguments.path)
        names += [f"{name}/" for name in folders if arguments.pattern is None or arguments.pattern in name]
    if not arguments.directories:
        names += client.list(arguments.path, arguments.pattern)
    print_names(sorted(names), null=arguments.null)
    return 0


def mv(client: IoTSFTPClient, arguments: argparse.Namespace) -> int:
    client.move(arguments.source, arguments.dest)
    return 0


def rm(client: IoTSFTPClient, arguments: argparse.Namespace) -> int:
    client.delete(arguments.path)
    return 0


def mkdir(client: IoTSFTPClient, arguments: argparse.Namespace) -> int:
    client.mkdir(arguments.path)
    return 0


def exists(client: IoTSFTPClient, arguments: argparse.Namespace) -> int:
    try:
        client.stat(arguments.path)
    except NotFound:
        return EXIT_NO
    return 0


def _parser() -> Parser:
    parser = Parser(
        prog="iot-sftp",
        description="Resumable SFTP transfers: what was broken off goes on when the same command is run again.",
        epilog=EXIT_TEXT,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND", parser_class=Parser)
    _add_put(commands)
    _add_get(commands)
    _add_ls(commands)
    move = _add(commands, "mv", mv, "rename a remote file; an existing destination is replaced atomically")
    move.add_argument("source")
    move.add_argument("dest")
    for name, run, text in (
        ("rm", rm, "delete a remote file"),
        ("mkdir", mkdir, "make a remote folder, with its parents"),
        ("exists", exists, "exit 0 if the remote path is there, 1 if not"),
    ):
        _add(commands, name, run, text).add_argument("path")
    return parser


Commands = argparse._SubParsersAction  # argparse gives this type no public name


def _add_put(commands: Commands[Parser]) -> None:
    parser = _add_transfer(commands, "put", put, "send files")
    parser.add_argument(
        "paths",
        nargs="+",
        metavar="SRC... [DEST]",
        help="local files; the last of several words is the remote file, or folder (it ends in / or is there already),"
        " and for several files it must be a folder. Without it: the same name",
    )
    parser.add_argument(
        "-T",
        "--no-target-directory",
        action="store_true",
        help="DEST is the name of the remote file, whatever stands here or there under it",
    )
    parser.add_argument("--sha256", action="store_true", help="print the SHA-256 of the content, as sha256sum does")


def _add_get(commands: Commands[Parser]) -> None:
    parser = _add_transfer(commands, "get", get, "fetch a file")
    parser.add_argument("source", help="remote file")
    parser.add_argument("dest", nargs="?", help="local file or folder (default: here)")
    parser.add_argument("--sha256", dest="expected", metavar="HEX", help="what the content must hash to, else no file")
    parser.add_argument(
        "--print-sha256", dest="sha256", action="store_true", help="print the SHA-256 of the content, as sha256sum does"
    )


def _add_transfer(commands: Commands[Parser], name: str, run: Command, text: str) -> Parser:
    parser = _add(commands, name, run, text)
    parser.add_argument("--restart", action="store_true", help="start over; do not go on from an earlier part")
    parser.add_argument("-q", "--quiet", action="store_true", help="no progress, no closing line")
    return parser


def _add_ls(commands: Commands[Parser]) -> None:
    parser = _add(commands, "ls", ls, "list a remote folder; folders end in /")
    parser.add_argument("path", nargs="?", default=".")
    parser.add_argument("pattern", nargs="?", help="only names that contain this text")
    kind = parser.add_mutually_exclusive_group()
    kind.add_argument("--files", action="store_true", help="files only")
    kind.add_argument("--directories", action="store_true", help="folders only")
    parser.add_argument("-0", "--null", action="store_true", help="end each name with a NUL instead of a newline")


def _add(commands: Commands[Parser], name: str, run: Command, text: str) -> Parser:
    parser = commands.add_parser(
        name,
        help=text,
        description=text,
        epilog=EXIT_TEXT,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        has_settings=True,
    )
    parser.set_defaults(run=run, parser=parser)
    parser.add_argument("-v", "--verbose", action="store_true", help="say what is done, on standard error")
    parser.add_argument(
        "--env-file",
        type=Path,
        metavar="FILE",
        help="settings file (without it: .env here, which may not set whom to trust)",
    )
    return parser


def _client(settings: ClientSettings) -> IoTSFTPClient:
    from iot.sftp.client.client import IoTSFTPClient

    password = settings.password.get_secret_value() if settings.password is not None else None
    return IoTSFTPClient(settings.host, settings.port, settings.user, password, **dict(settings.options()))


@contextlib.contextmanager
def _stoppable(client: IoTSFTPClient) -> Iterator[None]:
    """The first Ctrl-C or SIGTERM ends the transfer with a last checkpoint, the second ends at once."""

    def stop(_number: int, _frame: FrameType | None) -> None:
        for each in before:
            signal.signal(each, signal.default_int_handler)
        client.cancel()

    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    for number in before:
        signal.signal(number, stop)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _keep_what_is_loaded() -> None:
    """It is no garbage: no collection, nor the one when the process ends, looks at it again, a fifth of a short run."""
    gc.freeze()
    gc.enable()


def _how_to_go_on(command: str, words: Sequence[str]) -> str:
    if command not in ("put", "get"):
        return "stopped"
    again = shlex.join(["iot-sftp", *(word for word in words if word != "--restart")])
    return f"stopped; what was sent is kept. To go on from there, run the same again:\n  {again}"


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


def _log_to_stderr(*, verbose: bool) -> None:
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(TerminalSafeFormatter("%(levelname)s %(message)s"))
    logging.basicConfig(level=logging.INFO if verbose else logging.ERROR, handlers=[handler])
    logging.getLogger("paramiko").setLevel(logging.WARNING if verbose else logging.CRITICAL)


if __name__ == "__main__":
    sys.exit(main())
