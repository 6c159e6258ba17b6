"""The command `iot-spooler`: one command, and its exit code."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from iot.spooler.cli import check, commands, control, quarantine
from iot.spooler.cli.options import parser
from iot.spooler.cli.output import EX_CONFIG, EX_OK, EX_SOFTWARE, EX_TEMPFAIL, failed, say

__all__ = ["main"]

COMMANDS = {
    "run": commands.run,
    "check": check.check,
    "status": commands.status,
    "deliveries": commands.deliveries,
    "retry": quarantine.retry,
    "quarantine list": quarantine.list_files,
    "quarantine retry": quarantine.retry,
    "quarantine drop": quarantine.drop,
    "start": control.command,
    "stop": control.command,
    "suspend": control.command,
    "resume": control.command,
    "flush": control.flush,
    "demo": commands.demo,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit code (0 good, 64 wrong usage, 75 something remains or is in the way, 78 bad
    configuration)."""
    options = parser().parse_args(arguments)
    from iot.transfer import ConfigurationError, LocalStateError

    try:
        return COMMANDS[" ".join(filter(None, (options.command, getattr(options, "does", None))))](options)
    except ConfigurationError as error:  # a line for each wrong setting
        return failed(options, str(error), EX_CONFIG)
    except LocalStateError as error:
        return failed(options, f"iot-spooler: {error}", EX_TEMPFAIL)
    except BrokenPipeError:  # whoever read our output has read enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EX_OK
    except Exception:  # noqa: BLE001 - what Python would print of it is not safe for a terminal
        import traceback

        say(traceback.format_exc())
        return EX_SOFTWARE
