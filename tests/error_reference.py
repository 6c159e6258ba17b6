"""Writes deploy/ERRORS.md, the reference of all errors, from the classes and from what is made of them:

    python tests/error_reference.py

run where `iot` can be imported, as in the environment of the tests. A test compares the document with the code.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from pathlib import Path

from iot.sftp.client.cli.output import EXIT_CODES_TEXT, exit_code_of
from iot.spooler.cli.output import EXIT_CODES_TEXT as SPOOLER_EXIT_CODES_TEXT
from iot.spooler.queue.policy import FailureKind
from iot.spooler.server.availability import failure_kind
from iot.transfer import errors

__all__ = ["DOCUMENT", "REGENERATE", "kinds", "reference"]

DOCUMENT = Path(__file__).parents[1] / "deploy" / "ERRORS.md"
REGENERATE = "python tests/error_reference.py"
ROOT = errors.TransferError
HEAD = f"""\
# Errors

Written by `{REGENERATE}` from the code; a test compares the two. [HOWTO.md](HOWTO.md) says what to do
about a message.

`from iot.sftp.client import TransferError` (also called `SFTPError`), and the others likewise. An `except` clause for a
class catches all that stand below it.

"""
TABLE = """
## What becomes of them

`iot-sftp` ends with the exit code. The spooler does with the file, or with the server, what the last column says.

| Error | Meaning | iot-sftp | Spooler |
| --- | --- | ---: | --- |
"""
CODES = """
## Exit codes of {}

"""
SPOOLER = {
    FailureKind.LINK: "tries again, with growing waits",
    FailureKind.TRANSIENT: "tries the file again, with growing waits",
    FailureKind.PERMANENT: "tries the file again; quarantine after `max_attempts`",
    FailureKind.CHANGED: "sends the new version",
}
HELD = "leaves the server alone for `auth_hold_s`"
STOPPED = "keeps the file, and tries again"
NOT_OF_A_FILE = (errors.ConfigurationError, errors.Cancelled)


def kinds() -> list[type[errors.TransferError]]:
    """Every error, from the root down, in the order of the source."""
    return [kind for kind, _ in _tree(ROOT)]


def reference() -> str:
    """The whole document."""
    tree = "".join(f"    {'  ' * depth}{kind.__name__}\n" for kind, depth in _tree(ROOT))
    rows = "".join(f"{_row(kind)}\n" for kind in kinds())
    codes = _codes("iot-sftp", EXIT_CODES_TEXT) + _codes("iot-spooler", SPOOLER_EXIT_CODES_TEXT)
    return f"{HEAD}{tree}{TABLE}{rows}{codes}"


def _codes(program: str, text: str) -> str:
    return CODES.format(program) + "".join(f"  {line}\n" for line in text.splitlines())


def _tree(kind: type[errors.TransferError], depth: int = 0) -> Iterator[tuple[type[errors.TransferError], int]]:
    yield kind, depth
    below = [each for each in kind.__subclasses__() if each.__module__ == errors.__name__]
    for each in sorted(below, key=lambda each: inspect.getsourcelines(each)[1]):
        yield from _tree(each, depth + 1)


def _row(kind: type[errors.TransferError]) -> str:
    error = kind("")
    return f"| `{kind.__name__}` | {inspect.getdoc(kind)} | {exit_code_of(error)} | {_of_the_spooler(error)} |"


def _of_the_spooler(error: errors.TransferError) -> str:
    if type(error) is ROOT or isinstance(error, NOT_OF_A_FILE):
        return ""
    if isinstance(error, errors.AuthenticationError):
        return HELD
    return SPOOLER.get(failure_kind(error), STOPPED)


if __name__ == "__main__":
    DOCUMENT.write_text(reference(), encoding="utf-8")
