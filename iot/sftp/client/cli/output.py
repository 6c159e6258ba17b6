"""What the command line says: names that cannot harm a terminal, lines for programs, exit codes."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable

from iot.transfer import errors
from iot.transfer.model import TransferResult
from iot.transfer.terminal import human_bytes, terminal_safe

__all__ = [
    "EXIT_CODES",
    "EXIT_CODES_TEXT",
    "EXIT_NO",
    "EXIT_SUMMARY",
    "EXIT_TEXT",
    "EXIT_USAGE",
    "each",
    "exit_code_of",
    "print_names",
    "result_line",
    "say",
    "say_error",
]

EXIT_NO = 1
EXIT_USAGE = 64
# The first class that fits decides (sysexits.h numbers).
EXIT_CODES: tuple[tuple[type[BaseException], int], ...] = (
    (errors.NotFound, EXIT_NO),
    (errors.AlreadyExists, EXIT_NO),
    (errors.ProtocolError, 76),
    (errors.LinkLost, 69),
    (errors.Unsupported, 69),
    (errors.TransientError, 75),
    (errors.SourceChanged, 75),
    (errors.PermissionDenied, 77),
    (errors.CredentialsInvalid, 78),
    (errors.AuthenticationError, 77),
    (errors.ConfigurationError, 78),
    (errors.Cancelled, 130),
    (errors.SFTPError, 74),
    (OSError, 74),
    (Exception, 70),
)
EXIT_CODES_TEXT = """\
  0    done; exists: it is there
  1    no: it does not exist, or the destination may not be replaced
  64   wrong usage
  69   unavailable: no connection, the link was lost, or the server does not offer it
  70   a mistake in this program; the traceback tells where
  74   input or output failed: disk full, local state, refused by the server
  75   temporary: deadline, busy server, source changed meanwhile; try again
  76   the server broke the protocol
  77   permission denied, login refused, host key unknown or changed
  78   a setting is wrong or missing, a key or password file too
  130  stopped (Ctrl-C); put and get go on from there when run again
"""
EXIT_TEXT = f"exit codes:\n{EXIT_CODES_TEXT}"


EXIT_SUMMARY = "exit codes: 0 done, 1 no, 64 usage, 69-76 failed, 77 refused, 78 setting"


def exit_code_of(error: BaseException) -> int:
    """The exit code that stands for an error."""
    return next(code for kind, code in EXIT_CODES if isinstance(error, kind))


def say(*lines: str) -> None:
    """A message to the user on standard error, each line terminal-safe: a name in it cannot begin another."""
    for line in lines:
        print(terminal_safe(line), file=sys.stderr)


def say_error(error: BaseException) -> None:
    """An error in the words of the command line, on standard error."""
    from iot.sftp.client.cli.wording import in_words

    text = f"iot-sftp: {in_words(str(error))}"
    say(*(text.split("\n") if isinstance(error, errors.ConfigurationError) else [text]))  # a line for each setting


def each(words: Iterable[str], act: Callable[[str], None]) -> int:
    """Do it for each word -> exit code: one that fails does not hold up the others, and the first failure counts."""
    first = 0
    for word in words:
        try:
            act(word)
        except errors.PermanentError as error:
            say_error(error)
            first = first or exit_code_of(error)
    return first


def result_line(result: TransferResult) -> str:
    """What became of one file."""
    if result.already_done:
        return f"{result.source} -> {result.dest}: was there already, proof {result.proven}"
    rate = result.sent_bytes / result.seconds if result.seconds else 0
    resumed = f", resumed at {result.resumed_at}" if result.resumed_at else ""
    evidence = None if result.evidence is None else result.evidence.value
    proof = result.proven if evidence in (None, result.proven) else f"{result.proven} ({evidence})"
    return (
        f"{result.source} -> {result.dest}: {result.size} bytes in {result.seconds:.1f} s"
        f" ({human_bytes(int(rate))}/s), proof {proof}{resumed}"
    )


def print_names(names: Iterable[str], *, null: bool = False) -> None:
    """Names to standard output: escaped on a terminal, else their exact bytes, one a line or NUL-terminated."""
    if sys.stdout.isatty() and not null:
        for name in names:
            print(terminal_safe(name))
        return
    sys.stdout.flush()
    for name in names:
        sys.stdout.buffer.write(os.fsencode(name) + (b"\0" if null else b"\n"))
    sys.stdout.buffer.flush()
