"""`iot-sftp`: SFTP on the command line.

A put or get that was broken off goes on where it was when the same command is run again.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import io
import logging
import os
import shlex
import signal
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from types import FrameType
from typing import TYPE_CHECKING

from iot.sftp.client.cli.changing import add_changing
from iot.sftp.client.cli.fetching import add_get
from iot.sftp.client.cli.listing import add_listing
from iot.sftp.client.cli.output import exit_code_of, say, say_error
from iot.sftp.client.cli.parser import Parser, UsageError, top_parser
from iot.sftp.client.cli.sending import add_put
from iot.sftp.client.cli.syncing import add_sync
from iot.sftp.client.cli.whereabouts import locate
from iot.transfer.errors import Cancelled, CredentialsInvalid, LoginRefused, SFTPError
from iot.transfer.terminal import TerminalSafeFormatter

if TYPE_CHECKING:
    from iot.sftp.client.client import IoTSFTPClient
    from iot.sftp.client.environment import ClientSettings

__all__ = ["main"]

EXIT_STOPPED = 130
COMMANDS = (add_put, add_get, add_sync, add_listing, add_changing)
YES = ("1", "true", "yes", "on")
Command = Callable[["IoTSFTPClient", argparse.Namespace], int]


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; the exit codes are those of `iot-sftp put --help-all`."""
    is_program = argv is None
    if is_program:
        gc.disable()
        _occupy_closed_streams()
    words = list(sys.argv[1:] if argv is None else argv)
    arguments: argparse.Namespace = top_parser(COMMANDS).parse_args(words)
    try:
        _take_switches(arguments)
        _log_to_stderr(verbose=arguments.verbose)
        return _run(arguments, is_program)
    except UsageError as error:
        parser: Parser = arguments.parser
        parser.error(str(error))
    except (Cancelled, KeyboardInterrupt):
        say(*_how_to_go_on(arguments, words).splitlines())
        return EXIT_STOPPED
    except BrokenPipeError:  # whoever read our output has read enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (SFTPError, OSError) as error:
        say_error(error)
        return exit_code_of(error)
    except Exception as error:  # noqa: BLE001 - what Python would print of it is not safe for a terminal
        say(*traceback.format_exc().splitlines())
        return exit_code_of(error)


def _occupy_closed_streams() -> None:
    """Where a standard stream is closed (`<&-`), the journal or the connection would get its descriptor.

    Reading standard input and writing to standard output still fail; messages go nowhere.
    """
    streams = (("stdin", os.O_WRONLY, "r"), ("stdout", os.O_RDONLY, "w"), ("stderr", os.O_RDWR, "w"))
    for name, flags, mode in streams:  # in this order: open() takes the lowest descriptor that is free
        if getattr(sys, name) is None:
            file = io.FileIO(os.devnull, mode, opener=lambda name, _: os.open(name, flags))  # noqa: B023 - called now
            setattr(sys, name, io.TextIOWrapper(file, encoding="utf-8", write_through=True))


def _take_switches(arguments: argparse.Namespace) -> None:
    """For the switches that every command has: what environment and --env-file say. Raises: ConfigurationError."""
    variables: dict[str, str] = dict(os.environ)
    if hasattr(arguments, "env_file"):
        from iot.sftp.client.environment import named_env_file

        variables = {**named_env_file(arguments.env_file), **os.environ}
    for name in ("verbose", "quiet"):
        asked = variables.get(f"SFTP_{name.upper()}", "").lower() in YES
        setattr(arguments, name, getattr(arguments, name, asked))


def _run(arguments: argparse.Namespace, is_program: bool) -> int:
    from iot.sftp.client.cli.options import may_ask, settings_from, wants_password

    if arguments.arrange is not None:
        arguments.arrange(arguments)
    locate(arguments)
    settings = settings_from(vars(arguments), env_file=getattr(arguments, "env_file", None))
    with _opened(settings) as client, _stoppable(client):
        if is_program:
            _keep_what_is_loaded()
        command: Command = arguments.run
        try:
            return command(client, arguments)
        except (LoginRefused, CredentialsInvalid) as error:
            if not wants_password(settings) or may_ask():
                raise
            raise type(error)(f"{error}; no password is asked for, since standard input is no terminal") from error


def _opened(settings: ClientSettings) -> IoTSFTPClient:
    """Agent and keys are tried first; a password is asked for when they do not do."""
    from iot.sftp.client.cli.options import may_ask, wants_password, with_password

    client = _client(settings)
    if not wants_password(settings) or not may_ask():
        return client
    try:
        client.connect()
    except (LoginRefused, CredentialsInvalid):
        client.close()
        return _client(with_password(settings))
    except BaseException:
        client.close()
        raise
    return client


def _client(settings: ClientSettings) -> IoTSFTPClient:
    from iot.sftp.client.client import IoTSFTPClient

    password = settings.password.get_secret_value() if settings.password is not None else None
    port = settings.port if "port" in settings.model_fields_set else None
    options = dict(settings.options())
    if "ssh_config" not in settings.model_fields_set:
        options["ssh_config"] = "default"
    return IoTSFTPClient(settings.host, port, settings.user, password, **options)


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


def _how_to_go_on(arguments: argparse.Namespace, words: Sequence[str]) -> str:
    if arguments.command not in ("put", "get", "sync"):
        return "stopped"
    again = ["iot-sftp", *(word for word in words if word != "--restart")]
    if getattr(arguments, "makes_dest", False):  # which is there by now: the folder would be put into it
        again.append("-T")
    return f"stopped; what was sent is kept. To go on from there, run:\n  {shlex.join(again)}"


def _log_to_stderr(*, verbose: bool) -> None:
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(TerminalSafeFormatter("%(levelname)s %(message)s"))
    logging.basicConfig(level=logging.INFO if verbose else logging.ERROR, handlers=[handler])
    logging.getLogger("paramiko").setLevel(logging.WARNING if verbose else logging.CRITICAL)


if __name__ == "__main__":
    sys.exit(main())
